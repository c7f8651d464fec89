"""Whole samples into packs of fixed capacity, and the masks and positions derived from them.

tokens: a0 a1 a2 b0 b1 -  position_ids: 0 1 2 0 1 0  seq_lengths: [3, 2]

b sees b only; padding sees itself only.
"""

import gc
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from fim.data import Pack, Tokens
from fim.errors import FimError


def pack_lengths(lengths: Sequence[int], capacity: int, seed: int = 0) -> list[list[int]]:
    """Put items into the fewest bins that best-fit decreasing finds.

    Works on the histogram of lengths: a million items take under a second. Which of several items
    of one length goes where, the order of the bins and that inside a bin are drawn from `seed`;
    bins left in order of size would make packs of like samples.

    Args:
        lengths: tokens of each item.
        capacity: tokens of one bin.
        seed: seed of the shuffles.

    Returns:
        Indices of the items of each bin; every index once, every bin within capacity.

    Raises:
        FimError: an item is longer than a bin, or has no tokens.
    """
    items, ends = plan_packs(np.asarray(lengths, dtype=np.int64), capacity, seed)
    order = items.tolist()
    collects = gc.isenabled()
    gc.disable()  # it would walk half a million young lists many times: twice the time of the rest
    try:
        return [order[start:end] for start, end in pairwise([0, *ends.tolist()])]
    finally:
        if collects:
            gc.enable()


def plan_packs(lengths: np.ndarray, capacity: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give the bins of `pack_lengths` as two arrays, which is three times as fast.

    Args:
        lengths: see `pack_lengths`; integers of shape `(items,)`.
        capacity: see `pack_lengths`.
        seed: see `pack_lengths`.

    Returns:
        Indices of the items, those of one bin side by side, `int64` of shape `(items,)`; and where
        each bin ends in them, of shape `(bins,)`.

    Raises:
        FimError: see `pack_lengths`.
    """
    if lengths.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _check_length(int(lengths.max()), capacity)
    _check_length(int(lengths.min()), capacity)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(lengths.size)
    largest_first = shuffled[_stable_order(capacity - lengths[shuffled])]
    bins = _best_fit(lengths[largest_first], capacity)
    num_bins = int(bins.max()) + 1
    place = np.empty_like(bins)  # of each item's bin among the shuffled bins
    place[largest_first] = rng.permutation(num_bins)[bins]
    return shuffled[_stable_order(place[shuffled])], np.cumsum(np.bincount(place))


def pack_stream(
    lengths: Iterable[int], capacity: int, held_packs: int = 256
) -> Iterator[list[int]]:
    """Put items into bins as they come, for data too large to plan or without an end.

    Each bin starts with the longest item that waits and takes the longest that still fits, until
    none does. So the last bins, when no more items come, hold short ones: shuffle what is written.

    Args:
        lengths: tokens of each item, read as bins are asked for.
        capacity: tokens of one bin.
        held_packs: items of so many full bins wait at most; more of them fill bins better.

    Yields:
        Indices of the items of a bin, counted from 0 in the order they came.

    Raises:
        FimError: an item is longer than a bin, or has no tokens.
    """
    waiting: list[tuple[int, int]] = []
    held = 0
    for index, length in enumerate(lengths):
        _check_length(length, capacity)
        insort(waiting, (length, index))
        held += length
        while held > held_packs * capacity:
            chosen = _fill(waiting, capacity)
            held -= sum(length for length, _ in chosen)
            yield [index for _, index in chosen]
    while waiting:
        yield [index for _, index in _fill(waiting, capacity)]


def _fill(waiting: list[tuple[int, int]], space: int) -> list[tuple[int, int]]:
    """Take the items of one bin out of those that wait, sorted by length."""
    chosen = []
    while (place := bisect_right(waiting, space, key=lambda item: item[0])) > 0:
        chosen.append(waiting.pop(place - 1))
        space -= chosen[-1][0]
    return chosen


def _check_length(length: int, capacity: int) -> None:
    if length > capacity:
        raise FimError(f"a sample has {length} tokens, a pack only {capacity}")
    if length < 1:
        raise FimError("a sample has no tokens")


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """Sort keys of 0 to 2**32 - 1 stably; numpy sorts by radix only what fits 16 bits."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    if keys.max() > 0xFFFF:
        order = order[np.argsort((keys >> 16).astype(np.uint16)[order], kind="stable")]
    return order


def _best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each item, for items in order of falling length.

    An item goes to the fullest bin with room for it, which then is the fullest for the next item of
    the same length; so each bin with `space` takes `space // length` of them, all at once.
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    by_space: dict[int, list[np.ndarray]] = defaultdict(list)
    spaces = 0  # bit s is set when a bin with s tokens of space exists
    done = num_bins = 0
    sizes, counts = np.unique(lengths, return_counts=True)
    for length, left in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = done + left
        while done < end:
            fitting = spaces >> length
            space = length + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = min(space // length, end - done)
            wanted = (end - done) // each
            if fitting:
                chosen = by_space[space].pop()
                if len(chosen) > wanted:
                    by_space[space].append(chosen[wanted:])
                    chosen = chosen[:wanted]
                elif not by_space[space]:
                    spaces ^= 1 << space
            else:
                chosen = np.arange(num_bins, num_bins + wanted)
                num_bins += wanted
            by_space[space - each * length].append(chosen)
            spaces |= 1 << (space - each * length)
            placed = each * len(chosen)
            bins[done : done + placed] = chosen if each == 1 else np.repeat(chosen, each)
            done += placed
    return bins


def pack(samples: Sequence[Tokens]) -> Pack:
    """Join samples side by side."""
    return Pack(
        input_ids=np.concatenate([tokens.input_ids for tokens in samples]),
        labels=np.concatenate([tokens.labels for tokens in samples]),
        seq_lengths=tuple(len(tokens.input_ids) for tokens in samples),
    )


def position_ids(seq_lengths: Sequence[int]) -> np.ndarray:
    """Return positions that restart at 0 with each sample: `int64`, shape `(sum(seq_lengths),)`."""
    if not len(seq_lengths):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([np.arange(length, dtype=np.int64) for length in seq_lengths])


def block_mask(seq_lengths: Sequence[int], size: int) -> np.ndarray:
    """Build the causal, block-diagonal attention mask of one pack.

    Padding attends to itself only, so every row has a `True` and softmax stays finite.

    Args:
        seq_lengths: tokens of each sample, in pack order.
        size: tokens of the pack, padding included.

    Returns:
        Boolean array of shape `(size, size)`; `[i, j]` is `True` where query `i` may see key `j`.

    Raises:
        FimError: the samples hold more than `size` tokens.

    Source:
        Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination".
    """
    if sum(seq_lengths) > size:
        raise FimError(f"samples hold {sum(seq_lengths)} tokens, the pack only {size}")
    padding = size - sum(seq_lengths)
    sample_ids = np.repeat(np.arange(len(seq_lengths) + padding), [*seq_lengths, *[1] * padding])
    same_sample = sample_ids[:, None] == sample_ids[None, :]
    return same_sample & np.tri(size, dtype=bool)
