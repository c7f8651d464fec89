"""Which files the imports of C, C++, JavaScript, TypeScript and Ruby mean: paths."""

import re
from collections.abc import Iterator
from posixpath import splitext

from finetune.corpus.links.files import IMPORT, Repository, Target, join, only

_C = frozenset({"c", "cpp"})
_C_STANDARD = frozenset(
    f"{name}.h"
    for name in """assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp
    signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath
    threads time uchar wchar wctype""".split()
)
_HEADERS = (".h", ".hh", ".hpp", ".hxx", ".h++")
_BODIES = (".c", ".cc", ".cpp", ".cxx", ".c++", ".cu")
_TS_ENDINGS = (".ts", ".tsx", ".d.ts", ".mts", ".cts")
_JS_ENDINGS = (".js", ".jsx", ".mjs", ".cjs", ".json", ".vue", ".svelte")
_JS_BUILT = {".js": (".ts", ".tsx"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}
"""What a path in TypeScript names is what its file is built to."""
_JS_ALIAS = re.compile(r"^[@~#]/")
_WORKSPACES = frozenset({"packages", "libs", "apps", "modules", "plugins"})
"""Folders whose folders are imported by their name."""
_WORKSPACE_CODE = ((), ("src",), ("lib",))
_RUBY = frozenset({"ruby"})


def c_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the file of `"a.h"` or `<a.h>`: beside the user, or what ends so, the nearest."""
    path = name[1:-1]
    place = repository.relative(user, path) if name.startswith('"') else None
    if place is None:
        found = repository.ending(path.lstrip("./"))
        if name.startswith("<") and path in _C_STANDARD:
            found = [p for p in found if repository.folders[p].rpartition("/")[2] == "include"]
        place = repository.nearest(user, found)
    if place is not None:
        yield place, IMPORT


def c_names(repository: Repository, user: int) -> Iterator[int]:
    """Yield the files that alone define what the user uses, and the body of a header."""
    definers = repository.definers(_C)
    for name in repository.files[user].links.names:
        yield from only(definers.get(("", name)))
    stem, ending = splitext(repository.files[user].path)
    if ending in _HEADERS:
        last = stem.rpartition("/")[2]
        bodies = (p for e in _BODIES for p in repository.ending(last + e))
        place = repository.nearest(user, bodies)
        if place is not None:
            yield place


def javascript_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the file of `./a`, `@/a`, `folder/a` or the name of a workspace's package."""
    is_script = repository.files[user].language == "javascript"
    endings = _JS_ENDINGS + _TS_ENDINGS if is_script else _TS_ENDINGS + _JS_ENDINGS
    if name.startswith("."):
        path = join(repository.folders[user], name)
        place = repository.first(_js_paths(path, endings))
    elif _JS_ALIAS.match(name) or ("/" in name and not name.startswith("@")):
        ends = _js_paths(_JS_ALIAS.sub("", name), endings)
        places = (repository.nearest(user, repository.ending(end)) for end in ends)
        place = next((place for place in places if place is not None), None)
    else:
        paths = (p for path in _workspace_paths(repository, name) for p in _js_paths(path, endings))
        place = repository.first(paths)
    if place is not None:
        yield place, IMPORT


def _js_paths(path: str, endings: tuple[str, ...]) -> Iterator[str]:
    yield path
    stem, ending = splitext(path)
    yield from (stem + other for other in _JS_BUILT.get(ending, ()))
    yield from (path + other for other in endings)
    yield from (f"{path}/index{other}" for other in endings)


def _workspace_paths(repository: Repository, name: str) -> Iterator[str]:
    """Where `@scope/package/below` may lie in a repository of several packages."""
    parts = name.split("/")[name.startswith("@") :]
    for folder in repository.all_folders.get(parts[0], ()):
        if folder.rpartition("/")[0].rpartition("/")[2] in _WORKSPACES:
            yield from (join(folder, "/".join([*inner, *parts[1:]])) for inner in _WORKSPACE_CODE)


def ruby_import(repository: Repository, user: int, name: str) -> Iterator[Target]:
    """Yield the file of `./a` beside the user, or of `a/b` in a folder that is searched."""
    path = name if name.endswith(".rb") else f"{name}.rb"
    if name.startswith("."):
        place = repository.relative(user, path)
    else:
        found = repository.ending(path)
        if "/" not in path:  # not by the name of a standard library
            found = [p for p in found if repository.folders[p].rpartition("/")[2] in ("", "lib")]
        place = repository.nearest(user, found)
    if place is not None:
        yield place, IMPORT


def ruby_names(repository: Repository, user: int) -> Iterator[int]:
    """Yield the files that alone define a constant, or are where Rails looks for it."""
    definers = repository.definers(_RUBY)
    for name in repository.files[user].links.names:
        found = definers.get(("", name)) or repository.ending(f"{_underscore(name)}.rb")
        yield from only(found)


def _underscore(name: str) -> str:
    """`active_record/http_error` for `ActiveRecord::HTTPError`."""
    words = re.sub(r"([A-Z]+)([A-Z][a-z])|([a-z\d])([A-Z])", r"\1\3_\2\4", name)
    return words.replace("::", "/").lower()
