"""Which files the imports of Python mean."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from posixpath import dirname

from finetune.corpus.links.files import (
    IMPLIED,
    IMPORT,
    Repository,
    Target,
    join,
    kept,
    shared_depth,
)

_SOURCE_FOLDERS = frozenset({"", "src", "lib", "source", "python", "Lib"})
"""Last parts of folders that imports start at."""
_HOPS = 3
"""Packages that hand a name on before it is defined."""


def python_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the files of `a.b`, or of `..a:b,c`: modules, or the module that has these names."""
    module, _, names = name.partition(":")
    base = _module_base(repository, repository.folders[user], module)
    if base is None:
        return
    modules = _modules(repository)
    own = modules.get(base)
    if not names and own is not None:
        yield own, IMPORT
    has_parts = False
    for each in names.split(",") if names else ():
        part = modules.get(f"{base}/{each}" if base else each)
        if part is not None:
            has_parts = True
            yield part, IMPORT
        elif own is not None:
            yield own, IMPORT
            yield from ((place, IMPLIED) for place in _handed_on(repository, own, each, _HOPS))
    if own is not None and has_parts:  # the package runs before its module
        yield own, IMPLIED


@kept
def _module_base(repository: Repository, own: str, module: str) -> str | None:
    """Path of a module without its ending, as a file or a folder, for users in a folder."""
    rest = module.lstrip(".")
    if level := len(module) - len(rest):
        folder = own
        for _ in range(level - 1):
            if not folder:
                return None
            folder = dirname(folder)
        return join(folder, rest.replace(".", "/")) if rest else folder
    top, _, below = rest.partition(".")
    base = _package_base(repository, own, top)
    return base if base is None or not below else join(base, below.replace(".", "/"))


@kept
def _modules(repository: Repository) -> dict[str, int]:
    """The file of a module or package, by its path without an ending."""
    found = {}
    for ending in ("/__init__.pyi", "/__init__.py", ".pyi", ".py"):  # the last one counts
        for path, place in repository.places.items():
            whole = f"/{path}"
            if whole.endswith(ending):
                found[whole.removesuffix(ending)[1:]] = place
    return found


@kept
def _package_base(repository: Repository, own: str, top: str) -> str | None:
    """Path of what an absolute import starts with, the nearest to its user; none if foreign.

    A module is meant only beside or above its user, and never by the name of a standard module.
    """
    best = None
    for base, is_folder in _python_bases(repository).get(top, ()):
        root = dirname(base)
        depth = shared_depth(own, root)
        is_source = root.rpartition("/")[2] in _SOURCE_FOLDERS
        if not is_source and (
            top in sys.stdlib_module_names or not (is_folder or depth == len(root.split("/")))
        ):
            continue
        rank = (-depth, root.count("/"), base)
        best = min(best or (rank, base), (rank, base))
    return best and best[1]


@kept
def _python_bases(repository: Repository) -> dict[str, list[tuple[str, bool]]]:
    """Paths of the modules and packages that are in no package, by name, and which are packages."""
    ours = [place for place, f in enumerate(repository.files) if f.language == "python"]
    packages = {repository.folders[place] for place in ours if _in_package(repository, place)}
    found = defaultdict(set)
    for place in ours:
        folder, is_folder = repository.folders[place], False
        last = repository.files[place].path.rpartition("/")[2].partition(".")[0]
        while last:
            if folder not in packages:
                found[last].add((join(folder, last), is_folder))
            folder, _, last = folder.rpartition("/")
            is_folder = True
    if "" in packages and (name := _own_name(repository, ours)):
        found[name].add(("", True))
    return {name: sorted(bases) for name, bases in found.items()}


def _in_package(repository: Repository, place: int) -> bool:
    """Whether a file shows that its folder is a package; an empty `__init__.py` may be left out."""
    file = repository.files[place]
    return file.path.rpartition("/")[2].startswith("__init__.") or any(
        name.startswith(".") for name in file.links.imports
    )


def _own_name(repository: Repository, places: list[int]) -> str:
    """The name of a package that is the repository itself, as its own files import from it."""
    votes = Counter()
    for place in places:
        for name in repository.files[place].links.imports:
            top, *rest = name.partition(":")[0].split(".")
            if top and rest and rest[0] in _modules(repository):
                votes[top] += 1
    return min(votes, key=lambda name: (-votes[name], name), default="")


def _handed_on(repository: Repository, place: int, name: str, hops: int) -> Iterator[int]:
    """Yield the modules that a package takes a name from."""
    for target in _sources(repository, place).get(name, ()) if hops and name != "*" else ():
        yield target
        yield from _handed_on(repository, target, name, hops - 1)


@kept
def _sources(repository: Repository, place: int) -> dict[str, list[int]]:
    """The modules that a file takes names from, by name."""
    found = defaultdict(list)
    for each in repository.files[place].links.imports:
        module, _, names = each.partition(":")
        base = _module_base(repository, repository.folders[place], module)
        target = None if base is None else _modules(repository).get(base)
        if target is not None and target != place:
            for name in set(names.split(",")):
                found[name].append(target)
    return dict(found)
