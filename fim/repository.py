"""What a prompt says beside the text at hand: its path, and other files of the repository."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fim.content import ContentTokenizer
from fim.data import Document, Sample
from fim.errors import FimError
from fim.formats import ProvedFormat
from fim.languages import LANGUAGES

PATH_HEADERS = ("none", "comment", "family")
COMMENT_HEADER = "{comment} {path}{end}\n"
Piece = tuple[str, str]
"""`("token", TOKEN)`, or `("text", TEMPLATE)` as `named` fills it."""
_BYTES_PER_TOKEN = 16
"""A file of more bytes than this per token that is left is not tried."""
_KEPT_FILES, _KEPT_BYTES = 512, 65_536
"""Files whose ids are remembered, and the longest of them: neighbors are asked for again."""


def named(template: str, path: str, language: str) -> bytes:
    """Fill the path and language into a row's text; what of a path is no UTF-8 becomes `?`."""
    row = LANGUAGES.get(language)
    text = template.format(
        comment=row.comment if row else "#",
        end=f" {row.comment_end}" if row and row.comment_end else "",
        path=path,
        title=row.title if row else language,
        extension=PurePosixPath(path).suffix,
    )
    return text.encode(errors="replace")


def header_ids(
    sample: Sample, form: ProvedFormat, content: ContentTokenizer, style: str, guarded: bool
) -> tuple[list[int], list[int]]:
    """Return the ids that name the file: those before the block and those before the prefix.

    Args:
        sample: its path and language.
        form: the family, which has a way of its own.
        content: encodes the path.
        style: row of `PATH_HEADERS`.
        guarded: whether text stands before, so that no blank may.

    Raises:
        FimError: an unknown style.
    """
    before, inside = header_pieces(form, style)

    def ids(pieces: list[Piece]) -> list[int]:
        return [
            token
            for kind, text in pieces
            for token in (
                [form.ids[text]]
                if kind == "token"
                else content.encode(named(text, sample.path, sample.language), guarded)
            )
        ]

    return ids(before), ids(inside)


def header_pieces(form: ProvedFormat, style: str) -> tuple[list[Piece], list[Piece]]:
    """Return what names the file, before the block and before the prefix.

    Raises:
        FimError: an unknown style.
    """
    if style == "none":
        return [], []
    if style not in PATH_HEADERS:
        raise FimError(f"unknown path header {style!r}; known: {', '.join(PATH_HEADERS)}")
    row = form.row
    if style == "family" and row.file in form.ids:
        token, path = ("token", row.file), ("text", "{path}\n")
        places = {
            "before": ([token, path], []), "split": ([token], [path]), "inside": ([], [token, path])
        }  # fmt: skip
        return places[row.path]
    text = row.header if style == "family" else COMMENT_HEADER
    return [], [("text", text)] if text else []


def repository_ids(
    documents: Iterable[Document],
    repo: str,
    form: ProvedFormat,
    tokenizer: Any,
    content: ContentTokenizer,
    room: int,
) -> list[int]:
    """Return whole files in the family's template, the nearest last, as many as fit.

    Args:
        documents: the nearest last.
        repo: name of the repository, for families that say it.
        form: the family.
        tokenizer: whose ids of a file are remembered.
        content: encodes them.
        room: most tokens.
    """
    row = form.row
    start: list[int] = []
    if row.repo in form.ids:
        start = [form.ids[row.repo], *content.encode(named("{path}", repo + row.repo_end, ""))]
    room -= len(start)
    blanks = bool(row.guarded)
    files: list[tuple[Document, list[int]]] = []
    for document in reversed(tuple(documents)):
        if len(document.text) > room * _BYTES_PER_TOKEN:
            continue
        ids = _head(document, form, content, blanks) + _body(document, form, tokenizer, content)
        if len(ids) <= room:
            room -= len(ids)
            files.insert(0, (document, ids))
    while blanks and files:  # the first text of a sample has its blank
        document, ids = files[0]
        head = _head(document, form, content, False)
        more = len(head) - len(_head(document, form, content, True))
        if more <= room:
            files[0] = (document, head + ids[len(head) - more :])
            break
        room += len(ids)
        del files[0]
    return start + [token for _, ids in files for token in ids] if files else []


def _head(
    document: Document, form: ProvedFormat, content: ContentTokenizer, guarded: bool
) -> list[int]:
    """The ids that name another file."""
    row = form.row
    if row.file in form.ids:
        path = named("{path}\n", document.path, document.language)
        return [form.ids[row.file], *content.encode(path, guarded)]
    text = row.file_header or row.header or COMMENT_HEADER
    return content.encode(named(text, document.path, document.language), guarded)


_BODIES: WeakKeyDictionary[Any, dict[tuple[str, str], np.ndarray]] = WeakKeyDictionary()


def _body(
    document: Document, form: ProvedFormat, tokenizer: Any, content: ContentTokenizer
) -> list[int]:
    """The ids of another file's text and its end, remembered."""
    bodies = _BODIES.setdefault(tokenizer, {})
    key = (form.name, document.id)
    if key in bodies:
        return bodies[key].tolist()
    row = form.row
    blanks = bool(row.guarded)
    text = document.text
    if not row.file and not row.file_end and not text.endswith(b"\n"):
        text += b"\n"  # what follows starts a line of its own
    ids = content.encode(text, blanks)
    if row.file_end in form.ids:
        ids = [*ids, form.ids[row.file_end]]
    elif row.file_end:
        ids = [*ids, *content.encode(row.file_end.encode(), blanks)]
    if len(text) <= _KEPT_BYTES:
        if len(bodies) >= _KEPT_FILES:
            del bodies[next(iter(bodies))]
        bodies[key] = np.array(ids, dtype=np.int32)
    return ids
