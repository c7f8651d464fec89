"""Memory of this machine: how much a process may have, and giving back what it has freed.

glibc keeps most freed tensors under 32 MiB for the next ones, which do not fit where they lay: up
to 2.8 times what tensors hold was measured. Given back at once, they cost a tenth to half as much
processor time again, so that is for where memory is short.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""`M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` of `malloc.h`: from how many bytes on a freed block and
the free end of the heap go back to the system."""
_GIVEN_BACK = 65_536
_KEPT = 2**25
"""Where glibc's own threshold stops to grow."""
_PLENTY = 3
"""A process keeps what it frees if three times what it needs is there."""


def start_sparing(device: torch.device) -> list[TrainerCallback]:
    """Begin to give freed memory back, before a model is loaded; only CPUs and glibc need it.

    Returns:
        The callback that ends it where there is plenty.
    """
    return [KeepFreed()] if device.type == "cpu" and give_back_freed() else []


class KeepFreed(TrainerCallback):
    """Has freed memory kept for the next step where the first two have shown that there is plenty.

    Until then it is given back, so the peak is what a step needs.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Decide, once the optimizer has its moments and a whole step was taken with them."""
        if state.global_step == self.first + 2:
            _keep_if_plenty()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note where the run starts, or is resumed."""
        self.first = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the process as it was, after a run of one step too."""
        _keep_if_plenty()


def _keep_if_plenty() -> None:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if _PLENTY * processes * _peak() <= memory_limit():
        _set_threshold(_KEPT)


def give_back_freed() -> bool:
    """Have glibc give freed blocks of 64 KiB and more back to the system, from now on.

    Returns:
        Whether it will; not where the environment chose an allocator or its settings, and not
        without glibc.

    Source:
        `mallopt(3)`: setting the threshold also ends its growth with each block that is freed.
    """
    chosen = os.environ.get("LD_PRELOAD") or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    return sys.platform == "linux" and _set_threshold(_GIVEN_BACK)


def _set_threshold(size: int) -> bool:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    libc.mallopt(_TRIM_THRESHOLD, 2 * size)  # as glibc has it beside the other
    return bool(libc.mallopt(_MMAP_THRESHOLD, size))


def _peak() -> int:
    """Most bytes that this process has had in memory."""
    import resource  # not on Windows

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of this machine's memory, or of its container's where that has less.

    Args:
        root: where `proc` and `sys` are mounted.

    Source:
        `cgroups(7)`: `/proc/self/cgroup` names the groups of a process, each within those above it;
        inside a container the name may be the host's, and only the top is to be seen.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return limits[0]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = top / group.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                limits.append(_read_limit(folder / name, limits[0]))
    return min(limits)


def _read_limit(path: Path, otherwise: int) -> int:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return otherwise
    return int(text) if text.isdecimal() else otherwise  # "max"
