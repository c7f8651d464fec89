"""Seconds, bins and real tokens of packing, against TRL's best-fit decreasing.

    python bench/packing.py [ITEMS ...]

For 100,000 and 1,000,000 samples and two laws of lengths: the CPU seconds of `plan_packs` and
`pack_lengths` (medians of five) and of the plan in TRL's `_pack_bfd` (once, without the tokens it
copies, which are most of its memory and a third of its time); the bins of both, and the fewest
there can be; the share of real tokens, planned and streamed.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from trl import data_utils

from fim.packing import pack_lengths, pack_stream, plan_packs

CAPACITY = 4_096
ROUNDS = 5


def lognormal(items: int) -> np.ndarray:
    """Lengths with median 600 and sigma 1, cut to 8..4,096: close to source files in windows."""
    rng, kept = np.random.default_rng(0), np.zeros(0)
    while len(kept) < items:
        drawn = rng.lognormal(np.log(600), 1.0, items)
        kept = np.concatenate([kept, drawn[(drawn >= 8) & (drawn <= CAPACITY)]])
    return kept[:items].astype(np.int64)


def uniform(items: int) -> np.ndarray:
    """Lengths from 8 to 4,096, each as likely."""
    return np.random.default_rng(0).integers(8, CAPACITY + 1, items)


def fewest(lengths: np.ndarray) -> int:
    """Bins no packing can do with less than, so many items need most of one or share the sum."""
    return max(-(-int(lengths.sum()) // CAPACITY), int((2 * lengths > CAPACITY).sum()))


class _Planned(Exception):
    """TRL has its bins and would copy the tokens now."""


def trl_plan(lengths: np.ndarray) -> tuple[float, int]:
    """CPU seconds and bins of TRL's plan."""
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    table = pa.table({"input_ids": pa.ListArray.from_arrays(ends, pa.nulls(int(ends[-1])))})
    bins = 0

    def stop(*_: Any) -> None:
        nonlocal bins
        bins = len(sys._getframe(1).f_locals["bins"])
        raise _Planned

    started = time.process_time()
    stopping = SimpleNamespace(**vars(data_utils.pc) | {"take": stop})
    with mock.patch.object(data_utils, "pc", stopping), suppress(_Planned):
        data_utils._pack_bfd(table, CAPACITY)
    return time.process_time() - started, bins


def seconds(call: Callable[[], Any]) -> float:
    """Median CPU seconds of a call."""
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def compare(name: str, lengths: np.ndarray) -> None:
    """Print the figures of one law and number of samples."""
    plan = seconds(lambda: plan_packs(lengths, CAPACITY))
    lists = seconds(lambda: pack_lengths(lengths, CAPACITY))
    theirs, their_bins = trl_plan(lengths)
    bins = len(plan_packs(lengths, CAPACITY)[1])
    started = time.process_time()
    streamed = sum(1 for _ in pack_stream(lengths.tolist(), CAPACITY))
    stream = time.process_time() - started
    tokens = int(lengths.sum())
    print(
        f"{len(lengths):,} samples, {name}, {tokens:,} tokens\n"
        f"  plan_packs {plan:.3f} s, pack_lengths {lists:.3f} s, pack_stream {stream:.2f} s, "
        f"TRL {theirs:.2f} s: {theirs / plan:.0f} and {theirs / lists:.0f} times as long\n"
        f"  bins {bins:,}, TRL {their_bins:,}, no fewer than {fewest(lengths):,} "
        f"(tokens / capacity: {-(-tokens // CAPACITY):,})\n"
        f"  real tokens {tokens / bins / CAPACITY:.4%} planned, "
        f"{tokens / streamed / CAPACITY:.4%} streamed"
    )


def main(arguments: Sequence[str]) -> None:
    """Print every figure."""
    for items in map(int, arguments or ("100000", "1000000")):
        for law in (lognormal, uniform):
            compare(law.__name__, law(items))


if __name__ == "__main__":
    main(sys.argv[1:])
