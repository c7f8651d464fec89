"""Files of a git commit, read from its objects: no checkout, no hooks, no filters, no network."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from fim import FimError

ENVIRONMENT = {
    "GIT_NO_LAZY_FETCH": "1",  # a partial clone stays partial (git >= 2.45)
    "GIT_ALLOW_PROTOCOL": "none",  # the same for older git
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a commit id stands for one content only
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",  # error messages are compared below
}
FOREIGN = (  # set inside git hooks; each would turn `git -C` to another repository
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
)  # fmt: skip
EXPLANATIONS = {
    "dubious ownership": "belongs to another user; git reads it after "
    "'git config --global --add safe.directory {real}'",
    "safe.bareRepository": "git refuses bare repositories here; git reads it after "
    "'git config --global safe.bareRepository all'",
    "not a git repository": "not a git repository; use 'folder:' for plain files",
}
SUBMODULE = b"160000"
MODES = {b"120000": "symlink", SUBMODULE: "submodule"}
_CHANGES = ("-r", "--root", "-c", "--no-renames", "--name-status", "-z")
_YEAR_10000 = 253_402_300_800
_BATCH, _BATCH_BYTES = 60, 4_000_000
"""Objects asked for at once: their names, sha256 too, fit the smallest pipe, one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A resolved commit."""

    id: str
    """Its full hexadecimal name."""
    committed_at: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One entry of a commit's tree: its content, or why there is none."""

    path: bytes
    """Path from the top of the repository, as git stores it."""
    id: str
    """Name of the object, which stands for one content."""
    content: bytes = b""
    """Empty when there is a `reason`, or the caller knows the content."""
    reason: str = ""
    """Why the content was not read; empty if it was."""
    num_bytes: int = 0
    """Size of the blob, 0 if unknown."""


def resolve_commit(folder: str | Path, ref: str) -> Commit:
    """Find the commit `ref` names in the repository whose top, or bare folder, is `folder`.

    Raises:
        FimError: no such folder, no repository, no commit or no such ref; give another one.
    """
    if not os.path.isdir(folder):
        raise FimError(f"{folder}: no such folder; clone the repository there first")
    prefix = os.fsdecode(run(folder, "rev-parse", "--show-prefix")).strip()
    if prefix:
        raise FimError(
            f"{folder}: not the top of a git repository; give its top with include: "
            f"['{prefix}**'], or use 'folder:'"
        )
    found = None
    if ref and not ref.startswith(("-", "^")):
        found = call(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if found is None or found.returncode:
        raise FimError(_unknown_ref(folder, ref))
    seconds, name = run(
        folder, "rev-list", "--no-walk", "--timestamp", found.stdout.decode().strip()
    ).split()
    return Commit(id=name.decode(), committed_at=_seconds(seconds))


def has_commit(folder: str | Path) -> bool:
    """Whether a repository has a branch, a tag or a commit at hand, or cannot be asked."""
    found = call(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if found.returncode == 0:
        return True
    listed = call(folder, "for-each-ref", "--count=1")
    return bool(listed.returncode or listed.stdout)


def read_blobs(
    folder: str | Path,
    commit: str,
    max_bytes: int,
    wanted: Callable[[bytes], bool] = lambda path: True,
    is_known: Callable[[Blob], bool] = lambda blob: False,
) -> Iterator[Blob]:
    """Yield every entry of a commit's tree once, in git's order, a few megabytes at a time.

    Args:
        folder: the repository.
        commit: id of the commit.
        max_bytes: larger blobs are never read.
        wanted: entries it is false for come out as `excluded`, unread.
        is_known: entries it is true for come out without content; asked once per readable one.

    Raises:
        FimError: the tree itself cannot be read.
    """
    contents = _Contents(folder)
    batch: list[tuple[Blob, bool]] = []
    num_bytes = 0
    try:
        for blob in _list_blobs(folder, commit, max_bytes, wanted):
            is_read = not blob.reason and not is_known(blob)
            batch.append((blob, is_read))
            num_bytes += blob.num_bytes if is_read else 0
            if len(batch) == _BATCH or num_bytes > _BATCH_BYTES:
                yield from contents.fill(batch)
                batch, num_bytes = [], 0
        yield from contents.fill(batch)
    finally:
        contents.close()


def change_times(folder: str | Path, commit: str) -> dict[bytes, int]:
    """Return when the last commit that changed it was made, in Unix seconds, by path.

    A merge counts for what it has unlike all its parents. Paths whose history a shallow or partial
    clone lacks are absent, or as old as what it has.

    Raises:
        FimError: the commit cannot be read.
    """
    unseen = set(
        run(folder, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split(b"\0")
    )
    unseen.discard(b"")
    rows = (row.split() for row in run(folder, "rev-list", "--timestamp", commit).splitlines())
    commits = {name: _seconds(seconds) for seconds, name in rows}
    times: dict[bytes, int] = {}
    seconds, is_path = 0, False
    with tempfile.TemporaryFile() as names:
        names.write(b"\n".join(commits) + b"\n")
        names.seek(0)
        for word in _words(folder, names, "diff-tree", "--stdin", *_CHANGES):
            if not is_path and word in commits:  # then come the paths it changed
                seconds = commits[word]
                continue
            if is_path and word in unseen:
                times[word] = seconds
                unseen.remove(word)
            if not unseen:
                break
            is_path = not is_path  # each after a word like "M"
    return times


def read_history(folder: str | Path, commit: str) -> list[tuple[int, str]]:
    """Return time, 0 if unknown, and author of every commit that leads to `commit`, newest first.

    Raises:
        FimError: the history cannot be read.
    """
    lines = run(folder, "rev-list", "--format=%ct %ae", commit).split(b"\n")
    rows = (line.partition(b" ") for line in lines if line and not line.startswith(b"commit "))
    return [(_seconds(seconds), os.fsdecode(author)) for seconds, _, author in rows]


def _seconds(text: bytes) -> int:
    """Return a time that git prints; 0 for those of damaged commits, none or beyond all dates."""
    seconds = int(text or 0)
    return seconds if seconds < _YEAR_10000 else 0


def _list_blobs(
    folder: str | Path, commit: str, max_bytes: int, wanted: Callable[[bytes], bool]
) -> Iterator[Blob]:
    """Yield every entry of a commit's tree, without content, and why it cannot be read if so."""
    listing = run(folder, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
    entries = [(*header.split(), path) for header, path in (e.split(b"\t", 1) for e in listing)]
    missing = _missing_objects(folder, commit)
    ids = {oid for mode, _, oid, _ in entries if mode != SUBMODULE and oid not in missing}
    sizes = _read_sizes(folder, sorted(ids))
    for mode, _, oid, path in entries:
        size = sizes.get(oid)
        reason = MODES.get(mode) or ("" if wanted(path) else "excluded")
        if not reason and size is None:
            reason = "missing-object"
        if not reason and size > max_bytes:
            reason = "too-large"
        yield Blob(path=path, id=oid.decode(), reason=reason, num_bytes=size or 0)


def _read_sizes(folder: str | Path, ids: list[bytes]) -> dict[bytes, int]:
    """Return the bytes of each object that git has and can read."""
    sizes: dict[bytes, int] = {}
    while ids:
        answers = call(
            folder, "cat-file", "--batch-check", data=b"\n".join(ids) + b"\n"
        ).stdout.splitlines()
        rows = (answer.split() for answer in answers)  # `<oid> <type> <size>`, `<oid> missing`
        sizes |= {row[0]: int(row[2]) for row in rows if len(row) == 3}
        ids = ids[len(answers) + 1 :]  # git ends at an object that it cannot even ask about
    return sizes


def _words(folder: str | Path, stdin: IO[bytes], *arguments: str) -> Iterator[bytes]:
    """Yield what a git command prints between NUL bytes, until it ends or nobody wants more."""
    with subprocess.Popen(
        command(folder, *arguments),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        rest = b""
        try:
            while chunk := process.stdout.read1(1 << 16):
                *words, rest = (rest + chunk).split(b"\0")
                yield from words
        finally:
            process.kill()


class _Contents:
    """A `git cat-file` process that is asked for batches of objects, and replaced when it dies.

    git ends the whole process on a damaged object; one bad object must cost that object only.
    """

    def __init__(self, folder: str | Path) -> None:
        self._command = command(folder, "cat-file", "--batch")
        self._process: subprocess.Popen | None = None

    def fill(self, batch: list[tuple[Blob, bool]]) -> Iterator[Blob]:
        """Yield the blobs of a batch, those to be read with content."""
        unread = [blob for blob, is_read in batch if is_read]
        self._ask(unread)
        done = 0
        for blob, is_read in batch:
            if is_read:
                done += 1
                content = self._answer()
                if content is None:
                    content = self._ask_again(blob)
                    self._ask(unread[done:])
                if content is None:
                    blob = replace(blob, reason="damaged-object")
                else:
                    blob = replace(blob, content=content)
            yield blob

    def _ask_again(self, blob: Blob) -> bytes | None:
        """Ask a new process: the old one may have been killed, for want of memory perhaps."""
        self.close()
        self._ask([blob])
        content = self._answer()
        if content is None:
            self.close()
        return content

    def _ask(self, blobs: list[Blob]) -> None:
        """Send a batch small enough for the pipe: git takes it before it is read from."""
        if not blobs:
            return
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
                bufsize=1 << 20,
            )
        with suppress(BrokenPipeError):  # it gives no answer, then
            self._process.stdin.write("".join(f"{blob.id}\n" for blob in blobs).encode())
            self._process.stdin.flush()

    def _answer(self) -> bytes | None:
        """Content of the next object; None if git cannot read it."""
        header = self._process.stdout.readline().split()
        if len(header) != 3:
            return None
        size = int(header[2])
        content = self._process.stdout.read(size + 1)  # git ends every content by a newline
        return content[:-1] if len(content) > size else None

    def close(self) -> None:
        """End the process; the next batch starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _missing_objects(folder: str | Path, commit: str) -> set[bytes]:
    """Find objects a partial clone lacks; to ask `cat-file` for one would fetch it (git < 2.45)."""
    listing = run(folder, "rev-list", "--objects", "--no-walk", "--missing=print", commit)
    return {line[1:] for line in listing.splitlines() if line.startswith(b"?")}


def _unknown_ref(folder: str | Path, ref: str) -> str:
    names = run(folder, "for-each-ref", "--count=5", "--format=%(refname:short)").decode().split()
    if not names:
        return f"{folder}: no commit yet; commit the files, or use 'folder:'"
    return f"{folder}: unknown ref {ref!r}; known: {', '.join(names)}"


def run(folder: str | Path, *arguments: str) -> bytes:
    """Return what a git command prints.

    Raises:
        FimError: it fails.
    """
    result = call(folder, *arguments)
    if result.returncode:
        raise FimError(f"{folder}: {_explain(folder, os.fsdecode(result.stderr))}")
    return result.stdout


def call(folder: str | Path, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess:
    """Run a git command in a repository; it may fail."""
    words = command(folder, *arguments)
    try:
        return subprocess.run(
            words, input=data, capture_output=True, check=False, env=environment()
        )
    except FileNotFoundError:
        raise FimError("git is not installed; install it, or use 'folder:' sources") from None


def _explain(folder: str | Path, message: str) -> str:
    for needle, explanation in EXPLANATIONS.items():
        if needle in message:
            return explanation.format(real=os.path.realpath(folder))
    lines = message.strip().splitlines()
    return f"git cannot read it ({lines[-1] if lines else 'no message'}); try 'git fsck' there"


def command(folder: str | Path, *arguments: str) -> list[str]:
    """Return the words of a git command that runs nothing a repository brings with it."""
    switches = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    return ["git", "-C", str(folder), *switches, *arguments]


def environment() -> dict[str, str]:
    """Return the environment git runs in: no network, no question, no redirection."""
    return {key: value for key, value in os.environ.items() if key not in FOREIGN} | ENVIRONMENT
