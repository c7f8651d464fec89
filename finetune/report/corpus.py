"""The part of a report about the corpus: what was found, what was dropped and why, what is left."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from finetune.report import charts
from finetune.report.charts import absent, count, is_number, percent, significant, size, table
from finetune.report.read import NUM_EXAMPLES, Cluster, DroppedFiles, Inputs

NUM_BARS = 20
FOUND = "found"
"""Label of the funnel's first row, whose reason is empty."""
BARS = (
    ("Languages", "languages", ""),
    ("Licences", "licences", "Files by what their header or the nearest licence file says."),
    ("Secrets and personal data", "secrets", "By kind; their text is kept nowhere."),
    ("Benchmarks", "benchmarks", "Files dropped since they hold a task of an evaluation set."),
)
"""Heading, key of the counts and what is counted."""
ORDER = {
    "repositories": "repositories",
    "files": "files",
    "linked": "files with a link",
    "imports": "imports",
    "resolved": "of own files",
    "external": "of other code",
    "edges": "links",
    "import_edges": "links by import",
    "backward": "that point back",
    "forward": "that point ahead",
    "cycles": "import cycles",
    "cyclic_files": "files in cycles",
}
DUPLICATES = {
    "exact": "exact copies",
    "near": "near copies",
    "clusters": "clusters",
    "largest": "files in the largest",
}
"""Name of each number, in the order they are shown in."""


def corpus_section(inputs: Inputs) -> str:
    """Show what became of every file that was found; keys that an older run lacks are left out."""
    counts = inputs.counts
    parts = [
        _funnel(counts.get("funnel", ())),
        _left_out(counts.get("documents", {}).get("skipped", {}), inputs.dropped),
        *(_bars(title, counts.get(key, {}), note) for title, key, note in BARS),
        _replay(counts.get("replay", {})),
        _duplicates(counts.get("duplicates", {}), inputs.clusters),
        _order(counts.get("order", {})),
        _projects(counts.get("projects", ())),
    ]
    return "".join(parts) or absent("corpus", "sfim prepare RECIPE")


def _funnel(steps: Sequence[Mapping[str, Any]]) -> str:
    """Draw a row per step, in the order of the steps: what it dropped, and what was left then."""
    if not steps:
        return ""
    whole = steps[0]["bytes"]
    note = (
        '<p class="note">From top to bottom: what each step dropped, of what the steps above it '
        'had left. Bars are bytes: <span class="key train">left</span> '
        '<span class="key dropped">dropped here</span></p>'
    )
    head = ("", "files dropped", "bytes dropped", "files left", "bytes left", "")
    rows = [_step(step, whole) for step in steps]
    return f"<h3>From what was found to what is kept</h3>{note}{table(head, rows)}"


def _step(step: Mapping[str, Any], whole: float) -> str:
    reason = step["reason"]
    dropped = (count(step["files"]), size(step["bytes"])) if reason else ("", "")
    left, gone = (100 * step[k] / whole if whole else 0 for k in ("left_bytes", "bytes"))
    bar = (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect width="{left:.2f}" height="8"/>'
        f'<rect class="dropped" x="{left:.2f}" width="{gone if reason else 0:.2f}" height="8"/>'
        "</svg>"
    )
    cells = (*dropped, count(step["left_files"]), size(step["left_bytes"]), bar)
    shown = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(reason or FOUND)}</th>{shown}</tr>'


def _left_out(reasons: Mapping[str, int], dropped: Mapping[str, DroppedFiles]) -> str:
    """Draw a bar per reason that opens to files drawn by the hash of their path."""
    numbers = {reason: files.number for reason, files in dropped.items()} | dict(reasons)
    if not numbers:
        return ""
    total, rows = sum(numbers.values()), charts.ranked(numbers)
    drawn = []
    for reason, number in rows:
        share = f"{count(number)} <small>{percent(number / total if total else 0)}</small>"
        row = f'<div class="row">{charts.bar(reason, number, rows[0][1], share)}</div>'
        drawn.append(_opening(row, dropped.get(reason)))
    note = (
        f'<p class="note">Each opens to {NUM_EXAMPLES} of its files or all, drawn by the hash of '
        "their path; corpus/skipped.parquet has every one.</p>"
    )
    head = f"<h3>Files left out, {count(total)}</h3>"
    return f'{head}{note if dropped else ""}<div class="bars">{"".join(drawn)}</div>'


def _opening(row: str, files: DroppedFiles | None) -> str:
    if files is None:
        return row
    items = "".join(
        f"<li><code>{escape(path)}</code>{f' <small>{escape(why)}</small>' if why else ''}</li>"
        for path, why in files.examples
    )
    return f"<details><summary>{row}</summary><ul>{items}</ul></details>"


def _bars(title: str, values: Mapping[str, float], note: str) -> str:
    if not values:
        return ""
    most = f", the {NUM_BARS} most frequent of {len(values)}" if len(values) > NUM_BARS else ""
    said = f'<p class="note">{note}</p>' if note else ""
    return f"<h3>{title}{most}</h3>{said}{charts.bars(values, NUM_BARS)}"


def _replay(replay: Mapping[str, Any]) -> str:
    if not replay.get("documents"):
        return ""
    return (
        f"<h3>Replay</h3><p>{count(replay['documents'])} documents, {size(replay['bytes'])}: "
        f"{percent(replay['share'])} of the training bytes are there so that the model does not "
        "forget.</p>"
    )


def _duplicates(numbers: Mapping[str, Any], clusters: Sequence[Cluster]) -> str:
    if not any(numbers.values()) and not clusters:
        return ""
    listed = "".join(map(_cluster, clusters))
    return f"<h3>Duplicates</h3>{_facts(numbers, DUPLICATES)}{listed}"


def _cluster(cluster: Cluster) -> str:
    rows = "".join(
        f"<li><code>{escape(path)}</code> <small>"
        f"{'kept' if kept else f'{percent(similarity)} alike'}</small></li>"
        for path, similarity, kept in cluster.members
    )
    rest = cluster.number - len(cluster.members)
    more = f"<li>and {count(rest)} more</li>" if rest else ""
    head = f"{count(cluster.number)} files like <code>{escape(cluster.members[0][0])}</code>"
    return f"<details><summary>{head}</summary><ul>{rows}{more}</ul></details>"


def _order(numbers: Mapping[str, Any]) -> str:
    if not any(numbers.values()):
        return ""
    says = "A link is a pair of files of which one uses the other."
    if not numbers.get("forward"):
        says += " Outside cycles, every link by import points back to a file that comes before."
    note = f'<p class="note">{says}</p>'
    return f"<h3>Order of the files</h3>{note}{_facts(numbers, ORDER)}"


def _facts(numbers: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Show each number under its name, in the order of `names` and then of the numbers."""
    keys = [*(key for key in names if key in numbers), *(k for k in numbers if k not in names)]
    shown = "".join(
        f"<div><dt>{escape(names.get(key, key.replace('_', ' ')))}</dt>"
        f"<dd>{_cell(numbers[key])}</dd></div>"
        for key in keys
    )
    return f'<dl class="facts">{shown}</dl>'


def _projects(projects: Sequence[Mapping[str, Any]]) -> str:
    if not projects:
        return ""
    head = list(projects[0])
    rows = [
        "<tr>"
        + f'<th scope="row">{escape(str(row[head[0]]))}</th>'
        + "".join(f"<td>{_cell(row.get(key))}</td>" for key in head[1:])
        + "</tr>"
        for row in projects
    ]
    titles = ["", *(escape(key.replace("_", " ")) for key in head[1:])]
    return f"<h3>Projects, the highest rank first</h3>{table(titles, rows)}"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and is_number(value) and value != int(value):
        return significant(value)
    return count(value) if is_number(value) or value is None else escape(str(value))
