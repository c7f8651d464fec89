"""What sources give and rules say: files, files that are left out, and reasons."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One entry as it was found; nothing is known about its content yet."""

    repo: str
    """Name of its source, unique in the corpus, never an absolute path."""
    path: str
    """Clean unicode: bytes that are no UTF-8 and control characters are escaped."""
    data: bytes
    """Content; empty where `is_known` said that what `content_id` names need not be read."""
    content_id: str = ""
    """Digits that change when the content does: git's object id, size and time, or a hash."""
    language: str = ""
    """Language the source declares; empty lets path and content decide."""
    revision: str = ""
    """Commit, if any."""
    committed_at: int = 0
    """Unix seconds: of the last commit that changed the file where the split asks for it, else of
    `revision`; 0 if unknown."""
    weight: float = 1.0
    """`Source.weight`."""
    is_replay: bool = False
    """`Source.replay`."""
    num_bytes: int = 0
    """Size of the content, read or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a file is left out."""

    name: str
    """What it is counted under, `long-lines`."""
    detail: str = ""
    """What was measured, for people, `longest line 2,300 > 1,000`; never text of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """One entry that is not in the corpus, and why."""

    repo: str
    path: str
    reason: str
    """`Reason.name`."""
    num_bytes: int
    """Size of the entry, 0 if unknown."""
    detail: str = ""
    """`Reason.detail`."""
