"""From what files say to which file uses which: the graph of a repository."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from finetune.corpus.links.files import IMPLIED, LATE, NAME, OrderFile, Repository, Target
from finetune.corpus.links.modules import python_import
from finetune.corpus.links.packages import (
    csharp_import,
    csharp_names,
    go_import,
    go_names,
    java_import,
    java_names,
    php_import,
    php_names,
)
from finetune.corpus.links.paths import (
    c_import,
    c_names,
    javascript_import,
    ruby_import,
    ruby_names,
)
from finetune.corpus.links.rust import rust_import


def _no_names(repository: Repository, user: int) -> Iterator[int]:
    yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """How the links of a language lead to files."""

    find_import: Callable[[Repository, int, str], Iterator[Target]]
    """The files that an import of a file means; none where it is foreign."""
    find_names: Callable[[Repository, int], Iterator[int]] = _no_names
    """The files that define names which a file uses without an import."""


_C = Resolver(find_import=c_import, find_names=c_names)
_JAVA = Resolver(find_import=java_import, find_names=java_names)
_JAVASCRIPT = Resolver(find_import=javascript_import)
RESOLVERS = {
    "python": Resolver(find_import=python_import),
    "java": _JAVA,
    "kotlin": _JAVA,
    "csharp": Resolver(find_import=csharp_import, find_names=csharp_names),
    "php": Resolver(find_import=php_import, find_names=php_names),
    "go": Resolver(find_import=go_import, find_names=go_names),
    "rust": Resolver(find_import=rust_import),
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "tsx": _JAVASCRIPT,
    "c": _C,
    "cpp": _C,
    "ruby": Resolver(find_import=ruby_import, find_names=ruby_names),
}
"""By language; the same ones as in `LINK_ROWS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileGraph:
    """Which file of a repository uses which."""

    uses: list[dict[int, int]]
    """For each file, the files it uses and how strong the tie is; after the files, the groups of
    files that are imported as one, and their members."""
    num_files: int
    imports: int
    """Imports that were found."""
    resolved: int
    """Those that mean a file of the repository."""


def link_files(files: Sequence[OrderFile]) -> FileGraph:
    """Return the graph of a repository's files; a file does not use itself."""
    repository = Repository(files)
    uses: list[dict[int, int]] = [{} for _ in files]
    imports = resolved = 0
    for user, file in enumerate(files):
        resolver = RESOLVERS.get(file.language)
        if resolver is None:
            continue
        ties = uses[user]
        for name, least in _imports(file):
            targets = list(resolver.find_import(repository, user, name))
            imports += 1
            resolved += bool(targets)
            for used, strength in targets:
                ties[used] = min(max(strength, least), ties.get(used, NAME))
        for used in resolver.find_names(repository, user):
            ties.setdefault(used, NAME)
        ties.pop(user, None)
    uses += [dict.fromkeys(members, IMPLIED) for members in repository.groups]
    return FileGraph(uses=uses, num_files=len(files), imports=imports, resolved=resolved)


def _imports(file: OrderFile) -> Iterator[tuple[str, int]]:
    yield from ((name, 0) for name in file.links.imports)
    yield from ((name, LATE) for name in file.links.late_imports)
