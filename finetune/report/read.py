"""What a report is made of, read from a run folder in which anything may be missing."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path
from typing import Any

import yaml

from fim import FimError
from finetune.store import read_json

NUM_SAMPLES = 9
NUM_EXAMPLES = 20
"""Dropped files shown per reason."""
NUM_CLUSTERS, NUM_MEMBERS = 10, 20
"""Clusters of copies shown, and files of each."""
SAMPLE_COLUMNS = (
    "sample_id", "document_id", "repo", "path", "language", "order", "sampler", "kind", "boundary",
    "start_byte", "end_byte", "prefix_tokens", "middle_tokens", "suffix_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """One training sample with the text of its document."""

    row: Mapping[str, Any]
    """Its row of `samples.parquet`."""
    text: bytes
    """The document's text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedFiles:
    """The files that one reason dropped."""

    number: int
    """How many there are."""
    examples: Sequence[tuple[str, str]]
    """Path and what was measured, of a few drawn by the hash of their path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Files that are copies of one."""

    number: int
    """How many there are."""
    members: Sequence[tuple[str, float, bool]]
    """Path, similarity to the one that is kept, and whether it is that; it comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything a report shows; what is missing is empty."""

    name: str
    """Name of the run folder."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The resolved recipe, without absolute folders and credentials."""
    stats: Mapping[str, Any] = field(default_factory=dict)
    """`packs/stats.json`."""
    counts: Mapping[str, Any] = field(default_factory=dict)
    """`corpus/counts.json`; `stats` where an older run has none."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """`metrics.json`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Version of each library, from the newest stage that has a manifest."""
    log: Sequence[Mapping[str, Any]] = ()
    """Lines of `log.jsonl`."""
    dropped: Mapping[str, DroppedFiles] = field(default_factory=dict)
    """The files left out, by reason."""
    clusters: Sequence[Cluster] = ()
    """The largest clusters of copies."""
    samples: Sequence[ShownSample] = ()
    """A few training samples."""
    middle_tokens: Sequence[int] = ()
    """Length of the MIDDLE of every FIM sample."""
    predictions: Sequence[Mapping[str, Any]] = ()
    """Rows of `predictions.parquet`."""


def read_inputs(run: Path) -> Inputs:
    """Read what is there; a missing or damaged file leaves its field empty."""
    rows = _columns(run / "packs/train/samples.parquet", SAMPLE_COLUMNS)
    orders, lengths = rows.get("order", []), rows.get("middle_tokens", [])
    stats = _json(run / "packs/stats.json")
    return Inputs(
        name=run.resolve().name,
        recipe=_recipe(run / "recipe.yaml"),
        stats=stats,
        counts=_json(run / "corpus/counts.json") or stats,
        metrics=_json(run / "metrics.json"),
        versions=_json(run / "packs/manifest.json").get("versions", {}),
        log=_log(run / "log.jsonl"),
        dropped=_dropped(run / "corpus/skipped.parquet"),
        clusters=_clusters(run / "corpus/clusters.parquet"),
        samples=_samples(rows, run / "corpus/documents.parquet"),
        middle_tokens=[n for order, n in zip(orders, lengths, strict=True) if order != "ar"],
        predictions=_rows(_columns(run / "predictions.parquet")),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FimError:
        return {}
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}


def _recipe(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return without_folders(value) if isinstance(value, dict) else {}


def without_folders(value: Any) -> Any:
    """Shorten absolute paths to `.../name` and cut user names and tokens out of URLs."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"(\w+://)[^/@\s]*@", r"\1", value)
    if re.match(r"(file://)?(/|~|[A-Za-z]:[\\/]|\\\\)", value):
        return ".../" + re.split(r"[\\/]", value.rstrip("\\/"))[-1].lstrip("~")
    return value


def _log(path: Path) -> list[dict[str, Any]]:
    """Read whole lines; a run that was killed may leave half of one."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "step" in value:
            lines.append(value)
    return lines


def _columns(
    path: Path, names: Sequence[str] | None = None, ids: Sequence[str] | None = None
) -> dict[str, list]:
    """Read columns of a Parquet file, `{}` where there is none.

    Args:
        path: the file.
        names: columns to read, all by default; those the file lacks are left out.
        ids: rows to read by their column `id`, all by default.
    """
    import pyarrow
    import pyarrow.parquet

    filters = None if ids is None else [("id", "in", list(ids))]
    try:
        known = pyarrow.parquet.read_schema(path).names
        columns = known if names is None else [name for name in names if name in known]
        table = pyarrow.parquet.read_table(
            path, columns=columns, filters=filters, partitioning=None
        )
    except (OSError, pyarrow.ArrowException):
        return {}
    return table.to_pydict()


def _rows(columns: Mapping[str, list]) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _dropped(path: Path) -> dict[str, DroppedFiles]:
    by_reason: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in _rows(_columns(path, ("repo", "path", "reason", "detail"))):
        by_reason[row["reason"]].append((_place(row), row.get("detail") or ""))
    return {
        reason: DroppedFiles(
            number=len(files), examples=sorted(nsmallest(NUM_EXAMPLES, files, key=_drawn))
        )
        for reason, files in sorted(by_reason.items())
    }


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['repo']}/{row['path']}" if row["repo"] else row["path"]


def _drawn(file: tuple[str, str]) -> bytes:
    """A file's place in a draw that depends on nothing but its path."""
    return hashlib.sha256(file[0].encode(errors="replace")).digest()


def _clusters(path: Path) -> list[Cluster]:
    found: dict[int, list[tuple[str, float, bool]]] = defaultdict(list)
    for row in _rows(_columns(path, ("cluster", "repo", "path", "similarity", "is_kept"))):
        found[row["cluster"]].append((_place(row), row["similarity"], row["is_kept"]))
    largest = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:NUM_CLUSTERS]
    return [
        Cluster(
            number=len(members),
            members=sorted(members, key=lambda m: (not m[2], -m[1], m[0]))[:NUM_MEMBERS],
        )
        for _, members in largest
    ]


def _samples(columns: Mapping[str, list], documents: Path) -> list[ShownSample]:
    if not columns:
        return []
    chosen = [
        {name: values[i] for name, values in columns.items()}
        for i in pick_samples(
            columns["sample_id"], columns["order"], columns["sampler"], columns["language"]
        )
    ]
    texts = _columns(documents, ("id", "text"), sorted({row["document_id"] for row in chosen}))
    by_id = dict(zip(texts.get("id", ()), texts.get("text", ()), strict=True))
    return [
        ShownSample(row=row, text=by_id[row["document_id"]])
        for row in chosen
        if row["document_id"] in by_id
    ]


def pick_samples(
    ids: Sequence[str], orders: Iterable[str], samplers: Iterable[str], languages: Iterable[str]
) -> list[int]:
    """Choose rows in the order of their ids, new orders and samplers before new languages.

    An id starts with a hash of its document, so nobody picks the pretty ones.
    """
    rows = list(zip(orders, samplers, languages, strict=True))
    seen: set[tuple[str, ...]] = set()
    first, more = [], []
    for i in sorted(range(len(ids)), key=ids.__getitem__):
        order, sampler, _ = rows[i]
        if not {("order", order), ("sampler", sampler)} <= seen:
            first.append(i)
        elif rows[i] not in seen:
            more.append(i)
        seen |= {("order", order), ("sampler", sampler), rows[i]}
    chosen = (first + more)[:NUM_SAMPLES]
    return sorted(chosen, key=lambda i: (rows[i][0] == "ar", rows[i], ids[i]))
