"""How much a run reads and keeps, and how long it takes."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fim import IGNORE_INDEX, LANGUAGES, FimError
from finetune.corpus.sources import git
from finetune.corpus.sources.clones import is_url
from finetune.corpus.sources.read import source_path, walk_folder
from finetune.prepare import corpus_stage, prepare_fingerprint, sources_fingerprint
from finetune.recipe.corpus import Source
from finetune.recipe.schema import Recipe
from finetune.recipe.train import Train
from finetune.run_sources import expand_corpus
from finetune.store import MANIFEST, is_done, read_json
from finetune.training.flops import Cost, named_flops
from finetune.training.step_log import LOG, read_log

_BYTES_PER_TOKEN = 3.2
"""Of code, in six languages and two tokenizers of 49,152 entries: 2.6 to 4.1."""
_CONTEXT_RATE = 0.25
"""Mean length of the sample that a token is in, as a share of `fim.max_length`."""
_UTILIZATION = 0.35
"""Share of a GPU's peak that packed training reaches: torchtitan has 30 to 35 % of the data sheet's
(Llama 3.1 8B, H100, with compilation)."""
_SHOWN_GPUS = ("A100", "H100")
"""Of them the hours are given where this machine has no GPU."""
_KEPT_CHECKPOINTS = 3
"""Two are kept, and a third is written before one goes."""


def count_data(recipe: Recipe) -> dict[str, Any]:
    """Count packs and tokens: exactly where they are made, else from the bytes of the sources.

    Returns:
        `packs`, `tokens`, `squares` (of the samples' lengths), `disk` still to be written, and
        whether they are `exact`; all 0 where no source can be measured without a download. `labels`
        are the most of a pack: every token has one but where packs with a loss on MIDDLEs are made.
    """
    packs = recipe.folder / "packs"
    if (packs / MANIFEST).exists() and _is_made(recipe, packs):
        return _count_packs(packs / "train", recipe)
    made = total = int(_source_bytes(recipe) / _BYTES_PER_TOKEN * recipe.train.epochs)
    if recipe.train.max_tokens:
        total = min(total, recipe.train.max_tokens)
    return {
        "packs": math.ceil(total / recipe.fim.max_length),
        "tokens": total,
        "squares": int(total * recipe.fim.max_length * _CONTEXT_RATE),
        "labels": recipe.fim.max_length,
        "disk": 8 * made,
        "exact": False,
    }


def _is_made(recipe: Recipe, packs: Path) -> bool:
    try:
        return is_done(packs, prepare_fingerprint(recipe))
    except FimError:  # a source is gone, or not cloned here
        return False


def _count_packs(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Count the packs that training reads: whole ones while they are within, at least one."""
    import datasets

    rows, max_tokens = datasets.load_from_disk(str(folder)), recipe.train.max_tokens
    kept: list[list[int]] = []
    total = 0
    for lengths in rows["seq_lengths"]:
        if kept and max_tokens and total + sum(lengths) > max_tokens:
            break
        kept.append(lengths)
        total += sum(lengths)
    squares = sum(n * n for lengths in kept for n in lengths)
    labels = recipe.fim.max_length
    if recipe.fim.loss == "middle":
        labels = _most_labels(rows.data.column("labels")[: len(kept)].chunks)
    return {
        "packs": len(kept), "tokens": total, "squares": squares, "labels": labels, "disk": 0,
        "exact": True,
    }  # fmt: skip


def _most_labels(chunks: Iterable[Any]) -> int:
    """Count the labels of the pack that has most; `chunks` are lists of Arrow, read in place."""
    most = 0
    for chunk in filter(len, chunks):
        starts = chunk.offsets.to_numpy()
        labeled = chunk.values.to_numpy()[: starts[-1]] != IGNORE_INDEX
        most = max(most, int(np.add.reduceat(labeled, starts[:-1], dtype=np.int64).max()))
    return most


def kept_checkpoints(train: Train) -> int:
    """Return how many can be there at a time."""
    if not (train.save_steps or train.keep_best):
        return 1  # a signal writes one
    return _KEPT_CHECKPOINTS + train.keep_best


def _source_bytes(recipe: Recipe) -> int:
    """Bytes of source files in folders and local repositories; 0 where one is elsewhere."""
    try:
        expanded = expand_corpus(recipe)
    except FimError:
        if any(is_url(source.git) for source in recipe.corpus.sources):  # not cloned yet
            return 0
        raise
    corpus = recipe.folder / "corpus"
    if (corpus / MANIFEST).exists():
        sources = sources_fingerprint(recipe, expanded)
        if is_done(corpus, corpus_stage(recipe, sources)):
            return int(read_json(corpus / "counts.json").get("bytes", 0))
    sources = expanded.sources
    if any(not (source.git or source.folder) for source in sources):
        return 0
    suffixes = tuple(end for row in LANGUAGES.values() for end in row.extensions)
    limit = recipe.corpus.filters.max_bytes
    return sum(
        int(size * source.weight)
        for source in sources
        for path, size in _sizes(source)
        if path.endswith(suffixes) and size <= limit
    )


def _sizes(source: Source) -> Iterator[tuple[str, int]]:
    if source.folder:
        yield from ((found.path, found.num_bytes) for found in walk_folder(source))
        return
    place = source_path(source)
    commit = git.resolve_commit(place, source.ref).id
    listed = git.run(place, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
    for entry in listed.split(b"\0")[:-1]:
        header, path = entry.split(b"\t", 1)
        size = header.split()[-1]
        yield path.decode(errors="replace"), int(size) if size.isdigit() else 0


def predicted_hours(
    data: dict[str, Any], cost: Cost | None, gpus: int, name: str, again: float
) -> dict[str, float]:
    """Divide what is to be computed by what GPUs do.

    Args:
        data: see `count_data`.
        cost: operations of a step; `None` if unknown.
        gpus: how many there are.
        name: of this machine's GPU; empty for the hours of some others.
        again: share of the operations that is done twice.

    Returns:
        Hours by the name of a GPU; empty if unknown.
    """
    if cost is None or not data["tokens"]:
        return {}
    operations = cost.per_token * data["tokens"] + cost.per_square * data["squares"]
    names = (name,) if name else _SHOWN_GPUS
    peaks = {name: named_flops(name) for name in names}
    return {
        name: operations * (1 + again) / (peak * _UTILIZATION * gpus) / 3600
        for name, peak in peaks.items()
        if peak
    }


def measured_hours(data: dict[str, Any], folder: Path) -> dict[str, float]:
    """Divide the tokens by the speed of the run that is logged in a run folder, if there is one."""
    lines = [line for line in read_log(folder / LOG) if line.get("seconds") and line.get("tokens")]
    if not lines or not data["tokens"]:
        return {}
    return {"this CPU": data["tokens"] * lines[-1]["seconds"] / lines[-1]["tokens"] / 3600}
