"""Where secrets are in a text: what the scanner finds, judged, once each."""

import re
from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from finetune.corpus.privacy.places import PLACES
from finetune.corpus.privacy.scanner import load_scanner, scan_bytes
from finetune.corpus.privacy.secret_patterns import make_rules
from finetune.corpus.privacy.values import PLACEHOLDER, is_uri_password

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A secret or a piece of personal data: what it is and where, never the text itself."""

    kind: str
    """`github-token`, `password`, `email`."""
    start: int
    """Offset of its first byte."""
    end: int
    """Offset one past its last byte."""


def find_secrets(text: bytes) -> list[Finding]:
    """Find keys, tokens, passwords, private keys and connection strings.

    Known formats are found anywhere; passwords and keys without one next to a word for them, as
    argument of a call, or alone in a comment. A literal that is split, `"ghp_" + "..."`, counts
    as one. Not found: a password that is a plain word, or one that no word or quote is next to.

    Args:
        text: in any encoding that has ASCII in it byte for byte; see `finetune.scan` for others.

    Returns:
        In order, without overlaps.
    """
    found = list(_find_in(text))
    found += _find_split(text)
    return merge(found)


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings and join those that overlap under the kind of the first, or longest."""
    merged: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (f.start, -f.end, f.kind)):
        if merged and finding.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Finding(kind=last.kind, start=last.start, end=max(last.end, finding.end))
        else:
            merged.append(finding)
    return merged


@cache
def _scanner() -> "Scanner":
    return load_scanner(make_rules(), builtins=True)


_MOST_INSIDE = 8
"""Places inside one value that are looked at: `token=token=token=`, on and on, has no end."""


def _find_in(text: bytes) -> Iterator[Finding]:
    value_end = inside = 0
    for hit in sorted(scan_bytes(_scanner(), text), key=lambda hit: hit.start):
        group, _, name = hit.rule.partition(".")
        if group == "maybe":
            inside = inside + 1 if hit.start < value_end else 0
            if hit.is_encoded or inside > _MOST_INSIDE:
                continue
            place = PLACES[name.rstrip("-0123456789")]
            end = place.end(text, hit)
            value_end = max(value_end, end)
            if place.is_one(text[hit.start : end]) and place.counts(text, hit.start, end):
                yield Finding(kind=place.kind, start=hit.start, end=end)
            continue
        end = hit.end if hit.is_encoded else _token_end(text, hit.end)
        value = text[hit.start : end]
        if hit.is_encoded or not (PLACEHOLDER.search(value) or _is_poor(hit.rule, value)):
            kind = name if group == "known" else hit.rule.rstrip(".0123456789")
            yield Finding(kind=kind, start=hit.start, end=end)


def _is_poor(rule: str, value: bytes) -> bool:
    """Whether a value has the form of a known secret only: examples of documentation."""
    if "credential-uri" in rule:
        return not is_uri_password(value)
    return len(set(value)) < 6 or _EXAMPLE.search(value) is not None


_EXAMPLE = re.compile(rb"(?i)example|x{6}|\.\.\.|your_")
_TOKEN = re.compile(rb"[A-Za-z0-9_]*={0,2}")


def _token_end(text: bytes, end: int) -> int:
    """Where the word ends that a match ends in: rules with exact lengths leave a rest."""
    return _TOKEN.match(text, end).end() if text[end - 1 : end].isalnum() else end


_JOINT = re.compile(
    rb"[\\\"'`](?<=[\w+/=.-].)(?:(?<=\\)\r?\n[ \t]*|(?<=[\"'`])[ \t]*(?:[+.&]|\.\.|<>)?[ \t]*\\?"
    rb"(?:\r?\n[ \t]*)?(?:[+.&]|\.\.|<>)?[ \t]*[bBrRuUfF]{0,2}[\"'`])(?=[\w+/=.-])"
)
_OPENS, _BEFORE, _AFTER = 1, 2, 4
_AT_JOINTS = bytes(
    (_OPENS if byte in b"\\\"'`" else 0)
    | (_BEFORE if re.match(rb"[\w+/=.-]", bytes([byte])) else 0)
    | (_AFTER if byte in b" \t\r\n+.&<\\\"'`bBrRuUfF" else 0)
    for byte in range(256)
)
"""What a joint starts with, and what may stand before and after that byte."""
_LEFT, _RIGHT = re.compile(rb"[\w+/=.-]*$"), re.compile(rb"[\w+/=.-]*")
_LEAST_SPLIT = 16
"""Bytes without a blank around a joint, below which no key is looked for there."""
_NEAR_JOINT = 200
"""Bytes to either side of joints, and then to the ends of their lines, that are searched."""


def without_joints(value: bytes) -> bytes:
    """Return a value as it is where its literal is not split."""
    return _JOINT.sub(b"", value)


def _find_joints(text: bytes) -> list[tuple[int, int]]:
    """Return start and end of each joint; a few bytes at a time rule most places out."""
    marks = np.frombuffer(text.translate(_AT_JOINTS), np.uint8)
    places = (marks[1:-1] & (marks[:-2] >> 1) & (marks[2:] >> 2) & _OPENS).nonzero()[0] + 1
    found: list[tuple[int, int]] = []
    end = 0
    for place in places.tolist():
        if place >= end and (match := _JOINT.match(text, place)):
            end = match.end()
            found.append((place, end))
    return found


def _is_in_token(text: bytes, start: int, end: int) -> bool:
    left = _LEFT.search(text[max(0, start - _LEAST_SPLIT) : start])[0]
    return len(left) + len(_RIGHT.match(text, end, end + _LEAST_SPLIT)[0]) >= _LEAST_SPLIT


def _find_split(text: bytes) -> Iterator[Finding]:
    """Find secrets whose literal is split; their range goes over the quotes between."""
    joints = _find_joints(text)
    in_tokens = [joint for joint in joints if _is_in_token(text, *joint)]
    for start, end in _around(text, in_tokens):
        inside = [joint for joint in joints if start <= joint[0] and joint[1] <= end]
        yield from _find_joined(text, start, end, inside)


def _around(text: bytes, joints: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the lines that are near some joints, those that overlap together."""
    found: list[tuple[int, int]] = []
    for first, last in joints:
        if not found or last > found[-1][1]:
            end = text.find(b"\n", last + _NEAR_JOINT) % (len(text) + 1)
            start = text.rfind(b"\n", 0, max(0, first - _NEAR_JOINT)) + 1
            if found and start <= found[-1][1]:
                start = found.pop()[0]
            found.append((start, end))
    return found


def _find_joined(
    text: bytes, start: int, end: int, joints: Sequence[tuple[int, int]]
) -> Iterator[Finding]:
    """Find secrets that go over joints in a part of a text, without these."""
    pieces, cuts, last, removed = [], [], start, start
    for left, right in joints:
        pieces.append(text[last:left])
        cuts.append((left - removed, removed + right - left))  # place in the joined text
        removed, last = removed + right - left, right
    places = [place for place, _ in cuts]
    for finding in _find_in(b"".join((*pieces, text[last:end]))):
        first, behind = bisect(places, finding.start), bisect_left(places, finding.end)
        if first < behind:
            begin = finding.start + (cuts[first - 1][1] if first else start)
            yield Finding(kind=finding.kind, start=begin, end=finding.end + cuts[behind - 1][1])
