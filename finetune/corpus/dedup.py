"""Exact copies: two texts that differ in line ends and trailing blanks only are one."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from fim import Document
from finetune.corpus.sources import Skip


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

    @property
    def order(self) -> tuple[str, str, str]:
        """By (repo, path); two texts of one path by what they hold."""
        return self.repo, self.path, self.id


def make_record(document: Document, place: int = 0) -> Record:
    """Return the record of a document whose text waits at `place`."""
    return Record(
        repo=document.repo, path=document.path, id=document.id, key=content_key(document.text),
        num_bytes=len(document.text), place=place,
    )  # fmt: skip


def content_key(text: bytes) -> bytes:
    """Return 32 bytes that are equal for copies of one text.

    Line ends, blanks before them and newlines at the end do not count.
    """
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return hashlib.sha256(b"\n".join(line.rstrip(b" \t") for line in lines).rstrip(b"\n")).digest()


def exact_duplicates(records: Iterable[Record]) -> tuple[list[Record], list[Skip]]:
    """Keep the first of each set of copies in the order of (repo, path).

    Returns:
        The records kept, in that order, and a `duplicate` for each of the others.
    """
    kept: dict[bytes, Record] = {}
    copies = []
    for record in sorted(records, key=lambda e: e.order):
        if kept.setdefault(record.key, record) is not record:
            copies.append(skip_record(record, "duplicate"))
    return list(kept.values()), copies


def skip_record(record: Record, reason: str) -> Skip:
    """Leave a document out for a reason."""
    return Skip(repo=record.repo, path=record.path, reason=reason, num_bytes=record.num_bytes)
