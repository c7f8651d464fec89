"""Where documents come from: every entry of a source comes out as a `File` or a counted `Skip`."""

import functools
import json
import os
import re
import stat
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fim import FimError
from finetune.corpus import git
from finetune.recipe_corpus import Source

INTERNAL = dict.fromkeys((".git", ".hg", ".svn", "__pycache__"), "vendored")
"""Folders that are not entered, and the reason they are counted under, once each."""
INSTALLED = {"site-packages": "installed", "dist-packages": "installed"}
"""The same for folders inside the standard library's: other people's packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One entry as it was found; nothing is known about its content yet."""

    repo: str
    """Name of its source, unique in the corpus, never an absolute path."""
    path: str
    """Clean unicode: bytes that are no UTF-8 and control characters are escaped."""
    data: bytes
    language: str = ""
    """Language the source declares; empty lets path and content decide."""
    revision: str = ""
    """Commit, if any."""
    committed_at: int = 0
    """Unix seconds of the commit, 0 if unknown."""
    licence: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """One entry that is not in the corpus, and why."""

    repo: str
    path: str
    reason: str
    num_bytes: int
    """Size of the entry, 0 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of a walked folder."""

    path: str
    """Relative to the walked folder, as the file system has it."""
    reason: str = ""
    """Why it is no readable file; empty if it is one."""
    num_bytes: int = 0
    mtime_ns: int = 0


def read_source(source: Source, seen_names: set[str], max_bytes: int) -> Iterator[File | Skip]:
    """Yield every entry of a source as a `File` or a `Skip`.

    Args:
        source: exactly one of its first five keys is set.
        seen_names: names other sources have; this one's is added, with `-2` where it is taken.
        max_bytes: larger files are not read.

    Raises:
        FimError: the source does not exist or is not what it claims; correct the recipe.
    """
    key = source_key(source)
    repo = _unique_name(source.name or _last_part(source), seen_names)
    seen_names.add(repo)
    return READERS[key](source, repo, max_bytes)


def source_key(source: Source) -> str:
    """Return the key of `READERS` that the source sets."""
    return next(key for key in READERS if getattr(source, key))


def source_path(source: Source) -> Path:
    """Return the source's place, with `{stdlib}` and `~` filled in."""
    text = getattr(source, source_key(source))
    return Path(os.path.expanduser(text.replace("{stdlib}", sysconfig.get_paths()["stdlib"])))


def clean_path(path: str | bytes) -> str:
    r"""Return a path as unicode that any file format can hold, on one line.

    Bytes that are no UTF-8, lone surrogates and control characters become `\xNN` or `\uNNNN`.
    """
    raw = path if isinstance(path, bytes) else path.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]", lambda m: ascii(m[0])[1:-1], text)


def is_wanted(path: str, source: Source) -> bool:
    """Whether `include` takes the path and `exclude` leaves it."""
    included = not source.include or any(_matches(path, p) for p in source.include)
    return included and not any(_matches(path, p) for p in source.exclude)


def walk_folder(source: Source) -> Iterator[Found]:
    """Yield what lies below a source's folder, in sorted order; links are never followed.

    The folder itself may be a link. What git and Python keep for themselves is one entry, see
    `INTERNAL`.

    Raises:
        FimError: there is no such folder.
    """
    root = source_path(source)
    closed = INTERNAL | (INSTALLED if "{stdlib}" in source.folder else {})
    if not os.path.isdir(root):  # `Path.is_dir` raises where a parent is locked
        raise FimError(f"{root}: no such folder; correct corpus.sources")
    pending = [""]
    while pending:
        place = pending.pop()
        try:
            info = os.lstat(root / place) if place else root.stat()
            if not stat.S_ISDIR(info.st_mode):
                yield _found(place, info)
            elif reason := closed.get(os.path.basename(place)):
                yield Found(path=place, reason=reason)
            else:
                names = sorted(os.listdir(root / place), reverse=True)
                pending += [f"{place}/{name}" if place else name for name in names]
        except OSError:
            yield Found(path=place or ".", reason="unreadable")


def _found(place: str, info: os.stat_result) -> Found:
    reason = ""
    if stat.S_ISLNK(info.st_mode):
        reason = "symlink"
    elif not stat.S_ISREG(info.st_mode):
        reason = "not-a-file"
    return Found(path=place, reason=reason, num_bytes=info.st_size, mtime_ns=info.st_mtime_ns)


def _read_git(source: Source, repo: str, max_bytes: int) -> Iterator[File | Skip]:
    folder = source_path(source)
    commit = git.resolve_commit(folder, source.ref)
    wanted = lambda path: is_wanted(clean_path(path), source)  # noqa: E731
    for blob in git.read_blobs(folder, commit.id, max_bytes, wanted):
        path = clean_path(blob.path)
        if blob.reason:
            yield Skip(repo=repo, path=path, reason=blob.reason, num_bytes=blob.num_bytes)
        else:
            yield File(
                repo=repo,
                path=path,
                data=blob.content,
                revision=commit.id,
                committed_at=commit.committed_at,
            )


def _read_folder(source: Source, repo: str, max_bytes: int) -> Iterator[File | Skip]:
    root = source_path(source)
    for found in walk_folder(source):
        path, reason, data = clean_path(os.fsencode(found.path)), found.reason, b""
        if not reason and not is_wanted(path, source):
            reason = "excluded"
        if not reason and found.num_bytes > max_bytes:
            reason = "too-large"
        if not reason:
            try:
                data = (root / found.path).read_bytes()
            except OSError:
                reason = "unreadable"
        if reason:
            yield Skip(repo=repo, path=path, reason=reason, num_bytes=found.num_bytes)
        else:
            yield File(repo=repo, path=path, data=data)


def _read_jsonl(source: Source, repo: str, max_bytes: int) -> Iterator[File | Skip]:
    path = _existing_file(source)
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _from_row(_parse_row(line), number, len(line), source, repo)


def _parse_row(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None


def _read_parquet(source: Source, repo: str, max_bytes: int) -> Iterator[File | Skip]:
    from pyarrow import ArrowException, parquet

    path = _existing_file(source)
    try:
        with parquet.ParquetFile(path) as table:
            known = table.schema_arrow.names
            _check_column(source, known)
            columns = [name for name in (source.column, source.path_column) if name in known]
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield _from_row(row, number, 0, source, repo)
    except (ArrowException, OSError) as error:
        raise FimError(f"{path}: not a whole Parquet file ({_first_line(error)})") from None


def _read_dataset(source: Source, repo: str, max_bytes: int) -> Iterator[File | Skip]:
    import datasets

    name = str(source_path(source)) if os.path.exists(source_path(source)) else source.dataset
    try:
        # Streamed: the code is read where it lies, no copy of it stays in a cache folder.
        rows = datasets.load_dataset(name, split="train", streaming=True)
        if rows.column_names:
            _check_column(source, rows.column_names)
        for number, row in enumerate(rows, start=1):
            yield _from_row(row, number, 0, source, repo)
    except FimError:
        raise
    except Exception as error:  # the library has no common exception
        raise FimError(f"{name}: 'datasets' cannot load it ({_first_line(error)})") from None


READERS: dict[str, Callable[[Source, str, int], Iterator[File | Skip]]] = {
    "git": _read_git,
    "folder": _read_folder,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
}


def _from_row(row: object, number: int, num_bytes: int, source: Source, repo: str) -> File | Skip:
    """Turn one row into an entry; a row without a path is called `row-<number>`."""
    if not isinstance(row, dict):
        return Skip(repo=repo, path=f"row-{number}", reason="bad-row", num_bytes=num_bytes)
    path, text = row.get(source.path_column), row.get(source.column)
    has_path = isinstance(path, str) and bool(path)
    place = clean_path(path) if has_path else f"row-{number}"
    # A lone surrogate passes here and is counted as `not-utf-8` where content is judged.
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    reason = ""
    if not isinstance(data, bytes):
        reason = "no-text"
    elif not is_wanted(place, source):
        reason = "excluded"
    elif not has_path and not source.language:
        reason = "no-path"
    if reason:
        size = len(data) if isinstance(data, bytes) else num_bytes
        return Skip(repo=repo, path=place, reason=reason, num_bytes=size)
    language = "" if has_path else source.language
    return File(repo=repo, path=place, data=data, language=language)


def _check_column(source: Source, known: Iterable[str]) -> None:
    if source.column not in known:
        place = getattr(source, source_key(source))
        raise FimError(
            f"{place}: no column {source.column!r}; set 'column' to one of: {', '.join(known)}"
        )


def _existing_file(source: Source) -> Path:
    path = source_path(source)
    if not os.path.isfile(path):
        raise FimError(f"{path}: no such file; correct corpus.sources")
    if not os.access(path, os.R_OK):
        raise FimError(f"{path}: not readable; change its permissions")
    return path


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_part(source: Source) -> str:
    """Name a source after the folder or file it is, `payments` for `payments.git` and `.git`."""
    path = Path(os.path.realpath(source_path(source)))
    if source.git:
        path = (
            path.parent if path.name == ".git" else path.with_name(path.name.removesuffix(".git"))
        )
    return clean_path(path.name) or source_key(source)


def _unique_name(name: str, seen: set[str]) -> str:
    number, candidate = 1, name
    while candidate in seen:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith("/"):
        pattern += "**"
    expression = _glob_expression(pattern)
    if expression.fullmatch(path):
        return True
    return "/" not in pattern and bool(expression.fullmatch(path.rpartition("/")[2]))


_GLOB = re.compile(
    r"(?P<folders>(?<![^/])\*\*/)|(?P<all>\*\*)|(?P<some>\*)|(?P<one>\?)|(?P<set>\[!?[^]/]+\])"
)
_GLOB_PARTS = {"folders": "(?:.*/)?", "all": ".*", "some": "[^/]*", "one": "[^/]"}


@functools.cache
def _glob_expression(pattern: str) -> re.Pattern[str]:
    """Translate a glob: `*` and `?` stay inside a folder, `**` crosses folders."""
    parts, end = [], 0
    for match in _GLOB.finditer(pattern):
        parts.append(re.escape(pattern[end : match.start()]))
        parts.append(_GLOB_PARTS.get(match.lastgroup) or _character_set(match[0]))
        end = match.end()
    try:
        return re.compile("".join(parts) + re.escape(pattern[end:]), re.DOTALL)
    except re.error:  # `[z-a]` is no range
        return re.compile(re.escape(pattern))


def _character_set(text: str) -> str:
    inside = re.escape(text[1:-1].removeprefix("!")).replace(r"\-", "-")
    return f"[^{inside}]" if text.startswith("[!") else f"[{inside}]"
