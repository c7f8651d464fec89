"""What a model is measured on: spans of every construct of the held-out files, and whole files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fim import (
    LANGUAGES,
    SAMPLERS,
    Document,
    FimError,
    Sample,
    Span,
    SpanPolicy,
    Syntax,
    Tokens,
    candidate_spans,
    make_rng,
    parse,
    split_at,
)

DRAWN = ("cursor", "siblings", "random")
"""Samplers that are scenarios beside the constructs of a language."""
_PER_FILE = 8
"""Candidates of one scenario in one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One held-out span and what it is an example of."""

    scenario: str
    """A construct of the language, `empty` among them, or a name of `DRAWN`."""
    sample: Sample
    """The document cut at the span."""


def make_items(
    documents: Sequence[Document],
    *,
    number: int,
    order: str,
    max_middle_bytes: int,
    seed: int,
    accept: Callable[[Sample], bool] = lambda sample: True,
) -> list[Item]:
    """Choose spans that spread over files and scenarios as evenly as the files allow.

    Files take turns; each gives one span of the scenario that has the fewest so far among those it
    still has. The choice depends on nothing but the documents and the seed.

    Args:
        documents: held-out files.
        number: spans wanted; fewer when the files have no more.
        order: order of the prompts.
        max_middle_bytes: longer spans are left out.
        seed: of the choice.
        accept: false leaves a span out (say, too many tokens).
    """
    policy = SpanPolicy(max_middle_bytes=max_middle_bytes)
    waiting = {}
    for document in sorted(documents, key=lambda d: make_rng(seed, d.id).random()):
        candidates = _candidates(document, policy, seed)
        if candidates:
            waiting[document] = candidates
    chosen: list[Item] = []
    counts: dict[str, int] = {}
    while waiting and len(chosen) < number:
        for document in list(waiting):
            item = _next_item(document, waiting[document], counts, order, accept)
            if item is None:
                del waiting[document]
                continue
            chosen.append(item)
            counts[item.scenario] = counts.get(item.scenario, 0) + 1
            if len(chosen) == number:
                break
    return chosen


def _next_item(
    document: Document,
    candidates: dict[str, list[Span]],
    counts: dict[str, int],
    order: str,
    accept: Callable[[Sample], bool],
) -> Item | None:
    while candidates:
        scenario = min(candidates, key=lambda name: (counts.get(name, 0), name))
        span = candidates[scenario].pop()
        if not candidates[scenario]:
            del candidates[scenario]
        # .75 is what llama.cpp gives the prefix when the window is too small
        sample = split_at(document, span, order=order, context_split=0.75)
        if accept(sample):
            return Item(scenario=scenario, sample=sample)
    return None


def _candidates(document: Document, policy: SpanPolicy, seed: int) -> dict[str, list[Span]]:
    """A few spans of every scenario of a file, in random order, none twice; none of prose."""
    if not LANGUAGES[document.language].is_code:
        return {}
    try:
        syntax = parse(document.text, document.language)
    except FimError:
        return {}
    constructs = candidate_spans(syntax, policy)
    candidates = {}
    for name in (*constructs, *DRAWN):
        rng = make_rng(seed, document.id, name)
        spans = constructs.get(name) or list(_drawn(syntax, policy, name, rng))
        spans = [s for s in spans if s.end_byte > s.start_byte or name == "empty"]
        rng.shuffle(spans)
        unique = {(s.start_byte, s.end_byte): s for s in spans}
        if unique:
            candidates[name] = list(unique.values())[:_PER_FILE]
    return candidates


def _drawn(syntax: Syntax, policy: SpanPolicy, name: str, rng) -> Iterator[Span]:
    for _ in range(_PER_FILE):
        found = SAMPLERS[name](syntax, policy, rng)
        if found is not None:
            yield Span(start_byte=found[0], end_byte=found[1], sampler=name, kind=found[2])


def whole_pieces(
    document: Document,
    window: int,
    encode_piece: Callable[[Sample], Tokens],
    document_end: int,
) -> Iterator[tuple[Sample, Tokens]]:
    """Cut a file from start to end into pieces of which no byte is lost to the window.

    A piece that does not fit whole, since its tokens are shorter than most, is halved until it
    does; the next one goes on where it ends.

    Args:
        document: the file.
        window: most bytes of a piece.
        encode_piece: encodes an autoregressive sample, cutting it where it does not fit.
        document_end: id that follows a text that was encoded to its end.

    Yields:
        Pieces whose texts join to the file's, with their tokens.
    """
    text, start = document.text, 0
    while start < len(text):
        size = min(window, len(text) - start)
        while True:
            end = _piece_end(text, start, size)
            tokens = encode_piece(_piece(document, start, end, ends_document=True))
            if tokens.input_ids[-1] == document_end:
                break
            size = (end - start) // 2
        last = end == len(text)
        if not last:
            ids, labels = tokens.input_ids[:-1], tokens.labels[:-1]
            tokens = replace(tokens, input_ids=ids, labels=labels)
        yield _piece(document, start, end, ends_document=last), tokens
        start = end


def _piece_end(text: bytes, start: int, size: int) -> int:
    """The last line end in the next `size` bytes, else the last character's, but one at least."""
    end = start + size
    if end >= len(text):
        return len(text)
    newline = text.rfind(b"\n", start, end) + 1
    if newline:
        return newline
    while end > start and text[end] & 0xC0 == 0x80:
        end -= 1
    if end == start:
        end += 1
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end += 1
    return end


def _piece(document: Document, start: int, end: int, ends_document: bool) -> Sample:
    return Sample(
        document_id=document.id, repo=document.repo, path=document.path,
        language=document.language, prefix=b"", middle=document.text[start:end], suffix=b"",
        order="ar", sampler="", kind="", context_split=1.0, start_byte=start,
        ends_document=ends_document,
    )  # fmt: skip
