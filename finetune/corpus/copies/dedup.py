"""Copies of one file: exact ones, and near ones that differ in form, in names or a little."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fim import Document
from finetune.corpus.copies.near import make_signature
from finetune.corpus.copies.similar import Signatures
from finetune.corpus.entries import Skip
from finetune.recipe.corpus import Dedup


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a document while its text waits on the disk."""

    repo: str
    path: str
    id: str
    key: bytes
    """`content_key` of its text."""
    num_bytes: int
    place: int = 0
    """Where its text waits."""
    language: str = ""
    signature: bytes = b""
    """`make_signature` of its text."""
    weight: float = 1.0
    """Weight of its source."""
    committed_at: int = 0
    """Unix seconds, 0 if unknown."""
    is_replay: bool = False
    """Whether its source is mixed in for `corpus.replay_rate`."""

    @property
    def order(self) -> tuple[str, str, str]:
        """By (repo, path); two texts of one path by what they hold."""
        return self.repo, self.path, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One file of a cluster: a file that stays, or one that is a copy of it."""

    cluster: int
    """Number of the cluster, from 0."""
    repo: str
    path: str
    similarity: float
    """To the file that stays, 0 to 1; 1 for exact copies and the file itself."""
    is_kept: bool
    """Whether it is the one that stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What `find_duplicates` found."""

    kept: list[Record]
    """In the order of (repo, path)."""
    skipped: list[Skip]
    """As `duplicate` or `near-duplicate`, with the file that stays as detail."""
    clusters: list[Copy]
    """Each cluster of two or more, the file that stays first."""


def make_record(document: Document, place: int = 0) -> Record:
    """Return the record of a document whose text waits at `place`."""
    return Record(
        repo=document.repo, path=document.path, id=document.id, key=content_key(document.text),
        num_bytes=len(document.text), place=place, language=document.language,
        signature=make_signature(document.text, document.language), weight=document.weight,
        committed_at=document.committed_at,
    )  # fmt: skip


def content_key(text: bytes) -> bytes:
    """Return 32 bytes that are equal for copies of one text.

    Line ends, blanks before them and newlines at the end do not count.
    """
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return hashlib.sha256(b"\n".join(line.rstrip(b" \t") for line in lines).rstrip(b"\n")).digest()


def find_duplicates(records: Iterable[Record], dedup: Dedup) -> Duplicates:
    """Keep one of each set of copies: the one `dedup.keep` names.

    Of a replay source and another, the other stays. A near copy is compared with the file that
    stays for it, so no chain of small changes joins two that differ.

    Args:
        records: in any order; the outcome does not depend on it.
        dedup: the recipe's section.
    """
    ranked = sorted(records, key=lambda record: (*_rank(record, dedup.keep), *record.order))
    first: dict[bytes, int] = {}
    originals = [
        first.setdefault(record.key, number) if dedup.exact else number
        for number, record in enumerate(ranked)
    ]
    heads = [number for number, original in enumerate(originals) if number == original]
    leaders = {head: (head, 1.0) for head in heads}
    if dedup.near:
        leaders = compare(ranked, dedup.threshold).leaders(heads)
    members: dict[int, list[tuple[int, float]]] = defaultdict(list)
    skipped = []
    for number, original in enumerate(originals):
        leader, similarity = leaders[original]
        members[leader].append((number, similarity))
        if number != leader:
            reason = "duplicate" if number != original else "near-duplicate"
            skipped.append(skip_record(ranked[number], reason, copy_of(ranked[leader])))
    return Duplicates(
        kept=sorted((ranked[leader] for leader in members), key=lambda record: record.order),
        skipped=skipped,
        clusters=_list_clusters(ranked, [m for m in members.values() if len(m) > 1]),
    )


def compare(records: Sequence[Record], threshold: float, slack: float = 0.0) -> Signatures:
    """Compare the signatures of records; see `Signatures`."""
    return Signatures(
        [record.signature for record in records],
        [record.language for record in records],
        threshold,
        slack,
    )


def skip_record(record: Record, reason: str, detail: str = "") -> Skip:
    """Leave a document out for a reason."""
    return Skip(
        repo=record.repo, path=record.path, reason=reason, num_bytes=record.num_bytes, detail=detail
    )


def copy_of(record: Record) -> str:
    """Say in a reason which file a copy is of."""
    return f"of {record.repo}/{record.path}"


def _rank(record: Record, keep: str) -> tuple[bool, float, float]:
    """Sort the copy that stays first."""
    heavy, new = -record.weight, -record.committed_at
    return (record.is_replay, *((new, heavy) if keep == "newest" else (heavy, new)))


def _list_clusters(
    records: Sequence[Record], clusters: Iterable[list[tuple[int, float]]]
) -> list[Copy]:
    return [
        Copy(
            cluster=number,
            repo=records[member].repo,
            path=records[member].path,
            similarity=similarity,
            is_kept=place == 0,
        )
        for number, cluster in enumerate(clusters)
        for place, (member, similarity) in enumerate(cluster)
    ]
