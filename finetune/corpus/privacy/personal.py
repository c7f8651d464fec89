"""Where personal data is in a text: addresses of people and machines, internal hosts, authors."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from finetune.corpus.privacy.personal_patterns import COMPANY, DOMAINS, make_rules
from finetune.corpus.privacy.scanner import Hit, load_scanner, scan_bytes
from finetune.corpus.privacy.search import Finding, merge
from finetune.corpus.privacy.values import PLACEHOLDER

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

PERSONAL_KINDS = {"email": "EMAIL", "ip-address": "IP", "internal-host": "HOST", "person": "NAME"}
"""Kinds that `find_personal` gives, and the type in their placeholders."""


def find_personal(text: bytes, internal_domains: Sequence[str] = ()) -> list[Finding]:
    """Find e-mail and IP addresses, internal hosts and names of authors.

    Left alone: addresses that stand for none (`user@example.com`, loopback, masks, networks, what
    is kept for documentation, public name servers), versions, section numbers and object ids that
    look like addresses, and companies, projects and groups in copyright lines: they are no persons.
    Names are found where a tag, a copyright line, an address or a `TODO(name)` says that they are.
    Of an internal URL the host is taken, the path stays.

    Args:
        text: in any encoding that has ASCII in it byte for byte.
        internal_domains: besides `.internal`, `.local`, `.corp`, `.lan` and `.intranet`.

    Returns:
        In order, without overlaps.
    """
    found = [
        Finding(kind=JUDGES[hit.rule][0], start=start, end=end)
        for hit in scan_bytes(_scanner(), text)
        for start, end in JUDGES[hit.rule][1](text, hit)
    ]
    found += [
        Finding(kind="internal-host", start=start, end=end)
        for domain in internal_domains
        for start, end in _hosts_below(text, domain)
    ]
    return merge(f for f in found if not PLACEHOLDER.match(text, f.start))


@cache
def _scanner() -> "Scanner":
    return load_scanner(make_rules(), builtins=False)


_ADDRESS = re.compile(rb"[A-Za-z0-9][\w.+-]*@((?:[A-Za-z0-9-]+\.)+([A-Za-z]{2,24}))(?![A-Za-z0-9])")
_EXAMPLE_DOMAIN = re.compile(
    rb"(?i)(?:.*\.)?(?:example|test|invalid|localhost|localdomain)(?:\.(?:com|org|net|edu|co\.\w+))?"
    rb"|(?:.*\.)?(?:(?:your|my|some)-?\w{0,9}|foo|bar|foobar|host|domain|server|company|email|site)"
    rb"\.(?:com|org|net)"
)
_EXAMPLE_USER = re.compile(rb"(?i)(?:user|username|you|your|name|someone|me|foo|bar|git|hg|svn)\d?")


def _email(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    start = hit.end - len(text[hit.start : hit.end].lstrip(b".+-_"))
    match = _ADDRESS.match(text, start, hit.end)
    if match is None or match[2].decode().lower() not in DOMAINS:
        return
    before, after = text[max(0, start - 8) : start], text[match.end() : match.end() + 2]
    if (
        not _EXAMPLE_DOMAIN.fullmatch(match[1])
        and not _EXAMPLE_USER.fullmatch(match[0].partition(b"@")[0])
        # https://user@host, @scope/name@v.com, %s@host
        and (before.endswith(b"mailto:") or not re.search(rb"[:/@%]$", before))
        # git@host:path, a@b.com/c
        and not re.match(rb":[\w/~]|[@(/]", after)
        # lodash@4.17.x
        and not re.match(rb"\d+\.\d", match[1])
    ):
        yield start, match.end()


_NO_ADDRESS = re.compile(
    rb"(?i)(?:version|\bver|\bv|release|revision|section|sec|chapter|paragraph|figure|table"
    rb"|clause|standard|annex|\xc2\xa7|oid|rfc ?\d+,?|\bc(?:\+\+)?\d\d|object identifier|jdk|java"
    rb"|copyright)\S?[\"']?[\s:=(\[]{0,4}[\"'(]?v?$"
)
"""Words before four numbers that are no address."""
_OPENS_VALUE = re.compile(rb"[@/]$|[\"'`=:\[][ \t]?$")
_PUBLIC = (b"8.8.8.8", b"8.8.4.4", b"1.1.1.1", b"1.0.0.1", b"9.9.9.9")


def _ipv4(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    value = text[hit.start : hit.end]
    before = text[max(0, hit.start - 24) : hit.start].rpartition(b"\n")[2]
    after = text[hit.end : hit.end + 3]
    if (
        re.search(rb"[\w.-]$", before)
        or re.match(rb"[\w-]|\.\w|/\d", after)  # the last: a network
        or _NO_ADDRESS.search(before)
        or value in _PUBLIC
    ):
        return
    try:
        address = ipaddress.IPv4Address(value.decode())
    except ValueError:
        return
    first, *_, last = numbers = [int(part) for part in value.split(b".")]
    if address.is_private:
        is_version = max(numbers) < 16 and not _OPENS_VALUE.search(before)
    else:
        is_version = max(numbers) < 32 and before[-1:] not in (b"/", b"@")
    is_object_id = first < 3 and max(numbers) < 100
    if first and last and not is_version and not is_object_id and _is_somebodys(address):
        yield hit.start, hit.end


def _ipv6(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    value = text[hit.start : hit.end]
    if re.match(rb"[\w:.]", text[hit.end : hit.end + 1]) or len(value.replace(b":", b"")) < 8:
        return
    if not re.search(rb"\d", value.partition(b":")[0]):  # face::add, a scope in C++
        return
    try:
        address = ipaddress.IPv6Address(value.decode())
    except ValueError:
        return
    if _is_somebodys(address):
        yield hit.start, hit.end


_DOCUMENTATION = [  # RFC 5737, RFC 2544, RFC 3849, RFC 9637
    ipaddress.ip_network(network)
    for network in (
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32",
        "3fff::/20",
    )
]  # fmt: skip


def _is_somebodys(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is of one machine: no loopback, mask, group, link or documentation."""
    return not (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
        or address.is_link_local
        or any(address in network for network in _DOCUMENTATION)
    )


_ABOUT_HOSTS = re.compile(
    rb"(?i)(?:host|server|domain|url|uri|addr|address|endpoint|dns|node|@)\W*$"
)
_PACKAGES = re.compile(
    rb"(?i)(?:com|org|net|io|java|javax|sun|jdk|android|androidx|kotlin|scala|llvm|dev|edu|gov"
    rb"|self|this)\."
)
"""First parts of names of packages, which may end in `.internal` or `.local`."""


def _url_host(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    yield hit.start, hit.end


def _host(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    """A host outside a URL: quoted or as the value of a setting, and no name of a program."""
    host, after = text[hit.start : hit.end], text[hit.end : hit.end + 1]
    line = text[max(0, hit.start - 30) : hit.start].rpartition(b"\n")[2]
    is_quoted = line[-1:] in (b'"', b"'", b"`") and after in (b'"', b"'", b"`", b":", b"/", b"\\")
    is_set = re.search(rb"[\w\"'][:=] ?$", line) is not None and after in (b"", b"\r", b"\n", b":")
    is_address = re.search(rb"\w@$", line) is not None
    if not (is_quoted or is_set or is_address) or _PACKAGES.match(host):
        return
    is_named = host.count(b".") > 1 or re.search(rb"[\d-]", host)
    if _ABOUT_HOSTS.search(line) or (is_named and (is_quoted or b"-" in host)):
        yield hit.start, hit.end


def _hosts_below(text: bytes, domain: str) -> Iterator[tuple[int, int]]:
    """Find hosts of a domain that a recipe names; they are internal wherever they stand."""
    name = domain.strip(".").encode()
    pattern = rb"(?i)(?<![\w.-])(?:[a-z0-9_-]{1,63}\.){0,8}%s(?![\w-]|\.\w)" % re.escape(name)
    if name.lower() in text.lower():
        yield from (match.span() for match in re.finditer(pattern, text))


_NAME_WORD = rb"[A-Z\xc3-\xd0][\w.'\x80-\xff-]*"
_NAME = re.compile(
    rb"%s(?:[ \t](?:(?:van|von|der|den|de|del|da|di|du|la|le|bin|al|ter|zu)[ \t])*%s){1,3}(?!\w)"
    % (_NAME_WORD, _NAME_WORD)
)
_HANDLE = re.compile(rb"[A-Za-z][\w.-]{1,38}(?=[ \t]*(?:$|[<(,;*]|-->|https?:))")
_AT_HANDLE = re.compile(rb"[ \t]+[(\[]?(@[\w-]{2,39})")
_NEXT_NAME = re.compile(
    rb"[.']?[ \t]*(?:<[^>\r\n]{0,80}>|\([^)\r\n]{0,80}\)|@[\w-]{2,39})?"
    rb"[ \t]*(?:,?[ \t]*(?:and|&)[ \t]|[,;/])[ \t]*"
)


def _names(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    """Find the persons in what follows a tag: `Jane Doe, John Smith <john@acme.io>`."""
    place = hit.start
    while match := _NAME.match(text, place, hit.end):
        around = text[match.start() : min(hit.end, match.end() + 24)]
        if match[0].isupper() or COMPANY.search(around):
            return
        yield match.start(), match.start() + len(match[0].rstrip(b".,'-"))
        if handle := _AT_HANDLE.match(text, match.end(), hit.end):
            yield handle.span(1)
        following = _NEXT_NAME.match(text, match.end(), hit.end)
        if following is None:
            return
        place = following.end()


def _tag(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    """Names after a tag, and after `@author` one that is a single word."""
    yield from _names(text, hit)
    opening = text[max(0, hit.start - 24) : hit.start].lower()
    handle = _HANDLE.match(text, hit.start, hit.end)
    if handle and re.search(rb"[@\\]author[: \t]*$", opening):
        if not COMPANY.search(text[hit.start : hit.end]):
            yield handle.span()


_NO_NAME = re.compile(rb"\d{3}|(?:issue|bug|gh|jira|ticket|perf|async|later|soon)\b")


def _todo(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    if not _NO_NAME.match(text, hit.start, hit.end):
        yield hit.start, hit.end


def _mailbox(text: bytes, hit: Hit) -> Iterator[tuple[int, int]]:
    if not COMPANY.search(text[hit.start : hit.end]):
        yield hit.start, hit.end


JUDGES: dict[str, tuple[str, Callable[[bytes, Hit], Iterator[tuple[int, int]]]]] = {
    "email": ("email", _email),
    "ipv4": ("ip-address", _ipv4),
    "ipv6": ("ip-address", _ipv6),
    "url-host": ("internal-host", _url_host),
    "host": ("internal-host", _host),
    "tag": ("person", _tag),
    "copyright": ("person", _names),
    "todo": ("person", _todo),
    "mailbox": ("person", _mailbox),
}
"""What a rule of the scanner finds places of, and what says where in them it is."""
