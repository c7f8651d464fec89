"""All that is found out about one file by itself: a pure function of the file and settings."""

import pickle
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from fim import LANGUAGES, Document, FimError
from finetune.corpus.cleaning.clean import clean_document
from finetune.corpus.copies.benchmarks import Benchmarks
from finetune.corpus.copies.dedup import content_key
from finetune.corpus.copies.near import make_signature
from finetune.corpus.entries import File, Reason, Skip
from finetune.corpus.filters import check_document, to_document
from finetune.corpus.licences import find_licence, is_licence_file
from finetune.corpus.links.find import Links, find_links
from finetune.corpus.privacy.redact import Redacted, redact
from finetune.recipe_corpus import Corpus, Secrets
from finetune.recipe_filters import Filters
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


def study_file(settings: StudySettings, file: File) -> Study:
    """Filter, clean and redact a file, and describe what is left of it.

    Raises:
        FimError: a tool or a file that the settings name is missing.
    """
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
    redacted = redact(cleaned.text, cleaned.language, settings.secrets)
    reason = redacted.reason
    if reason is None and not redacted.text.strip():
        reason = Reason(name="empty", detail="nothing is left of it")
    if reason:
        return Study(
            reason=reason.name, detail=reason.detail, licence=licence, findings=redacted.kinds
        )
    links = _find_links(document, redacted)
    return _describe(replace(cleaned, text=redacted.text), licence, redacted.kinds, links)


def file_digits(path: str) -> str:
    """Return the sha256 of a file that the corpus section names.

    Raises:
        FimError: it is missing.
    """
    try:
        return sha256_file(Path(path))
    except OSError as error:
        raise FimError(f"{path}: {error.strerror}; correct its path in the recipe") from None


def _find_links(found: Document, redacted: Redacted) -> Links:
    """Take the links of the file as it was found, of which there is a tree, where that is safe.

    Words, and names of a file with secrets, are those of the text that is kept.
    """
    try:
        links = Links() if redacted.kinds else find_links(found.text, found.language)
        if redacted.kinds or links.words:
            links = find_links(redacted.text, found.language)
    except FimError:  # it parsed before it was cleaned; an order without it is still one
        links = Links()
    return links


def _describe(document: Document, licence: str, findings: Collection[str], links: Links) -> Study:
    text, language = document.text, document.language
    return Study(
        id=document.id,
        key=content_key(text),
        language=language,
        licence=licence,
        findings=tuple(findings),
        signature=make_signature(text, language),
        links=pickle.dumps(links, protocol=pickle.HIGHEST_PROTOCOL),
        text=text,
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
