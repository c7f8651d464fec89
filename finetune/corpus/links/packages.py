"""Which files the imports of Java, Kotlin, C#, PHP and Go mean: names in packages."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from finetune.corpus.links.files import IMPLIED, IMPORT, Repository, Target, kept, only
from finetune.corpus.links.readers import go_package_name

_JVM = frozenset({"java", "kotlin"})
_CSHARP = frozenset({"csharp"})
_PHP = frozenset({"php"})
_GO_STANDARD = frozenset(
    """archive bufio bytes cmp compress container context crypto database debug embed encoding
    errors expvar flag fmt go hash html image index io iter log maps math mime net os path plugin
    reflect regexp runtime slices sort strconv strings structs sync syscall testing text time
    unicode unique unsafe weak""".split()
)
"""First parts of the import paths of Go's standard library."""


def java_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the file of the class that `a.b.C`, `a.b.C.member`, or the classes that `a.b.*` means.

    Of a whole package, the classes that the file uses.
    """
    definers = repository.definers(_JVM)
    path, _, last = name.rpartition(".")
    if last == "*":
        if path in repository.packages(_JVM):
            yield user, IMPLIED  # it is of this repository, whether or not any of it is used
            yield from ((place, IMPLIED) for place in _used_of(repository, user, _JVM, path))
            return
        path, _, last = path.rpartition(".")
    while path:
        place = repository.nearest(user, definers.get((path, last), ()))
        if place is not None:
            yield place, IMPORT
            return
        path, _, last = path.rpartition(".")


def java_names(repository: Repository, user: int) -> Iterator[int]:
    """Yield the files of the user's package that define what it uses."""
    yield from _used_of(repository, user, _JVM, repository.files[user].links.package)


def csharp_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the files that define, in a namespace, what the user uses; or the file of a class."""
    if name in repository.packages(_CSHARP):
        yield user, IMPLIED  # it is of this repository, whether or not any of it is used
        yield from ((place, IMPORT) for place in _used_of(repository, user, _CSHARP, name))
    else:
        path, _, last = name.rpartition(".")
        place = repository.nearest(user, repository.definers(_CSHARP).get((path, last), ()))
        if place is not None:
            yield place, IMPORT


def csharp_names(repository: Repository, user: int) -> Iterator[int]:
    """Yield the files that define what the user uses, in its namespace and those around it."""
    namespace = repository.files[user].links.package
    while namespace:
        yield from _used_of(repository, user, _CSHARP, namespace)
        namespace = namespace.rpartition(".")[0]


def php_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    r"""Yield the file of `A\B\C`, by its namespace or else by its path, or of `./x.php`."""
    if name.endswith(".php"):
        place = repository.relative(user, name)
        found = repository.ending(name.lstrip("./")) if place is None else [place]
    else:
        path, _, last = name.rpartition("\\")
        found = repository.definers(_PHP).get((path, last), ())
        if not found and path:  # PSR-4: the end of the namespace is the folder
            found = repository.ending(f"{path.rpartition(chr(92))[2]}/{last}.php")
    place = repository.nearest(user, found)
    if place is not None:
        yield place, IMPORT


def php_names(repository: Repository, user: int) -> Iterator[int]:
    """Yield the files of the user's namespace that define what it uses."""
    yield from _used_of(repository, user, _PHP, repository.files[user].links.package)


def _used_of(
    repository: Repository, user: int, languages: frozenset[str], package: str
) -> Iterator[int]:
    """Files of a package that alone define a name which the user uses."""
    definers = repository.definers(languages)
    for name in repository.files[user].links.names:
        yield from only(definers.get((package, name)))


def go_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the files of an imported folder that define what the user uses; else all of it."""
    folder = _go_folder(repository, name.rpartition(" ")[2])
    if folder is None:
        return
    local = "" if name.startswith(". ") else f"{go_package_name(name)}."
    definers = _go_definers(repository)
    used = [
        place
        for each in repository.files[user].links.names
        if each.startswith(local)
        for place in definers.get((folder, each.removeprefix(local)), ())
    ]
    members = _go_files(repository, folder)
    yield from ((place, IMPORT) for place in used or members)
    yield repository.group(folder, members), IMPLIED  # all of a package comes before its users


def go_names(repository: Repository, user: int) -> Iterator[int]:
    """Yield the files of the user's folder that define what it uses."""
    definers = _go_definers(repository)
    for name in repository.files[user].links.names:
        yield from only(definers.get((repository.folders[user], name)))


@kept
def _go_files(repository: Repository, folder: str) -> list[int]:
    """The files of a folder's package, without tests and programs, which no other can use."""
    files = {place: repository.files[place] for place in repository.in_folder.get(folder, ())}
    ours = {
        p: f for p, f in files.items() if f.language == "go" and not f.path.endswith("_test.go")
    }
    is_library = any(file.links.package != "main" for file in ours.values())
    return [p for p, file in ours.items() if file.links.package != "main" or not is_library]


@kept
def _go_definers(repository: Repository) -> dict[tuple[str, str], list[int]]:
    found = defaultdict(list)
    for folder in repository.in_folder:
        for place in _go_files(repository, folder):
            for name in repository.files[place].links.definitions:
                found[folder, name].append(place)
    return dict(found)


@kept
def _go_folder(repository: Repository, path: str) -> str | None:
    """The folder of an import path, whose beginning is the module's name, which no file says.

    A name is believed that most import paths with it bear out: what follows it is a folder.
    """
    votes, totals = _go_modules(repository)
    best = None
    is_foreign = path.partition("/")[0] in _GO_STANDARD and not _is_go_itself(repository)
    for module, above, folder in _go_splits(repository, path):
        num_votes, last = votes[module, above], above.rpartition("/")[2]
        is_whole = not module and (last in ("src", "vendor") or not (above or is_foreign))
        is_likely = num_votes > 1 or not above or module.endswith(f"/{last}")
        if is_whole or (module and is_likely and 2 * num_votes > totals[module]):
            rank = (-is_whole, -num_votes, folder.count("/"), folder)
            best = min(best or rank, rank)
    return best and best[-1]


@kept
def _is_go_itself(repository: Repository) -> bool:
    return len(_GO_STANDARD & repository.in_folder.keys()) > len(_GO_STANDARD) // 4


def _go_splits(repository: Repository, path: str) -> list[tuple[str, str, str]]:
    """Ways to see an import path as a module, the module's folder, and a folder below it."""
    found = []
    for folder in repository.all_folders.get(path.rpartition("/")[2], ()):
        shared = _shared_end(path, folder)
        module, above = (p[: len(p) - len(shared)].rstrip("/") for p in (path, folder))
        is_foreign = bool(module) and module.partition("/")[0] in _GO_STANDARD
        if shared and not is_foreign and _go_files(repository, folder):
            found.append((module, above, folder))
    return found


def _shared_end(one: str, other: str) -> str:
    parts = []
    for a, b in zip(reversed(one.split("/")), reversed(other.split("/")), strict=False):
        if a != b:
            break
        parts.append(a)
    return "/".join(reversed(parts))


@kept
def _go_modules(repository: Repository) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """How many import paths bear out a module's name and folder, and how many have that name."""
    paths = {
        name.rpartition(" ")[2]
        for file in repository.files
        if file.language == "go"
        for name in file.links.imports
    }
    splits = (split for path in paths for split in _go_splits(repository, path))
    votes = Counter((module, above) for module, above, _ in splits)
    names = (path.rsplit("/", n)[0] for path in paths for n in range(1, path.count("/") + 1))
    return votes, Counter(names)
