"""Which other files of a repository stand before a file in its window."""

import re
from collections import deque
from collections.abc import Iterable
from posixpath import basename, dirname

from fim import Document
from finetune.recipe.schema import Fim

_REACH = 4
"""Windows of text that are held: a file that many need comes long before most of them."""
_WORD = re.compile(rb"\w+")
_WHOLE_FOLDER = frozenset({"__init__", "__main__", "index", "init", "lib", "main", "mod"})
"""Files that are called by the name of their folder."""


class Neighbors:
    """The documents before one in its repository, the nearest last, as many as may fit a window.

    Documents pass in the order of the corpus. Those that a document names come nearest: in that
    order, what a file needs is before it. Only a few are held, so a stream of any length may pass,
    and one that is cut goes on from what was held.
    """

    def __init__(self, fim: Fim, documents: Iterable[Document] = ()) -> None:
        """Start with documents that passed already; with `context: none` nothing is ever held."""
        self._room = fim.window_bytes if fim.context == "repo" else 0
        self._held: deque[Document] = deque()
        self._num_bytes = 0
        for document in documents:
            self.add(document)

    @property
    def held(self) -> tuple[Document, ...]:
        """What another stream must start with to go on as this one would."""
        return tuple(self._held)

    def of(self, document: Document) -> tuple[Document, ...]:
        """Return the context of the document that comes next."""
        held = [each for each in self._held if each.repo == document.repo]
        words = frozenset(_WORD.findall(document.text)) if held else frozenset()
        held.sort(key=lambda each: _name(each.path) in words)
        chosen: list[Document] = []
        room = self._room
        for each in reversed(held):
            if len(each.text) <= room:
                chosen.append(each)
                room -= len(each.text)
        return tuple(reversed(chosen))

    def add(self, document: Document) -> None:
        """Let a document pass."""
        if self._held and self._held[-1].repo != document.repo:
            self._held.clear()
            self._num_bytes = 0
        if len(document.text) > self._room:
            return  # it never fits, and must not push out those that do
        self._held.append(document)
        self._num_bytes += len(document.text)
        while self._num_bytes > _REACH * self._room:
            self._num_bytes -= len(self._held.popleft().text)


def _name(path: str) -> bytes:
    """What other files call a file: `b` for `a/b.py` and for `a/b/index.ts`."""
    stem = basename(path).partition(".")[0]
    name = basename(dirname(path)) if stem in _WHOLE_FOLDER else stem
    return (name or stem).encode()


def find_contexts(documents: Iterable[Document], fim: Fim) -> dict[str, tuple[Document, ...]]:
    """Return the context of each document of one side, by its id; they come in corpus order."""
    neighbors = Neighbors(fim)
    contexts = {}
    for document in documents:
        contexts[document.id] = neighbors.of(document)
        neighbors.add(document)
    return contexts
