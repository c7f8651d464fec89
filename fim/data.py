"""The five values every step takes and gives: Document, Span, Sample, Tokens, Pack."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

IGNORE_INDEX = -100
"""Label of a token on which no loss is taken (the value torch and transformers use)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One source file: UTF-8 bytes and where they came from."""

    repo: str
    """Name of the repository, folder or dataset; never an absolute path."""
    path: str
    """Path inside `repo`, with forward slashes."""
    language: str
    """Key of `LANGUAGES`."""
    text: bytes
    """Content as UTF-8; every offset in this package counts its bytes."""
    revision: str = ""
    """Commit the content was read at, if any."""
    committed_at: int = 0
    """Unix seconds of that commit, 0 if unknown."""
    licence: str = ""
    """SPDX identifier, empty if unknown."""
    weight: float = 1.0
    """Relative sampling weight of the document's source."""
    id: str = field(init=False)
    """32 hexadecimal digits derived from repo, path and text."""

    def __post_init__(self) -> None:
        """Derive `id`."""
        digest = hashlib.sha256()
        for part in (self.repo.encode(), self.path.encode(errors="surrogateescape"), self.text):
            digest.update(len(part).to_bytes(8, "little") + part)
        object.__setattr__(self, "id", digest.hexdigest()[:32])


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Half-open byte range of the MIDDLE: a whole node or run of siblings, blanks may lead."""

    start_byte: int
    """Offset of the first byte, as tree-sitter counts it."""
    end_byte: int
    """Offset one past the last byte."""
    sampler: str
    """Key of `SAMPLERS` that chose it."""
    kind: str
    """tree-sitter node type, of the parent for a run of siblings; empty for `random`."""
    boundary: str = "exact"
    """Where the MIDDLE starts: `"exact"`, or at `"blanks"` or `"line"` before the node."""
    node_start_byte: int = -1
    """Offset at which the chosen node (or run) starts; after `start_byte` where blanks lead."""

    def __post_init__(self) -> None:
        """Let `node_start_byte` default to `start_byte`."""
        if self.node_start_byte < 0:
            object.__setattr__(self, "node_start_byte", self.start_byte)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training example; everything random about it is already drawn.

    FIM: `prefix + middle + suffix` is the document's text, byte for byte, until `encode` fits it.
    AR: `middle` is one window-sized piece of the document, `prefix` and `suffix` are empty.
    """

    document_id: str
    path: str
    language: str
    prefix: bytes
    middle: bytes
    suffix: bytes
    order: str
    """`"psm"`, `"spm"` or `"ar"`."""
    sampler: str
    """Key of `SAMPLERS`; empty for AR."""
    kind: str
    """Node type of the MIDDLE, see `Span.kind`; empty for AR."""
    context_split: float
    """Share of the context budget that goes to the prefix when the window is too small for both."""
    repo: str = ""
    epoch: int = 0
    window: int = 0
    """Number of this sample among those of its document and epoch, from 0."""
    boundary: str = "exact"
    start_byte: int = 0
    """Offset of `middle` in the document."""
    node_start_byte: int = 0
    ends_document: bool = True
    """Whether an AR piece reaches the document's end, and so carries the end token."""
    is_fallback: bool = False
    """Whether an AR piece stands in for a MIDDLE that was wanted and not found."""

    @property
    def end_byte(self) -> int:
        """Offset one past `middle` in the document."""
        return self.start_byte + len(self.middle)

    @property
    def sample_id(self) -> str:
        """Document, epoch and window: unique in a run."""
        return f"{self.document_id}-{self.epoch}-{self.window}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One encoded sample."""

    input_ids: np.ndarray
    """`int32`, shape `(length,)`."""
    labels: np.ndarray
    """`int32`, shape `(length,)`; `labels[i]` is `input_ids[i]` or `IGNORE_INDEX`.

    Not shifted: transformers shifts labels itself. `labels[0]` is always `IGNORE_INDEX`, so that
    the last token of one sample never learns the first token of the next.
    """
    prefix_tokens: int = 0
    """Tokens of the prefix that are left after fitting."""
    middle_tokens: int = 0
    """Tokens of the MIDDLE."""
    suffix_tokens: int = 0
    """Tokens of the suffix that are left after fitting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Whole samples side by side; masks and positions are derived from `seq_lengths`."""

    input_ids: np.ndarray
    """`int32`, shape `(length,)`, without padding."""
    labels: np.ndarray
    """`int32`, shape `(length,)`."""
    seq_lengths: tuple[int, ...]
    """Tokens of each sample, in order; sums to `length`."""
