"""Every sample of a built run derived again: from its document, its grammar and its tokenizer.

Nothing that made the samples takes part: not the samplers, the encoder or the packer. The tables
`LANGUAGES` and `FORMATS`, the grammars and the tokenizer's file are all that both sides share.
"""

import hashlib
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fim import FimError
from fim.languages import grammar
from finetune.audit.counts import corpus_faults, pack_faults, stats_faults
from finetune.audit.read import SPLITS, BuiltRun, Packs, Row, open_run, read_columns, read_documents
from finetune.audit.tokens import make_rendering, other_files, token_faults
from finetune.audit.tree import PLAIN_SAMPLERS, Tree, covered_thrice, middle_faults, walk_tree
from finetune.progress import progress

RULES = {
    "documents": "a sample's document is in the corpus, and its id follows from its content",
    "sides": "training samples come from training documents, held-out ones from held-out ones",
    "samplers": "the sampler has a definition, and its language what it needs",
    "weights": "sampler, order and boundary are ones the recipe gives weight",
    "offsets": "offsets are in the document and between characters",
    "nodes": "MIDDLE is one whole named node, or whole siblings of one parent",
    "kinds": "the row names the type of that node, or of the siblings' parent",
    "errors": "no syntax error in that node, and none around it",
    "sizes": "a structured MIDDLE is within its limits",
    "boundaries": "only blanks lead, and those the boundary says",
    "cursors": "a cursor is at the start of a token, and the MIDDLE ends where a node does",
    "empties": "an empty MIDDLE is at the edge of a token",
    "randoms": "a random MIDDLE is within its limit",
    "coverage": "no byte is in more than two MIDDLEs of one epoch",
    "layout": "sentinels are those of the order, once each, and content holds no control token",
    "contexts": "other files in a sample are whole documents of its repository and side",
    "headers": "a path header names the file's path",
    "texts": "prefix, MIDDLE and suffix read back as the document's bytes",
    "ends": "the end token stands right after the MIDDLE, or after a document's last piece",
    "labels": "labels are the ids where loss is taken, and nothing elsewhere",
    "counts": "the row's token counts are those of the sample",
    "packs": "each sample is in one pack of its epoch, whole, and no pack is too long",
    "windows": "each window of each document gave a sample, or is counted as lost",
    "stats": "stats.json says what is there",
}
"""What is held to be true of a run; a violation is counted under its rule's name."""
MAX_EXAMPLES = 20
_DOCUMENTS_PER_TASK = 200
_SHOWN = ("repo", "path", "sample_id", "order", "sampler", "kind", "start_byte", "end_byte")
_SMALL_BYTES = 2_000_000
"""Below so many bytes, starting worker processes costs more than it saves."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was checked, and what was found."""

    samples: Counter[str] = field(default_factory=Counter)
    """Rows by sampler, `ar` for autoregressive ones."""
    violations: Counter[str] = field(default_factory=Counter)
    """By rule."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """Where a rule is broken: never any code."""
    missing: Counter[str] = field(default_factory=Counter)
    """Windows without a sample, by split."""

    def add(self, rule: str, split: str = "", row: Row | None = None, **where: Any) -> None:
        """Count a violation, and keep it as an example if it is among the first of its rule."""
        assert rule in RULES
        self.violations[rule] += 1
        if self.violations[rule] <= MAX_EXAMPLES:
            if row is not None:
                split, where = row.split, {name: getattr(row, name) for name in _SHOWN} | where
            self.examples.append({"rule": rule, "split": split, **where})

    def update(self, other: "Findings") -> None:
        """Add another's."""
        self.samples.update(other.samples)
        self.violations.update(other.violations)
        self.missing.update(other.missing)
        self.examples.extend(other.examples)


@dataclass(frozen=True, slots=True)
class _Task:
    """Some documents of one row group, and their rows."""

    group: int
    first: int
    stop: int
    rows: Mapping[str, Sequence[Row]]


def audit(folder: Path, workers: int = 0) -> dict[str, Any]:
    """Check every sample of a run.

    Args:
        folder: a run folder after `sfim prepare`.
        workers: processes; 0 takes the number of cores, or one for a small run.

    Returns:
        `documents`, `bytes`, `samples` by sampler, `violations` by rule (each rule is there, 0 is
        what is expected), up to 20 `examples` and `seconds`.

    Raises:
        FimError: the folder is no prepared run.
    """
    started = time.monotonic()
    run = open_run(folder)
    findings = Findings()
    packs = {split: run.packs(split) for split in SPLITS if run.has(split)}
    rows = {split: run.rows(split, packs[split]) for split in packs}
    for split, found in rows.items():
        for rule, where in pack_faults(run, split, packs[split], found):
            findings.add(rule, split, **where)
    tasks, strays, num_bytes, num_documents = _make_tasks(
        run, [r for s in rows.values() for r in s]
    )
    for row in strays:
        findings.samples[row.sampler or "ar"] += 1
        findings.add("documents", row=row)
    for part in progress(_results(run, tasks, packs, workers, num_bytes), "auditing", len(tasks)):
        findings.update(part)
    for rule, where in (*corpus_faults(run, findings.missing), *stats_faults(run, rows, packs)):
        findings.add(rule, **where)
    return {
        "documents": num_documents,
        "bytes": num_bytes,
        "samples": dict(findings.samples.most_common()),
        "violations": {rule: findings.violations[rule] for rule in RULES},
        "examples": _spread(findings.examples),
        "seconds": round(time.monotonic() - started, 3),
    }


def _spread(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose examples in turns, so that a frequent fault hides no rare one."""
    seen: Counter[str] = Counter()
    ranked = []
    for example in examples:
        ranked.append((seen[example["rule"]], len(ranked), example))
        seen[example["rule"]] += 1
    return [example for _, _, example in sorted(ranked, key=lambda r: r[:2])[:MAX_EXAMPLES]]


def _make_tasks(run: BuiltRun, rows: Iterable[Row]) -> tuple[list[_Task], list[Row], int, int]:
    """Give each slice of the corpus its rows; and the rows of no document, bytes and documents."""
    from pyarrow import parquet

    by_document: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_document[row.document_id].append(row)
    tasks = []
    num_documents = 0
    with parquet.ParquetFile(run.documents) as file:
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["id"]).column("id").to_pylist()
            num_documents += len(ids)
            for first in range(0, len(ids), _DOCUMENTS_PER_TASK):
                chosen = ids[first : first + _DOCUMENTS_PER_TASK]
                mine = {name: by_document.pop(name, []) for name in chosen}
                tasks.append(_Task(group, first, first + len(chosen), mine))
    strays = [row for found in by_document.values() for row in found]
    return tasks, strays, int(run.stats.get("bytes", 0)), num_documents


def _results(
    run: BuiltRun, tasks: list[_Task], packs: dict[str, Packs], workers: int, num_bytes: int
) -> Iterator[Findings]:
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1 or num_bytes < _SMALL_BYTES:
        yield from map(_Checker(run, packs), tasks)
        return
    context = get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(run.folder,)
    ) as pool:
        yield from pool.map(_check, tasks)


_checker: "_Checker | None" = None


def _start_worker(folder: Path) -> None:
    global _checker
    run = open_run(folder)
    _checker = _Checker(run, {split: run.packs(split) for split in SPLITS if run.has(split)})


def _check(task: _Task) -> Findings:
    assert _checker is not None
    return _checker(task)


class _Checker:
    """Holds what every document needs: the vocabulary, the packs, the recipe."""

    def __init__(self, run: BuiltRun, packs: dict[str, Packs]) -> None:
        fim = run.recipe.fim
        self.run, self.packs = run, packs
        self.max_bytes = fim.max_middle_bytes
        self.rendering = make_rendering(run.tokenizer(), run.format, fim)
        columns = read_columns(run.documents, ("id", "split"))
        self.documents = set(zip(columns["id"], columns["split"], strict=True))

    def __call__(self, task: _Task) -> Findings:
        """Check some documents."""
        findings = Findings()
        documents = list(read_documents(self.run.documents, task.group))
        for document in documents[task.first : task.stop]:
            self._check_document(document, task.rows[document["id"]], findings)
        return findings

    def _check_document(
        self, document: Mapping[str, Any], rows: Sequence[Row], findings: Findings
    ) -> None:
        text, split = document["text"], document["split"]
        if document["id"] != _identity(document["repo"], document["path"], text):
            findings.add("documents", split, repo=document["repo"], path=document["path"])
        tree = self._tree(text, document["language"], rows)
        for row in rows:
            findings.samples[row.sampler or "ar"] += 1
            for rule in self._row_faults(document, row, text, tree):
                findings.add(rule, row=row)
        for side, epoch in {(row.split, row.epoch) for row in rows}:
            middles = [r for r in rows if (r.split, r.epoch) == (side, epoch) and r.order != "ar"]
            for row in covered_thrice(middles):
                findings.add("coverage", row=row)
        self._check_windows(document, rows, findings)

    def _tree(self, text: bytes, language: str, rows: Sequence[Row]) -> Tree:
        needs_tree = any(row.order != "ar" and row.sampler not in PLAIN_SAMPLERS for row in rows)
        if needs_tree and _has_grammar(language):
            return walk_tree(text, language, rows, self.max_bytes)
        return Tree(text, self.max_bytes)

    def _row_faults(
        self, document: Mapping[str, Any], row: Row, text: bytes, tree: Tree
    ) -> Iterator[str]:
        """Yield the rules that one row breaks, each once."""
        same = all(document[name] == getattr(row, name) for name in ("repo", "path", "language"))
        if not same:
            yield "documents"
        if row.split != document["split"]:
            yield "sides"
        if row.order == "ar":
            is_piece = 0 <= row.start_byte <= row.end_byte <= len(text)
            faults = ["offsets"] if not is_piece else []
        else:
            faults = list(middle_faults(row, tree))
            if not self._has_weight(row):
                yield "weights"
        yield from faults
        if "offsets" not in faults and row.places:
            ids, labels = self.packs[row.split].tokens(row)
            yield from token_faults(row, text, ids, labels, self.rendering)
            others = other_files(row, ids, self.rendering)
            if any(
                (_identity(row.repo, *other), row.split) not in self.documents for other in others
            ):
                yield "contexts"

    def _has_weight(self, row: Row) -> bool:
        fim, orders = self.run.recipe.fim, self.run.stats["orders"]
        # a boundary is drawn for whole nodes only
        boundaries = fim.boundaries if row.sampler in ("node", "siblings", "construct") else {}
        return (
            fim.samplers.get(row.sampler, 0) > 0
            and orders.get(row.order, 0) > 0
            and boundaries.get(row.boundary, not boundaries) > 0
        )

    def _check_windows(
        self, document: Mapping[str, Any], rows: Sequence[Row], findings: Findings
    ) -> None:
        """Each window of each epoch gives a sample once, or none and is counted as missing."""
        split = document["split"]
        wanted = {
            (epoch, window)
            for epoch in self.run.epochs(document)
            for window in range(self._num_windows(document, epoch))
        }
        found = Counter((row.epoch, row.window) for row in rows if row.split == split)
        findings.missing[split] += len(wanted - found.keys())
        for place, times in found.items():
            if place not in wanted or times > 1:
                findings.add("windows", split, repo=document["repo"], path=document["path"])

    def _num_windows(self, document: Mapping[str, Any], epoch: int) -> int:
        """Whole windows of a document, and one more with the probability of what is left.

        The lot is the first draw of a generator whose seed is the BLAKE2b of seed, epoch, document
        and the word `windows`, between NULs.
        """
        window_bytes = self.run.stats["window_bytes"]
        whole, rest = divmod(len(document["text"]), window_bytes)
        if not whole or not rest:
            return max(whole, 1)
        name = f"{self.run.recipe.fim.seed}\0{epoch}\0{document['id']}\0windows".encode()
        digest = hashlib.blake2b(name, digest_size=16).digest()
        lot = random.Random(int.from_bytes(digest, "little")).random()
        return whole + (lot * window_bytes < rest)


def _has_grammar(language: str) -> bool:
    try:
        grammar(language)
    except FimError:
        return False
    return True


def _identity(repo: str, path: str, text: bytes) -> str:
    """32 digits of the SHA-256 of repo, path and text, each after its length in 8 bytes."""
    digest = hashlib.sha256()
    for part in (repo.encode(), path.encode(), text):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def audit_summary(result: Mapping[str, Any]) -> str:
    """Return the result of an audit as lines for a terminal."""
    total = sum(result["samples"].values())
    rate = result["bytes"] / max(result["seconds"], 1e-3) / 1e6
    by_sampler = ", ".join(f"{n:,} {name}" for name, n in result["samples"].items())
    lines = [
        f"documents   {result['documents']:,} ({result['bytes'] / 1e6:,.1f} MB, {rate:.1f} MB/s)",
        f"samples     {total:,} ({by_sampler})",
    ]
    broken = {rule: n for rule, n in result["violations"].items() if n}
    lines += [f"  {n:>9,} {rule}: not true that {RULES[rule]}" for rule, n in broken.items()]
    for example in result["examples"]:
        rule, split, *rest = example.values()
        where = " ".join(f"{value}" for value in rest)
        where = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in where)
        lines.append(f"    {rule} {split} {where}")
    lines.append(f"violations  {sum(broken.values()):,} of {len(RULES)} rules")
    return "\n".join(lines)
