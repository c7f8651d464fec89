"""Copies are found whatever their form and order, one stays, and nothing else is called a copy."""

import random
import re
from dataclasses import replace

import pytest

from fim import Document
from finetune.corpus.copies.dedup import Record, content_key, find_duplicates, make_record
from finetune.corpus.entries import Skip
from finetune.recipe.corpus import Dedup

NEAR = Dedup(threshold=0.7)
EXACT = Dedup(near=False)


def record(path: str, text: bytes, repo: str = "r", **fields) -> Record:
    document = Document(repo=repo, path=path, language="python", text=text)
    return replace(make_record(document), **fields)


def make_text(seed: int, lines: int = 60) -> bytes:
    """Write a file that has little in common with one of another seed."""
    rng = random.Random(seed)
    words = [f"name{rng.randrange(10_000)}" for _ in range(40)]
    choose = lambda: rng.choice(words)  # noqa: E731
    shapes = [
        lambda: f"{choose()} = {choose()}({choose()}, {rng.randrange(1000)})",
        lambda: f"if {choose()} > {choose()}[{choose()}]: {choose()}.{choose()}()",
        lambda: f"for {choose()} in {choose()}: print({choose()} + '{choose()}')",
    ]
    return "\n".join(rng.choice(shapes)() for _ in range(lines)).encode() + b"\n"


def edit(text: bytes, lines: int, seed: int = 0) -> bytes:
    """Replace so many lines of a text."""
    rng = random.Random(seed)
    kept = text.splitlines()
    for place in rng.sample(range(len(kept)), lines):
        kept[place] = b"other%d(words%d, of%d, mine%d)" % ((rng.randrange(10_000),) * 4)
    return b"\n".join(kept) + b"\n"


def paths(records) -> list[str]:
    return [record.path for record in records]


@pytest.mark.parametrize("copy", [b"a\r\nb\r\n", b"a\rb", b"a \t\nb  \n\n\n", b"a\nb"])
def test_line_ends_and_trailing_blanks_do_not_count(copy):
    assert content_key(copy) == content_key(b"a\nb\n")


@pytest.mark.parametrize(
    "other", [b" a\nb\n", b"a\n\nb\n", b"ab\n", b"a\nB\n", b"\na\nb\n", b"a\x0c\nb"]
)
def test_everything_else_counts(other):
    assert content_key(other) != content_key(b"a\nb\n")


def test_one_of_each_set_of_exact_copies_is_kept_in_any_order():
    records = [
        record("b.py", b"x = 1\n"),
        record("a.py", b"x = 1\r\n"),
        record("z.py", b"y = 2\n"),
        record("0.py", b"x = 1", repo="s"),
    ]
    random.Random(0).shuffle(records)

    found = find_duplicates(records, EXACT)

    assert paths(found.kept) == ["a.py", "z.py"]
    assert found.skipped == [
        Skip(repo="r", path="b.py", reason="duplicate", num_bytes=6, detail="of r/a.py"),
        Skip(repo="s", path="0.py", reason="duplicate", num_bytes=5, detail="of r/a.py"),
    ]
    assert [(c.cluster, c.repo, c.path, c.similarity, c.is_kept) for c in found.clusters] == [
        (0, "r", "a.py", 1.0, True),
        (0, "r", "b.py", 1.0, False),
        (0, "s", "0.py", 1.0, False),
    ]


@pytest.mark.parametrize(
    ("first", "second", "keep", "kept"),
    [
        ({}, {}, "weightiest", "a.py"),
        ({}, {"weight": 0.5}, "weightiest", "a.py"),
        ({"weight": 0.5}, {}, "weightiest", "b.py"),
        ({"committed_at": 5}, {"committed_at": 6}, "weightiest", "b.py"),
        ({"committed_at": 5}, {"committed_at": 6, "weight": 0.5}, "weightiest", "a.py"),
        ({"committed_at": 5}, {"committed_at": 6, "weight": 0.5}, "newest", "b.py"),
        ({"weight": 0.5}, {"weight": 0.6}, "newest", "b.py"),
        ({"is_replay": True}, {"weight": 0.5}, "weightiest", "b.py"),
        ({"is_replay": True, "committed_at": 9}, {}, "newest", "b.py"),
    ],
)
@pytest.mark.parametrize("dedup", [EXACT, Dedup(exact=False)])
def test_which_copy_is_kept(first, second, keep, kept, dedup):
    records = [record("a.py", make_text(0), **first), record("b.py", make_text(0), **second)]

    found = find_duplicates(records, replace(dedup, keep=keep))

    assert paths(found.kept) == [kept]


def test_near_copies_are_found_and_what_differs_is_kept():
    texts = {f"{seed}.py": make_text(seed) for seed in range(40)}
    records = [record(path, text) for path, text in texts.items()]
    copies = [record(f"copy/{path}", edit(text, 3)) for path, text in texts.items()]

    found = find_duplicates([*copies, *records], NEAR)

    assert sorted(paths(found.kept)) == sorted(texts)
    assert {(s.path, s.reason, s.detail) for s in found.skipped} == {
        (f"copy/{path}", "near-duplicate", f"of r/{path}") for path in texts
    }
    assert all(0.7 <= copy.similarity < 1 for copy in found.clusters if not copy.is_kept)


def test_other_names_are_no_other_file():
    copy = re.sub(rb"name(\d+)(?!\d*')", rb"my_\1_own", make_text(0))
    assert b"name" in copy  # strings stay

    found = find_duplicates([record("a.py", make_text(0)), record("b.py", copy)], NEAR)

    assert paths(found.kept) == ["a.py"]


def test_small_changes_do_not_chain_files_that_differ():
    texts = [make_text(0, lines=100)]
    for seed in range(12):
        texts.append(edit(texts[-1], 5, seed))
    records = [record(f"{number:02}.py", text) for number, text in enumerate(texts)]

    found = find_duplicates(records, NEAR)

    kept = {copy.cluster: copy.path for copy in found.clusters if copy.is_kept}
    assert 3 <= len(found.kept) <= 6
    assert paths(found.kept) == sorted(kept.values())
    sizes = [sum(c.cluster == number for c in found.clusters) for number in kept]
    assert max(sizes) <= 5  # six changes are too many


def test_an_exact_copy_of_a_near_copy_is_of_the_file_that_stays():
    near = edit(make_text(0), 3)
    records = [record("a.py", make_text(0)), record("b.py", near), record("c.py", near + b"\n")]

    found = find_duplicates(records, NEAR)

    assert [(s.path, s.reason, s.detail) for s in found.skipped] == [
        ("b.py", "near-duplicate", "of r/a.py"),
        ("c.py", "duplicate", "of r/a.py"),
    ]
    assert {copy.cluster for copy in found.clusters} == {0}


@pytest.mark.parametrize("dedup", [NEAR, EXACT, Dedup(exact=False, near=False)])
def test_each_record_is_kept_or_skipped_in_any_order(dedup):
    records = [record(f"{n}.py", edit(make_text(n % 9), n % 7, seed=n % 3)) for n in range(60)]
    shuffled = random.Random(1).sample(records, len(records))

    found, again = (find_duplicates(group, dedup) for group in (records, shuffled))

    assert found == again
    assert len(found.kept) + len(found.skipped) == 60
    assert found.kept == sorted(found.kept, key=lambda r: r.order)
    assert sum(c.is_kept for c in found.clusters) == len({c.cluster for c in found.clusters})


@pytest.mark.parametrize(("dedup", "kept"), [(EXACT, 1), (Dedup(exact=False, near=False), 2)])
def test_exact_copies_may_be_kept(dedup, kept):
    records = [record("a.py", make_text(0)), record("b.py", make_text(0))]

    assert len(find_duplicates(records, dedup).kept) == kept


def test_files_too_small_to_judge_are_no_near_copies():
    records = [record("a.py", b"x = 1\n"), record("b.py", b"x = 2\n"), record("c.py", b"x = 3\n")]

    assert len(find_duplicates(records, NEAR).kept) == 3


def test_a_long_run_of_blanks_takes_linear_time():
    assert content_key(b" " * 2_000_000 + b"x") != content_key(b"x")
