"""What is left of the sources, step by step."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from finetune.corpus.entries import Skip
from finetune.corpus.filters import RULES
from finetune.corpus.workers import FAILURES

_FIRST = (
    "unreadable", "empty", "lfs-pointer", "notebook", "not-utf-8", "binary", "unsupported-language",
)  # fmt: skip
_LAST = (
    "benchmark", "secret", "personal", *FAILURES, "licence", "drop-list", "low-project",
    "duplicate", "near-duplicate", "down-sampled", "near-evaluation", "withheld",
    "replay-not-needed", "not-chosen",
)  # fmt: skip
REASONS = tuple(dict.fromkeys((*_FIRST, *(n for rule in RULES for n in rule.names), *_LAST)))
"""Reasons in the order in which files are asked; before them come those of the sources."""


def make_funnel(kept: Collection[int], skipped: Collection[Skip]) -> list[dict[str, Any]]:
    """Count files and bytes by reason.

    Args:
        kept: bytes of each file that became a document, as it was found.
        skipped: all others.

    Returns:
        A row per reason in the order of the steps, with what it took and what it left; the first,
        with an empty reason, is everything that was found.
    """
    files, sizes = Counter[str](), Counter[str]()
    for skip in skipped:
        files[skip.reason] += 1
        sizes[skip.reason] += skip.num_bytes
    left_files, left_bytes = len(kept) + files.total(), sum(kept) + sizes.total()
    rows = [_row("", left_files, left_bytes, left_files, left_bytes)]
    for reason in sorted(files, key=lambda r: (REASONS.index(r) if r in REASONS else -1, r)):
        left_files -= files[reason]
        left_bytes -= sizes[reason]
        rows.append(_row(reason, files[reason], sizes[reason], left_files, left_bytes))
    return rows


def _row(reason: str, files: int, size: int, left_files: int, left_bytes: int) -> dict[str, Any]:
    return {
        "reason": reason, "files": files, "bytes": size, "left_files": left_files,
        "left_bytes": left_bytes,
    }  # fmt: skip
