"""Documents to encoded samples, in any number of processes, with one result."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from fim import (
    LANGUAGES,
    ControlToken,
    Document,
    FimError,
    Sample,
    SpanPolicy,
    Tokens,
    TooLong,
    encode,
    make_samples,
)
from finetune.corpus.entries import Reason
from finetune.corpus.workers import Limits, run_shards
from finetune.recipe.schema import Recipe
from finetune.samples.anneal import Decay
from finetune.samples.neighbors import Neighbors
from finetune.samples.tokenizer import load_run_tokenizer

SHARD_DOCUMENTS = 64
"""Most documents a worker process takes at once."""
_SHARD_BYTES = 250_000
"""A shard ends with the document that brings its texts to so many bytes."""
_SMALL_CORPUS_BYTES = 4_000_000
"""Below so many bytes to encode, starting worker processes costs more than it saves."""
_LIMITS = Limits(seconds=3_600.0, memory=2**46)
"""Of a shard: each of its files passed tighter ones, and libraries map more than they use."""
ROW_TEXTS = (
    "sample_id", "document_id", "repo", "path", "language", "order", "sampler", "kind", "boundary",
)  # fmt: skip
ROW_NUMBERS = (
    "start_byte", "end_byte", "node_start_byte", "epoch", "prefix_tokens", "middle_tokens",
    "suffix_tokens",
)  # fmt: skip
"""Columns of `samples.parquet`: what is known of a sample without its text."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample and its tokens."""

    sample: Sample
    """Without its prefix and suffix: together they are a whole file long."""
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Refused:
    """Draws that could not be encoded, by reason."""

    redrawn: Counter[str] = field(default_factory=Counter)
    """MIDDLEs that were drawn again; the window still gave a sample."""
    lost: Counter[str] = field(default_factory=Counter)
    """Windows that gave no sample."""
    fallback: Counter[str] = field(default_factory=Counter)
    """FIM windows that gave an autoregressive sample: `prose`, `no-span` or `refused`."""

    def update(self, other: "Refused") -> None:
        """Add another's counts."""
        self.redrawn.update(other.redrawn)
        self.lost.update(other.lost)
        self.fallback.update(other.fallback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Encoded samples of some documents, side by side: what a worker process sends."""

    input_ids: np.ndarray
    """`int32`, shape `(tokens,)`."""
    labels: np.ndarray
    """`int32`, shape `(tokens,)`."""
    lengths: np.ndarray
    """Tokens of each sample, `int64` of shape `(samples,)`."""
    windows: np.ndarray
    """Number of each sample among those of its document and epoch, `int64`."""
    rows: dict[str, list]
    """A list per name of `ROW_TEXTS` and `ROW_NUMBERS`, with one entry per sample."""
    refused: Refused


@dataclass(frozen=True, slots=True)
class _Work:
    """Documents of one shard, and those before them that are context of the first ones."""

    documents: list[Document]
    before: tuple[Document, ...]


def encode_documents(
    documents: Iterable[Document], recipe: Recipe, epochs: int, decay: Decay | None = None
) -> Iterator[Shard]:
    """Draw and encode the samples of every epoch, shard by shard, in the order of the documents.

    A pure function of the documents and the recipe, for any number of workers. A few shards per
    worker are held at a time, however many documents come. Only with `fim.context: repo` does a
    document's sample depend on other documents: on those before it in its repository.

    Args:
        documents: one side of a corpus, in its order.
        recipe: `fim.window_bytes` and `fim.orders` filled in.
        epochs: epochs to draw samples for.
        decay: more epochs, which draw from some of the documents.

    Raises:
        FimError: a sample cannot be encoded for a reason that is no fault of its own, or a worker
            process died twice of one shard.
    """
    shards = _cut(documents, Neighbors(recipe.fim))
    workers = recipe.corpus.workers or os.cpu_count() or 1
    head, small = _look_ahead(shards, epochs)
    if small:
        workers = min(workers if recipe.corpus.workers else 1, len(head))
    if workers <= 1:
        encoder = Encoder(recipe, epochs, decay)
        yield from (encoder.encode_shard(work) for work in chain(head, shards))
        return
    encode_shard = partial(_encode_shard, recipe, epochs, decay)
    items = ([work] for work in chain(head, shards))
    for [shard] in run_shards(encode_shard, items, _LIMITS, workers):
        if isinstance(shard, Reason):
            raise FimError(
                f"a worker process: {shard.name} ({shard.detail}), twice if it died; free memory "
                "or set corpus.workers=1"
            )
        yield shard


def _num_bytes(documents: Iterable[Document]) -> int:
    return sum(len(document.text) for document in documents)


def _cut(documents: Iterable[Document], neighbors: Neighbors) -> Iterator[_Work]:
    """Cut a stream of documents into shards; where does not depend on the number of workers."""
    shard: list[Document] = []
    before: tuple[Document, ...] = ()
    num_bytes = 0
    for document in documents:
        if not shard:
            before = neighbors.held
        shard.append(document)
        neighbors.add(document)
        num_bytes += len(document.text)
        if len(shard) == SHARD_DOCUMENTS or num_bytes >= _SHARD_BYTES:
            yield _Work(shard, before)
            shard, num_bytes = [], 0
    if shard:
        yield _Work(shard, before)


def _look_ahead(shards: Iterator[_Work], epochs: int) -> tuple[list[_Work], bool]:
    """Take shards until worker processes are worth their start; tell whether these are all."""
    head: list[_Work] = []
    for work in shards:
        head.append(work)
        if sum(_num_bytes(w.documents) for w in head) * epochs >= _SMALL_CORPUS_BYTES:
            return head, False
    return head, True


class Encoder:
    """The tokenizer and policy of a run, loaded once per process."""

    def __init__(self, recipe: Recipe, epochs: int, decay: Decay | None = None) -> None:
        self.tokenizer, self.form = load_run_tokenizer(recipe)
        self.fim = recipe.fim
        self.epochs = epochs
        self.decay = decay
        self.policy = SpanPolicy(
            samplers=recipe.fim.samplers,
            boundaries=recipe.fim.boundaries,
            constructs=recipe.fim.constructs,
            max_middle_bytes=recipe.fim.max_middle_bytes,
        )

    def __call__(
        self, documents: Iterable[Document], before: Iterable[Document] = ()
    ) -> tuple[list[Encoded], Refused]:
        """Draw and encode the samples of some documents, for every epoch.

        Args:
            documents: in the order of the corpus.
            before: those that come before the first in its repository.
        """
        encoded: list[Encoded] = []
        refused = Refused()
        neighbors = Neighbors(self.fim, before)
        for document in documents:
            context = neighbors.of(document)
            for epoch in self._epochs_of(document):
                encoded += self._encode_document(document, epoch, context, refused)
            neighbors.add(document)
        return encoded, refused

    def encode_shard(self, work: _Work) -> Shard:
        """Encode a shard into arrays and columns, which cost little to send."""
        encoded, refused = self(work.documents, work.before)
        none = np.zeros(0, dtype=np.int32)
        samples, tokens = [e.sample for e in encoded], [e.tokens for e in encoded]
        from_tokens = ("prefix_tokens", "middle_tokens", "suffix_tokens")
        return Shard(
            input_ids=np.concatenate([none, *(t.input_ids for t in tokens)]),
            labels=np.concatenate([none, *(t.labels for t in tokens)]),
            lengths=np.array([len(t.input_ids) for t in tokens], dtype=np.int64),
            windows=np.array([sample.window for sample in samples], dtype=np.int64),
            rows={
                name: [getattr(x, name) for x in (tokens if name in from_tokens else samples)]
                for name in (*ROW_TEXTS, *ROW_NUMBERS)
            },
            refused=refused,
        )

    def _epochs_of(self, document: Document) -> Iterator[int]:
        yield from range(self.epochs)
        if self.decay:
            yield from self.decay.epochs_of(document.id, document.repo, document.language)

    def _encode_document(
        self, document: Document, epoch: int, context: Sequence[Document], refused: Refused
    ) -> Iterator[Encoded]:
        accepted: dict[int, Tokens] = {}  # by window
        tried = False  # a MIDDLE of the window at hand

        def accept(sample: Sample) -> bool:
            nonlocal tried
            tried = True
            tokens = self._encode(sample, context, refused.redrawn)
            if tokens is not None:
                accepted[sample.window] = tokens
            return tokens is not None

        fim = self.fim
        for sample in make_samples(
            document, self.policy, window_bytes=fim.window_bytes, fim_rate=fim.fim_rate,
            orders=fim.orders, seed=fim.seed, epoch=epoch, accept=accept,
        ):  # fmt: skip
            tokens = accepted.pop(sample.window, None)
            tokens = tokens or self._encode(sample, context, refused.lost)
            if sample.is_fallback:
                refused.fallback[_fallback_reason(document, tried)] += 1
            tried = False
            if tokens is not None:
                yield Encoded(replace(sample, prefix=b"", suffix=b""), tokens)

    def _encode(
        self, sample: Sample, context: Sequence[Document], counts: Counter[str]
    ) -> Tokens | None:
        fim = self.fim
        try:
            return encode(
                sample, self.form, self.tokenizer, max_length=fim.max_length, loss=fim.loss,
                context=context, path_header=fim.path_header, profile=fim.profile,
            )  # fmt: skip
        except TooLong:
            counts["too-long"] += 1
        except ControlToken:
            if context:  # it may be another file's
                return self._encode(sample, (), counts)
            counts["control-token"] += 1
        return None


def _fallback_reason(document: Document, tried: bool) -> str:
    if not LANGUAGES[document.language].is_code:
        return "prose"
    return "refused" if tried else "no-span"


_worker: Encoder | None = None
"""Of a worker process, which is given one recipe."""


def _encode_shard(recipe: Recipe, epochs: int, decay: Decay | None, work: _Work) -> Shard:
    global _worker
    if _worker is None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        _worker = Encoder(recipe, epochs, decay)
    return _worker.encode_shard(work)
