"""What a run says of itself, counted again from its files."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.audit.read import BuiltRun, Packs, Row, read_columns

Fault = tuple[str, dict[str, Any]]
"""A rule of `finetune.audit.samples.RULES`, and where it is broken."""


def pack_faults(run: BuiltRun, split: str, packs: Packs, rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield what is wrong with the packs of a split: every sample once, whole, in its epoch."""
    for row in rows:
        if len(row.places) != 1:
            yield "packs", {"sample_id": row.sample_id, "times": len(row.places)}
        elif packs.epochs[row.places[0][0]] != row.epoch:
            yield "packs", {"sample_id": row.sample_id, "epoch": packs.epochs[row.places[0][0]]}
    known = Counter(row.sample_id for row in rows)
    for name, times in known.items():
        if times > 1:
            yield "packs", {"sample_id": name, "rows": times}
    for pack in range(len(packs)):
        names, lengths = packs.sample_ids[pack], packs.seq_lengths[pack]
        num_ids, num_labels = packs.num_tokens(pack)
        fits = 0 < num_ids <= run.recipe.fim.max_length and min(lengths, default=0) > 0
        if not fits or not num_ids == num_labels == sum(lengths) or len(names) != len(lengths):
            yield "packs", {"pack": pack, "tokens": num_ids, "seq_lengths": sum(lengths)}
        for name in names:
            if name not in known:
                yield "packs", {"pack": pack, "sample_id": name}
    if packs.epochs != sorted(packs.epochs):
        yield "packs", {"epochs": "not one after the other"}


def corpus_faults(run: BuiltRun, missing: Counter[str]) -> Iterator[Fault]:
    """Yield where documents, skipped files and lost windows are not those of `stats.json`."""
    documents = read_columns(run.documents, ("id", "language", "licence", "num_bytes", "split"))
    skipped = read_columns(run.folder / "corpus" / "skipped.parquet", ("reason",))
    reasons = Counter(skipped["reason"])
    counted = {
        "documents": {"kept": len(documents["id"]), "skipped": dict(reasons)},
        "languages": dict(Counter(documents["language"])),
        "licences": dict(Counter(licence or "unknown" for licence in documents["licence"])),
        "bytes": sum(documents["num_bytes"]),
        "held_out": {"documents": documents["split"].count("eval")},
        "secrets": _count_findings(run.folder / "corpus" / "findings.parquet"),
    }
    found = len(documents["id"]) + reasons.total()
    if run.stats["funnel"][0]["files"] != found:
        yield "stats", {"key": "funnel", "files": found}
    yield from _differences(run.stats, counted)
    if len(set(documents["id"])) != len(documents["id"]):
        yield "documents", {"path": "documents.parquet", "ids": "not all different"}
    if (lost := sum(run.stats["lost"].values())) != missing.total():
        yield "windows", {"lost": lost, "missing": missing.total()}


def _count_findings(path: Path) -> dict[str, int]:
    findings = read_columns(path, ("kind", "number"))
    counts = Counter[str]()
    for kind, number in zip(findings["kind"], findings["number"], strict=True):
        counts[kind] += number
    return dict(counts)


def stats_faults(
    run: BuiltRun, rows: Mapping[str, Sequence[Row]], packs: Mapping[str, Packs]
) -> Iterator[Fault]:
    """Yield where the counts of `stats.json` are not those of the training samples."""
    train = rows.get("train", ())
    middles = [row for row in train if row.order != "ar"]
    tokens = Counter()
    for row in train:
        tokens[row.order] += sum(length for _, _, length in row.places)
    num_packs = len(packs["train"]) if "train" in packs else 0
    room = max(1, num_packs * run.recipe.fim.max_length)
    counted = {
        "samples": dict(Counter(row.order for row in train)),
        "samplers": dict(Counter(row.sampler for row in middles)),
        "kinds": dict(Counter(row.kind for row in middles if row.kind)),
        "boundaries": dict(Counter(row.boundary for row in middles)),
        "tokens_by_order": dict(tokens),
        "tokens": tokens.total(),
        "packs": num_packs,
        "utilisation": round(tokens.total() / room, 4),
    }
    yield from _differences(run.stats, counted)


def _differences(said: Mapping[str, Any], counted: Mapping[str, Any]) -> Iterator[Fault]:
    for name, value in counted.items():
        if _without_zeros(said.get(name)) != _without_zeros(value):
            yield "stats", {"key": name}


def _without_zeros(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {k: v for k, item in value.items() if (v := _without_zeros(item)) not in (0, {})}
