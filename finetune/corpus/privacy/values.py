"""Whether a value that stands where a secret could stand is one."""

import math
import re
import string
from collections import Counter
from itertools import pairwise

PLACEHOLDER = re.compile(rb"REDACTED_(KEY|PASSWORD|EMAIL|IP|HOST|NAME)_(\d+)(?:_X+)?")
"""What `redact` writes, see there."""
_FILLER = re.compile(
    rb"(?i)example|sample|dummy|placeholder|change[_-]?(?:me|it)|your[_-]|insert|replace|redacted"
    rb"|xxxx|\*\*\*|\.\.\.|todo|fake|mock|^test[^\d]|[_-]test|test[_-]|foobar|foo\b|bar\b"
    rb"|hmac|sha\d|md5|^0x[0-9a-f]{1,40}$"
)
_TEMPLATE = re.compile(
    rb"\$[({]|\{\{|\{\w*\}|\(\?|%[(sdrv]|#\{|<[^>]*>"
    rb"|^(?:\$[A-Za-z_]\w*|%\w+%|@\w+@)$|^[\\{}\[\]<>]"
)
_CODE = re.compile(  # a path, a dotted or scoped name, a call, an option, a color, a version
    rb"(?:[A-Za-z_]\w*(?:(?:[./:\\-]|::|->)[A-Za-z_]\w*)+|[./~].*|\w+://.*|\w+[(\[].*|--?\w.*"
    rb"|(?=.*[.-])[\w.-]+(?:/[\w.-]+)+|#[0-9A-Fa-f]{3,8}|v?\d+(?:\.\d+)+"
    rb"|[+-]?\d[\d._]*(?:[eE][+-]?\d+)?[a-zA-Z]?|0x[\da-fA-F_]*(?:\.[\da-fA-F_]*)?(?:[pP][+-]?\d+)?)"
)
_NAME = re.compile(  # of an algorithm, a format, a numbered thing
    rb"(?i:sha|md|utf|latin|base|pbkdf|argon|aes|des|rc|rsa|dsa|ed|hmac|hs|rs|es|ps|http|ipv?|oauth"
    rb"|x|pkcs|p|v|tls|ssl|iso|cp|int|uint|float|http|node|host|server|client|user|key|field|arg"
    rb"|param|value|item|db|id|py|python|win|arm|kerberos|krb"
    rb"|level|step|line|col|row|page|section|chapter|part|version|h|s|t|ns|krb5)[_-]?\d{1,4}\w?"
    rb"|(?i:test|token|secret|pass(?:word|wd)?|pwd)[_-]?\d"
)
COMMON = frozenset(
    b"letmein qwerty iloveyou trustno1 dragon monkey sunshine princess football baseball superman"
    b" batman shadow welcome starwars hunter hunter2 abc123 passw0rd asdfgh zxcvbn"
    b" changeme toor admin root".split()
)
"""Passwords without a sign, from lists of leaked ones."""
_REFERENCE = re.compile(rb"[a-z_-]+[#!]\d+")
"""`project#1234`, `gray!90`."""
_WORD = re.compile(
    rb"(?i)x-oauth-basic|(?:my|user|db|the|some|root|admin)?_?"
    rb"(?:password|passwd|pass|secret|pwd|pw|user|token)\d?"
)
"""Words for a password."""
_CONSONANTS = rb"[b-df-hj-np-tv-xz]"
_SYLLABLES = re.compile(
    rb"(?=[a-z]{6})(?:%s{0,2}[aeiouy]{1,2}){2,}%s{0,2}(?![a-z]*%s{4})" % ((_CONSONANTS,) * 3)
)
"""What can be spoken: six small letters, vowels in every second or third place."""
_SPECIAL = re.compile(rb"[!@#$%&?+=~]")
_LETTER, _DIGIT = re.compile(rb"[A-Za-z]"), re.compile(rb"\d")
_HEX = re.compile(rb"[0-9a-f]+|[0-9A-F]+")
_UUID = re.compile(rb"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CLASSES = bytes.maketrans(
    string.ascii_lowercase.encode() + string.ascii_uppercase.encode() + string.digits.encode(),
    b"l" * 26 + b"u" * 26 + b"d" * 10,
)
_SIGNS = bytes(
    ord("s") if byte < 128 and not chr(byte).isalnum() else _CLASSES[byte] for byte in range(256)
)
_NO_CLASS = bytes(byte for byte in range(256) if not chr(byte).isalnum() or byte > 127)


def is_filler(value: bytes) -> bool:
    """Whether a value only stands for a secret: a template, an example, a placeholder of ours."""
    return (
        not value
        or len(set(value)) < 4
        or bool(PLACEHOLDER.search(value) or _FILLER.search(value) or _TEMPLATE.search(value))
    )


def is_password(value: bytes) -> bool:
    """Whether a value next to the word password is one, not a field, a label or an algorithm.

    It is a common password, four digits or more, has letters and with them a digit or one of
    `!@#$%&?+=~`, or looks drawn at random. Other words alone are taken for labels.
    """
    if value.lower() in COMMON or (value.isdigit() and len(value) > 3):
        return True
    if is_drawn(value):
        return True
    if is_filler(value) or any(r.fullmatch(value) for r in (_CODE, _NAME, _WORD, _REFERENCE)):
        return False
    if not _LETTER.search(value) or not 5 < len(value) < 129:
        return False
    return bool(_DIGIT.search(value) or (_SPECIAL.search(value) and b"=" not in value[1:-1]))


_PIECE = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NO_VOWEL = re.compile(rb"[^AEIOUaeiou]{4,}")


def is_drawn(value: bytes) -> bool:
    """Whether small letters, capitals and the rest change too often for words and templates."""
    if not 7 < len(value) < 65 or b"\\" in value or _FILLER.search(value):
        return False
    if value.isalpha():  # camel case has few words of one or two letters, and vowels in the others
        pieces = [piece for piece in _PIECE.findall(value) if not piece.isupper() or piece[1:]]
        odd = sum(len(piece) < 3 or bool(_NO_VOWEL.search(piece)) for piece in pieces)
        return len(pieces) > 1 and 3 * odd > len(pieces) and not value.islower()
    classes = value.translate(_SIGNS)
    if any(kind not in classes for kind in b"luds"):
        return False
    return sum(a != b for a, b in pairwise(classes)) >= 0.6 * len(classes)


def is_random(value: bytes, least: int = 16, is_named: bool = False) -> bool:
    """Whether a value looks drawn at random: hexadecimal digits, base64 or letters and digits.

    Words give themselves away by long runs of one class of characters (lower case, upper case,
    digits): in what is drawn at random, two of three characters start a new run. Where the place
    is named after a secret, less will do.
    """
    body = value.rstrip(b"=")
    if len(body) < least or not _DIGIT.search(body) or not _LETTER.search(body):
        return False
    if b"/" in body and (b"-" in body or b"." in body):
        return False  # a path: base64 has slashes or dashes, never both
    pairs = list(pairwise(body))
    if sum(abs(b - a) < 2 for a, b in pairs) > 0.4 * len(pairs):
        return False  # abcdef, 00000000
    is_hex = bool(_HEX.fullmatch(body))
    if _entropy(body) < (2.8 if is_hex or len(body) < 20 else 3.4):
        return False
    classes = body.translate(_CLASSES, _NO_CLASS)
    changes = sum(a != b for a, b in pairwise(classes)) / len(classes)
    if b"u" not in classes or b"l" not in classes:
        return changes >= 0.22
    if is_named and len(body) > 23:
        return changes >= 0.3
    return changes >= (0.5 if _SYLLABLES.search(body) else 0.36)


def is_secret(value: bytes) -> bool:
    """Whether a value next to the word secret, token or API key is one."""
    if is_filler(value) or b"\\" in value:
        return False
    if is_random(value, 24, is_named=True) or is_uuid(value) or _is_hex_key(value):
        return True
    return not _CODE.fullmatch(value) and (is_random(value, 12) or looks_like_password(value))


def _is_hex_key(value: bytes) -> bool:
    return len(value) > 60 and value.startswith(b"0x") and is_random(value[2:])


def looks_like_password(value: bytes) -> bool:
    """Whether a value says by itself that it is a password: letters, digits and a sign."""
    return (
        5 < len(value) < 40
        and not is_filler(value)
        and not _CODE.fullmatch(value)
        and all(part.search(value) for part in (_LETTER, _DIGIT, _SPECIAL))
        and re.fullmatch(rb"[A-Za-z0-9!@#$%&?]+", value) is not None
    )


def is_uuid(value: bytes) -> bool:
    """Whether a value is a UUID: mostly the name of a thing, but a secret where it is called so."""
    return _UUID.fullmatch(value) is not None


def is_uri_password(value: bytes) -> bool:
    """Whether what stands between `user:` and `@host` is a password, not the word for one."""
    return not (is_filler(value) or _WORD.fullmatch(value))


def _entropy(value: bytes) -> float:
    """Shannon entropy in bits per byte."""
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
