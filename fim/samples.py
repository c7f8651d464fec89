"""Documents to samples: how many windows, which are FIM, which order, which MIDDLE.

Everything random is a stateless function of (seed, epoch, document id, window): the same samples
for any number of workers, any order of files and after any restart, and new ones every epoch.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

from fim.constructs import to_span
from fim.data import Document, Sample, Span
from fim.errors import FimError
from fim.languages import LANGUAGES
from fim.spans import SpanPolicy, choose_span, draw_name, random_range
from fim.syntax import Syntax, parse

_TRIES = 8
MAX_COVERAGE = 2
"""No byte of a document is in more MIDDLEs of one epoch."""
_ONE_MORE = bytes([*range(1, 256), 255])


def make_samples(
    document: Document,
    policy: SpanPolicy,
    *,
    window_bytes: int,
    fim_rate: float,
    orders: Mapping[str, float],
    seed: int,
    epoch: int,
    accept: Callable[[Sample], bool] = lambda sample: True,
) -> Iterator[Sample]:
    """Draw the samples of one document for one epoch, one per window.

    What a document has beyond whole windows is one more by lot, so that each byte is in one window
    on average; rounded up, a file just over a window would count twice. A FIM window whose MIDDLE
    is not accepted, or covers a byte a third time, is drawn again; where that fails it is
    autoregressive, as all of prose are.

    Args:
        document: the file; what cannot be parsed gives `random` spans only, if they have weight.
        policy: choice of the MIDDLE.
        window_bytes: bytes of text one sample can hold.
        fim_rate: share of windows with a MIDDLE; the rest is autoregressive.
        orders: weights of `"psm"` and `"spm"`.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        accept: called with each FIM sample drawn; false draws again (say, too long to encode).

    Yields:
        Samples in the order of their windows.

    Raises:
        FimError: `window_bytes` is below 1, or `fim_rate` asks for an order and none has a weight.

    Source:
        70 % FIM to 30 % autoregressive: aiXcoder-7B (arXiv 2410.13187).
    """
    if window_bytes < 1:
        raise FimError(f"window_bytes is {window_bytes}; give 1 or more")
    has_order = sum(orders.values()) > 0
    if fim_rate > 0 and not has_order:
        raise FimError("no order has a weight above 0; give one of psm and spm")
    syntax = cache(lambda: _parse_or_none(document))  # what is one AR sample needs no parsing
    covered = _Covered(len(document.text))
    row = LANGUAGES.get(document.language)
    is_code = row is None or row.is_code
    for window in range(num_windows(document, window_bytes, seed, epoch)):
        rng = make_rng(seed, epoch, document.id, window)
        sample = None
        wants_middle = rng.random() < fim_rate
        if wants_middle and is_code:
            fields = {
                "order": draw_name(orders, rng),
                # from the budgets real clients use: llama.cpp gives the prefix .75, Continue .6
                "context_split": 0.4 + 0.5 * rng.random(),
                "epoch": epoch,
                "window": window,
            }
            sample = _fim_sample(document, syntax(), policy, rng, covered, accept, fields)
        yield sample or replace(
            _ar_sample(document, syntax, window_bytes, rng, epoch, window), is_fallback=wants_middle
        )


def num_windows(document: Document, window_bytes: int, seed: int, epoch: int) -> int:
    """Return how many samples a document gives in an epoch: one at least, if it holds anything."""
    size = len(document.text)
    if size <= window_bytes:
        return 1 if size else 0
    whole, rest = divmod(size, window_bytes)
    by_lot = make_rng(seed, epoch, document.id, "windows").random() * window_bytes < rest
    return whole + by_lot


def _fim_sample(
    document: Document,
    syntax: Syntax | None,
    policy: SpanPolicy,
    rng: random.Random,
    covered: "_Covered",
    accept: Callable[[Sample], bool],
    fields: dict[str, object],
) -> Sample | None:
    """Draw a MIDDLE that is accepted, and count its bytes as covered."""
    sample = None

    def fits(span: Span) -> bool:
        nonlocal sample
        if covered.is_full(span):
            return False
        sample = split_at(document, span, **fields)
        return accept(sample)

    span = _draw_span(document, syntax, policy, rng, fits)
    if span is None:
        return None
    covered.add(span)
    return sample


class _Covered:
    """In how many MIDDLEs each byte of a document is."""

    def __init__(self, size: int) -> None:
        self._counts = bytearray()
        self._size = size

    def is_full(self, span: Span) -> bool:
        """Whether a byte of a span is in as many MIDDLEs as may be."""
        return self._counts.find(MAX_COVERAGE, span.start_byte, span.end_byte) >= 0

    def add(self, span: Span) -> None:
        """Count the bytes of a span."""
        self._counts = self._counts or bytearray(self._size)
        where = slice(span.start_byte, span.end_byte)
        self._counts[where] = self._counts[where].translate(_ONE_MORE)


def make_rng(seed: int, *where: object) -> random.Random:
    """Return a generator that depends on nothing but its arguments."""
    text = "\0".join(map(str, (seed, *where)))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "little"))


def split_at(document: Document, span: Span, **fields: object) -> Sample:
    """Cut a document at a span; `fields` are the rest of the sample's values."""
    return Sample(
        document_id=document.id, repo=document.repo, path=document.path,
        language=document.language,
        prefix=document.text[: span.start_byte],
        middle=document.text[span.start_byte : span.end_byte],
        suffix=document.text[span.end_byte :],
        sampler=span.sampler, kind=span.kind, boundary=span.boundary,
        start_byte=span.start_byte, node_start_byte=span.node_start_byte,
        **fields,
    )  # fmt: skip


def _parse_or_none(document: Document) -> Syntax | None:
    try:
        return parse(document.text, document.language)
    except FimError:
        return None


def _draw_span(
    document: Document,
    syntax: Syntax | None,
    policy: SpanPolicy,
    rng: random.Random,
    fits: Callable[[Span], bool],
) -> Span | None:
    if syntax is not None:
        return choose_span(syntax, policy, rng, fits)
    if not policy.samplers.get("random"):
        return None
    found = (random_range(document.text, policy, rng) for _ in range(_TRIES))
    spans = (to_span(each, "random") for each in found)
    return next(filter(fits, spans), None)


def _ar_sample(
    document: Document,
    syntax: Callable[[], Syntax | None],
    window_bytes: int,
    rng: random.Random,
    epoch: int,
    window: int,
) -> Sample:
    start, end = _ar_piece(document.text, syntax, window_bytes, rng)
    return Sample(
        document_id=document.id, repo=document.repo, path=document.path,
        language=document.language, prefix=b"", middle=document.text[start:end], suffix=b"",
        order="ar", sampler="", kind="", context_split=1.0, epoch=epoch, window=window,
        start_byte=start, node_start_byte=start, ends_document=end == len(document.text),
    )  # fmt: skip


def _ar_piece(
    text: bytes, syntax: Callable[[], Syntax | None], window_bytes: int, rng: random.Random
) -> tuple[int, int]:
    """A piece of at most `window_bytes`, from a top-level node or line to one, where it can."""
    if len(text) <= window_bytes:
        return 0, len(text)
    slack = window_bytes // 16  # a piece may be so much shorter for the sake of a whole node
    # half a window beyond either end, so that these are in as many pieces as the rest
    byte = max(0, rng.randrange(-window_bytes // 2, len(text) - window_bytes // 2))
    start = _seam(text, syntax(), byte, max(0, byte - window_bytes // 2), 0)
    end = start + window_bytes
    if end >= len(text):
        return start, len(text)
    return start, _seam(text, syntax(), end, end - slack, start + 1)


def _seam(text: bytes, syntax: Syntax | None, byte: int, node_floor: int, floor: int) -> int:
    """Where a text is best cut at or before `byte`.

    At the line of a top-level node unless that is before `node_floor`, else at a line unless that
    is before `floor`, else between characters.
    """
    if syntax is not None:
        cursor = syntax.root.walk()
        if cursor.goto_first_child_for_byte(byte) is not None:
            line_start = text.rfind(b"\n", 0, cursor.node.start_byte) + 1
            if node_floor <= line_start <= byte:
                return line_start
    line_start = text.rfind(b"\n", 0, byte) + 1
    if line_start >= floor:
        return line_start
    while text[byte] & 0xC0 == 0x80:
        byte -= 1
    return max(byte, floor)
