"""One self-contained `report.html` of a run: no script, no font, no request, light and dark."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from finetune.metrics import FEW_FILES, METRICS, Metric
from finetune.recipe.model import ADAPTERS
from finetune.report import charts
from finetune.report.charts import (
    absent,
    count,
    is_number,
    percent,
    signed,
    significant,
    size,
    table,
)
from finetune.report.corpus import corpus_section
from finetune.report.data import data_section
from finetune.report.excerpts import completion_card, pick_completions, sample_card
from finetune.report.read import Inputs, read_inputs
from finetune.report.training import training_section
from finetune.store import write_text

HEADLINE = ("loss_middle", "exact_match", "edit_similarity", "parse_rate")
OPEN_TABLES = ("loss_middle", "exact_match", "edit_similarity")
SIGNS = {"better": "&#9650; better", "worse": "&#9660; worse", "undecided": "undecided"}


def write_report(run: Path) -> Path:
    """Write `run/report.html` from whatever the run folder holds so far.

    Equal inputs give equal bytes. What is missing is named, with the command that makes it.

    Returns:
        Path of the report.
    """
    path = run / "report.html"
    write_text(path, make_page(read_inputs(run)))
    return path


def make_page(inputs: Inputs) -> str:
    """Return the whole report as HTML."""
    css = resources.files("finetune.report").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in SECTIONS)
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{make(inputs)}</section>'
        for key, title, make in SECTIONS
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(inputs.name)} - sfim report</title><style>\n{css}</style></head>\n"
        f'<body><nav aria-label="Contents"><strong>{escape(inputs.name)}</strong><ul>{links}</ul>'
        f"</nav><main>{_headline(inputs)}{body}</main></body></html>\n"
    )


def verdict(metric: Metric, paired: Mapping[str, Any]) -> str:
    """Return `"better"` or `"worse"` only where an interval excludes 0, else `"undecided"`."""
    low, high = paired.get("low"), paired.get("high")
    if not (is_number(low) and is_number(high)) or low <= 0 <= high:
        return "undecided"
    return "better" if (high < 0) == metric.lower_is_better else "worse"


def _headline(inputs: Inputs) -> str:
    return (
        f"<header><p>sfim report</p><h1>{escape(inputs.name)}</h1>"
        f'<p class="lead">{_sentence(inputs)}</p>{_tiles(inputs.metrics)}</header>'
    )


def _sentence(inputs: Inputs) -> str:
    model, stats = inputs.recipe.get("model", {}), inputs.stats
    adapter = model.get("adapter", "lora")
    how = "All weights of" if adapter == "full" else f"A {ADAPTERS[adapter]} adapter for"
    name = f"<strong>{escape(str(model.get('name') or ''))}</strong>"
    parts = [f"{how} {name}" if model.get("name") else "A model from nothing" if model else "A run"]
    if stats:
        kept = stats.get("documents", {}).get("kept", 0)
        trained = kept - stats.get("held_out", {}).get("documents", 0)
        parts.append(
            f", tuned on {count(trained)} of {count(kept)} files ({size(stats.get('bytes'))}): "
            f"{_languages(stats)}"
        )
    if inputs.metrics.get("adapter"):
        now = inputs.metrics["adapter"]
        files = f" in {count(now['files'])} held-out files" if "files" in now else ""
        parts.append(f"; evaluated on {_places(now.get('n'))}{files}")
    return "".join(parts) + "."


def _languages(stats: Mapping[str, Any]) -> str:
    languages = charts.ranked(stats.get("languages", {}))
    total = sum(number for _, number in languages) or 1
    shown = [f"{percent(n / total)} {escape(name)}" for name, n in languages[:3]]
    return ", ".join([*shown, "and others"] if languages[3:] else shown)


def _tiles(metrics: Mapping[str, Any]) -> str:
    now, paired = metrics.get("adapter", {}), metrics.get("paired", {})
    tiles = [
        _tile(name, metrics.get("base", {}).get(name), now[name], paired.get(name, {}))
        for name in HEADLINE
        if is_number(now.get(name))
    ]
    if not tiles:
        return ""
    return f'<div class="tiles">{"".join(tiles)}</div>{_summary(paired)}'


def _tile(name: str, before: object, now: object, paired: Mapping[str, Any]) -> str:
    metric = METRICS[name]
    result = verdict(metric, paired)
    change = ""
    if paired:
        change = (
            f"<p>{_value(metric, before)} before &middot; <b>{_signed(metric, paired)}</b></p>"
            f"<p>95&nbsp;% interval {_range(metric, paired)}</p><p><em>{SIGNS[result]}</em></p>"
        )
    return (
        f'<div class="tile {result}"><h3>{metric.label}</h3>'
        f'<p class="number">{_value(metric, now)}</p>{change}</div>'
    )


def _summary(paired: Mapping[str, Any]) -> str:
    results = [verdict(METRICS[name], paired[name]) for name in METRICS if paired.get(name)]
    if not results:
        return ""
    counts = ", ".join(f"{results.count(key)} {key}" for key in SIGNS)
    return f'<p class="note">Of {len(results)} measures: {counts}.</p>'


def _value(metric: Metric, value: object) -> str:
    return percent(value) if metric.share else significant(value)


def _signed(metric: Metric, paired: Mapping[str, Any], key: str = "difference") -> str:
    """Format one end or the middle of an interval; shares in percentage points."""
    scale, value = 100 if metric.share else 1, paired.get(key)
    like = scale * _reach([paired])
    return signed(scale * value if is_number(value) else None, like)


def _range(metric: Metric, paired: Mapping[str, Any]) -> str:
    if not (is_number(paired.get("low")) and is_number(paired.get("high"))):
        return "n/a"
    unit = "&nbsp;points" if metric.share else ""
    return f"{_signed(metric, paired, 'low')} to {_signed(metric, paired, 'high')}{unit}"


def _results(inputs: Inputs) -> str:
    metrics = inputs.metrics
    if not metrics.get("adapter"):
        return absent("evaluation", "sfim evaluate RECIPE")
    note = (
        '<p class="note">Differences are adapter minus base on the same places, shares in '
        "percentage points, with 95&nbsp;% bootstrap intervals that resample files. Colored only "
        "where the interval excludes 0; the line in the middle of each chart is 0. "
        f"Fewer than {FEW_FILES} files have no interval.</p>"
    )
    parts = [note, _overall(metrics, "base", "adapter", "paired")]
    for key, title in (("by_scenario", "By scenario"), ("by_language", "By language")):
        if metrics["adapter"].get(key):
            parts.append(f"<h3>{title}</h3>{_breakdown(metrics, key)}")
    if metrics.get("control"):
        control = _overall(metrics, "base", "control", "paired_control")
        parts.append(f"<h3>Control against the base</h3>{control}")
    if metrics.get("adapter_against_control"):
        both = _overall(metrics, "control", "adapter", "adapter_against_control")
        parts.append(f"<h3>Adapter against the control</h3>{both}")
    return "".join(parts)


def _overall(metrics: Mapping[str, Any], before: str, after: str, paired: str) -> str:
    old, new, differences = (metrics.get(key, {}) for key in (before, after, paired))
    rows = [
        _row(
            f'{METRICS[name].label}<small class="block">{METRICS[name].meaning}</small>',
            METRICS[name],
            (old.get(name), new.get(name)),
            differences.get(name, {}),
            _reach([differences.get(name, {})]),
        )
        for name in METRICS
        if is_number(new.get(name)) or is_number(old.get(name))
    ]
    return table(("Measure", before, after, "difference", "", "95&nbsp;% interval"), rows)


def _breakdown(metrics: Mapping[str, Any], key: str) -> str:
    tables = []
    for name, metric in METRICS.items():
        table = _metric_table(metrics, key, name)
        if table:
            state = " open" if name in OPEN_TABLES else ""
            tables.append(f"<details{state}><summary>{metric.label}</summary>{table}</details>")
    return "".join(tables)


def _metric_table(metrics: Mapping[str, Any], key: str, name: str) -> str:
    old, new, paired = (metrics.get(k, {}).get(key, {}) for k in ("base", "adapter", "paired"))
    groups = [group for group in sorted(new) if is_number(new[group].get(name))]
    reach = _reach([paired.get(group, {}).get(name, {}) for group in groups])
    rows = [
        _row(
            f"{escape(group)} <small>{_places(new[group].get('n'))}</small>",
            METRICS[name],
            (old.get(group, {}).get(name), new[group][name]),
            paired.get(group, {}).get(name, {}),
            reach,
        )
        for group in groups
    ]
    head = ("", "base", "adapter", "difference", "", "95&nbsp;% interval")
    return table(head, rows) if rows else ""


def _places(number: object) -> str:
    return f"{count(number)} {'place' if number == 1 else 'places'}"


def _reach(intervals: Iterable[Mapping[str, Any]]) -> float:
    ends = [one.get(key) for one in intervals for key in ("low", "high", "difference")]
    return max((abs(end) for end in ends if is_number(end)), default=1.0)


def _row(label: str, metric: Metric, values: tuple, paired: Mapping[str, Any], reach: float) -> str:
    result, chart = verdict(metric, paired), ""
    low, middle, high = (paired.get(key) for key in ("low", "difference", "high"))
    if is_number(low) and is_number(middle) and is_number(high):
        chart = charts.interval(middle, low, high, reach, result)
    before, after = (_value(metric, value) for value in values)
    return (
        f'<tr><th scope="row">{label}</th><td data-name="before">{before}</td>'
        f'<td data-name="after">{after}</td>'
        f'<td data-name="difference" class="{result}">{_signed(metric, paired)}</td>'
        f"<td>{chart}</td><td>{_range(metric, paired) if paired else ''}</td></tr>"
    )


def _completions(inputs: Inputs) -> str:
    if not inputs.predictions:
        return absent("completions", "sfim evaluate RECIPE")
    chosen = pick_completions(inputs.predictions)
    note = (
        f'<p class="note">{len(chosen)} of {count(len(inputs.predictions))} held-out places, '
        "chosen by rule: ranked by the loss gained on the truth, the three at the top, three "
        "evenly spaced and the three at the bottom. <mark>Marked</mark> is where a completion "
        "departs from the truth.</p>"
    )
    return note + "".join(completion_card(rank, row) for rank, row in chosen)


def _samples(inputs: Inputs) -> str:
    if not inputs.samples:
        return absent("training samples", "sfim prepare RECIPE")
    note = (
        '<p class="note">Chosen by the hash of their file, one of each order and sampler first. '
        'Colors: <span class="key prefix">prefix</span> <span class="key middle">MIDDLE, what is '
        'learned to be written</span> <span class="key suffix">suffix</span></p>'
    )
    return note + "".join(map(sample_card, inputs.samples))


def _recipe(inputs: Inputs) -> str:
    if not inputs.recipe:
        return absent("recipe", "sfim prepare RECIPE")
    text = yaml.safe_dump(inputs.recipe, sort_keys=False, allow_unicode=True)
    versions = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(version))}</td></tr>'
        for name, version in inputs.versions.items()
    )
    shown = (
        f"<details><summary>Versions of {len(inputs.versions)} libraries</summary>"
        f'<div class="scroll"><table><tbody>{versions}</tbody></table></div></details>'
        if versions
        else absent("versions", "sfim prepare RECIPE")
    )
    return (
        f"<details><summary>The resolved recipe</summary><pre>{escape(text)}</pre></details>{shown}"
    )


SECTIONS: tuple[tuple[str, str, Callable[[Inputs], str]], ...] = (
    ("results", "Results", _results),
    ("training", "Training", training_section),
    ("completions", "Completions", _completions),
    ("samples", "Training samples", _samples),
    ("corpus", "Corpus", corpus_section),
    ("data", "Samples and packs", data_section),
    ("recipe", "Recipe and versions", _recipe),
)
