"""Which files the imports of Python mean."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from posixpath import dirname

from finetune.corpus.links.files import IMPLIED, IMPORT, Repository, Target, join, shared_depth

_ENDINGS = (".py", ".pyi")
_SOURCE_FOLDERS = frozenset({"", "src", "lib", "source", "python", "Lib"})
"""Last parts of folders that imports start at."""
_HOPS = 3
"""Packages that hand a name on before it is defined."""


def python_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the files of `a.b`, or of `..a:b,c`: modules, or the module that has these names."""
    module, _, names = name.partition(":")
    base = _module_base(repository, user, module)
    if base is None:
        return
    own = _module_file(repository, base)
    if not names and own is not None:
        yield own, IMPORT
    has_parts = False
    for each in names.split(",") if names else ():
        part = _module_file(repository, join(base, each)) if each != "*" else None
        if part is not None:
            has_parts = True
            yield part, IMPORT
        elif own is not None:
            yield own, IMPORT
            yield from ((place, IMPLIED) for place in _handed_on(repository, own, each, _HOPS))
    if own is not None and has_parts:  # the package runs before its module
        yield own, IMPLIED


def _module_base(repository: Repository, user: int, module: str) -> str | None:
    """Path of a module without its ending, as a file or a folder."""
    rest = module.lstrip(".")
    if level := len(module) - len(rest):
        folder = repository.folders[user]
        for _ in range(level - 1):
            if not folder:
                return None
            folder = dirname(folder)
        return join(folder, rest.replace(".", "/")) if rest else folder
    top, _, below = rest.partition(".")
    base = _package_base(repository, user, top)
    return base if base is None or not below else join(base, below.replace(".", "/"))


def _module_file(repository: Repository, base: str) -> int | None:
    inits = (join(base, f"__init__{ending}") for ending in _ENDINGS)
    return repository.first((*(base + ending for ending in _ENDINGS), *inits))


def _package_base(repository: Repository, user: int, top: str) -> str | None:
    """Path of what an absolute import starts with, the nearest to its user; none if foreign.

    A module is meant only beside or above its user, and never by the name of a standard module.
    """
    own = repository.folders[user]
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


def _python_bases(repository: Repository) -> dict[str, list[tuple[str, bool]]]:
    """Paths of the modules and packages that are in no package, by name, and which are packages."""
    if "python" not in repository.cache:
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
        repository.cache["python"] = {name: sorted(bases) for name, bases in found.items()}
    return repository.cache["python"]


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
            if top and rest and _module_file(repository, rest[0]) is not None:
                votes[top] += 1
    return min(votes, key=lambda name: (-votes[name], name), default="")


def _handed_on(repository: Repository, place: int, name: str, hops: int) -> Iterator[int]:
    """Yield the modules that a package takes a name from."""
    for each in repository.files[place].links.imports if hops and name != "*" else ():
        module, _, names = each.partition(":")
        if name not in names.split(","):
            continue
        base = _module_base(repository, place, module)
        target = None if base is None else _module_file(repository, base)
        if target is not None and target != place:
            yield target
            yield from _handed_on(repository, target, name, hops - 1)
