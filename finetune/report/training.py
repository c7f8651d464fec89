"""The part of a report about the training: losses over the steps, by kind of sample, and speed."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from finetune.report import charts
from finetune.report.charts import absent, count, is_number, percent, signed, significant, table
from finetune.report.read import Inputs

COLORS = 6
"""Lines of one chart that have a color of their own."""
SPIKES = 5
"""Skipped steps that are named one by one."""
Points = tuple[tuple[float, float], ...]


def training_section(inputs: Inputs) -> str:
    """Show how the losses fell, on which kind of sample, and how fast the tokens went by."""
    train = points_of(inputs.log, "loss")
    held_out = points_of(inputs.log, "loss_middle") or points_of(inputs.log, "loss_ar")
    if not train and not held_out:
        return absent("training log", "sfim train RECIPE")
    middle = any("loss_middle" in line for line in inputs.log)
    label = "held out, MIDDLEs alone" if middle else "held out"
    series = [
        *_each_step(inputs.log, "loss", "training"),
        charts.Series(label=label, css="held-out", points=held_out, dots=True),
    ]
    speed = smooth(points_of(inputs.log, "tokens_per_second"))
    parts = [
        f"<p>{_sentence(train, held_out, inputs.log)}</p>{_faults(inputs.log)}",
        _chart(series, "loss, nats per token"),
        _by_kind(inputs.log),
        _folded("Gradient norm", _each_step(inputs.log, "grad_norm", "norm"), "gradient norm"),
        _folded("Learning rate", [_plain(points_of(inputs.log, "learning_rate"))], "learning rate"),
        _folded("Speed", [_plain(speed)], "tokens a second, running mean"),
    ]
    return "".join(parts)


def points_of(log: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Return step and value of the log's lines that have the key."""
    return tuple((line["step"], line[key]) for line in log if is_number(line.get(key)))


def smooth(points: Points) -> Points:
    """Average each point with the ones before it, over a thirtieth of the run."""
    width = max(1, len(points) // 30)
    values = [y for _, y in points]
    windows = (values[max(0, i - width + 1) : i + 1] for i in range(len(points)))
    return tuple((x, sum(w) / len(w)) for (x, _), w in zip(points, windows, strict=True))


def _sentence(train: Points, held_out: Points, log: Sequence[Mapping[str, Any]]) -> str:
    last = max(step for step, _ in (*train, *held_out))
    text = f"{count(last)} steps."
    if held_out:
        best = min(held_out, key=lambda point: point[1])
        text += (
            f" Held-out loss {significant(held_out[0][1])} at step {count(held_out[0][0])}, "
            f"{significant(held_out[-1][1])} at step {count(held_out[-1][0])}; "
            f"lowest {significant(best[1])} at step {count(best[0])}."
        )
    speeds = [speed for _, speed in points_of(log, "tokens_per_second")]
    if speeds:
        text += f" {significant(median(speeds))} tokens a second, the median of the steps"
        shares = [share for _, share in points_of(log, "mfu")]
        text += f": {percent(median(shares))} of what the chip can do." if shares else "."
    return text


def _faults(log: Sequence[Mapping[str, Any]]) -> str:
    """Name the steps that were skipped, and the one that stopped the run."""
    spikes = [
        f"step {count(line['step'])} ({line['skipped']})" for line in log if "skipped" in line
    ]
    more = [f"{count(len(spikes) - SPIKES)} more"] if spikes[SPIKES:] else []
    parts = [f"Skipped as spikes: {', '.join([*spikes[:SPIKES], *more])}"] if spikes else []
    parts += [f"Stopped at {line['stopped']}" for line in log if "stopped" in line][-1:]
    return "".join(f'<p class="note">{escape(text)}.</p>' for text in parts)


def _each_step(log: Sequence[Mapping[str, Any]], key: str, label: str) -> list[charts.Series]:
    """Draw a figure of each step, its running mean, and a dot where the step was skipped."""
    points = points_of(log, key)
    skipped = points_of([line for line in log if "skipped" in line], key)
    return [
        charts.Series(label=f"{label}, each logged step", css="faint", points=points),
        charts.Series(label=f"{label}, running mean", css="train", points=smooth(points)),
        charts.Series(label="skipped as a spike", css="skipped", points=skipped, dots=True),
    ]


def _plain(points: Points) -> charts.Series:
    return charts.Series(label="", css="train", points=points)


def _chart(series: Sequence[charts.Series], label: str) -> str:
    drawn = [one for one in series if one.points]
    return charts.lines(drawn, "step", label) if drawn else ""


def _folded(title: str, series: Sequence[charts.Series], label: str) -> str:
    chart = _chart(series, label)
    return f"<details><summary>{title}</summary>{chart}</details>" if chart else ""


def _by_kind(log: Sequence[Mapping[str, Any]]) -> str:
    """Draw the held-out loss by order and by sampler, and list it by construct and node type."""
    orders = {"AR": points_of(log, "loss_ar")}
    orders |= {name.upper(): points for name, points in _group(log, "order").items()}
    shown = _lines("By order", orders)
    shown += _lines("By sampler of the MIDDLE", _group(log, "sampler"))
    if constructs := _first_and_last(_group(log, "construct")):
        shown += f"<h4>By construct of the MIDDLE</h4>{constructs}"
    if kinds := _first_and_last(_group(log, "kind")):
        shown += f"<details><summary>By node type of the MIDDLE</summary>{kinds}</details>"
    return f"<h3>Held-out loss by kind of sample</h3>{shown}" if shown else ""


def _group(log: Sequence[Mapping[str, Any]], group: str) -> dict[str, Points]:
    keys = sorted({key for line in log for key in line if key.startswith(f"{group}/")})
    return {key.split("/", 1)[1]: points_of(log, key) for key in keys}


def _lines(title: str, by_name: Mapping[str, Points]) -> str:
    series = [
        charts.Series(label=name, css=f"color-{number % COLORS}", points=points, dots=True)
        for number, (name, points) in enumerate(sorted(by_name.items()))
        if points
    ]
    if not series:
        return ""
    return f"<h4>{title}</h4>{charts.lines(series, 'step', 'held-out loss, nats per token')}"


def _first_and_last(by_name: Mapping[str, Points]) -> str:
    shown = {name: [loss for _, loss in points] for name, points in by_name.items() if points}
    rows = [
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{significant(losses[0])}</td>'
        f"<td>{significant(losses[-1])}</td>"
        f"<td>{signed(losses[-1] - losses[0], losses[0])}</td><td>{charts.spark(losses)}</td></tr>"
        for name, losses in sorted(shown.items(), key=lambda item: item[1][-1])
    ]
    head = ("", "first", "last", "difference", "")
    return table(head, rows) if rows else ""
