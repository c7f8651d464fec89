"""A module imports its own floor or a lower one; files stay short; the wheel holds two packages."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {  # a new module gets its floor here
    "fim": 0,
    "fim.*": 0,
    "finetune": 1,
    "finetune.audit": 1,
    "finetune.audit.*": 1,
    "finetune.clients": 1,
    "finetune.cluster": 1,
    "finetune.corpus": 1,
    "finetune.corpus.*": 1,
    "finetune.prepare": 1,
    "finetune.progress": 1,
    "finetune.recipe": 1,
    "finetune.recipe.*": 1,
    "finetune.reference": 1,
    "finetune.run_sources": 1,
    "finetune.samples": 1,
    "finetune.samples.*": 1,
    "finetune.scan": 1,
    "finetune.show": 1,
    "finetune.store": 1,
    "finetune.card": 2,
    "finetune.card.*": 2,
    "finetune.check": 2,
    "finetune.complete": 2,
    "finetune.evaluate": 2,
    "finetune.metrics": 2,
    "finetune.model": 2,
    "finetune.outliers": 2,
    "finetune.plan": 2,
    "finetune.plan.*": 2,
    "finetune.publish": 2,
    "finetune.report": 2,
    "finetune.report.*": 2,
    "finetune.scenarios": 2,
    "finetune.train": 2,
    "finetune.training": 2,
    "finetune.training.*": 2,
    "finetune.cli": 3,
}
FIM_MAY_IMPORT = sys.stdlib_module_names | {"numpy", "tree_sitter", "fim"}
MAX_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in ("fim", "finetune")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def floor_of(name: str) -> int | None:
    return next((floor for glob, floor in FLOORS.items() if fnmatchcase(name, glob)), None)


def imports_of(source: str) -> Iterator[str]:
    """Yield the dotted names a module imports, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            # `from finetune import store` imports a module, `from fim import encode` does not
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in names if name in MODULES)


def forbidden_imports(name: str, source: str) -> list[str]:
    """Return the imports of module `name` that break the floors."""
    own = floor_of(name)
    assert own is not None, f"{name}: give it a floor in FLOORS"
    found = []
    for imported in imports_of(source):
        top = imported.split(".")[0]
        if top in ("fim", "finetune"):
            floor = floor_of(imported)
            allowed = floor is not None and floor <= own
        elif own == 0:
            allowed = top in FIM_MAY_IMPORT or top.startswith("tree_sitter_")
        else:
            allowed = top != ""  # relative imports are not used
        if not allowed:
            found.append(imported)
    return found


def test_there_are_modules_to_check():
    assert {
        "fim",
        "fim.data",
        "finetune",
        "finetune.recipe.schema",
        "finetune.store",
    } <= MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_its_own_floor_or_lower(name):
    assert forbidden_imports(name, MODULES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("fim.spans", "import numpy, tree_sitter_python, json", []),
        ("fim.spans", "import torch", ["torch"]),
        ("fim.spans", "def f():\n    from transformers import AutoTokenizer", ["transformers"]),
        ("fim.spans", "from finetune.store import write_json", ["finetune.store"]),
        ("finetune.store", "from fim import FimError", []),
        ("finetune.prepare", "def f():\n    import finetune.train", ["finetune.train"]),
        ("finetune.recipe.schema", "from finetune import store", []),
        ("finetune.train", "from finetune import prepare", []),
        ("finetune.report.charts", "import finetune.cli", ["finetune.cli"]),
        ("finetune.train", "from . import prepare", ["."]),
        ("finetune.cli", "import finetune.train", []),
    ],
)
def test_the_scan_finds_what_it_should(name, source, expected):
    assert forbidden_imports(name, source) == expected


@pytest.mark.parametrize("name", MODULES)
def test_file_is_at_most_400_lines(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_wheel_holds_the_two_packages_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]

    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"fim", "finetune", "sfim-0.1.0.dist-info"}
    shipped = {name for name in names if name.endswith(".py")}
    assert shipped == {path.relative_to(ROOT).as_posix() for path in MODULES.values()}
    assert "sfim-0.1.0.dist-info/licenses/LICENSE" in names
