"""All that is found out about one file by itself: a pure function of the file and settings."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from fim import LANGUAGES, Document, FimError
from finetune.corpus.cleaning.clean import clean_document
from finetune.corpus.copies.benchmarks import Benchmarks
from finetune.corpus.copies.dedup import content_key
from finetune.corpus.copies.near import make_signatures
from finetune.corpus.entries import File, Reason, Skip
from finetune.corpus.filters import check_document, to_document
from finetune.corpus.licences import find_licence, is_licence_file
from finetune.corpus.links.find import Links, common_words, find_links, is_said
from finetune.corpus.privacy.redact import redact
from finetune.recipe.corpus import Corpus, Secrets
from finetune.recipe.filters import Filters
from finetune.store import fingerprint, sha256_file


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """What decides what a study says, but for the versions of libraries."""

    filters: Filters
    secrets: Secrets
    benchmarks: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, corpus: Corpus, seed: int) -> "StudySettings":
        """Take them from a recipe's section."""
        return cls(
            filters=corpus.filters, secrets=corpus.secrets, benchmarks=corpus.benchmarks, seed=seed
        )

    def digits(self, versions: Mapping[str, str]) -> str:
        """Return what changes when any study may: the settings, benchmarks, or a library.

        Raises:
            FimError: a benchmark's file is missing.
        """
        names = [(Path(path).name, file_digits(path)) for path in self.benchmarks]
        return fingerprint(asdict(replace(self, benchmarks=())), names, dict(versions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What became of a file: a text to learn from, or the reason why there is none."""

    reason: str = ""
    """Empty for a file that no rule for single files objects to; else it has no text."""
    detail: str = ""
    """See `Reason.detail`."""
    id: str = ""
    """`Document.id`."""
    key: bytes = b""
    """`content_key` of the text."""
    language: str = ""
    licence: str = ""
    """SPDX id that the file itself states; of a licence file, of what lies beside it."""
    findings: tuple[str, ...] = ()
    """Kinds of secrets and personal data that were found, one per place."""
    signature: bytes = b""
    """`make_signature` of the text."""
    links: bytes = b""
    """Pickled `Links` of the text; see `read_pickle` of the cache."""
    text: bytes = b""
    """Cleaned and redacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A file that no rule objects to, before it is redacted."""

    document: Document
    """Cleaned."""
    licence: str
    links: Links
    """Of the text as it was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A file whose study lacks nothing but its signature."""

    document: Document
    """Cleaned and redacted."""
    licence: str
    findings: tuple[str, ...]
    links: Links


def study_file(settings: StudySettings, file: File) -> Study:
    """Filter, clean and redact a file, and describe what is left of it; see `study_files`."""
    return study_files(settings, [file])[0]


def study_files(settings: StudySettings, files: Sequence[File]) -> list[Study]:
    """Filter, clean and redact files, and describe what is left of each.

    No file has a say in what becomes of another. They go through each step together, as what it
    needs - a grammar, a scanner's tables - then stays in the processor's caches.

    Raises:
        FimError: a tool or a file that the settings name is missing.
    """
    drafts = [_draft(settings, file) for file in files]
    found = [_redact(settings, item) if isinstance(item, _Draft) else item for item in drafts]
    kept = [item.document for item in found if isinstance(item, _Kept)]
    signatures = iter(make_signatures([(document.text, document.language) for document in kept]))
    return [
        _describe(item, next(signatures)) if isinstance(item, _Kept) else item for item in found
    ]


def _draft(settings: StudySettings, file: File) -> _Draft | Study:
    document = to_document(file)
    if isinstance(document, Skip):
        licence = find_licence(file.data) if is_licence_file(file.path) else ""
        return Study(reason=document.reason, detail=document.detail, licence=licence)
    licence = find_licence(file.data)
    reason = check_document(document, _filters_for(file, settings.filters))
    name = "" if reason else _benchmarks(settings.benchmarks).find(document.text)
    if name:
        reason = Reason(name="benchmark", detail=name)
    if reason:
        return Study(reason=reason.name, detail=reason.detail, licence=licence)
    cleaned = clean_document(document, settings.filters, settings.seed)
    return _Draft(document=cleaned, licence=licence, links=_find_links(document.text, cleaned))


def _redact(settings: StudySettings, draft: _Draft) -> _Kept | Study:
    document, licence = draft.document, draft.licence
    redacted = redact(document.text, document.language, settings.secrets)
    reason = redacted.reason
    if reason is None and not redacted.text.strip():
        reason = Reason(name="empty", detail="nothing is left of it")
    if reason:
        return Study(
            reason=reason.name, detail=reason.detail, licence=licence, findings=redacted.kinds
        )
    links = draft.links
    if redacted.text != document.text:
        document = replace(document, text=redacted.text)
        if not is_said(links, document.text):
            links = _find_links(document.text, document)
        if links.words:
            links = replace(links, words=common_words(document.text))
    return _Kept(document=document, licence=licence, findings=redacted.kinds, links=links)


def file_digits(path: str) -> str:
    """Return the sha256 of a file that the corpus section names.

    Raises:
        FimError: it is missing.
    """
    try:
        return sha256_file(Path(path))
    except OSError as error:
        raise FimError(f"{path}: {error.strerror}; correct its path in the recipe") from None


def _find_links(text: bytes, kept: Document) -> Links:
    """Find links in a text of which there may be a tree, but words in the one that is kept."""
    try:
        links = find_links(text, kept.language)
    except FimError:  # it parsed before it was cleaned; an order without it is still one
        return Links()
    if links.words and text != kept.text:
        links = replace(links, words=common_words(kept.text))
    return links


def _describe(kept: _Kept, signature: bytes) -> Study:
    document = kept.document
    return Study(
        id=document.id,
        key=content_key(document.text),
        language=document.language,
        licence=kept.licence,
        findings=kept.findings,
        signature=signature,
        links=pickle.dumps(kept.links, protocol=pickle.HIGHEST_PROTOCOL),
        text=document.text,
    )


def _filters_for(file: File, filters: Filters) -> Filters:
    """Replay sources may hold any language: general text is prose."""
    return _of_any_language(filters) if file.is_replay else filters


@cache
def _of_any_language(filters: Filters) -> Filters:
    return replace(filters, languages=tuple(LANGUAGES))


@cache
def _benchmarks(paths: tuple[str, ...]) -> Benchmarks:
    return Benchmarks.load(paths)
