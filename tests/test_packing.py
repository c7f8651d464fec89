"""Every sample whole and once; masks and positions keep samples apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fim import (
    FimError,
    Tokens,
    block_mask,
    pack,
    pack_lengths,
    pack_stream,
    plan_packs,
    position_ids,
)


def tokens(*ids: int) -> Tokens:
    labels = np.array([-100, *ids[1:]], dtype=np.int32)
    return Tokens(input_ids=np.array(ids, dtype=np.int32), labels=labels)


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """Bins that the textbook needs, one item at a time."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= length]
        if fitting:
            spaces.remove(min(fitting))
        spaces.append(min(fitting, default=capacity) - length)
    return len(spaces)


LENGTHS = st.integers(1, 60).flatmap(
    lambda capacity: st.tuples(
        st.lists(st.integers(1, capacity), max_size=60), st.just(capacity), st.integers(0, 3)
    )
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(LENGTHS)
def test_each_item_is_in_one_bin_within_capacity_and_bins_are_as_few_as_item_by_item(case):
    lengths, capacity, seed = case

    bins = pack_lengths(lengths, capacity, seed)

    assert sorted(index for bin_ in bins for index in bin_) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in bin_) <= capacity for bin_ in bins)
    assert len(bins) == best_fit_decreasing(lengths, capacity)


def test_packs_of_mixed_lengths_are_all_but_full():
    lengths = np.random.default_rng(0).integers(16, 4_097, size=20_000).tolist()

    bins = pack_lengths(lengths, capacity=8_192)

    assert sum(lengths) / (len(bins) * 8_192) > 0.995


@settings(max_examples=200, deadline=None, derandomize=True)
@given(LENGTHS)
def test_a_plan_is_the_bins_as_arrays(case):
    lengths, capacity, seed = case

    items, ends = plan_packs(np.array(lengths, dtype=np.int64), capacity, seed)

    bins = [part.tolist() for part in np.split(items, ends)[:-1]]
    assert bins == pack_lengths(lengths, capacity, seed)
    assert len(items) == len(lengths)


def test_lengths_that_need_more_than_sixteen_bits_are_packed_alike():
    lengths = np.random.default_rng(0).integers(1, 100_001, size=400)

    bins = pack_lengths(lengths, capacity=100_000)

    assert len(bins) == best_fit_decreasing(lengths.tolist(), 100_000)
    assert all(sum(lengths[bin_]) <= 100_000 for bin_ in bins)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(LENGTHS)
def test_streamed_bins_hold_each_item_once_within_capacity(case):
    lengths, capacity, held_packs = case

    bins = list(pack_stream(iter(lengths), capacity, held_packs))

    assert sorted(index for bin_ in bins for index in bin_) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in bin_) <= capacity for bin_ in bins)
    assert bins == list(pack_stream(lengths, capacity, held_packs))


def test_a_stream_holds_no_more_items_than_it_says():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield 1 + read * 7 % 32

    bins = pack_stream(endless(), capacity=32, held_packs=4)

    taken = 0
    for _ in range(1_000):
        taken += sum(1 + (index + 1) * 7 % 32 for index in next(bins))
        held = sum(1 + n * 7 % 32 for n in range(1, read + 1)) - taken
        assert held <= 4 * 32
    assert taken / (1_000 * 32) > 0.97


@pytest.mark.parametrize("law", ["lognormal", "uniform"])
def test_streamed_packs_are_all_but_full(law):
    rng = np.random.default_rng(0)
    drawn = {
        "lognormal": rng.lognormal(np.log(600), 1, 30_000),
        "uniform": rng.uniform(8, 4_097, 30_000),
    }
    lengths = drawn[law].clip(8, 4_096).astype(int).tolist()

    bins = list(pack_stream(lengths, capacity=8_192))

    assert sum(lengths) / (len(bins) * 8_192) >= 0.995


def test_a_seed_decides_order_and_partners_and_another_one_changes_them():
    lengths = [3, 5, 5, 3] * 20

    first, again, other = (pack_lengths(lengths, 8, seed) for seed in (0, 0, 1))

    assert first == again
    assert first != other
    assert {tuple(sorted(bin_)) for bin_ in first} != {tuple(sorted(bin_)) for bin_ in other}
    assert len(first) == len(other) == 40


def test_bins_are_not_left_in_order_of_size():
    lengths = list(range(1, 101))

    firsts = [max(lengths[index] for index in bin_) for bin_ in pack_lengths(lengths, 100)]

    assert firsts != sorted(firsts, reverse=True)


def test_no_items_need_no_bins():
    assert pack_lengths([], capacity=8) == []
    assert pack_lengths(np.array([], dtype=np.int64), capacity=8) == []


def test_bins_hold_plain_integers():
    [[index]] = pack_lengths(np.array([4]), capacity=8)

    assert type(index) is int


@pytest.mark.parametrize(
    ("lengths", "message"),
    [([3, 9], "a sample has 9 tokens, a pack only 8"), ([3, 0], "a sample has no tokens")],
)
def test_what_cannot_be_packed_is_refused(lengths, message):
    with pytest.raises(FimError, match=message):
        pack_lengths(lengths, capacity=8)
    with pytest.raises(FimError, match=message):
        list(pack_stream(lengths, capacity=8))


def test_pack_joins_samples_and_keeps_their_lengths():
    joined = pack([tokens(1, 2, 3), tokens(4, 5)])

    assert joined.input_ids.tolist() == [1, 2, 3, 4, 5]
    assert joined.labels.tolist() == [-100, 2, 3, -100, 5]
    assert joined.seq_lengths == (3, 2)


def test_positions_restart_with_each_sample():
    assert position_ids([3, 1, 2]).tolist() == [0, 1, 2, 0, 0, 1]
    assert position_ids([]).tolist() == []


def test_block_mask_separates_samples_and_padding():
    mask = block_mask([2, 1], size=4)

    assert mask.astype(int).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],  # padding sees itself
    ]


def test_a_mask_too_small_for_its_samples_is_refused():
    with pytest.raises(FimError, match="samples hold 5 tokens, the pack only 4"):
        block_mask([3, 2], size=4)
