"""The held-out side depends on seed and content only."""

import random

import pytest

from fim import Document
from finetune.corpus.dedup import Record, make_record
from finetune.corpus.split import choose_records, split_records
from finetune.recipe_corpus import Split


def record(number: int, num_bytes: int = 300, end: bytes = b"\n", path: str = "") -> Record:
    text = f"x = {number}  # ".encode().ljust(num_bytes, b".") + end
    place = path or f"{number}.py"
    return make_record(Document(repo="r", path=place, language="python", text=text))


RECORDS = [record(number) for number in range(100)]


def paths(records) -> set[str]:
    return {d.path for d in records}


def test_the_rate_is_honored_and_no_document_is_lost():
    train, held_out = split_records(RECORDS, Split(eval_rate=0.1), seed=0)

    assert len(held_out) == 10
    assert paths(train) | paths(held_out) == paths(RECORDS)
    assert paths(train).isdisjoint(paths(held_out))


def test_shuffling_changes_nothing_and_another_seed_does():
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))

    sides = [
        paths(split_records(records, Split(eval_rate=0.1), seed)[1])
        for records, seed in ((RECORDS, 0), (shuffled, 0), (RECORDS, 1))
    ]

    assert sides[0] == sides[1] != sides[2]


def test_a_new_file_moves_at_most_one_other():
    before = paths(split_records(RECORDS, Split(eval_rate=0.1), 0)[1])
    after = paths(split_records([*RECORDS, record(100)], Split(eval_rate=0.1), 0)[1])

    assert len(before - after) <= 1


def test_copies_land_on_one_side():
    copies = [record(n, end=b"\r\n\r\n", path=f"copy/{n}.py") for n in range(100)]

    train, held_out = split_records([*copies, *RECORDS], Split(eval_rate=0.2), seed=0)

    assert len(held_out) == 40
    assert {d.path.removeprefix("copy/") for d in held_out}.isdisjoint(
        d.path.removeprefix("copy/") for d in train
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
    assert len(split_records(RECORDS[:number], split, seed=0)[1]) == held_out


def test_tiny_documents_are_never_held_out():
    tiny = [record(number, num_bytes=150) for number in range(100, 200)]

    train, held_out = split_records([*tiny, *RECORDS], Split(eval_rate=0.2), seed=0)

    assert len(held_out) == 40
    assert paths(tiny) <= paths(train)


def test_the_choice_is_stateless_seeded_and_keeps_the_order():
    chosen, others = choose_records(RECORDS, 30, seed=0)
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))

    assert len(chosen) == 30
    assert paths(chosen) | paths(others) == paths(RECORDS)
    assert chosen == [d for d in RECORDS if d in chosen]
    assert paths(choose_records(shuffled, 30, seed=0)[0]) == paths(chosen)
    assert paths(choose_records(RECORDS, 30, seed=1)[0]) != paths(chosen)
    assert choose_records(RECORDS, 500, seed=0) == (RECORDS, [])
