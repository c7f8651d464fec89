"""Which files the paths of Rust mean."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from posixpath import dirname

from finetune.corpus.links.files import IMPLIED, IMPORT, Repository, Target, join, kept

_ROOTS = ("lib", "main")
_STANDARD = frozenset({"alloc", "core", "proc_macro", "std", "test"})
_VERSION = re.compile(r"-\d[\w.+-]*$")


def rust_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the file of the module that a path, `mod a` or `file a.rs` names.

    Also the module that a name is handed on from by `pub use`.
    """
    kind, _, rest = name.rpartition(" ")
    if kind == "file":
        place = repository.relative(user, rest)
        if place is not None:
            yield place, IMPORT
        return
    parts = rest.split("::")
    start = _module(repository, user) if kind else _start(repository, user, parts)
    place, below = _module_file(repository, start, parts) if start is not None else (None, [])
    if place is None or (kind and below):
        return
    yield place, IMPORT
    for each in repository.files[place].links.imports if below and place != user else ():
        if each.endswith(f"::{below[0]}"):
            further = each.split("::")
            start = _start(repository, place, further)
            target, _ = _module_file(repository, start, further) if start is not None else (None, 0)
            if target is not None:
                yield target, IMPLIED


def _start(repository: Repository, user: int, parts: list[str]) -> str | None:
    """The folder a path starts at; takes from `parts` what leads there."""
    if parts[0] == "crate":
        del parts[0]
        return _crate(repository, repository.folders[user])
    own = _module(repository, user)
    if parts[0] in ("self", "super"):
        while parts and parts[0] in ("self", "super"):
            own = dirname(own) if parts.pop(0) == "super" else own
        return own
    if (f"{own}/{parts[0]}" if own else parts[0]) in _modules(repository):
        return own
    crates = _crates(repository).get(parts[0], ())
    return (parts.pop(0), crates[0])[1] if crates else None


@kept
def _module(repository: Repository, place: int) -> str:
    """The folder that the modules of a file lie in."""
    folder = repository.folders[place]
    stem = repository.files[place].path.rpartition("/")[2].removesuffix(".rs")
    is_root = stem in _ROOTS or (
        folder == _crate(repository, folder) and folder not in _root_files(repository)
    )
    return folder if stem == "mod" or is_root else join(folder, stem)


@kept
def _crate(repository: Repository, own: str) -> str:
    """The folder of the crate that files of a folder are in; programs and tests are each one."""
    folder = own
    while folder.rpartition("/")[2] != "bin":
        if folder in _root_files(repository):
            return folder
        if not folder:
            return own
        folder = dirname(folder)
    return folder


@kept
def _root_files(repository: Repository) -> dict[str, int]:
    """The file that a crate starts with, by the crate's folder."""
    found = {}
    for path, place in repository.places.items():
        folder, _, name = path.rpartition("/")
        if name in ("lib.rs", "main.rs") and (name == "lib.rs" or folder not in found):
            found[folder] = place
    return found


@kept
def _modules(repository: Repository) -> dict[str, int]:
    """The file of a module, by its path without an ending."""
    places = repository.places.items()
    found = {path[:-7]: place for path, place in places if path.endswith("/mod.rs")}
    return found | {path[:-3]: place for path, place in places if path.endswith(".rs")}


def _module_file(
    repository: Repository, start: str, parts: list[str]
) -> tuple[int | None, list[str]]:
    """The file of the longest beginning of a path that is a module, and the rest of the path."""
    modules = _modules(repository)
    path = "/".join([start, *parts] if start else parts)
    for length in range(len(parts), 0, -1):
        if path in modules:
            return modules[path], parts[length:]
        path = path.rpartition("/")[0]
    own = modules.get(start) if start else None
    return _root_files(repository).get(start, own), parts


@kept
def _crates(repository: Repository) -> dict[str, list[str]]:
    """Folders of the crates by name: their folder's, or what tests call the one at the root."""
    found = defaultdict(list)
    for place, file in enumerate(repository.files):
        folder = repository.folders[place]
        if file.path.rpartition("/")[2] == "lib.rs":
            outer = dirname(folder) if folder.rpartition("/")[2] == "src" else folder
            name = _VERSION.sub("", outer.rpartition("/")[2]) or _own_name(repository, folder)
            found[name.replace("-", "_")].append(folder)
    return dict(found)


def _own_name(repository: Repository, root: str) -> str:
    """What files outside a crate call it, as most of their paths into it say."""
    votes = Counter()
    for place, file in enumerate(repository.files):
        if file.language == "rust" and _crate(repository, repository.folders[place]) != root:
            for name in file.links.imports:
                first, *below = name.split("::")
                is_inside = below and join(root, below[0]) in _modules(repository)
                votes[first] += bool(is_inside and first not in _STANDARD)
    return min(votes, key=lambda name: (-votes[name], name), default="")
