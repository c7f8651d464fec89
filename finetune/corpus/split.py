"""Stateless choices of documents: by a hash of seed and content, whatever their order."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from finetune.corpus.copies.dedup import Record, compare, copy_of, skip_record
from finetune.corpus.copies.similar import Signatures
from finetune.corpus.entries import Skip
from finetune.recipe.corpus import Split

MIN_EVAL_BYTES = 200
"""Smaller files leave no context to complete from; they are never held out."""
SLACK = 0.1
"""What is taken off the threshold where no near copy may be missed: four standard errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What `split_records` decided; each record is in one of the three."""

    train: list[Record]
    """In the order given."""
    held_out: list[Record]
    """In the order given."""
    skipped: list[Skip]
    """Those that may neither train nor evaluate: `near-evaluation`, like a held-out file, or
    `withheld`, of a held-out repository or time but too small."""


def split_records(records: Sequence[Record], split: Split, seed: int, threshold: float) -> Sides:
    """Hold out files, repositories, or what has changed since a day.

    Near copies of a held-out file do not train: with `by: file` they are held out with it, else
    left out. Replay sources are never held out.

    Args:
        records: in any order; the choice does not depend on it.
        split: `eval_rate` of the files or repositories are held out, and at least `min_files` files
            if there are twice as many; a rate of 0 holds out none.
        seed: another seed chooses other files.
        threshold: `Dedup.threshold`.
    """
    order = sorted(range(len(records)), key=lambda n: (records[n].key, records[n].order))
    ranked = [records[number] for number in order]
    signatures = compare(ranked, threshold, SLACK)
    chosen, withheld = CHOICES[split.by](ranked, signatures, split, seed)
    originals = _find_copies(ranked, chosen, signatures)
    sides: tuple[list[Record], list[Record]] = ([], [])
    skipped = []
    for record, number in zip(records, np.argsort(order).tolist(), strict=True):
        if number in withheld:
            skipped.append(skip_record(record, "withheld", withheld[number]))
        elif number in originals:
            detail = copy_of(ranked[originals[number]])
            skipped.append(skip_record(record, "near-evaluation", detail))
        else:
            sides[number in chosen].append(record)
    return Sides(train=sides[0], held_out=sides[1], skipped=skipped)


def _find_copies(
    records: Sequence[Record], chosen: Collection[int], signatures: Signatures
) -> dict[int, int]:
    """Return which of the others is a copy of a chosen record, and of which."""
    found = {number: other for number, (other, _) in signatures.near(chosen).items()}
    by_key = {records[number].key: number for number in sorted(chosen)}
    for number, record in enumerate(records):
        if number not in chosen and record.key in by_key:
            found[number] = by_key[record.key]
    return found


Choice = tuple[Collection[int], dict[int, str]]
"""Numbers of the records held out, and of those that must not train either, with details."""


def _choose_files(
    records: Sequence[Record], signatures: Signatures, split: Split, seed: int
) -> Choice:
    """Hold out clusters of near copies, each whole."""
    clusters: dict[bytes, set[bytes]] = defaultdict(set)
    for number, (leader, _) in signatures.leaders(range(len(records))).items():
        clusters[records[leader].key].add(records[number].key)
    banned = {r.key for r in records if r.is_replay or r.num_bytes < MIN_EVAL_BYTES}
    most = _number(split, len({record.key for record in records if not record.is_replay}))
    held_out: set[bytes] = set()
    for key in sorted(clusters, key=lambda key: rank(key, "split", seed)):
        if clusters[key].isdisjoint(banned) and len(held_out) + len(clusters[key]) <= most:
            held_out |= clusters[key]
    return {n for n, record in enumerate(records) if record.key in held_out}, {}


def _choose_repos(
    records: Sequence[Record], signatures: Signatures, split: Split, seed: int
) -> Choice:
    """Hold out whole repositories, never more than half of the files, none of small files only."""
    own = [record for record in records if not record.is_replay]
    sizes = Counter(record.repo for record in own)
    useful = Counter(record.repo for record in own if record.num_bytes >= MIN_EVAL_BYTES)
    number = max(1, round(split.eval_rate * len(sizes))) if split.eval_rate > 0 else 0
    least = split.min_files if sizes.total() >= 2 * split.min_files else 0
    repos: set[str] = set()
    num_files = num_useful = 0
    for repo in sorted(useful, key=lambda repo: rank(repo.encode(), "split", seed)):
        is_enough = len(repos) >= number and num_useful >= least
        if number and not is_enough and num_files + sizes[repo] <= sizes.total() / 2:
            repos.add(repo)
            num_files += sizes[repo]
            num_useful += useful[repo]
    inside = {n for n, r in enumerate(records) if r.repo in repos and not r.is_replay}
    small = {n for n in inside if records[n].num_bytes < MIN_EVAL_BYTES}
    detail = f"smaller than {MIN_EVAL_BYTES} bytes, of a held-out repository"
    return inside - small, dict.fromkeys(small, detail)


def _choose_recent(
    records: Sequence[Record], signatures: Signatures, split: Split, seed: int
) -> Choice:
    """Hold out what has changed since the day; what of it is too small must not train either."""
    after = datetime.fromisoformat(split.after).replace(tzinfo=UTC).timestamp()
    recent = {n for n, r in enumerate(records) if r.committed_at >= after and not r.is_replay}
    large = {n for n in recent if records[n].num_bytes >= MIN_EVAL_BYTES}
    held_out = large if split.eval_rate > 0 else set()
    return held_out, dict.fromkeys(recent - held_out, f"changed since {split.after}")


CHOICES: dict[str, Callable[[Sequence[Record], Signatures, Split, int], Choice]] = {
    "file": _choose_files,
    "repo": _choose_repos,
    "time": _choose_recent,
}
"""How records are held out, by `Split.by`."""


def _number(split: Split, num_files: int) -> int:
    """Return how many of so many distinct files are held out."""
    number = round(split.eval_rate * num_files)
    if split.eval_rate > 0 and num_files >= 2 * split.min_files:
        number = max(number, split.min_files)
    return number


def choose_records(
    records: Sequence[Record], number: int, seed: int
) -> tuple[list[Record], list[Record]]:
    """Choose `number` documents.

    Returns:
        The chosen and the others, each in the order given.
    """
    ranked = sorted(records, key=lambda record: (rank(record.key, "choose", seed), record.id))
    chosen = {record.id for record in ranked[:number]}
    return (
        [record for record in records if record.id in chosen],
        [record for record in records if record.id not in chosen],
    )


def rank(key: bytes, purpose: str, seed: int) -> bytes:
    """Give a key its place in a seeded order; two purposes give unrelated orders."""
    return hashlib.sha256(f"{purpose}:{seed}:".encode() + key).digest()
