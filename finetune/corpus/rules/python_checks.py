"""What ruff says of a Python file, and the file as ruff would have it."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fim import Document, FimError
from finetune.corpus.entries import Reason
from finetune.recipe.filters import Filters

_SECONDS = 30
_ALONE = ("--isolated", "--no-cache", "--quiet")
"""No settings of the machine or the repository, and nothing left behind."""


def ruff(document: Document, filters: Filters) -> Reason | None:
    """Drop Python files in which ruff finds more than `max_ruff` faults of the chosen rules.

    A file whose `noqa` comments excuse what is found stays.
    """
    if not filters.ruff or document.language != "python":
        return None
    counts = count_violations(document.text, document.path, filters.ruff)
    total = counts.total()
    if total <= filters.max_ruff:
        return None
    commonest = ", ".join(f"{code} {count:,}" for code, count in counts.most_common(3))
    return Reason(name="ruff", detail=f"{total:,} faults > {filters.max_ruff:,}: {commonest}")


def count_violations(text: bytes, path: str, rules: Sequence[str]) -> Counter[str]:
    """Return how often ruff finds each rule broken; `invalid-syntax` is one.

    Raises:
        FimError: ruff is not installed, or does not know a rule.
    """
    options = ("check", *_ALONE, "--exit-zero", "--output-format=json")
    found = _run((*options, f"--select={','.join(rules)}"), text, path)
    return Counter(sorted(row["code"] for row in json.loads(found or b"[]")))


def fix_python(text: bytes, path: str) -> bytes:
    """Return the text with the safe fixes of ruff's default rules; as it is if it has errors."""
    return _run(("check", *_ALONE, "--exit-zero", "--fix-only"), text, path) or text


def format_python(text: bytes, path: str) -> bytes:
    """Return the text in ruff's format; as it is if it does not parse."""
    return _run(("format", *_ALONE), text, path) or text


def _run(options: Sequence[str], text: bytes, path: str) -> bytes | None:
    """Run ruff on a text, and tell it no more of the path than what its rules look at.

    Returns `None` if it takes too long, or if a text to be formatted does not parse.
    """
    name = Path(path).name
    if name not in ("__init__.py", "conftest.py"):
        name = "file.pyi" if name.endswith(".pyi") else "file.py"
    command = [_executable(), *options, f"--stdin-filename={name}", "-"]
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0:
        return done.stdout
    if options[0] == "format":
        return None
    cause = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it failed"]
    raise FimError(f"corpus.filters.ruff: {cause[0].strip().removeprefix('Cause: ')}")


@cache
def _executable() -> str:
    beside = shutil.which("ruff", path=sysconfig.get_path("scripts"))
    found = beside or shutil.which("ruff", path=str(Path(sys.executable).parent))
    if found is None:
        raise FimError("corpus.filters.ruff: ruff is not installed; pip install 'sfim[ruff]'")
    return found
