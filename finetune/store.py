"""Files that are whole or absent: atomic, fsynced writes, checksums and stage manifests.

Every stage of a run writes `<stage folder>/manifest.json` last. It holds the fingerprint of what
went in and the sha256 of every file that came out, so that a stage that is done is skipped, and one
that was made from something else is refused.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from fim import LANGUAGES, FimError

MANIFEST = "manifest.json"
VERSIONS = (
    "sfim", "numpy", "tree-sitter", "tokenizers", "transformers", "datasets", "torch", "trl",
    "peft", "accelerate", "kingfisher-secret-scanner", "rensa", "ruff", "scikit-learn", "networkx",
)  # fmt: skip


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file below `folder`, every folder, and the entry of `folder` itself."""
    for path in sorted(folder.rglob("*")):
        fsync_path(path)
    fsync_path(folder)
    fsync_path(folder.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: after a crash the old or the new content is there, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON, see `write_bytes`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Write at the end of a file; an error names it."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # on closing, the system does not say which file it was
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FimError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FimError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise FimError(f"{path}: damaged; delete it and run the stage again") from None


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*values: Any) -> str:
    """Return 32 hexadecimal digits of anything JSON can hold.

    The order of a mapping counts: a table of weights in another order draws otherwise.
    """
    text = json.dumps(values, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_run_folder(folder: Path) -> None:
    """Create a run folder that only its owner can read (mode 0700)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


@contextmanager
def stage_folder(folder: Path) -> Iterator[Path]:
    """Give a fresh folder to write into, and put it in the place of `folder` at the end.

    When the block raises, what stood at `folder` before still stands there.

    Raises:
        FimError: another process is writing it.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    lock = _make_locked(fresh)
    try:
        yield fresh
        fsync_tree(fresh)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
        fsync_path(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _make_locked(fresh: Path) -> int:
    """Make an empty folder in the place of what a killed process left, and lock it."""
    turn = os.open(fresh.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(turn, fcntl.LOCK_EX)  # of several that start at once, one looks at a time
        if fresh.exists():
            os.close(_lock(fresh))
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        return _lock(fresh)
    except FileExistsError:
        raise FimError(f"{fresh}: another process is writing there; wait for it") from None
    finally:
        os.close(turn)


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a run folder; the end of this one, even killed, frees.

    Raises:
        FimError: another process trains there.
    """
    path = folder / ".lock"  # a file: network file systems lock no folder
    path.touch()
    descriptor = _lock(path, os.O_RDWR)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, mode: int = os.O_RDONLY) -> int:
    """Hold a folder or a file until the descriptor is closed or this process ends."""
    descriptor = os.open(path, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        folder = path if path.is_dir() else path.parent
        raise FimError(f"{folder}: another process is writing there; wait for it") from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def is_leftover(path: Path) -> bool:
    """Whether a path is what a killed `stage_folder` left; the next one deletes it."""
    return path.name.startswith(".") and path.name.endswith((".new", ".old"))


def library_versions() -> dict[str, str]:
    """Return the version of each library a result depends on, grammars included."""
    grammars = {row.distribution for row in LANGUAGES.values() if row.distribution}
    found = {"python": platform.python_version()}
    for name in (*VERSIONS, *sorted(grammars)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_manifest(folder: Path, made_from: str, **details: Any) -> None:
    """Write `folder/manifest.json`: fingerprint of the input, versions, sha256 of every file."""
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    value = {"made_from": made_from, **details, "versions": library_versions(), "files": files}
    write_json(folder / MANIFEST, value)


def is_done(folder: Path, made_from: str) -> bool:
    """Whether `folder` holds the whole output of a stage for the input `made_from`."""
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_json(folder / MANIFEST)
    return manifest.get("made_from") == made_from and all(
        (folder / name).is_file() and sha256_file(folder / name) == digest
        for name, digest in manifest["files"].items()
    )
