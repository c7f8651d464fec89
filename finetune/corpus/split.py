"""Stateless choices of documents: by a hash of seed and content, whatever their order."""

import hashlib
from collections.abc import Sequence

from finetune.corpus.dedup import Record
from finetune.recipe_corpus import Split

MIN_EVAL_BYTES = 200
"""Smaller files leave no context to complete from; they are never held out."""


def split_records(
    records: Sequence[Record], split: Split, seed: int
) -> tuple[list[Record], list[Record]]:
    """Hold out a share of the files; copies of one file land on one side.

    Args:
        records: in any order; the choice does not depend on it.
        split: `eval_rate` of the distinct files are held out, and at least `min_files` if there
            are twice as many; a rate of 0 holds out none.
        seed: another seed chooses other files.

    Returns:
        Training and held-out records, each in the order given.
    """
    distinct = {record.key for record in records}
    number = round(split.eval_rate * len(distinct))
    if split.eval_rate > 0 and len(distinct) >= 2 * split.min_files:
        number = max(number, split.min_files)
    large = {record.key for record in records if record.num_bytes >= MIN_EVAL_BYTES}
    held_out = set(sorted(large, key=lambda key: _rank(key, "split", seed))[:number])
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        sides[record.key in held_out].append(record)
    return sides


def choose_records(
    records: Sequence[Record], number: int, seed: int
) -> tuple[list[Record], list[Record]]:
    """Choose `number` documents.

    Returns:
        The chosen and the others, each in the order given.
    """
    ranked = sorted(records, key=lambda record: (_rank(record.key, "choose", seed), record.id))
    chosen = {record.id for record in ranked[:number]}
    return (
        [record for record in records if record.id in chosen],
        [record for record in records if record.id not in chosen],
    )


def _rank(key: bytes, purpose: str, seed: int) -> bytes:
    """Give a key its place in a seeded order; two purposes give unrelated orders."""
    return hashlib.sha256(f"{purpose}:{seed}:".encode() + key).digest()
