"""Which other files of a repository stand before a file in its window."""

from collections import deque
from collections.abc import Iterable

from fim import Document
from finetune.recipe import Fim


class Neighbors:
    """The documents before one in its repository, the nearest last, as many as may fit a window.

    Documents pass in the order of (repo, path). Only a few are held, so a stream of any length may
    pass, and one that is cut goes on from `of` the first document after the cut.
    """

    def __init__(self, fim: Fim, documents: Iterable[Document] = ()) -> None:
        """Start with documents that passed already; with `context: none` nothing is ever held."""
        self._room = fim.window_bytes if fim.context == "repo" else 0
        self._held: deque[Document] = deque()
        self._num_bytes = 0
        for document in documents:
            self.add(document)

    def of(self, document: Document) -> tuple[Document, ...]:
        """Return the context of the document that comes next."""
        return tuple(held for held in self._held if held.repo == document.repo)

    def add(self, document: Document) -> None:
        """Let a document pass."""
        if self._held and self._held[-1].repo != document.repo:
            self._held.clear()
            self._num_bytes = 0
        if len(document.text) > self._room:
            return  # it never fits, and must not push out those that do
        self._held.append(document)
        self._num_bytes += len(document.text)
        while self._num_bytes > self._room:
            self._num_bytes -= len(self._held.popleft().text)


def find_contexts(documents: Iterable[Document], fim: Fim) -> dict[str, tuple[Document, ...]]:
    """Return the context of each document of one side, by its id; they come in corpus order."""
    neighbors = Neighbors(fim)
    contexts = {}
    for document in documents:
        contexts[document.id] = neighbors.of(document)
        neighbors.add(document)
    return contexts
