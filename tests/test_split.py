"""The held-out side depends on seed and content only, and nothing like it trains."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fim import Document
from finetune.corpus.copies.dedup import Record, make_record
from finetune.corpus.split import Sides, choose_records, split_records
from finetune.recipe.corpus import Split

DAY = 86_400
AFTER = int(datetime(2026, 1, 31, tzinfo=UTC).timestamp())
TIME = Split(by="time", after="2026-01-31", eval_rate=0.5)


def record(
    number: int, num_bytes: int = 300, end: bytes = b"\n", path: str = "", repo: str = "r", **fields
) -> Record:
    text = f"x = {number}  # ".encode().ljust(num_bytes, b".") + end
    place = path or f"{number}.py"
    document = Document(repo=repo, path=place, language="python", text=text)
    return replace(make_record(document), **fields)


def near_copies(number: int, copies: int = 3, **fields) -> list[Record]:
    """Make files that differ in one word of two hundred."""
    rng = random.Random(number)
    words = [f"word{rng.randrange(1_000_000)}" for _ in range(200)]
    found = []
    for copy in range(copies):
        words[10 * copy] = f"copy{copy}"
        text = "\n".join(words).encode()
        document = Document(repo="r", path=f"{number}-{copy}.py", language="python", text=text)
        found.append(replace(make_record(document), **fields))
    return found


def counts(sides: Sides) -> tuple[int, int, Counter]:
    return len(sides.train), len(sides.held_out), Counter(s.reason for s in sides.skipped)


RECORDS = [record(number) for number in range(100)]


def paths(records) -> set[str]:
    return {d.path for d in records}


def test_the_rate_is_honored_and_no_document_is_lost():
    sides = split_records(RECORDS, Split(eval_rate=0.1), seed=0, threshold=0.7)

    assert len(sides.held_out) == 10
    assert [r for r in RECORDS if r in sides.train] == sides.train
    assert paths(sides.train) | paths(sides.held_out) == paths(RECORDS)
    assert paths(sides.train).isdisjoint(paths(sides.held_out))
    assert sides.skipped == []


def test_shuffling_changes_nothing_and_another_seed_does():
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))

    sides = [
        paths(split_records(records, Split(eval_rate=0.1), seed, 0.7).held_out)
        for records, seed in ((RECORDS, 0), (shuffled, 0), (RECORDS, 1))
    ]

    assert sides[0] == sides[1] != sides[2]


def test_a_new_file_moves_at_most_one_other():
    before = paths(split_records(RECORDS, Split(eval_rate=0.1), 0, 0.7).held_out)
    after = paths(split_records([*RECORDS, record(100)], Split(eval_rate=0.1), 0, 0.7).held_out)

    assert len(before - after) <= 1


def test_copies_land_on_one_side():
    copies = [record(n, end=b"\r\n\r\n", path=f"copy/{n}.py") for n in range(100)]

    sides = split_records([*copies, *RECORDS], Split(eval_rate=0.2), seed=0, threshold=0.7)

    assert len(sides.held_out) == 40
    assert {d.path.removeprefix("copy/") for d in sides.held_out}.isdisjoint(
        d.path.removeprefix("copy/") for d in sides.train
    )


@pytest.mark.parametrize(
    ("number", "split", "held_out"),
    [
        (100, Split(eval_rate=0.0, min_files=5), 0),
        (10, Split(eval_rate=0.01, min_files=5), 5),
        (9, Split(eval_rate=0.01, min_files=5), 0),
        (2, Split(), 1),
        (1, Split(), 0),
        (0, Split(), 0),
        (10, Split(eval_rate=0.5, min_files=1), 5),
    ],
)
def test_min_files_needs_twice_as_many(number, split, held_out):
    assert len(split_records(RECORDS[:number], split, seed=0, threshold=0.7).held_out) == held_out


def test_tiny_documents_are_never_held_out():
    tiny = [record(number, num_bytes=150) for number in range(100, 200)]

    sides = split_records([*tiny, *RECORDS], Split(eval_rate=0.2), seed=0, threshold=0.7)

    assert len(sides.held_out) == 40
    assert paths(tiny) <= paths(sides.train)


@pytest.mark.parametrize("threshold", [0.7, 0.98])  # a little below it, the estimate may err
def test_near_copies_land_on_one_side(threshold):
    records = [copy for number in range(30) for copy in near_copies(number)]
    random.Random(0).shuffle(records)

    sides = split_records(records, Split(eval_rate=0.2), seed=0, threshold=threshold)

    assert counts(sides) == (72, 18, {})
    names = [
        {record.path.split("-")[0] for record in side} for side in (sides.train, sides.held_out)
    ]
    assert names[0].isdisjoint(names[1])


@pytest.mark.parametrize("by", ["file", "repo", "time"])
def test_replay_is_never_held_out_nor_what_is_like_it_trained_on(by):
    split = Split(by=by, after=TIME.after if by == "time" else "", eval_rate=0.5)
    others = [record(n, repo=f"r{n % 4}", committed_at=AFTER) for n in range(40)]
    replay = [record(n, path=f"replay/{n}.py", repo="s", is_replay=True) for n in range(40)]

    sides = split_records([*others, *replay], split, seed=0, threshold=0.7)

    assert not any(record.is_replay for record in sides.held_out)
    assert {r.key for r in sides.train}.isdisjoint(r.key for r in sides.held_out)
    assert len(sides.train) + len(sides.held_out) + len(sides.skipped) == 80
    assert bool(sides.held_out) == (by != "file")  # each file is one with a copy in replay


def test_replay_counts_in_no_rate():
    own = [record(n) for n in range(40)]
    replay = [record(n, repo="s", is_replay=True) for n in range(100, 160)]

    sides = split_records([*own, *replay], Split(eval_rate=0.1), seed=0, threshold=0.7)

    assert counts(sides) == (96, 4, {})


@pytest.mark.parametrize("split", [Split(eval_rate=0.3), Split(by="repo", eval_rate=0.4), TIME])
def test_no_choice_depends_on_the_order(split):
    records = [
        replace(copy, repo=f"r{n % 5}", committed_at=AFTER + (n % 3 - 1) * DAY)
        for n in range(20)
        for copy in near_copies(n)
    ]
    shuffled = random.Random(1).sample(records, len(records))

    sides, again = (split_records(group, split, 0, 0.7) for group in (records, shuffled))

    assert paths(sides.held_out) == paths(again.held_out) != set()
    assert {(s.path, s.detail) for s in sides.skipped} == {
        (s.path, s.detail) for s in again.skipped
    }


def test_whole_repositories_are_held_out():
    records = [record(n, repo=f"r{n % 10}") for n in range(100)]

    sides = split_records(records, Split(by="repo", eval_rate=0.2), seed=0, threshold=0.7)

    assert counts(sides) == (80, 20, {})
    assert len({r.repo for r in sides.held_out}) == 2
    assert {r.repo for r in sides.held_out}.isdisjoint(r.repo for r in sides.train)
    assert split_records(records, Split(by="repo", eval_rate=0.2), 1, 0.7) != sides


@pytest.mark.parametrize(
    ("sizes", "split", "held_out"),
    [
        ((10, 10), Split(by="repo"), 10),
        ((30, 10), Split(by="repo"), 10),  # never the larger half
        ((40,), Split(by="repo"), 0),
        ((10, 10), Split(by="repo", eval_rate=0.0), 0),
        ((2, 2, 2, 2, 2, 90), Split(by="repo", eval_rate=0.01, min_files=7), 8),
        ((2, 2, 2), Split(by="repo", eval_rate=0.01, min_files=7), 2),
    ],
)
def test_how_many_files_of_repositories_are_held_out(sizes, split, held_out):
    repos = [repo for repo, size in enumerate(sizes) for _ in range(size)]
    records = [record(n, repo=f"r{repo}") for n, repo in enumerate(repos)]

    assert counts(split_records(records, split, seed=0, threshold=0.7))[1] == held_out


def test_small_files_of_a_held_out_repository_do_not_train():
    records = [record(n, repo=f"r{n % 2}", num_bytes=150 if n < 20 else 300) for n in range(40)]

    sides = split_records(records, Split(by="repo"), seed=0, threshold=0.7)

    assert counts(sides) == (20, 10, {"withheld": 10})
    assert {s.detail for s in sides.skipped} == {"smaller than 200 bytes, of a held-out repository"}


@pytest.mark.parametrize("seed", range(6))
def test_small_files_are_no_repository_to_hold_out(seed):
    small = [record(n, repo=f"s{n % 4}", num_bytes=150) for n in range(40)]
    large = [record(n, repo=f"r{n % 3}") for n in range(40, 70)]

    sides = split_records([*small, *large], Split(by="repo"), seed, threshold=0.7)

    assert counts(sides) == (60, 10, {})


def test_what_has_changed_since_the_day_does_not_train():
    records = [record(n, committed_at=AFTER + (n - 60) * DAY) for n in range(100)]

    sides = split_records(records, TIME, seed=0, threshold=0.7)

    assert paths(sides.train) == {f"{n}.py" for n in range(60)}
    assert paths(sides.held_out) == {f"{n}.py" for n in range(60, 100)}
    none = split_records(records, replace(TIME, eval_rate=0.0), seed=0, threshold=0.7)
    assert counts(none) == (60, 0, {"withheld": 40})
    assert {s.detail for s in none.skipped} == {"changed since 2026-01-31"}


def test_of_unknown_time_is_old_and_too_small_is_withheld():
    records = [
        record(0),
        record(1, num_bytes=100, committed_at=AFTER),
        record(2, committed_at=AFTER),
    ]

    sides = split_records(records, TIME, seed=0, threshold=0.7)

    assert [r.path for r in sides.train] == ["0.py"]
    assert [r.path for r in sides.held_out] == ["2.py"]
    assert [s.path for s in sides.skipped] == ["1.py"]


def test_old_near_copies_of_new_files_do_not_train():
    old = [copy for n in range(20) for copy in near_copies(n, committed_at=AFTER - DAY)[:2]]
    new = [near_copies(n, committed_at=AFTER)[2] for n in range(10)]

    sides = split_records([*old, *new], replace(TIME, min_files=10), seed=0, threshold=0.7)

    assert counts(sides) == (20, 10, {"near-evaluation": 20})
    assert {(s.path, s.detail) for s in sides.skipped} == {
        (f"{n}-{copy}.py", f"of r/{n}-2.py") for n in range(10) for copy in range(2)
    }


def test_the_choice_is_stateless_seeded_and_keeps_the_order():
    chosen, others = choose_records(RECORDS, 30, seed=0)
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))

    assert len(chosen) == 30
    assert paths(chosen) | paths(others) == paths(RECORDS)
    assert chosen == [d for d in RECORDS if d in chosen]
    assert paths(choose_records(shuffled, 30, seed=0)[0]) == paths(chosen)
    assert paths(choose_records(RECORDS, 30, seed=1)[0]) != paths(chosen)
    assert choose_records(RECORDS, 500, seed=0) == (RECORDS, [])
