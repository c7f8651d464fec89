"""Secrets in files and folders: which kind, in which file, on which line, never the secret."""

import base64
import binascii
import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from fim import FimError
from finetune.corpus.privacy.personal import find_personal
from finetune.corpus.privacy.redact import redact
from finetune.corpus.privacy.search import Finding, find_secrets, merge
from finetune.corpus.sources import git
from finetune.corpus.sources.patterns import clean_path, is_wanted
from finetune.corpus.sources.read import walk_folder
from finetune.recipe.corpus import Secrets, Source

MAX_BYTES = 256_000_000
"""Larger files are not read, and listed as such."""
_BOMS = {  # the longer ones first: the one of UTF-32 begins with that of UTF-16
    b"\xff\xfe\0\0": "utf-32-le",
    b"\0\0\xfe\xff": "utf-32-be",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}
_SAMPLE = 4_096
_BASE64 = re.compile(rb"\s*[A-Za-z0-9+/_-]{16,}(?:\s+[A-Za-z0-9+/_-]+)*={0,2}\s*")
_UNREAD = ("unreadable", "too-large")


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file to scan, or why it cannot be."""

    path: str
    data: bytes = b""
    reason: str = ""


def scan(
    paths: Sequence[str], personal: bool = False, exclude: Sequence[str] = ()
) -> dict[str, Any]:
    """Find secrets in files, folders and git repositories.

    Of a git repository, or a folder in one, the files are scanned that are committed or could be:
    tracked, or untracked and not ignored, as they are in the working folder; of a bare repository
    those of `HEAD`. Of another folder, all files. Links are not followed. Files are understood as
    UTF-8, latin-1, UTF-16 or UTF-32; what is base64 from end to end is decoded.

    Args:
        paths: files and folders.
        personal: whether to look for personal data too, see `find_personal`.
        exclude: globs of paths inside a folder, as those of `Source.exclude`, that are left out.

    Returns:
        `{"files": n, "findings": [{"path", "line", "kind"}], "unread": [{"path", "reason"}]}`.

    Raises:
        FimError: there is no such file or folder; give another one.
    """
    files = 0
    findings: list[dict[str, Any]] = []
    unread: list[dict[str, str]] = []
    wanted = Source(exclude=tuple(exclude))
    for path in paths:
        for file in _files(path):
            if not is_wanted(clean_path(os.path.relpath(file.path, path)), wanted):
                continue
            if file.reason:
                unread.append({"path": _shown(file.path), "reason": file.reason})
                continue
            files += 1
            rows = list(find_in_file(file.data, personal))
            shown = _shown(file.path) if rows else ""
            findings += [{"path": shown, "line": line, "kind": kind} for line, kind in rows]
    return {"files": files, "findings": findings, "unread": unread}


def scan_summary(result: dict[str, Any]) -> str:
    """Say what was found, one place a line as editors and people read it."""
    lines = [f"{row['path']}:{row['line']} {row['kind']}" for row in result["findings"]]
    lines += [f"{row['path']}: not scanned, {row['reason']}" for row in result["unread"]]
    return "\n".join((*lines, f"{result['files']:,} files, {len(result['findings']):,} findings"))


def find_in_file(data: bytes, personal: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line, from 1, and kind of what a file holds, in order.

    Lines are those of the decoded file, and of a base64 file those it has itself.
    """
    text = _decode(data)
    lines = text.splitlines(keepends=True)
    ends = [*accumulate(map(len, lines))]
    inner = _decode_base64(text)
    if inner is not None:  # the same share of it as of what it decodes to
        text = _decode(inner)
        scale = ends[-1] / max(1, len(text))
        for finding in _find(text, personal):
            yield bisect_right(ends, finding.start * scale) + 1, finding.kind
        return
    for finding in _find(text, personal):
        yield bisect_right(ends, finding.start) + 1, finding.kind


def _find(text: bytes, personal: bool) -> list[Finding]:
    found = find_secrets(text)
    return merge([*found, *find_personal(text)]) if personal else found


def _decode(data: bytes) -> bytes:
    """Return a text in which ASCII is ASCII; UTF-8, latin-1 and their like are that already."""
    for bom, encoding in _BOMS.items():
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "replace").encode("utf-8", "replace")
    sample = data[:_SAMPLE]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = sample[first::2].count(0), sample[1 - first :: 2].count(0)
        if zeros > 0.7 * len(sample) / 2 and others < 0.1 * len(sample) / 2:
            return data.decode(encoding, "replace").encode("utf-8", "replace")
    return data


def _decode_base64(text: bytes) -> bytes | None:
    """Return what a text is the base64 of; None if it is none from end to end."""
    if not _BASE64.fullmatch(text):
        return None
    body = b"".join(text.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(body + b"=" * (-len(body) % 4))
    except binascii.Error:
        return None


def _shown(path: str) -> str:
    """Return a path on one line, without what in it is a secret itself."""
    return redact(clean_path(path).encode(), "", Secrets(personal="keep")).text.decode()


def _files(path: str) -> Iterator[_File]:
    if not os.path.isdir(path):
        if not os.path.isfile(path):
            raise FimError(f"{_shown(path)}: no such file or folder; give another one")
        yield _read(path)
    elif shutil.which("git") is None:
        yield from _walk(path)
    elif (inside := git.call(path, "rev-parse", "--is-inside-work-tree")).returncode:
        yield from _walk(path)
    elif inside.stdout.strip() == b"true":
        listing = git.run(path, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in sorted(set(listing.split(b"\0")[:-1])):
            place = os.path.join(path, os.fsdecode(name))
            if os.path.isfile(place) and not os.path.islink(place):
                yield _read(place)
    else:
        yield from _committed(path)


def _walk(folder: str) -> Iterator[_File]:
    for found in walk_folder(Source(folder=folder)):
        place = os.path.join(folder, found.path)
        if not found.reason:
            yield _read(place)
        elif found.reason in _UNREAD:
            yield _File(path=place, reason=found.reason)


def _committed(folder: str) -> Iterator[_File]:
    """Yield the files of the last commit of a bare repository."""
    commit = git.resolve_commit(folder, "HEAD")
    for blob in git.read_blobs(folder, commit.id, MAX_BYTES):
        if not blob.reason:
            yield _File(path=os.path.join(folder, os.fsdecode(blob.path)), data=blob.content)
        elif blob.reason not in git.MODES.values():
            yield _File(path=os.path.join(folder, os.fsdecode(blob.path)), reason=blob.reason)


def _read(path: str) -> _File:
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return _File(path=path, reason="too-large")
        return _File(path=path, data=Path(path).read_bytes())
    except OSError:
        return _File(path=path, reason="unreadable")
