"""The held-out loss while a run trains: of MIDDLEs, of autoregressive samples, and of each kind."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from fim import IGNORE_INDEX, LANGUAGES
from finetune.training.losses import token_losses

MAX_KINDS = 12
"""Node kinds with a loss of their own: the most frequent ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Packs with labels on what is measured, and what each of their samples counts for."""

    packs: datasets.Dataset
    """Columns `input_ids`, `labels` and `seq_lengths`."""
    names: tuple[str, ...]
    """`loss_middle`, `loss_ar`, `order/psm`, `sampler/node`, `construct/if`, `kind/block`, ..."""
    groups: list[list[list[int]]]
    """By pack and sample: places in `names`."""
    tokens: np.ndarray
    """Labels that each of `names` is the mean over, of shape `(names,)`."""


def read_held_out(folder: Path, max_packs: int) -> HeldOut:
    """Read the first packs of a folder; they were shuffled when they were made.

    Of a FIM sample the MIDDLE and its end token are measured, of an autoregressive one whatever it
    is trained on.
    """
    rows = datasets.load_from_disk(str(folder))
    rows = rows.select(range(min(len(rows), max_packs))).to_list()
    facts = _read_facts(folder / "samples.parquet", [i for row in rows for i in row["sample_ids"]])
    kinds = Counter(fact["kind"] for fact in facts.values() if fact["order"] != "ar")
    kinds.pop("", None)  # of random cuts
    shown = {kind for kind, _ in sorted(kinds.items(), key=lambda k: (-k[1], k[0]))[:MAX_KINDS]}
    counts_for = {key: _names_of(fact, shown) for key, fact in facts.items()}
    names = sorted({name for of_sample in counts_for.values() for name in of_sample}, key=_place)
    place = {name: number for number, name in enumerate(names)}
    packs, groups, tokens = [], [], np.zeros(len(names))
    for row in rows:
        of_pack = [[place[name] for name in counts_for[key]] for key in row["sample_ids"]]
        labels = _measured(row, [facts[key] for key in row["sample_ids"]])
        for of_sample, part in zip(of_pack, _cut(labels, row["seq_lengths"]), strict=True):
            tokens[of_sample] += (part != IGNORE_INDEX).sum()
        packs.append({key: row[key] for key in ("input_ids", "seq_lengths")} | {"labels": labels})
        groups.append(of_pack)
    return HeldOut(
        packs=datasets.Dataset.from_list(packs), names=tuple(names), groups=groups, tokens=tokens
    )


def measure(
    held_out: HeldOut,
    model: torch.nn.Module,
    rank: int = 0,
    world_size: int = 1,
    add_up: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums,
) -> dict[str, float]:
    """Return the mean loss per token under each name; nothing random is drawn.

    Packs are dealt out to the processes. All of them run equally many, as weights that are spread
    over processes need, and the sums are added pack by pack: the same figure for any number.

    Args:
        held_out: what is measured.
        model: in evaluation mode.
        rank: number of this process.
        world_size: processes that measure together.
        add_up: adds a tensor of shape `(packs, names)` over the processes.

    Returns:
        By name, nats per token; names without a token are left out.
    """
    number = len(held_out.packs)
    sums = torch.zeros(number, len(held_out.names), dtype=torch.float64)
    for place in range(rank, -(-number // world_size) * world_size, world_size):
        losses = token_losses(model, held_out.packs[place % number])
        if place < number:
            for groups, of_sample in zip(held_out.groups[place], losses, strict=True):
                sums[place, groups] += of_sample.sum()
    total = add_up(sums).sum(0).tolist()
    return {
        name: loss / tokens
        for name, loss, tokens in zip(held_out.names, total, held_out.tokens.tolist(), strict=True)
        if tokens
    }


def _read_facts(path: Path, sample_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    import pyarrow.parquet as pq

    names = ["sample_id", "language", "order", "sampler", "kind", "middle_tokens"]
    table = pq.read_table(
        path, columns=names, filters=[("sample_id", "in", sample_ids)], partitioning=None
    )
    return {row["sample_id"]: row for row in table.to_pylist()}


def _names_of(fact: Mapping[str, Any], kinds: set[str]) -> list[str]:
    order, sampler, kind = fact["order"], fact["sampler"], fact["kind"]
    if order == "ar":
        return ["loss_ar"]
    names = ["loss_middle", f"order/{order}", f"sampler/{sampler}"]
    if sampler != "empty" and (construct := construct_of(fact["language"], kind)):
        names.append(f"construct/{construct}")
    return [*names, f"kind/{kind}"] if kind in kinds else names


@cache
def construct_of(language: str, kind: str) -> str:
    """Name the construct of a node type, which is alike in all languages; empty if it is none.

    A run of siblings has the type of what it is in: some arguments of a call are `arguments`.
    """
    constructs = LANGUAGES[language].constructs if language in LANGUAGES else {}
    found = (name for name, types in constructs.items() if kind in {t.split()[0] for t in types})
    return next(found, "")


def _place(name: str) -> tuple[int, str]:
    """A name's place: the two losses come first."""
    order = ("loss_middle", "loss_ar", "order", "sampler", "construct", "kind")
    return order.index(name.split("/")[0]), name


def _measured(row: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Labels of a pack without those of a FIM sample before its MIDDLE, which is its end."""
    labels = np.array(row["labels"], dtype=np.int32)
    for part, fact in zip(_cut(labels, row["seq_lengths"]), facts, strict=True):
        if fact["order"] != "ar":
            part[: len(part) - fact["middle_tokens"] - 1] = IGNORE_INDEX
    return labels


def _cut(labels: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    return np.split(labels, np.cumsum(lengths)[:-1])
