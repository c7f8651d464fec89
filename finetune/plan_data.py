"""How much a run reads, and how long that takes."""

import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fim import LANGUAGES, FimError
from finetune.corpus.sources.read import walk_folder
from finetune.flops import PEAK_FLOPS, Cost
from finetune.recipe import Recipe
from finetune.recipe_corpus import Source
from finetune.run_sources import expand_corpus
from finetune.step_log import LOG, read_log
from finetune.store import read_json

_BYTES_PER_TOKEN = 3.2
"""Of code, in six languages and two tokenizers of 49,152 entries: 2.6 to 4.1."""
_CONTEXT_RATE = 0.25
"""Mean length of the sample that a token is in, as a share of `fim.max_length`."""
_UTILIZATION = 0.35
"""Share of a GPU's peak that packed training reaches: torchtitan has 30 to 35 % of the data sheet's
(Llama 3.1 8B, H100, with compilation)."""
_SHOWN_GPUS = ("A100", "H100")
"""Of them the hours are given where this machine has no GPU."""


def count_data(recipe: Recipe) -> dict[str, Any]:
    """Count packs and tokens: exactly where they are made, else from the bytes of the sources.

    Returns:
        `packs`, `tokens`, `squares` (of the samples' lengths), `disk` still to be written, and
        whether they are `exact`; all 0 where no source can be measured without a download.
    """
    folder = recipe.folder / "packs" / "train"
    if (folder / "dataset_info.json").is_file():
        import datasets

        lengths = datasets.load_from_disk(str(folder))["seq_lengths"]
        tokens = [sum(of_pack) for of_pack in lengths]
        squares = sum(n * n for of_pack in lengths for n in of_pack)
        total, packs = sum(tokens), len(tokens)
        exact, disk = True, 0
    else:
        total = int(_source_bytes(recipe) / _BYTES_PER_TOKEN * recipe.train.epochs)
        packs = math.ceil(total / recipe.fim.max_length)
        squares = int(total * recipe.fim.max_length * _CONTEXT_RATE)
        exact, disk = False, 8 * total
    if total > recipe.train.max_tokens > 0:
        part = recipe.train.max_tokens / total
        total, squares = recipe.train.max_tokens, int(squares * part)
        packs = max(1, int(packs * part))
    return {"packs": packs, "tokens": total, "squares": squares, "disk": disk, "exact": exact}


def _source_bytes(recipe: Recipe) -> int:
    """Bytes of source files in folders and local repositories; 0 where one is elsewhere."""
    corpus = recipe.folder / "corpus" / "counts.json"
    if corpus.is_file() and (known := read_json(corpus).get("bytes")):
        return int(known)
    try:
        sources = expand_corpus(recipe).sources
    except FimError:  # not cloned yet
        return 0
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
    place = os.path.expanduser(source.git)
    command = ["git", "-C", place, "ls-tree", "-r", "-l", "-z", "--full-tree", source.ref]
    done = subprocess.run(command, capture_output=True, check=False)
    for entry in done.stdout.split(b"\0")[:-1]:
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
    if cost is None:
        return {}
    operations = cost.per_token * data["tokens"] + cost.per_square * data["squares"]
    names = (name,) if name else _SHOWN_GPUS
    peaks = {name: next((f for part, f in PEAK_FLOPS if part in name), 0.0) for name in names}
    return {
        name: operations * (1 + again) / (peak * _UTILIZATION * gpus) / 3600
        for name, peak in peaks.items()
        if peak
    }


def measured_hours(data: dict[str, Any], folder: Path) -> dict[str, float]:
    """Divide the tokens by the speed of the run that is logged in a run folder, if there is one."""
    lines = [line for line in read_log(folder / LOG) if line.get("seconds") and line.get("tokens")]
    if not lines:
        return {}
    return {"this CPU": data["tokens"] * lines[-1]["seconds"] / lines[-1]["tokens"] / 3600}
