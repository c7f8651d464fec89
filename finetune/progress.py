"""What a verb says on stderr while it works: stdout is for its result."""

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """Show how far an iteration is, in place; nothing where stderr is no terminal."""
    return tqdm(items, desc=label, total=total, disable=None, leave=False, dynamic_ncols=True)


def say(line: str) -> None:
    """Say a line, once for all processes of a launch."""
    if is_first():
        print(line, file=sys.stderr)


def warn(text: str) -> None:
    """Say what may be wrong."""
    say(f"warning: {text}")


def first_line(error: BaseException) -> str:
    """Return the first line of what a library's error says, or its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_first() -> bool:
    """Whether this is the only process of a launch or its first one."""
    return int(os.environ.get("RANK", "0")) == 0
