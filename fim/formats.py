"""The proof that a tokenizer has a model family's prompt format, and which family it is."""

from dataclasses import dataclass, field, replace
from typing import Any

from fim.errors import FimError
from fim.families import FORMATS
from fim.layouts import PSM, SPM_V1, SPM_V2, TOKENIZER_BOS, FimFormat, Text

__all__ = [
    "FORMATS",
    "PSM",
    "SPM_V1",
    "SPM_V2",
    "TOKENIZER_BOS",
    "FimFormat",
    "ProvedFormat",
    "Text",
    "backend_of",
    "control_tokens",
    "families_named",
    "find_faults",
    "resolve_format",
    "tokenizer_bos",
]
_SEGMENTS = ("P", "S", "M", "C")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedFormat:
    """A row of `FORMATS` with the token ids one tokenizer has for it."""

    name: str
    row: FimFormat
    ids: dict[str, int] = field(repr=False)
    """Id of each token of the row that the tokenizer has, by its text."""
    bos_ids: tuple[int, ...] = ()
    """Ids at the start of every sample."""
    layouts: dict[str, tuple[str | int, ...]] = field(repr=False)
    """The row's layouts with ids in place of control tokens, `C` written out."""

    @property
    def end_id(self) -> int:
        """Id of the token after a MIDDLE."""
        return self.ids[self.row.end]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids a generation stops at."""
        return tuple(self.ids[token] for token in self.row.stop if token in self.ids)

    def sentinel_id(self, part: str) -> int:
        """Id of `PRE`, `SUF`, `MID` or a further control token of a layout."""
        return self.ids[_spelled(self.row, part)]


def resolve_format(tokenizer: Any, name: str | None = None, hint: str = "") -> ProvedFormat:
    """Find the row a tokenizer proves: each sentinel is one id of its own, and the end stops.

    Several families share their sentinels and differ in order, ends or paths. Without a name, what
    else is in the vocabulary decides and, before that, `hint`; where neither does, nothing is
    guessed.

    Args:
        tokenizer: a `transformers` fast tokenizer.
        name: row of `FORMATS`; `None` or `"auto"` tries every row.
        hint: the model's name, and what its config says of its type.

    Raises:
        FimError: no such row, the tokenizer does not prove it, or it proves several that differ;
            lists what was found.
    """
    if name not in (None, "auto", *FORMATS):
        raise FimError(f"unknown FIM format {name!r}; known: {', '.join(sorted(FORMATS))}")
    backend = _clean_copy(tokenizer)
    if name in FORMATS:
        faults = find_faults(backend, FORMATS[name])
        if faults:
            raise FimError(f"tokenizer does not have the format {name!r}: {'; '.join(faults)}")
        return _proved(backend, name)
    faults_of = {row: find_faults(backend, FORMATS[row]) for row in FORMATS}
    candidates = _candidates(backend, [row for row in FORMATS if not faults_of[row]], hint)
    if not candidates:
        found = "; ".join(f"{row}: {faults[0]}" for row, faults in faults_of.items() if faults)
        raise FimError(
            f"tokenizer has the FIM sentinels of no known model family ({found}); "
            "tune a base that was trained on FIM"
        )
    if any(_rendering(row) != _rendering(candidates[0]) for row in candidates):
        raise FimError(
            f"tokenizer has the FIM sentinels of {', '.join(sorted(candidates))}, whose prompts "
            "differ; set model.format to the family of the model, or --format of sfim check"
        )
    return _proved(backend, candidates[0])


def _candidates(backend: Any, proved: list[str], hint: str) -> list[str]:
    """The rows that a name means; without one, those that the rest of the vocabulary allows.

    Where the two contradict each other, both are candidates.
    """
    marked = [
        name
        for name in proved
        if all(
            (backend.token_to_id(token) is not None) == there
            for token, there in FORMATS[name].marks.items()
        )
    ]
    named = families_named(hint)
    # a refused family without marks is met by its name only: its sentinels are others' too
    by_vocabulary = [name for name in marked if FORMATS[name].marks or not FORMATS[name].untrained]
    agreed = [name for name in marked if name in named]
    return agreed or [*(name for name in proved if name in named), *by_vocabulary]


def families_named(hint: str) -> set[str]:
    """Return the rows whose name is in a hint; `starcoder2` is not also `starcoder`."""
    hint = hint.lower()
    found = {
        part: name for name, row in FORMATS.items() for part in (name, *row.models) if part in hint
    }
    return {
        name
        for part, name in found.items()
        if not any(part != other and part in other for other in found)
    }


def _rendering(name: str) -> FimFormat:
    """A row without what says nothing of its prompts."""
    return replace(FORMATS[name], models=(), marks={}, verified="doc", source="")


def _clean_copy(tokenizer: Any) -> Any:
    """Copy a tokenizer's backend without the settings its last caller left on it.

    `tokenizer(text, split_special_tokens=True)` leaves one on, which a copy does not have; the
    same call could leave truncation or padding.
    """
    backend = backend_of(tokenizer)
    copy = type(backend).from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _spelled(row: FimFormat, part: str) -> str:
    return {"PRE": row.prefix, "SUF": row.suffix, "MID": row.middle}.get(part, part)


def control_tokens(row: FimFormat) -> list[str]:
    """Return the control tokens of a row's prompts, sentinels first, each once."""
    parts = [part for layout in row.orders.values() for part in layout]
    tokens = [
        _spelled(row, part)
        for part in ("PRE", "SUF", "MID", *parts)
        if part not in _SEGMENTS and not isinstance(part, Text)
    ]
    return list(dict.fromkeys(filter(None, tokens)))


def find_faults(backend: Any, row: FimFormat) -> list[str]:
    """Return what keeps a `tokenizers.Tokenizer` from proving a row; empty when it does."""
    needed = [*control_tokens(row), row.end, row.document_end]
    needed += [row.bos] if row.bos not in ("", TOKENIZER_BOS) else []
    faults = [fault for token in dict.fromkeys(needed) if (fault := _token_fault(backend, token))]
    if faults:
        return faults
    sentinels = filter(None, (row.prefix, row.suffix, row.middle, row.end))
    ids = [backend.token_to_id(token) for token in sentinels]
    if len(set(ids)) < len(ids):
        return [f"sentinels share an id: {ids}"]
    if not row.guarded and backend.encode("a", add_special_tokens=False).tokens[0][0] == "▁":
        return ["it puts a blank before every text, which the row does not reckon with"]
    return []


def _token_fault(backend: Any, token: str) -> str | None:
    token_id = backend.token_to_id(token)
    if token_id is None:
        return f"{token!r} is not in its vocabulary"
    if backend.id_to_token(token_id) != token:
        return f"{token!r} is id {token_id}, which reads {backend.id_to_token(token_id)!r}"
    # a plain vocabulary entry is no sentinel: written out, it must come back as this one id
    ids = backend.encode(token, add_special_tokens=False).ids
    return None if ids == [token_id] else f"{token!r} encodes to {ids}, not to one id"


def _proved(backend: Any, name: str) -> ProvedFormat:
    row = FORMATS[name]
    tokens = {
        *control_tokens(row), row.end, row.document_end, row.bos, row.file, row.file_end, row.repo,
        row.pad, *row.stop,
    }  # fmt: skip
    tokens = sorted(token for token in tokens if token.strip() and token != TOKENIZER_BOS)
    ids = {token: backend.token_to_id(token) for token in tokens}
    found = {token: token_id for token, token_id in ids.items() if token_id is not None}
    if row.bos == TOKENIZER_BOS:
        bos = tokenizer_bos(backend)
    else:
        bos = (found[row.bos],) if row.bos else ()
    found |= {backend.id_to_token(token_id): token_id for token_id in bos}
    layouts = {
        order: tuple(
            part if part in _SEGMENTS or isinstance(part, Text) else found[_spelled(row, part)]
            for part in (layout if "C" in layout else ("C", *layout))
        )
        for order, layout in row.orders.items()
    }
    return ProvedFormat(name=name, row=row, ids=found, bos_ids=bos, layouts=layouts)


def tokenizer_bos(backend: Any) -> tuple[int, ...]:
    """Return the ids that a `tokenizers.Tokenizer` puts before a text by itself."""
    encoding = backend.encode("a", add_special_tokens=True)
    return tuple(encoding.ids[: encoding.special_tokens_mask.index(0)])


def backend_of(tokenizer: Any) -> Any:
    """Return the `tokenizers.Tokenizer` of a fast tokenizer.

    Raises:
        FimError: a slow tokenizer has none.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise FimError("a fast tokenizer is needed (one with a tokenizer.json)")
    return backend
