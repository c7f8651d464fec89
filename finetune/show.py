"""Counts and samples in a terminal."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fim import LANGUAGES, FimError, parse
from fim.syntax import node_chain
from finetune.audit.read import BuiltRun, Row, open_run, read_texts
from finetune.audit.tokens import Vocabulary, read_vocabulary

MIDDLE, DIM, PLAIN = "\033[1;30;43m", "\033[2m", "\033[0m"
_CONTEXT_LINES = 6
_NAME_CHARACTERS = 40
_KINDS_LISTED = 20
_LISTED = 8
"""Languages and kinds of secrets that are named."""


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def prepare_summary(stats: Mapping[str, Any]) -> str:
    """Return what went in and what came out of `prepare`; older stats lack the funnel."""
    documents = stats["documents"]
    languages = _listed(stats["languages"], _LISTED)
    total = sum(stats["samples"].values())
    shares = ", ".join(f"{n / total:.0%} {name}" for name, n in stats["samples"].items())
    sizes = " / ".join(str(stats["middle_bytes"][q]) for q in ("p10", "p50", "p90"))
    if stats.get("funnel"):
        left_out = [funnel_table(stats["funnel"]), ""]
    else:
        left_out = [f"skipped    {_listed(documents['skipped']) or 'none'}"]
    secrets = stats.get("secrets")
    return "\n".join(
        [
            *left_out,
            f"documents  {documents['kept']:,} kept ({languages}), "
            f"{stats['held_out']['documents']:,} of them held out",
            *([f"secrets    {_listed(secrets, _LISTED)}"] if secrets else []),
            f"samples    {total:,} ({shares}), MIDDLE {sizes} bytes (10, 50, 90 %)",
            f"packs      {stats['packs']:,} of {stats['tokens']:,} tokens, "
            f"utilisation {stats['utilisation']:.2%}",
            *([_decay_line(stats["decay"])] if stats.get("decay") else []),
        ]
    )


def _decay_line(decay: Mapping[str, Any]) -> str:
    return (
        f"decay      the last {decay['packs']:,} packs, {decay['tokens']:,} tokens: samples of "
        f"{_listed(decay['sources'], _LISTED)}; {_listed(decay['languages'], _LISTED)}"
    )


def funnel_table(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return a line per step of the corpus, in their order: what it dropped, what was left then.

    Args:
        steps: `funnel` of the stats; the first, without a reason, is all that was found.
    """
    rows = [["", "files", "MB", "files left", "MB left"]]
    for step in steps:
        dropped = [f"{step['files']:,}", f"{step['bytes'] / 1e6:,.2f}"]
        left = [f"{step['left_files']:,}", f"{step['left_bytes'] / 1e6:,.2f}"]
        name = visible(step["reason"])  # a drop list says its own
        rows.append([name or "found", *(dropped if name else ("", "")), *left])
    return align(rows)


def _listed(counts: Mapping[str, int], most: int | None = None) -> str:
    shown = [f"{number:,} {name}" for name, number in counts.items()][:most]
    rest = sum(counts.values()) - sum(list(counts.values())[:most])
    return ", ".join([*shown, f"{rest:,} more"] if rest else shown)


def show_samples(
    run: Path, number: int, kind: str = "", language: str = "", color: bool = False
) -> Iterator[str]:
    """Yield training samples as they stand in the packs, spread over the documents.

    Args:
        run: a prepared run folder.
        number: samples at most, 1 or more.
        kind: node type, construct, sampler or order they must have; empty takes all.
        language: row of `LANGUAGES` they must have; empty takes all.
        color: mark the MIDDLE by color rather than by `<<<` and `>>>`.

    Raises:
        FimError: no sample matches; lists what there is.
    """
    built = open_run(run)
    packs = built.packs("train")
    rows = built.rows("train", packs)
    chosen = _spread([row for row in rows if _matches(row, kind, language)], number)
    if not chosen:
        raise FimError(_nothing_found(rows, kind, language))
    texts = read_texts(built, {row.document_id for row in chosen})
    vocabulary = read_vocabulary(built.tokenizer().backend_tokenizer)
    for row in chosen:
        ids, _ = packs.tokens(row)
        yield "\n".join(
            [
                _head(row, color),
                *_node_path(row, texts[row.document_id]),
                _marked_text(row, texts[row.document_id], color),
                _joints(row, ids, vocabulary, built, color),
            ]
        )


def visible(text: str) -> str:
    r"""Return a text that no terminal obeys: what does not print becomes `\x1b` or `\u202e`."""
    text = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _matches(row: Row, kind: str, language: str) -> bool:
    if language and row.language != language:
        return False
    return not kind or kind in (row.kind, row.sampler, row.order) or row.kind in _types(row, kind)


def _types(row: Row, construct: str) -> tuple[str, ...]:
    """Node types of a construct of the row's language, whatever must be inside."""
    language = LANGUAGES.get(row.language)
    listed = language.constructs.get(construct, ()) if language else ()
    return tuple(kind.split()[0] for kind in listed)


def _nothing_found(rows: Sequence[Row], kind: str, language: str) -> str:
    languages = Counter(row.language for row in rows)
    if language and language not in languages:
        return f"--language {language!r}: no sample; there are: {', '.join(sorted(languages))}"
    kinds = Counter(row.kind for row in rows if row.kind and _matches(row, "", language))
    others = {row.sampler or row.order for row in rows}
    listed = [name for name, _ in kinds.most_common(_KINDS_LISTED)]
    more = f" and {len(kinds) - len(listed)} more" if len(kinds) > len(listed) else ""
    return (
        f"--kind {kind!r}: no sample; there are: {', '.join(sorted(others))}; "
        f"{', '.join(listed)}{more}"
    )


def _spread(rows: Sequence[Row], number: int) -> list[Row]:
    """Choose rows of as many documents as there are, evenly over the order of their ids."""
    by_document: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.document_id):
        by_document[row.document_id].append(row)
    firsts = [found[0] for found in by_document.values()]
    others = [row for found in by_document.values() for row in found[1:]]
    step = max(1, len(firsts) // number)
    return (firsts[::step] + others)[:number]


def _head(row: Row, color: bool) -> str:
    head = f"{row.path} [{row.start_byte}:{row.end_byte}] {row.language} {row.order}"
    if row.order != "ar":
        head += f" {row.sampler} {row.kind} ({row.boundary})"
    head = visible(head)
    return f"{DIM}{head}{PLAIN}" if color else head


def _node_path(row: Row, text: bytes) -> Iterator[str]:
    """The named nodes around the MIDDLE, from the file to it; none without a tree."""
    try:
        syntax = parse(text, row.language)
    except FimError:
        return
    around = [
        node
        for node in (syntax.root, *node_chain(syntax, row.node_start_byte))
        if node.is_named and node.end_byte >= row.end_byte
    ]
    if row.order != "ar":
        yield visible(" > ".join(_named(node, text) for node in around))


def _named(node: Any, text: bytes) -> str:
    """A node's type, and its name where it has one."""
    name = node.child_by_field_name("name")
    if name is None:
        return node.type
    said = text[name.start_byte : name.end_byte].decode(errors="replace")
    return f"{node.type} {' '.join(said.split())[:_NAME_CHARACTERS]}"


def _marked_text(row: Row, text: bytes, color: bool) -> str:
    before, middle, after = (
        visible(part.decode(errors="replace"))
        for part in (
            text[: row.start_byte], text[row.start_byte : row.end_byte], text[row.end_byte :],
        )
    )  # fmt: skip
    before = "\n".join(before.split("\n")[-_CONTEXT_LINES:])
    after = "\n".join(after.split("\n")[:_CONTEXT_LINES])
    return f"{before}{_mark(middle, color)}{after}"


def _mark(text: str, color: bool) -> str:
    return f"{MIDDLE}{text}{PLAIN}" if color else f"<<<{text}>>>"


def _joints(row: Row, ids: np.ndarray, vocabulary: Vocabulary, run: BuiltRun, color: bool) -> str:
    """The ids of a sample where its parts meet: two on either side, each with its text."""
    names = {number: token for token, number in vocabulary.ids.items()}
    control = set(np.flatnonzero(vocabulary.is_control[ids]).tolist())
    end = len(ids) - (len(ids) - 1 in control)
    start = end - row.middle_tokens
    cuts = sorted({0, start, end, len(ids), *control, *(place + 1 for place in control)})
    parts = []
    for first, stop in pairwise(cuts):
        if first in control:
            parts.append(visible(f"{ids[first]} {names[int(ids[first])]}"))
            continue
        shown = [_piece(token, vocabulary) for token in ids[first:stop].tolist()]
        if len(shown) > 4:
            shown[2:-2] = ["..."]
        part = visible(" ".join(shown))
        parts.append(_mark(part, color) if first == start else part)
    return " | ".join(parts)


def _piece(token: int, vocabulary: Vocabulary) -> str:
    return f"{token} {vocabulary.texts[token].decode(errors='backslashreplace')!r}"
