"""Streams cut into pieces of a bounded size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def cut(
    items: Iterable[T], num_bytes: Callable[[T], int], most_items: int, most_bytes: int
) -> Iterator[list[T]]:
    """Yield lists of items in their order, none of them empty.

    A list ends with the item that is its `most_items`th, or brings its bytes to `most_bytes`.
    """
    piece: list[T] = []
    total = 0
    for item in items:
        piece.append(item)
        total += num_bytes(item)
        if len(piece) == most_items or total >= most_bytes:
            yield piece
            piece, total = [], 0
    if piece:
        yield piece
