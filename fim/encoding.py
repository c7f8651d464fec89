"""Samples to token ids: fitted to the window, sentinels as ids, content that cannot be one.

Prefix, middle and suffix are encoded apart, as a server does. Training samples and prompts come
from one function, so that a prompt is always the start of what was trained.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fim.budgets import PROFILES, Profile, within_lines
from fim.content import ContentTokenizer, content_tokenizer
from fim.data import IGNORE_INDEX, Document, Sample, Tokens
from fim.errors import FimError, TooLong
from fim.fitting import Side, cut, fit_sides, look
from fim.formats import ProvedFormat, Text
from fim.repository import header_ids, named, repository_ids

LOSSES = ("all", "middle")
_UNTRAINED = ("BOS", "HEADER", "TEXT", "C")
"""Parts no loss is taken on."""


def encode(
    sample: Sample,
    form: ProvedFormat,
    tokenizer: Any,
    *,
    max_length: int,
    loss: str = "all",
    context: Iterable[Document] = (),
    path_header: str = "none",
    profile: str = "none",
) -> Tokens:
    """Encode a sample, giving up context until it fits; MIDDLE and its end token stay whole.

    Args:
        sample: what to encode.
        form: the model family, proved on this tokenizer.
        tokenizer: a `transformers` fast tokenizer.
        max_length: most tokens of the result.
        loss: `"all"`, or `"middle"` for MIDDLE and end token only (AR samples: everything).
        context: other documents of the repository, the nearest last; they fill what is left.
        path_header: `"none"`, `"comment"` or `"family"`, see `fim.path_header` in the recipe.
        profile: row of `PROFILES`: how much prefix and suffix the client sends.

    Returns:
        Ids and labels of shape `(length,)`, `length <= max_length`.

    Raises:
        TooLong: MIDDLE, sentinels and end token alone do not fit.
        FimError: the family has no such order, or the text gives a control token.

    Source:
        Loss on all sections and the end token: Bavarian et al. 2022 (arXiv 2207.14255).
    """
    if loss not in LOSSES:
        raise FimError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
    request = _Request(
        sample, form, tokenizer, content_tokenizer(tokenizer), max_length, path_header,
        _profile(profile), tuple(context),
    )  # fmt: skip
    parts = _parts(request)
    ids = _joined(parts)
    labels = ids.copy()
    size = {"P": 0, "M": 0, "S": 0}
    start = 0
    for part in parts:
        end = start + len(part.ids)
        if part.name in _UNTRAINED or (loss == "middle" and part.name not in ("M", "END")):
            labels[start:end] = IGNORE_INDEX
        if part.name in size:
            size[part.name] += end - start
        start = end
    labels[0] = IGNORE_INDEX
    return Tokens(
        input_ids=ids,
        labels=labels,
        prefix_tokens=size["P"],
        middle_tokens=size["M"],
        suffix_tokens=size["S"],
    )


def encode_prompt(
    sample: Sample,
    form: ProvedFormat,
    tokenizer: Any,
    *,
    max_length: int,
    max_new_tokens: int,
    context: Iterable[Document] = (),
    path_header: str = "none",
    profile: str = "none",
) -> list[int]:
    """Return what a server sends for a sample: everything up to its MIDDLE.

    Args:
        sample: prefix, suffix, path and order; its MIDDLE is not looked at.
        form: see `encode`.
        tokenizer: see `encode`.
        max_length: tokens of the window.
        max_new_tokens: tokens kept free for the completion and its end token.
        context: see `encode`.
        path_header: see `encode`.
        profile: see `encode`.

    Raises:
        TooLong: nothing but `max_new_tokens` fits.
    """
    request = _Request(
        sample, form, tokenizer, content_tokenizer(tokenizer), max_length, path_header,
        _profile(profile), tuple(context), reserve=max_new_tokens,
    )  # fmt: skip
    parts = [part for part in _parts(request) if part.name not in ("M", "END")]
    return _joined(parts).tolist() if parts else []


@dataclass(frozen=True, slots=True)
class _Part:
    """Ids with one meaning: `P S M`, `C` (other files), `TOKEN`, `BOS`, `END`, `HEADER`, `TEXT`."""

    name: str
    ids: Sequence[int] | np.ndarray


def _joined(parts: list[_Part]) -> np.ndarray:
    return np.concatenate([np.asarray(part.ids, dtype=np.int32) for part in parts])


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be rendered; with `reserve`, so many tokens stand in for the MIDDLE."""

    sample: Sample
    form: ProvedFormat
    tokenizer: Any
    content: ContentTokenizer
    max_length: int
    path_header: str
    profile: Profile
    context: tuple[Document, ...]
    reserve: int | None = None

    def header(self, after_text: bool) -> tuple[list[int], list[int]]:
        """Ids that name the file, before the block and before the prefix."""
        return header_ids(self.sample, self.form, self.content, self.path_header, after_text)

    def files(self, prompt: int, rest: int) -> list[int]:
        """Other files, in what the prompt's tokens and the rest of the sample leave."""
        if not self.context:
            return []
        room = (self.profile.prompt_tokens or self.max_length) - prompt
        return repository_ids(
            self.context, self.sample.repo, self.form, self.tokenizer, self.content,
            min(room, self.max_length - prompt - rest),
        )  # fmt: skip


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise FimError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def _parts(request: _Request) -> list[_Part]:
    """The sample in its order, fitted.

    SentencePiece puts a blank before every text. Where other files come right before the prefix or
    an AR piece, that blank must not be; whether any file fits is known afterwards only.
    """
    draw = _ar_parts if request.sample.order == "ar" and request.reserve is None else _fim_parts
    if request.context and request.form.row.guarded:
        parts = draw(request, True)
        if any(part.name == "C" and part.ids for part in parts):
            return parts
        request = replace(request, context=())
    return draw(request, False)


def _fim_parts(request: _Request, with_files: bool) -> list[_Part]:
    sample, form, content = request.sample, request.form, request.content
    layout = form.layouts.get(sample.order)
    if layout is None:
        orders = ", ".join(form.row.orders)
        raise FimError(f"{form.name} has no order {sample.order!r}; it has: {orders}")
    guarded, blanks = form.row.guarded, bool(form.row.guarded)
    after_files = with_files and layout[layout.index("P") - 1] == "C"
    before, inside = request.header(blanks and after_files)
    middle = content.encode(sample.middle, "M" in guarded) if request.reserve is None else []
    parts = [_Part("BOS", form.bos_ids)] if form.bos_ids else []
    for entry in layout:
        if isinstance(entry, int):
            parts.append(_Part("TOKEN", (entry,)))
            continue
        if isinstance(entry, Text):
            text = named(entry, sample.path, sample.language)
            parts.append(_Part("TEXT", content.encode(text, blanks)))
            continue
        if entry == "P" and inside:
            parts.append(_Part("HEADER", inside))
        parts.append(_Part(entry, middle if entry == "M" else ()))  # the others are fitted below
        if entry == "C" and before:
            parts.append(_Part("HEADER", before))
    rest = 1 + (len(middle) if request.reserve is None else request.reserve)  # MIDDLE and end
    prompt = sum(len(part.ids) for part in parts) - len(middle)
    room = request.max_length - prompt - rest
    if room < 0:
        raise TooLong(f"a MIDDLE of {rest - 1} tokens does not fit {request.max_length}")
    before_middle, after_middle = within_lines(sample.prefix, sample.suffix, request.profile)
    goes_on = "P" in guarded or (blanks and (after_files or bool(inside)))
    prefix, suffix = fit_sides(
        Side(before_middle, goes_on, is_prefix=True),
        Side(after_middle, "S" in guarded, is_prefix=False),
        content, room, sample.context_split, request.profile,
    )  # fmt: skip
    files = request.files(prompt + len(prefix) + len(suffix), rest)
    fitted = {"P": prefix, "S": suffix, "C": files}
    parts = [_Part(part.name, fitted.get(part.name, part.ids)) for part in parts]
    return [*parts, _Part("END", (form.end_id,))]


def _ar_parts(request: _Request, with_files: bool) -> list[_Part]:
    sample, form, content = request.sample, request.form, request.content
    blanks = bool(form.row.guarded)
    before, inside = request.header(blanks and with_files)
    header = before + inside
    room = request.max_length - len(form.bos_ids) - len(header) - 1
    if room < 1:
        raise TooLong(f"not one line of {sample.path} fits {request.max_length} tokens")
    side = Side(sample.middle, blanks and (with_files or bool(header)), is_prefix=False)
    seen = cut(side, content, room, look(side, content, room))
    whole = len(seen.text) == len(sample.middle)
    end = [form.ids[form.row.document_end]] if whole and sample.ends_document else []
    if not len(seen.ids) and not end:
        raise TooLong(f"not one line of {sample.path} fits {request.max_length} tokens")
    used = len(form.bos_ids) + len(header) + len(seen.ids) + len(end)
    parts = [
        _Part("BOS", form.bos_ids), _Part("C", request.files(used, 0)), _Part("HEADER", header),
        _Part("M", seen.ids), _Part("END", end),
    ]  # fmt: skip
    return [part for part in parts if len(part.ids)]
