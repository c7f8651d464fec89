"""Paths fit every file format, and globs take what git and shells make of them."""

import pytest

from finetune.corpus.sources.patterns import clean_path, is_wanted
from finetune.recipe.corpus import Source


@pytest.mark.parametrize(
    ("path", "clean"),
    [(b"a\xff", r"a\xff"), ("a\ud800", r"a\ud800"), ("a\u2028b", r"a\u2028b"), ("ok/ü", "ok/ü")],
)
def test_clean_paths_hold_no_surrogate_and_no_line_break(path, clean):
    assert clean_path(path) == clean


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.py", ["a.py", "src/deep/a.py"], ["a.pyc", "a.py/b"]),
        ("src/*.py", ["src/a.py"], ["a.py", "src/deep/a.py", "lib/src/a.py"]),
        ("src/**", ["src/a.py", "src/deep/a.py"], ["src", "mysrc/a.py"]),
        ("src/", ["src/a.py"], ["a.py"]),
        ("**/test/*.c", ["test/a.c", "x/y/test/a.c"], ["latest/a.c", "test/x/a.c"]),
        ("src/**/a.py", ["src/a.py", "src/x/y/a.py"], ["src/xa.py"]),
        ("a?[!0-9].py", ["abc.py"], ["ab1.py", "ac.py"]),
        ("[ab]+.py", ["a+.py"], ["aa.py"]),
        ("[z-a].py", ["[z-a].py"], ["z.py"]),
        ("[", ["["], ["a"]),
    ],
)
def test_globs_stay_inside_a_folder_unless_doubled(pattern, taken, left):
    assert [p for p in taken + left if is_wanted(p, Source(include=(pattern,)))] == taken
    assert [p for p in taken + left if is_wanted(p, Source(exclude=(pattern,)))] == left
