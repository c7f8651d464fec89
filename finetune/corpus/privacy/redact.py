"""Placeholders in place of keys, passwords and personal data; the result is searched again."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import fim
from fim import FimError
from finetune.corpus.entries import Reason
from finetune.corpus.parsing import parse_file
from finetune.corpus.privacy.personal import PERSONAL_KINDS, find_personal
from finetune.corpus.privacy.search import Finding, find_secrets, merge, without_joints
from finetune.corpus.privacy.values import PLACEHOLDER, is_random
from finetune.recipe.corpus import Secrets

_ROUNDS = 3
_MOST_VALUES = 2_000
"""Different values in a file, above which it is no code."""
_NEAR = 200
"""Bytes to either side of a placeholder, and then to the ends of their lines."""
_LENGTHS = (20, 40, 80)
"""A placeholder of a key is at least as long as the longest of these that the key reaches."""
_WORD = re.compile(rb"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """A text without what was found in it, or why it cannot be had."""

    text: bytes
    """As it may be learned from; the text as it came where there is a `reason`."""
    kinds: tuple[str, ...] = ()
    """What was found, one name per place, in their order; never the thing itself."""
    reason: Reason | None = None
    """Why the file must be dropped: `secret` or `personal`."""


def redact(text: bytes, language: str, settings: Secrets) -> Redacted:
    """Put placeholders in the place of secrets and personal data.

    A placeholder is `REDACTED_KEY_1`: a type (`KEY`, `PASSWORD`, `EMAIL`, `IP`, `HOST`, `NAME`) and
    a number, the same for the same value within a text. It is a word, so that a literal, a comment
    and a settings file stay what they are; for long keys it is filled up with `_XXX` to 20, 40 or
    80 bytes. All other places that hold the value get it too. Nothing is random, nothing is kept
    between texts.

    Args:
        text: UTF-8.
        language: row of `fim.LANGUAGES` or empty. A text that had no error must have none after
            a secret was taken out; personal data stands in comments and literals.
        settings: what to look for and what to do with it.
    """
    findings = _find(text, settings)
    kinds = tuple(finding.kind for finding in findings)
    reason, current = _drop_reason(kinds, settings), text
    if reason is None and findings:
        current, reason = _take_out(text, findings, settings)
    if reason is None and _has_secret(kinds) and not _parses_as_well(current, text, language):
        reason = Reason(name="secret", detail=f"{_count(kinds)} cannot be taken out of the code")
    return Redacted(text=text if reason else current, kinds=kinds, reason=reason)


def _take_out(
    text: bytes, findings: list[Finding], settings: Secrets
) -> tuple[bytes, Reason | None]:
    """Replace findings, look again, and replace what is found then; a few times at most."""
    placeholders = _Placeholders(text)
    values = {text[finding.start : finding.end] for finding in findings}
    if len(values) > _MOST_VALUES:
        return text, _reason(findings, f"{len(values):,} of them")
    for _ in range(_ROUNDS):
        text = _replace(text, _repeated(text, findings), placeholders)
        findings = _find_again(text, settings)
        if not findings:
            return text, None
    return text, _reason(findings, "still found after redaction")


def _reason(findings: Sequence[Finding], why: str) -> Reason:
    kinds = [finding.kind for finding in findings]
    return Reason(
        name="secret" if _has_secret(kinds) else "personal", detail=f"{_count(kinds)}, {why}"
    )


def _find(text: bytes, settings: Secrets) -> list[Finding]:
    found = [] if settings.secrets == "keep" else find_secrets(text)
    if settings.personal != "keep":
        found += find_personal(text, settings.internal_domains)
    return merge(_whole_characters(text, finding) for finding in found)


def _whole_characters(text: bytes, finding: Finding) -> Finding:
    """Widen a finding that starts or ends within a character: rules count bytes."""
    start, end = finding.start, finding.end
    while start > 0 and text[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return replace(finding, start=start, end=end)


def _find_again(text: bytes, settings: Secrets) -> list[Finding]:
    """Find what is left. What can be new is near a placeholder, so that is looked at first."""
    near, end = [], 0
    for match in PLACEHOLDER.finditer(text):
        start = max(end, text.rfind(b"\n", 0, max(0, match.start() - _NEAR)))
        end = max(start, text.find(b"\n", match.end() + _NEAR) % (len(text) + 1))
        near.append(text[start:end])
    if 2 * sum(map(len, near)) < len(text) and not _find(b"\n".join(near), settings):
        return []
    return _find(text, settings)


def _drop_reason(kinds: Sequence[str], settings: Secrets) -> Reason | None:
    secrets = [kind for kind in kinds if kind not in PERSONAL_KINDS]
    personal = [kind for kind in kinds if kind in PERSONAL_KINDS]
    if secrets and settings.secrets == "drop":
        return Reason(name="secret", detail=_count(secrets))
    if personal and settings.personal == "drop":
        return Reason(name="personal", detail=_count(personal))
    return None


def _has_secret(kinds: Iterable[str]) -> bool:
    return any(kind not in PERSONAL_KINDS for kind in kinds)


def _count(kinds: Iterable[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(kinds).items()))


class _Placeholders:
    """One placeholder per value, numbered in the order of their first places."""

    def __init__(self, text: bytes) -> None:
        self._of_value: dict[bytes, bytes] = {}
        self._last: Counter[str] = Counter()
        for match in PLACEHOLDER.finditer(text):  # of a text that is redacted a second time
            self._last[match[1].decode()] = max(self._last[match[1].decode()], int(match[2]))

    def of(self, value: bytes, kind: str) -> bytes:
        value = without_joints(value)
        if value not in self._of_value:
            type_ = _type_of(kind)
            self._last[type_] += 1
            word = f"REDACTED_{type_}_{self._last[type_]}"
            if type_ == "KEY":
                word += "_" * (len(value) >= _LENGTHS[0])
                word = word.ljust(max((n for n in _LENGTHS if n <= len(value)), default=0), "X")
            self._of_value[value] = word.encode().removesuffix(b"_")
        return self._of_value[value]


def _type_of(kind: str) -> str:
    if kind in PERSONAL_KINDS:
        return PERSONAL_KINDS[kind]
    return "PASSWORD" if kind in ("password", "uri-password", "generic-credential-uri") else "KEY"


def _repeated(text: bytes, findings: Sequence[Finding]) -> list[Finding]:
    """Add the other places of the secrets that were found, where no word for them is near."""
    values = {}
    for finding in findings:
        if finding.kind not in PERSONAL_KINDS:
            values.setdefault(text[finding.start : finding.end], finding.kind)
    more = (place for value, kind in values.items() for place in _places(text, value, kind))
    return merge([*findings, *more])


def _places(text: bytes, value: bytes, kind: str) -> Iterator[Finding]:
    """Find a value as a word of its own; one that could be a name, only as a whole literal."""
    is_name = not is_random(value, 12)
    start = text.find(value)
    while len(value) > 5 and start >= 0:
        end = start + len(value)
        before, after = text[start - 1 : start], text[end : end + 1]
        bounded = before == after and before in (b'"', b"'", b"`")
        if not is_name:
            bounded = not (_WORD.match(before) or _WORD.match(after))
        if bounded:
            yield Finding(kind=kind, start=start, end=end)
        start = text.find(value, end)


def _replace(text: bytes, findings: Sequence[Finding], placeholders: _Placeholders) -> bytes:
    pieces, last = [], 0
    for finding in findings:
        value = text[finding.start : finding.end]
        pieces += [text[last : finding.start], placeholders.of(value, finding.kind)]
        last = finding.end
    return b"".join((*pieces, text[last:]))


def _parses_as_well(after: bytes, before: bytes, language: str) -> bool:
    """Whether the code has no error that it had not before; not asked without a grammar."""
    if language not in fim.LANGUAGES:
        return True
    try:
        return not parse_file(after, language).has_error or parse_file(before, language).has_error
    except FimError:
        return True  # no grammar, or too slow to parse: rules that need a tree say so
