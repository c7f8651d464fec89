"""What ruff says of Python, run alone: no settings, no cache, no name of a file."""

from collections import Counter

import pytest

from fim import Document, FimError
from finetune.corpus.entries import Reason
from finetune.corpus.filters import check_document
from finetune.corpus.rules import python_checks
from finetune.corpus.rules.python_checks import count_violations, fix_python, format_python
from finetune.recipe.filters import Filters

BROKEN = b"def f():\n    return missing + other + missing\n"


def check(text: bytes, filters: Filters, language: str = "python") -> Reason | None:
    found = Document(repo="r", path="a.py", language=language, text=text)
    return check_document(found, filters)


def test_names_that_do_not_exist_are_counted_by_rule():
    assert count_violations(BROKEN, "src/a.py", ("F821",)) == Counter({"F821": 3})
    assert count_violations(BROKEN, "src/a.py", ("F841", "PLE")) == Counter()


def test_files_past_the_limit_are_dropped_for_the_rules_they_break():
    reason = Reason(name="ruff", detail="3 faults > 2: F821 3")

    assert check(BROKEN, Filters(ruff=("F821",), max_ruff=2)) == reason
    assert check(BROKEN, Filters(ruff=("F821",), max_ruff=3)) is None
    assert check(BROKEN, Filters()) is None
    assert check(b"int f(void) { return missing; }\n", Filters(ruff=("F",)), "c") is None


def test_what_a_file_excuses_is_no_fault():
    assert check(b"import os  # noqa: F401\n", Filters(ruff=("F401",))) is None
    assert check(b"import os\n", Filters(ruff=("F401",))).name == "ruff"


def test_an_unused_import_is_none_in_a_package():
    rules = ("F401",)

    assert count_violations(b"import os\n", "a.py", rules).total() == 1
    assert fix_python(b"import os\n\nx = 1\n", "pkg/a.py") == b"\nx = 1\n"
    assert b"import os" in fix_python(b"import os\n\nx = 1\n", "pkg/__init__.py")


def test_settings_of_the_place_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "ruff.toml").write_text("line-length = 20\n[lint]\nignore = ['F821']\n")
    monkeypatch.chdir(tmp_path)

    assert count_violations(BROKEN, "a.py", ("F821",)).total() == 3
    assert format_python(b"x = [1,  2, 3, 4, 5, 6, 7]\n", "a.py") == b"x = [1, 2, 3, 4, 5, 6, 7]\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ruff.toml"]


def test_text_that_does_not_parse_stays_as_it_is():
    text = b"def f(:\n    print 'a'\n"

    assert fix_python(text, "a.py") == text
    assert format_python(text, "a.py") == text
    assert count_violations(text, "a.py", ("F821",))["invalid-syntax"] > 0


@pytest.mark.parametrize("path", ["-", "--help", "a\n.py", "x" * 300, "\udcff.py", "..", "a.p\0y"])
def test_any_path_will_do(path):
    assert format_python(b"x=1\n", path) == b"x = 1\n"


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(FimError, match=r"^corpus.filters.ruff: Unknown rule selector `XYZ9`"):
        count_violations(BROKEN, "a.py", ("XYZ9",))


def test_without_ruff_the_way_out_is_said(monkeypatch):
    python_checks._executable.cache_clear()
    monkeypatch.setattr(python_checks.shutil, "which", lambda *_args, **_named: None)

    with pytest.raises(FimError, match=r"ruff is not installed; pip install 'sfim\[ruff\]'"):
        count_violations(BROKEN, "a.py", ("F821",))
