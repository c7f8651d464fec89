"""Where documents come from: every entry of a source comes out as a `File` or a counted `Skip`."""

import glob
import hashlib
import os
import stat
import sysconfig
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fim import LANGUAGES, FimError, detect_language
from finetune.corpus.entries import File, Skip
from finetune.corpus.filters import HEAD_BYTES
from finetune.corpus.licences import is_licence_file
from finetune.corpus.sources import git
from finetune.corpus.sources.clones import is_url, make_clone, url_name
from finetune.corpus.sources.patterns import clean_path, is_wanted
from finetune.corpus.sources.tables import (
    read_dataset,
    read_jsonl,
    read_parquet,
    split_dataset_name,
)
from finetune.recipe.corpus import SOURCE_KINDS, Source
from finetune.store import sha256_file

INTERNAL = dict.fromkeys((".git", ".hg", ".svn", "__pycache__"), "vendored")
"""Folders that are not entered, and the reason they are counted under, once each."""
INSTALLED = {"site-packages": "installed", "dist-packages": "installed"}
"""The same for folders inside the standard library's: other people's packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of a walked folder."""

    path: str
    """Relative to the walked folder, as the file system has it."""
    reason: str = ""
    """Why it is no readable file; empty if it is one."""
    num_bytes: int = 0
    mtime_ns: int = 0


def expand_sources(
    sources: Sequence[Source],
    cache: Path,
    fetch: bool = True,
    leave_out: Callable[[str], object] = lambda place: None,
) -> tuple[Source, ...]:
    """Return one source per place: globs as what they match, sorted, URLs as their clones.

    Every source has a name; unlike `unique_names`, two may be called the same. Repositories that a
    glob matches and that have no commit yet are left out.

    Args:
        sources: of the recipe.
        cache: folder of the run; clones live in its `clones`.
        fetch: whether clones are made and updated; False never uses the network.
        leave_out: gets the path of each repository that is left out.

    Raises:
        FimError: nothing matches, a URL cannot be cloned or is not cloned yet, or it is none of
            `git`.
    """
    expanded: list[Source] = []
    fetched: set[tuple[str, str]] = set()
    for source in sources:
        if source.git and is_url(source.git):
            place = (source.git, source.ref)
            clone = make_clone(*place, cache / "clones", fetch and place not in fetched)
            fetched.add(place)
            name = source.name or url_name(source.git)
            expanded.append(replace(source, git=str(clone), name=name))
        else:
            expanded += _expand_glob(source, leave_out)
    return tuple(expanded)


def _expand_glob(source: Source, leave_out: Callable[[str], object]) -> list[Source]:
    key, place = source_key(source), str(source_path(source))
    if "://" in getattr(source, key):  # not shown: it may hold a password
        raise FimError(f"corpus.sources: {key!r} takes no URL; only 'git' does")
    if key == "dataset" or not glob.has_magic(place) or os.path.exists(place):
        return [replace(source, name=source.name or _last_part(source))]
    is_place = {"git": _is_repository, "folder": os.path.isdir}.get(key, os.path.isfile)
    places = sorted(filter(is_place, glob.glob(place, recursive=True)))
    empty = [place for place in places if key == "git" and not git.has_commit(place)]
    for place in empty:
        leave_out(place)
    places = [place for place in places if place not in empty]
    if not places:
        kind = {"git": "repository", "folder": "folder"}.get(key, "file")
        kind += " with a commit" if empty else ""
        raise FimError(f"{place}: no {kind} matches; correct corpus.sources")
    matches = [replace(source, **{key: place, "name": ""}) for place in places]
    prefix = f"{source.name}-" if source.name else ""
    return [replace(match, name=prefix + _last_part(match)) for match in matches]


def _is_repository(place: str) -> bool:
    is_bare = all(os.path.exists(os.path.join(place, name)) for name in ("HEAD", "objects", "refs"))
    return is_bare or os.path.exists(os.path.join(place, ".git"))


def read_source(
    source: Source,
    repo: str,
    max_bytes: int,
    is_known: Callable[[File], bool] = lambda file: False,
    times: bool = False,
) -> Iterator[File | Skip]:
    """Yield every entry of a source once, as a `File` or a `Skip`.

    Args:
        source: one that `expand_sources` returned.
        repo: its name, see `unique_names`.
        max_bytes: larger files are not read.
        is_known: files it is true for come out without `data`; git and folders do not read it. It
            gets a file without `data`.
        times: whether `committed_at` is that of the last commit that changed the path, for `git`.

    Raises:
        FimError: the source does not exist or is not what it claims; correct the recipe.
    """
    make = partial(File, repo=repo, weight=source.weight, is_replay=source.replay)
    if source.git:
        return _read_git(source, make, max_bytes, is_known, times)
    if source.folder:
        return _read_folder(source, make, max_bytes, is_known)
    return _read_table(source, make, is_known)


def unique_names(sources: Sequence[Source]) -> tuple[str, ...]:
    """Return what each source is called in the corpus, with `-2` and so on where a name is taken.

    A source without a name is called after the last part of its path.
    """
    names: dict[str, None] = {}
    for source in sources:
        wanted = candidate = source.name or _last_part(source)
        number = 1
        while candidate in names:
            number += 1
            candidate = f"{wanted}-{number}"
        names[candidate] = None
    return tuple(names)


def source_key(source: Source) -> str:
    """Return the one of `SOURCE_KINDS` that the source sets."""
    return next(key for key in SOURCE_KINDS if getattr(source, key))


def source_path(source: Source) -> Path:
    """Return the source's place, with `{stdlib}` and `~` filled in."""
    text = getattr(source, source_key(source))
    return Path(os.path.expanduser(text.replace("{stdlib}", sysconfig.get_paths()["stdlib"])))


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


def _read_git(
    source: Source,
    make: Callable[..., File],
    max_bytes: int,
    is_known: Callable[[File], bool],
    times: bool,
) -> Iterator[File | Skip]:
    folder = source_path(source)
    commit = git.resolve_commit(folder, source.ref)
    make = partial(make, revision=commit.id)
    changed = git.change_times(folder, commit.id) if times else {}

    def as_file(blob: git.Blob) -> File:
        return make(
            path=clean_path(blob.path),
            data=blob.content,
            content_id=blob.id,
            committed_at=changed.get(blob.path, commit.committed_at),
            num_bytes=blob.num_bytes,
        )

    for blob in git.read_blobs(
        folder,
        commit.id,
        max_bytes,
        wanted=lambda path: is_wanted(clean_path(path), source),
        is_known=lambda blob: is_known(as_file(blob)),
    ):
        file = as_file(blob)
        yield _skip(file, blob.reason) if blob.reason else file


def _read_folder(
    source: Source, make: Callable[..., File], max_bytes: int, is_known: Callable[[File], bool]
) -> Iterator[File | Skip]:
    root = source_path(source)
    for found in walk_folder(source):
        file = make(
            path=clean_path(os.fsencode(found.path)),
            data=b"",
            content_id=f"{found.num_bytes}:{found.mtime_ns}",
            num_bytes=found.num_bytes,
        )
        reason = found.reason
        if not reason and not is_wanted(file.path, source):
            reason = "excluded"
        if not reason and found.num_bytes > max_bytes:
            reason = "too-large"
        if not reason and not is_known(file):
            try:
                data = (root / found.path).read_bytes()
                file = replace(file, data=data, num_bytes=len(data))
            except OSError:
                reason = "unreadable"
        yield _skip(file, reason) if reason else file


def _read_table(
    source: Source, make: Callable[..., File], is_known: Callable[[File], bool]
) -> Iterator[File | Skip]:
    read_rows = {"jsonl": read_jsonl, "parquet": read_parquet, "dataset": read_dataset}
    rows = read_rows[source_key(source)](source, source_path(source))
    for number, row, num_bytes in rows:
        file, reason = _from_row(row, number, num_bytes, source, make)
        if reason:
            yield _skip(file, reason)
        else:
            yield replace(file, data=b"") if is_known(replace(file, data=b"")) else file


def _from_row(
    row: object, number: int, num_bytes: int, source: Source, make: Callable[..., File]
) -> tuple[File, str]:
    """Turn one row into a file and why it is none; a row without a path is `row-<number>`."""
    if not isinstance(row, dict):
        return make(path=f"row-{number}", data=b"", num_bytes=num_bytes), "bad-row"
    path, text = row.get(source.path_column), row.get(source.column)
    has_path = isinstance(path, str | bytes) and bool(path)
    # A lone surrogate passes here and is counted as `not-utf-8` where content is judged.
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    has_text = isinstance(data, bytes)
    file = make(
        path=clean_path(path) if has_path else f"row-{number}",
        data=data if has_text else b"",
        content_id=hashlib.sha256(data).hexdigest() if has_text else "",
        language="" if has_path else source.language,
        num_bytes=len(data) if has_text else num_bytes,
    )
    if not has_text:
        return file, "no-text"
    if not is_wanted(file.path, source):
        return file, "excluded"
    return file, "" if has_path or source.language else "no-path"


def _skip(file: File, reason: str) -> Skip:
    return Skip(repo=file.repo, path=file.path, reason=reason, num_bytes=file.num_bytes)


def _last_part(source: Source) -> str:
    """Name a source after the folder or file it is, `payments` for `payments.git` and `.git`."""
    path = Path(os.path.realpath(source_path(source)))
    if source.dataset and not path.exists():
        path = Path(split_dataset_name(source.dataset)[0])
    name = path.name
    if source.git:
        name = path.parent.name if name == ".git" else name.removesuffix(".git")
    return clean_path(name) or source_key(source)


def source_state(source: Source, kept_languages: Collection[str]) -> Any:
    """Return what changes when the content of a source does, as plain JSON values.

    The commit stands for a git source; size and time of those files of a folder that can become
    documents, and of licence files; sha256 for single files. A dataset of the hub is known by its
    name only.

    Raises:
        FimError: the source does not exist.
    """
    key, path = source_key(source), source_path(source)
    if key == "git":
        return git.resolve_commit(path, source.ref).id
    if os.path.isdir(path):
        found = walk_folder(source)
        kept_languages = LANGUAGES if source.replay else kept_languages
        if key == "folder":
            found = (f for f in found if _is_material(f, source, kept_languages))
        return [(ascii(f.path), f.reason, f.num_bytes, f.mtime_ns) for f in found]
    if os.path.isfile(path):
        return sha256_file(path)
    if key == "dataset":
        return source.dataset
    raise FimError(
        f"{path}: no such {'folder' if key == 'folder' else 'file'}; correct corpus.sources"
    )


def _is_material(found: Found, source: Source, kept_languages: Collection[str]) -> bool:
    """Whether a walked entry may become a document in one of the languages, or is their licence.

    What a shared extension means is left open.
    """
    path = clean_path(os.fsencode(found.path))
    if found.reason or not is_wanted(path, source):
        return False
    if is_licence_file(path):
        return True
    suffix = Path(path).suffix.lower()
    if suffix:
        is_shared = any(suffix in LANGUAGES[name].shared for name in kept_languages)
        return is_shared or detect_language(path) in kept_languages
    try:
        with open(source_path(source) / found.path, "rb") as file:
            return detect_language(path, file.read(HEAD_BYTES)) in kept_languages
    except OSError:
        return False
