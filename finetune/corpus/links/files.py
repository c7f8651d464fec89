"""The files of a repository as imports are looked up in them: by path, end of path and name."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from posixpath import dirname, normpath
from typing import TypeVar

from finetune.corpus.links.find import Links

IMPORT, LATE, IMPLIED, NAME = range(4)
"""How strong a tie is: an import that runs when the file is loaded, one that does not, what an
import brings along, a name that exactly one file defines. Cycles are broken at the weakest."""

Made = TypeVar("Made")
Target = tuple[int, int]
"""Place of a used file in its repository, and how strong the tie is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFile:
    """What the order needs to know of a document."""

    path: str
    language: str
    links: Links


def kept(make: Callable[..., Made]) -> Callable[..., Made]:
    """Make a function of a repository and other values remember, with it, what it returned."""

    @wraps(make)
    def remembered(repository: "Repository", *rest: Hashable) -> Made:
        key = (make, *rest)
        try:
            return repository.cache[key]
        except KeyError:
            found = repository.cache[key] = make(repository, *rest)
            return found

    return remembered


class Repository:
    """Lookups over the files of one repository; a file is the number of its place."""

    def __init__(self, files: Sequence[OrderFile]) -> None:
        """Index the paths; the rest is made when it is first asked for."""
        self.files = files
        self.places = {file.path: place for place, file in reversed([*enumerate(files)])}
        self.folders = [dirname(file.path) for file in files]
        self.groups: list[list[int]] = []
        """Sets of files that are imported as one; numbered after the files."""
        self.cache: dict[Hashable, object] = {}
        """What was found out about the files, see `kept`."""

    @cached_property
    def in_folder(self) -> dict[str, list[int]]:
        """Files that lie directly in a folder."""
        found = defaultdict(list)
        for place, folder in enumerate(self.folders):
            found[folder].append(place)
        return dict(found)

    @cached_property
    def all_folders(self) -> dict[str, list[str]]:
        """Every folder that holds files, however deep; by its last part."""
        folders = {""}
        for folder in self.in_folder:
            while folder not in folders:
                folders.add(folder)
                folder = dirname(folder)
        found = defaultdict(list)
        for folder in sorted(folders):
            found[folder.rpartition("/")[2]].append(folder)
        return dict(found)

    @cached_property
    def _by_end(self) -> dict[str, list[int]]:
        """Files by the last part of their path, and by the last two."""
        found = defaultdict(list)
        for path, place in self.places.items():
            parts = path.rsplit("/", 2)
            found[parts[-1]].append(place)
            if len(parts) > 1:
                found["/".join(parts[-2:])].append(place)
        return dict(found)

    def first(self, paths: Iterable[str]) -> int | None:
        """Return the first of some paths that is a file."""
        return next((self.places[path] for path in paths if path in self.places), None)

    def relative(self, user: int, path: str) -> int | None:
        """Return the file at a path relative to the folder of a file, or to the root."""
        return self.first((join(self.folders[user], path), join("", path)))

    def ending(self, end: str) -> list[int]:
        """Return the files whose path is `end` or ends with it after a slash."""
        key = "/".join(end.rsplit("/", 2)[-2:])
        tail = f"/{end}"
        found = self._by_end.get(key, ())
        return [p for p in found if f"/{self.files[p].path}".endswith(tail)]

    def nearest(self, user: int, places: Iterable[int]) -> int | None:
        """Return the file that shares the most folders with `user`; the shortest path of those."""
        own = self.folders[user]

        def distance(place: int) -> tuple[int, int, str]:
            path = self.files[place].path
            return -shared_depth(own, self.folders[place]), path.count("/"), path

        return min(places, key=distance, default=None)

    @kept
    def definers(self, languages: frozenset[str]) -> dict[tuple[str, str], list[int]]:
        """Return which files of some languages define a name in a package."""
        found = defaultdict(list)
        for place, file in enumerate(self.files):
            if file.language in languages:
                for name in file.links.definitions:
                    found[file.links.package, name].append(place)
        return dict(found)

    def group(self, key: object, members: list[int]) -> int:
        """Return the number of a set of files that are imported as one."""
        if ("group", key) not in self.cache:
            self.cache["group", key] = len(self.files) + len(self.groups)
            self.groups.append(members)
        return self.cache["group", key]

    @kept
    def packages(self, languages: frozenset[str]) -> frozenset[str]:
        """Return the packages that files of some languages are in."""
        return frozenset(file.links.package for file in self.files if file.language in languages)


def shared_depth(one: str, other: str) -> int:
    """Return how many leading folders two folders share."""
    count = 0
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a != b or not a:
            break
        count += 1
    return count


def join(folder: str, path: str) -> str:
    """Return a path relative to a folder without `.` and `..`; outside, it begins with `..`."""
    return normpath(f"{folder}/{path}" if folder else path)


def only(places: Iterable[int] | None) -> Iterator[int]:
    """Yield the one place there is; nothing if there are more."""
    found = list(places or ())
    if len(found) == 1:
        yield found[0]
