"""Which files the paths of Rust mean."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from posixpath import dirname

from finetune.corpus.links.files import IMPLIED, IMPORT, Repository, Target, join

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
    own = _module(repository, user)
    if parts[0] == "crate":
        del parts[0]
        return _crate(repository, user)
    if parts[0] in ("self", "super"):
        while parts and parts[0] in ("self", "super"):
            own = dirname(own) if parts.pop(0) == "super" else own
        return own
    if _file(repository, own, parts[:1]) is not None:
        return own
    crates = _crates(repository).get(parts[0], ())
    return (parts.pop(0), crates[0])[1] if crates else None


def _module(repository: Repository, place: int) -> str:
    """The folder that the modules of a file lie in."""
    folder = repository.folders[place]
    stem = repository.files[place].path.rpartition("/")[2].removesuffix(".rs")
    is_root = stem in _ROOTS or (
        folder == _crate(repository, place) and _root_file(repository, folder) is None
    )
    return folder if stem == "mod" or is_root else join(folder, stem)


def _crate(repository: Repository, place: int) -> str:
    """The folder of a file's crate; tests and programs are each their own."""
    own = folder = repository.folders[place]
    while folder.rpartition("/")[2] != "bin":
        if _root_file(repository, folder) is not None:
            return folder
        if not folder:
            return own
        folder = dirname(folder)
    return folder


def _root_file(repository: Repository, folder: str) -> int | None:
    return repository.first(join(folder, f"{stem}.rs") for stem in _ROOTS)


def _file(repository: Repository, folder: str, parts: list[str]) -> int | None:
    path = join(folder, "/".join(parts))
    return repository.first((f"{path}.rs", f"{path}/mod.rs"))


def _module_file(
    repository: Repository, start: str, parts: list[str]
) -> tuple[int | None, list[str]]:
    """The file of the longest beginning of a path that is a module, and the rest of the path."""
    for length in range(len(parts), 0, -1):
        place = _file(repository, start, parts[:length])
        if place is not None:
            return place, parts[length:]
    place = _root_file(repository, start)
    own = repository.first((f"{start}.rs", f"{start}/mod.rs")) if start else None
    return (own if place is None else place), parts


def _crates(repository: Repository) -> dict[str, list[str]]:
    """Folders of the crates by name: their folder's, or what tests call the one at the root."""
    if "rust crates" not in repository.cache:
        found = defaultdict(list)
        for place, file in enumerate(repository.files):
            folder = repository.folders[place]
            if file.path.rpartition("/")[2] == "lib.rs":
                outer = dirname(folder) if folder.rpartition("/")[2] == "src" else folder
                name = _VERSION.sub("", outer.rpartition("/")[2]) or _own_name(repository, folder)
                found[name.replace("-", "_")].append(folder)
        repository.cache["rust crates"] = dict(found)
    return repository.cache["rust crates"]


def _own_name(repository: Repository, root: str) -> str:
    """What files outside a crate call it, as most of their paths into it say."""
    votes = Counter()
    for place, file in enumerate(repository.files):
        if file.language == "rust" and _crate(repository, place) != root:
            for name in file.links.imports:
                first, *below = name.split("::")
                is_inside = below and _file(repository, root, below[:1]) is not None
                votes[first] += bool(is_inside and first not in _STANDARD)
    return min(votes, key=lambda name: (-votes[name], name), default="")
