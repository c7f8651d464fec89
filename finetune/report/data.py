"""The part of a report about the packs: how many samples of which kind, and how long."""

from collections.abc import Mapping
from html import escape
from typing import Any

from finetune.report import charts
from finetune.report.charts import absent, count, duration, is_number, percent, size, table
from finetune.report.read import Inputs

NUM_KINDS = 20
COUNTS = (
    ("Samplers", "samplers"),
    ("Start of the MIDDLE", "boundaries"),
    ("Windows drawn again", "redrawn"),
    ("Windows without a sample", "lost"),
    ("Node kinds of the MIDDLE", "kinds"),
)


def data_section(inputs: Inputs) -> str:
    """Show counts of samples and tokens, and the reasons behind them."""
    if not inputs.stats:
        return absent("packs", "sfim prepare RECIPE")
    parts = [_facts(inputs.stats), _orders(inputs.stats)]
    parts.extend(_counts(title, inputs.stats.get(key, {})) for title, key in COUNTS)
    parts.append(_decay(inputs.stats.get("decay", {})))
    parts.append(_lengths(inputs))
    return "".join(parts)


def _facts(stats: Mapping[str, Any]) -> str:
    documents = stats.get("documents", {})
    facts = (
        ("files kept", count(documents.get("kept"))),
        ("files held out", count(stats.get("held_out", {}).get("documents"))),
        ("source text", size(stats.get("bytes"))),
        ("samples", count(sum(stats.get("samples", {}).values()))),
        ("tokens", count(stats.get("tokens"))),
        ("packs", count(stats.get("packs"))),
        ("of each pack filled", percent(stats.get("utilisation"))),
        ("window", size(stats.get("window_bytes"))),
        ("format", escape(str(stats.get("format", "")))),
        ("to prepare", duration(stats.get("seconds"))),
    )
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts if value)
    return f'<dl class="facts">{shown}</dl>'


def _orders(stats: Mapping[str, Any]) -> str:
    samples, tokens = stats.get("samples", {}), stats.get("tokens_by_order", {})
    if not samples:
        return ""
    rows = [
        f'<tr><th scope="row">{escape(order.upper())}</th>'
        f"<td>{count(number)}</td><td>{_share(number, samples)}</td>"
        f"<td>{count(tokens.get(order))}</td><td>{_share(tokens.get(order), tokens)}</td></tr>"
        for order, number in samples.items()
    ]
    return "<h3>Orders</h3>" + table(("", "samples", "share", "tokens", "share"), rows)


def _share(number: object, whole: Mapping[str, float]) -> str:
    return percent(number / sum(whole.values())) if is_number(number) and number else percent(0)


def _counts(title: str, values: Mapping[str, float]) -> str:
    if not values:
        return ""
    most = f", the {NUM_KINDS} most frequent of {len(values)}" if len(values) > NUM_KINDS else ""
    return f"<h3>{title}{most}</h3>{charts.bars(values, NUM_KINDS)}"


def _decay(decay: Mapping[str, Any]) -> str:
    """Show the mix of the last packs, where it is another."""
    if not decay:
        return ""
    whole = f"{count(decay['packs'])} packs, {count(decay['tokens'])} tokens, samples by source"
    mix = (charts.bars(decay[key], NUM_KINDS) for key in ("sources", "languages"))
    return f"<h3>Decay phase: {whole} and language</h3>{''.join(mix)}"


def _lengths(inputs: Inputs) -> str:
    lengths, parts = inputs.middle_tokens, ["<h3>Length of the MIDDLE</h3>"]
    if lengths:
        parts.append(charts.histogram(lengths, "tokens, from this number up", "samples"))
    else:
        parts.append(absent("list of samples", "sfim prepare RECIPE"))
    spread = inputs.stats.get("middle_bytes")
    if spread:
        shown = ", ".join(f"{key[1:]}&nbsp;%: {size(value)}" for key, value in spread.items())
        parts.append(f'<p class="note">Bytes below which a share of the MIDDLEs lies: {shown}.</p>')
    return "".join(parts)
