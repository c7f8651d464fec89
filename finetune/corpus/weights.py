"""How much of what there is too much of is kept: seeded shares, whatever the order of files."""

from collections.abc import Callable, Mapping, Sequence

from finetune.corpus.copies.dedup import Record, skip_record
from finetune.corpus.entries import Skip
from finetune.corpus.split import rank


def thin_out(
    records: Sequence[Record], languages: Mapping[str, float], seed: int
) -> tuple[list[Record], list[Skip]]:
    """Keep of each source and language the share that its weights say; copies share their fate.

    Replay sources have a share of their own, see `choose_replay`.

    Args:
        records: in any order; the choice does not depend on it.
        languages: `Corpus.language_weights`.
        seed: another seed keeps others.

    Returns:
        Those kept, in the order given, and a `down-sampled` for each of the others.
    """
    kept, skipped = [], []
    for record in records:
        share = record.weight * languages.get(record.language, 1.0)
        if record.is_replay or draw(record.key, "weight", seed) < share:
            kept.append(record)
        else:
            skipped.append(skip_record(record, "down-sampled", f"{share:g} of its kind are kept"))
    return kept, skipped


def choose_replay(
    records: Sequence[Record], rate: float, seed: int, num_bytes: Callable[[Record], int]
) -> tuple[list[Record], list[Skip]]:
    """Keep so many replay documents that their bytes are a share of all bytes.

    Args:
        records: what is trained on, in any order; the choice does not depend on it.
        rate: `Corpus.replay_rate`; all are kept where there is less.
        seed: another seed keeps others.
        num_bytes: of a document's text.

    Returns:
        Those kept, in the order given, and a `replay-not-needed` for each of the others.
    """
    wanted = sum(num_bytes(r) for r in records if not r.is_replay) * rate / (1 - rate)
    replay = [record for record in records if record.is_replay]
    total, chosen = 0, set()
    for record in sorted(replay, key=lambda r: (draw(r.key, "replay", seed), r.order)):
        if total + num_bytes(record) / 2 <= wanted:  # else nearer without it
            total += num_bytes(record)
            chosen.add(record.place)
    is_kept = [not record.is_replay or record.place in chosen for record in records]
    skipped = [
        skip_record(record, "replay-not-needed", f"{rate:.0%} of the bytes are enough")
        for record, kept in zip(records, is_kept, strict=True)
        if not kept
    ]
    return [record for record, kept in zip(records, is_kept, strict=True) if kept], skipped


def draw(key: bytes, purpose: str, seed: int) -> float:
    """Return a number from 0 to below 1 that a key always has; purposes have nothing in common."""
    return int.from_bytes(rank(key, purpose, seed)[:6], "big") / 2**48
