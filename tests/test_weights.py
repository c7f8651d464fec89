"""Shares of documents and of bytes, the same for any order of files."""

import random
from dataclasses import replace

from finetune.corpus.copies.dedup import Record
from finetune.corpus.weights import choose_replay, thin_out


def records(number, **arguments) -> list[Record]:
    return [
        Record(
            repo="r", path=f"{n}.py", id=str(n), key=b"%d" % n, num_bytes=100 + n % 7, place=n,
            **{"language": "python"} | arguments,
        )
        for n in range(number)
    ]  # fmt: skip


def test_a_share_of_a_source_is_kept():
    kept, skipped = thin_out(records(4_000, weight=0.25), {}, seed=0)

    assert 900 < len(kept) < 1_100
    assert len(kept) + len(skipped) == 4_000
    assert {(s.reason, s.detail) for s in skipped} == {
        ("down-sampled", "0.25 of its kind are kept")
    }


def test_weights_of_source_and_language_multiply_and_replay_has_its_own():
    half = {"python": 0.5, "go": 0.0}

    assert thin_out(records(50), {}, 0)[0] == records(50)
    assert 450 < len(thin_out(records(2_000, weight=0.5), half, 0)[0]) < 550
    assert thin_out(records(50, language="go"), half, 0)[0] == []
    assert len(thin_out(records(50, weight=0.1, is_replay=True), half, 0)[0]) == 50


def test_who_is_kept_depends_on_content_and_seed_alone():
    given = records(200, weight=0.5)
    shuffled = random.Random(0).sample(given, 200)

    kept = {record.id for record in thin_out(given, {}, seed=0)[0]}

    assert {record.id for record in thin_out(shuffled, {}, seed=0)[0]} == kept
    assert {record.id for record in thin_out(given, {}, seed=1)[0]} != kept
    less = {record.id for record in thin_out(records(200, weight=0.3), {}, seed=0)[0]}
    assert less < kept


def mixed() -> list[Record]:
    return [*records(300), *records(900, is_replay=True)[300:]]


def size(record: Record) -> int:
    return record.num_bytes


def test_replay_has_its_share_of_the_bytes():
    for rate in (0.1, 0.2, 0.5):
        kept, skipped = choose_replay(mixed(), rate, 0, size)

        replay = sum(size(record) for record in kept if record.is_replay)
        assert abs(replay / sum(map(size, kept)) - rate) < 0.002
        assert len(kept) + len(skipped) == 900
        assert {skip.reason for skip in skipped} == {"replay-not-needed"}
        assert sum(not record.is_replay for record in kept) == 300


def test_less_replay_than_asked_for_is_all_kept():
    few = [*records(300), *records(310, is_replay=True)[300:]]

    assert choose_replay(few, 0.5, 0, size) == (few, [])
    assert choose_replay(records(5), 0.2, 0, size) == (records(5), [])
    assert len(choose_replay(few, 0.0, 0, size)[0]) == 300


def test_more_replay_keeps_what_less_kept_in_any_order():
    chosen = [
        {record.id for record in choose_replay(given, rate, 0, size)[0]}
        for given, rate in ((mixed(), 0.1), (mixed()[::-1], 0.1), (mixed(), 0.2))
    ]

    assert chosen[0] == chosen[1]
    assert chosen[0] < chosen[2]


def test_one_large_replay_file_does_not_keep_the_others_out():
    given = [record for record in mixed() if not record.is_replay or record.place < 400]
    for place in range(300, 400):
        large = [replace(r, num_bytes=10**6) if r.place == place else r for r in given]

        kept, _ = choose_replay(large, 0.2, 0, size)

        assert sum(record.is_replay for record in kept) > 70
