"""The parts of a report that show code: completions side by side, training samples in color."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from finetune.report.charts import count, is_number, significant
from finetune.report.read import ShownSample

LONG_LINE = 240
CONTROLS = {code: "\ufffd" for code in range(32) if chr(code) not in "\t\n\r"}
ORDERS = {
    "psm": "prefix &rarr; suffix &rarr; MIDDLE",
    "spm": "suffix &rarr; prefix &rarr; MIDDLE",
    "ar": "plain text, left to right",
}


def code(text: str | bytes | None, head: int, tail: int) -> str:
    """Escape source code; lines between the first `head` and the last `tail` become a marker."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    shown = (text or "").translate(CONTROLS).split("\n")
    cut = len(shown) - head - tail
    if cut < 3:
        return "\n".join(map(_line, shown))
    first = "".join(_line(line) + "\n" for line in shown[:head])
    last = "".join("\n" + _line(line) for line in shown[len(shown) - tail :]) if tail else ""
    return f'{first}<span class="cut">&hellip; {count(cut)} lines &hellip;</span>{last}'


def _line(line: str) -> str:
    if len(line) <= LONG_LINE:
        return escape(line)
    half = LONG_LINE // 2
    cut = f'<span class="cut">&hellip; {count(len(line) - 2 * half)} characters &hellip;</span>'
    return escape(line[:half]) + cut + escape(line[-half:])


def sample_card(sample: ShownSample) -> str:
    """Show one training sample in the order of the file, the MIDDLE in color."""
    row, text = sample.row, sample.text
    start, end, order = row["start_byte"], row["end_byte"], row["order"]
    middle = code(text[start:end], 14, 8)
    if order == "ar":
        body = f'<span class="middle">{middle}</span>'
    else:
        body = (
            f'<span class="prefix">{code(text[:start], 3, 9)}</span>'
            f'<span class="middle">{middle or "&empty;"}</span>'
            f'<span class="suffix">{code(text[end:], 8, 2)}</span>'
        )
    chips = [order.upper(), row["sampler"], row["kind"], row["boundary"] if order != "ar" else ""]
    tokens = "".join(
        f'<span class="key {part}">{count(row[f"{part}_tokens"])} tokens</span>'
        for part in (("middle",) if order == "ar" else ("prefix", "middle", "suffix"))
    )
    return (
        f'<article class="card"><header>{_where(row)}{_chips(chips)}</header>'
        f'<pre class="sample">{body}</pre>'
        f"<footer>{tokens}<span>{ORDERS.get(order, escape(order))}</span></footer></article>"
    )


def _where(row: Mapping[str, Any]) -> str:
    path = f"{row['repo']}/{row['path']}" if row.get("repo") else row["path"]
    return f'<code class="path">{escape(path)}</code>'


def _chips(labels: Sequence[str]) -> str:
    return "".join(f'<span class="chip">{escape(label)}</span>' for label in labels if label)


def pick_completions(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Choose three largest gains, three evenly spaced rows and three largest setbacks.

    The gain is the loss of the base minus the loss of the adapter on the true MIDDLE; without a
    base it is minus the adapter's loss. Equal gains are ordered by path and place.

    Returns:
        `(rank, row)`, best first; all rows where there are nine or fewer.
    """
    rows = [row for row in rows if is_number(row.get("adapter_loss"))]
    ordered = sorted(rows, key=lambda r: (-gain(r), r["path"], r["start_byte"]))
    last = len(ordered) - 1
    places = {0, 1, 2, last - 2, last - 1, last, *(round(last * i / 4) for i in (1, 2, 3))}
    chosen = range(len(ordered)) if last < 9 else sorted(places)
    return [(f"{count(i + 1)} of {count(last + 1)}", ordered[i]) for i in chosen]


def gain(row: Mapping[str, Any]) -> float:
    """Return by how many nats per token the adapter beats the base on the true MIDDLE."""
    base = row.get("base_loss")
    return (base if is_number(base) else 0.0) - row["adapter_loss"]


def completion_card(rank: str, row: Mapping[str, Any]) -> str:
    """Show truth, base and adapter side by side, within the lines around them."""
    truth = row["middle"]
    columns = [_column("truth", "", code(truth, 10, 3))]
    for name in ("base", "adapter"):
        if row.get(name) is not None:
            columns.append(_written(name, row[name], truth))
    chips = _chips([row["language"], row["scenario"]])
    return (
        f'<article class="card"><header>{_where(row)}{chips}{_gain_chip(rank, row)}</header>'
        f'<pre class="around">{code(_tail(row["prefix_tail"], 6), 0, 8)}</pre>'
        f'<div class="columns">{"".join(columns)}</div>'
        f'<pre class="around">{code(row["suffix_head"], 4, 0)}</pre></article>'
    )


def _tail(text: str, num_lines: int) -> str:
    return "\n".join(text.split("\n")[-num_lines:])


def _gain_chip(rank: str, row: Mapping[str, Any]) -> str:
    if not is_number(row.get("base_loss")):
        return f'<span class="chip">rank {rank}</span>'
    by = gain(row)
    css = "better" if by > 0 else "worse" if by < 0 else "undecided"
    return (
        f'<span class="chip {css}">loss {significant(row["base_loss"])} &rarr; '
        f'{significant(row["adapter_loss"])}</span><span class="chip">rank {rank}</span>'
    )


def _written(name: str, text: str, truth: str) -> str:
    """Mark what a model wrote from the first character that departs from the truth."""
    if text == truth:
        return _column(name, "exact", code(text, 10, 3))
    pairs = zip(text, truth, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(truth)))
    right, wrong = text[:same], text[same:]
    body = (code(right, 8, 2) if right else "") + (
        f"<mark>{code(wrong, 8, 2)}</mark>" if wrong else ""
    )
    note = "differs" if wrong else "stops early" if text else "nothing written"
    return _column(name, note, body)


def _column(title: str, note: str, body: str) -> str:
    css = "exact" if note == "exact" else ""
    return (
        f'<div class="column {title}"><h4>{title.title()} '
        f'<small class="{css}">{note}</small></h4><pre>{body}</pre></div>'
    )
