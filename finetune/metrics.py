"""How good completions are: per-item measures, means, and paired intervals that resample files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from fim import FimError, parse
from fim.syntax import error_bytes

FEW_FILES = 5
"""Fewer have no interval: draws from two or three files show little but their own values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one model did on one span."""

    file: str
    """Document id: the unit that is resampled."""
    scenario: str
    language: str
    exact_match: float
    """1 if the completion is the MIDDLE, blanks at both ends aside."""
    edit_similarity: float
    """1 - Levenshtein distance / longer length, in characters."""
    stop_rate: float
    """1 if the model stopped by itself."""
    parse_rate: float
    """1 if the completed file has no more bytes in syntax errors than the original; see `parses`.
    """
    loss_middle: float
    """Mean negative log-likelihood of the MIDDLE's tokens and the end token, natural logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a number of `metrics.json` is called and read."""

    label: str
    meaning: str
    lower_is_better: bool = False
    share: bool = True
    """Whether it is a share of 1, shown as percent."""


METRICS = {
    "loss_middle": Metric(
        label="Loss on the MIDDLE",
        meaning="nats per token of the true MIDDLE",
        lower_is_better=True,
        share=False,
    ),
    "exact_match": Metric(label="Exact match", meaning="completions equal to the truth"),
    "edit_similarity": Metric(label="Edit similarity", meaning="1 minus the edit distance"),
    "parse_rate": Metric(
        label="Parses", meaning="completed files with no more syntax errors than the original"
    ),
    "stop_rate": Metric(label="Stops", meaning="completions that end by themselves"),
    "loss_ar": Metric(
        label="Loss on whole files",
        meaning="nats per token of held-out files, left to right",
        lower_is_better=True,
        share=False,
    ),
}
MEASURES = tuple(name for name in METRICS if name != "loss_ar")
"""Those a `Score` has: one number per span."""


def exact_match(completion: str, middle: str) -> float:
    """Return 1.0 if the texts are equal, blanks at both ends aside."""
    return float(completion.strip() == middle.strip())


def edit_similarity(completion: str, middle: str) -> float:
    """Return 1 - Levenshtein distance / longer length; 1.0 for two empty texts.

    Source:
        CrossCodeEval (arXiv 2310.11248), "edit similarity".
    """
    return Levenshtein.normalized_similarity(completion, middle)


def parses(prefix: bytes, completion: bytes, suffix: bytes, middle: bytes, language: str) -> float:
    """Return 1.0 if the completed file has no more syntax errors than the original.

    That is: no more bytes in ERROR nodes, and where the original has no error at all, no token
    that the parser had to make up (`return (1;` has no ERROR node, only a MISSING one).
    """
    try:
        before = parse(prefix + middle + suffix, language)
        after = parse(prefix + completion + suffix, language)
    except FimError:  # no grammar or out of time
        return 0.0
    if after.root.has_error and not before.root.has_error:
        return 0.0
    return float(error_bytes(after) <= error_bytes(before))


def summarize(scores: Sequence[Score]) -> dict:
    """Return the means of one model's scores.

    Returns:
        `n` (spans), `files`, the mean of each of `MEASURES`; the same per group under
        `by_scenario` and `by_language`.
    """
    return _means(scores) | {
        "by_scenario": _grouped(scores, lambda s: s.scenario, _means),
        "by_language": _grouped(scores, lambda s: s.language, _means),
    }


def compare(base: Sequence[Score], tuned: Sequence[Score], resamples: int, seed: int) -> dict:
    """Return the difference tuned - base of each measure with its paired 95 % interval.

    Args:
        base: scores of one model.
        tuned: scores of the other on the same spans, in the same order.
        resamples: bootstrap resamples.
        seed: of the resamples.

    Returns:
        `n` (pairs), and for each of `MEASURES` what `paired_interval` returns; the same per group
        under `by_scenario` and `by_language`.
    """
    pairs = list(zip(base, tuned, strict=True))

    def differences(group: Sequence[tuple[Score, Score]]) -> dict:
        files = [a.file for a, _ in group]
        return {"n": len(group)} | {
            name: paired_interval(
                files,
                [getattr(b, name) - getattr(a, name) for a, b in group],
                [1.0] * len(group),
                resamples,
                seed,
            )
            for name in MEASURES
        }

    return differences(pairs) | {
        "by_scenario": _grouped(pairs, lambda p: p[0].scenario, differences),
        "by_language": _grouped(pairs, lambda p: p[0].language, differences),
    }


def paired_interval(
    files: Sequence[str],
    differences: Sequence[float],
    counts: Sequence[float],
    resamples: int,
    seed: int,
) -> dict[str, float | None]:
    """Return a ratio of sums with a 95 % bootstrap interval that resamples whole files.

    Spans of one file are alike; resampling spans would claim more certainty than there is.

    Args:
        files: file of each item.
        differences: sum of differences of each item.
        counts: how much each item weighs.
        resamples: number of resamples.
        seed: of the generator.

    Returns:
        `difference`, `low`, `high`: the ratio of sums and the 2.5 % and 97.5 % percentiles.
        `low` and `high` are `None` for fewer than `FEW_FILES` files.

    Source:
        Cluster bootstrap, Efron and Tibshirani 1993, chapter 8.
    """
    names, index = np.unique(np.asarray(files), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(differences, dtype=float), minlength=len(names))
    sizes = np.bincount(index, weights=np.asarray(counts, dtype=float), minlength=len(names))
    difference = float(sums.sum() / sizes.sum())
    if len(names) < FEW_FILES:
        return {"difference": difference, "low": None, "high": None}
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    ratios = (draws @ sums) / np.maximum(draws @ sizes, 1e-12)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return {"difference": difference, "low": float(low), "high": float(high)}


def _means(scores: Sequence[Score]) -> dict:
    means = {name: float(np.mean([getattr(s, name) for s in scores])) for name in MEASURES}
    return {"n": len(scores), "files": len({s.file for s in scores})} | means


def _grouped(
    items: Sequence[Any], key: Callable[[Any], str], summary: Callable[[Sequence[Any]], dict]
) -> dict[str, dict]:
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return {name: summary(group) for name, group in sorted(groups.items())}
