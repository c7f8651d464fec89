"""Documents that wait on the disk until it is known which are kept, and in what order."""

import pickle
from pathlib import Path
from typing import Self

from fim import Document


class Spool:
    """A file of documents, written in the order they come and read in any other.

    It is deleted at the end of the `with` block; only this process ever reads it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "w+b")
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink()

    def write(self, document: Document) -> int:
        """Append a document; return the place to read it from."""
        place = self._end
        data = pickle.dumps(document, protocol=pickle.HIGHEST_PROTOCOL)
        self._file.seek(place)
        self._file.write(data)
        self._end += len(data)
        return place

    def read(self, place: int) -> Document:
        """Read the document written at a place."""
        self._file.seek(place)
        return pickle.load(self._file)
