"""What stands where a `maybe` rule of the scanner matched: where it ends, and whether it counts."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import NamedTuple

from finetune.corpus.privacy.scanner import Hit
from finetune.corpus.privacy.values import (
    COMMON,
    is_drawn,
    is_filler,
    is_password,
    is_random,
    is_secret,
    is_uri_password,
    is_uuid,
)

_MOST_VALUE = 5_000
"""Bytes that are looked at for the end of a value."""
_QUOTES = (b'"', b"'", b"`")
_LITERALS = {
    quote: re.compile(rb"(?:[^\\\s%c]|\\[^\n])*(?=%c)" % (quote, quote)) for quote in b"\"'`"
}
_ESCAPED = re.compile(rb"(?:[^\\\s\"'`]|\\[^\s\"'`])*(?=\\?[\"'`])")
_BARE = re.compile(rb"[^\s\"'`,;&<>(){}\[\]\\]*")
_RANDOM = re.compile(rb"[A-Za-z0-9+/_-]*={0,2}")
_MOST_RANDOM = 200
"""Bytes of a random string, above which it is data."""
_KEY_END = re.compile(rb"-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_KEY_LINES = re.compile(rb"(?:[\s\"'\\nr+,#*/;.]{1,40}[A-Za-z0-9+/=]{30,76})*")
_MOST_KEY = 16_000
"""Bytes between the two marks of a private key."""


def _matched(text: bytes, hit: Hit) -> int:
    return hit.end


def _quoted(text: bytes, hit: Hit) -> int:
    """End of the string literal whose first byte was matched; its start if it has blanks."""
    start = hit.start
    is_escaped = text[start - 2 : start - 1] == b"\\"  # \"value\" in JSON
    inside = _ESCAPED if is_escaped else _LITERALS[text[start - 1]]
    match = inside.match(text, start, start + _MOST_VALUE)
    return match.end() if match else start


def _bare(text: bytes, hit: Hit) -> int:
    return _BARE.match(text, hit.start, hit.start + _MOST_VALUE).end()


def _random(text: bytes, hit: Hit) -> int:
    return _RANDOM.match(text, hit.start, hit.start + _MOST_VALUE).end()


def _private_key(text: bytes, hit: Hit) -> int:
    """End of the private key whose first mark was matched; its second may be missing."""
    close = max(hit.end, text.find(b"-----END ", hit.end, hit.end + _MOST_KEY))
    mark = _KEY_END.match(text, close)
    return mark.end() if mark else _KEY_LINES.match(text, hit.end).end()


_NO_SECRET = re.compile(rb"(?i)tokeni[sz]|token_?(?:type|class|name)|secretar|authori?[sz]?[ei\W]")
"""Words that only begin like one for a secret, or are about it."""


def _anywhere(text: bytes, start: int, end: int) -> bool:
    return True


def _is_named(text: bytes, start: int, end: int) -> bool:
    return not _NO_SECRET.search(text, max(0, start - 60), start)


_ENDS_SETTING = re.compile(rb"[ \t]*(?:[#;&<\"'\\\r\n]|//|\*/|-->|$)")
_PARTS = re.compile(rb"[;&?](?=\w)|[ \t](?=\w+=\S*$)")
"""Between the settings of one line: `Server=db,1433;Password=...`."""
_IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_IS_PASSWORD = re.compile(rb"(?i)(?:pass(?:word|wd)?|pwd)\W*$")
_ASSIGNED = re.compile(rb"[ \t](?:[=:]|is)[ \t]*$")


def _is_setting(text: bytes, start: int, end: int) -> bool:
    """Whether an unquoted value is one of a settings file, not an expression of a program."""
    if not _ENDS_SETTING.match(text, end) or not _is_named(text, start, end):
        return False
    value, before = text[start:end], text[max(0, start - 200) : start].rpartition(b"\n")[2]
    before = _PARTS.split(before)[-1]
    if value.isdigit():
        return _IS_PASSWORD.search(before) is not None
    if not _IDENTIFIER.fullmatch(value) or is_random(value, 12) or value[-2:].isdigit():
        return True
    is_statement = _ASSIGNED.search(before) and b"#" not in before
    return not is_statement and b"(" not in before and b"," not in before


_DIGEST = re.compile(
    rb"(?i)sha-?\d|md5|checksum|integrity|digest|hash|fingerprint|thumbprint|commit|revision"
    rb"|\brev\b|etag|\bh1:|uuid|guid|public(?!\s+(?:static|final|const|readonly|override|string|byte|char|var|let)\b)|cert|base64,|expected|want\b|\bsum|serial|curve|prime"
    rb"|modul|vector|nonce|output|seed|bigint|fromhex|unhex|decodestring|image|container|\w_id\b"
    rb"|\bid[\"']?[ \t]*[=:]|(?-i:[a-z]ID?\b|[a-z]Id\b)"
)
"""Words for what looks random and is no secret."""
_OPENS_ROW = re.compile(rb"[ \t]*[\[{(]*[bru]?[\"'`]")
_OPENS_VALUE = re.compile(rb"(?:[:=#*;]|//|^[ \t]*--?)[ \t]*$")
_ENDS = (b"", b"*/", b"-->")


def _stands_alone(text: bytes, start: int, end: int) -> bool:
    """Whether a random string is the whole of a literal or value, and no row of a table of data."""
    line_start = text.rfind(b"\n", 0, start) + 1
    line_end = text.find(b"\n", end) % (len(text) + 1)
    before = text[max(line_start, start - 200) : start]
    after = text[end : min(line_end, end + 40)].rstrip()
    is_commit = end - start == 40 and text[start:end].islower()
    if end - start > _MOST_RANDOM or is_commit or _DIGEST.search(before):
        return False
    if before[-1:] not in _QUOTES or after[:1] != before[-1:]:
        return after.lstrip() in _ENDS and _OPENS_VALUE.search(before) is not None
    if _OPENS_ROW.fullmatch(before):  # the first argument of a call that is split into lines
        return text[:line_start].rstrip().endswith(b"(")
    return True


def _is_word(text: bytes, start: int, end: int) -> bool:
    """Whether a random string in a comment is a word of its own, and not called a digest."""
    line = text[max(0, start - 100) : start].rpartition(b"\n")[2]
    return not _DIGEST.search(line) and re.match(rb"[\s.,;)]|$", text[end : end + 1]) is not None


class Place(NamedTuple):
    """What a `maybe` rule finds, see `secret_patterns`."""

    kind: str
    """Kind of the finding."""
    end: Callable[[bytes, Hit], int]
    """Where the value ends that starts where the rule matched."""
    is_one: Callable[[bytes], bool]
    """Whether the value is a secret."""
    counts: Callable[[bytes, int, int], bool]
    """Whether it is one in this place."""


def _is_key(value: bytes) -> bool:
    return is_random(value, 20) and not (is_filler(value) or is_uuid(value) or b"\\" in value)


def _is_random(value: bytes) -> bool:
    return is_random(value, 31) and not is_filler(value)


def _is_header(value: bytes) -> bool:
    return (is_random(value) or _is_user(value)) and not is_filler(value)


def _is_user(value: bytes) -> bool:
    """Whether a value is the base64 of `user:password`, RFC 7617."""
    try:
        user = base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return b":" in user and user.isascii() and user.decode().isprintable()


def _is_common(value: bytes) -> bool:
    return value.lower() in COMMON or is_drawn(value) or is_password(value)


def _is_private_key(value: bytes) -> bool:
    return len(value) > 100 and len(set(value)) > 30


PLACES = {
    "private-key": Place("private-key", _private_key, _is_private_key, _anywhere),
    "uri": Place("uri-password", _matched, is_uri_password, _anywhere),
    "header": Place("authorization", _matched, _is_header, _anywhere),
    "password-quoted": Place("password", _quoted, is_password, _anywhere),
    "password-bare": Place("password", _bare, is_password, _is_setting),
    "secret-quoted": Place("secret", _quoted, is_secret, _is_named),
    "secret-bare": Place("secret", _bare, is_secret, _is_setting),
    "key-quoted": Place("key", _quoted, _is_key, _is_named),
    "password-alone": Place("password", _matched, _is_common, _anywhere),
    "password-pair": Place("password", _bare, is_password, _anywhere),
    "password-argument": Place("password", _matched, is_password, _anywhere),
    "random": Place("random-string", _random, _is_random, _stands_alone),
    "random-comment": Place("random-string", _random, _is_random, _is_word),
}
