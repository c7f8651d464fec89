"""The numbers of `metrics.json` as a table in a terminal."""

from collections.abc import Mapping
from typing import Any

from finetune.metrics import METRICS
from finetune.show import align


def results_table(metrics: Mapping[str, Any]) -> str:
    """Return the table base against adapter (and control), differences with 95 % intervals.

    Args:
        metrics: what `evaluate` returns; `base`, `control` and the differences may be absent.

    Returns:
        A row per measure of `METRICS`, a column per model and per difference, and a last line with
        the numbers of spans and files.
    """
    models = [name for name in ("base", "control", "adapter") if name in metrics]
    pairs = [
        (title, metrics[key])
        for title, key in (
            ("adapter - base [95 %]", "paired"),
            ("control - base [95 %]", "paired_control"),
            ("adapter - control [95 %]", "adapter_against_control"),
        )
        if key in metrics
    ]
    rows = [["", *models, *(title for title, _ in pairs)]]
    for name, metric in METRICS.items():
        values = [f"{metrics[model][name]:.4f}" for model in models]
        differences = [interval(pair[name]) for _, pair in pairs]
        rows.append([metric.label, *values, *differences])
    adapter = metrics["adapter"]
    return f"{align(rows)}\n{adapter['n']} spans of {adapter['files']} held-out files"


def interval(value: Mapping[str, float | None]) -> str:
    """Return a difference with its interval: `-0.12 [-0.15, -0.09]`, or `-0.12 [n/a]`."""
    low, high = value["low"], value["high"]
    ends = "n/a" if low is None or high is None else f"{low:+.4f}, {high:+.4f}"
    return f"{value['difference']:+.4f} [{ends}]"
