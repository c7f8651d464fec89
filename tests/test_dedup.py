"""Copies are found whatever their line ends, and nothing else is called a copy."""

import random

import pytest

from fim import Document
from finetune.corpus.dedup import Record, content_key, exact_duplicates, make_record


def record(path: str, text: bytes, repo: str = "r") -> Record:
    return make_record(Document(repo=repo, path=path, language="python", text=text))


@pytest.mark.parametrize("copy", [b"a\r\nb\r\n", b"a\rb", b"a \t\nb  \n\n\n", b"a\nb"])
def test_line_ends_and_trailing_blanks_do_not_count(copy):
    assert content_key(copy) == content_key(b"a\nb\n")


@pytest.mark.parametrize(
    "other", [b" a\nb\n", b"a\n\nb\n", b"ab\n", b"a\nB\n", b"\na\nb\n", b"a\x0c\nb"]
)
def test_everything_else_counts(other):
    assert content_key(other) != content_key(b"a\nb\n")


def test_the_first_of_each_set_is_kept_in_any_order():
    records = [
        record("b.py", b"x = 1\n"),
        record("a.py", b"x = 1\r\n"),
        record("z.py", b"y = 2\n"),
        record("0.py", b"x = 1", repo="s"),
    ]
    random.Random(0).shuffle(records)

    kept, copies = exact_duplicates(records)

    assert [r.path for r in kept] == ["a.py", "z.py"]
    assert [(s.repo, s.path, s.reason, s.num_bytes) for s in copies] == [
        ("r", "b.py", "duplicate", 6),
        ("s", "0.py", "duplicate", 5),
    ]


def test_a_long_run_of_blanks_takes_linear_time():
    assert content_key(b" " * 2_000_000 + b"x") != content_key(b"x")
