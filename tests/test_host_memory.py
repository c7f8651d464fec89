"""A container's limit is found, and what is freed is given back where memory is short."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finetune.training import host_memory
from finetune.training.host_memory import KeepFreed, give_back_freed, memory_limit, start_sparing

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/"}, MACHINE),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, MACHINE),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "5000"}, 5_000),
        (
            {  # the smallest of those above counts
                "proc/self/cgroup": "0::/job/step",
                "sys/fs/cgroup/job/step/memory.max": "max",
                "sys/fs/cgroup/job/memory.max": "7000",
            },
            7_000,
        ),
        (
            {
                "proc/self/cgroup": "9:cpu,cpuacct:/a\n4:memory:/a\n0::/",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "6000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            6_000,
        ),
        (
            {  # inside a container the path is the host's
                "proc/self/cgroup": "4:memory:/docker/1f2e",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "8000",
            },
            8_000,
        ),
    ],
)
def test_the_least_limit_counts(tmp_path, files, expected):
    assert memory_limit(write(tmp_path, files)) == expected


@pytest.mark.parametrize(("limit", "expected"), [(6_000, [host_memory._KEPT]), (5_999, [])])
def test_memory_is_kept_where_three_times_the_peak_is_there(monkeypatch, limit, expected):
    sizes = []
    monkeypatch.setattr(host_memory, "_set_threshold", sizes.append)
    monkeypatch.setattr(host_memory, "_peak", lambda: 1_000)
    monkeypatch.setattr(host_memory, "memory_limit", lambda: limit)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    watch = KeepFreed()

    watch.on_train_begin(None, SimpleNamespace(global_step=5), None)  # resumed
    watch.on_step_end(None, SimpleNamespace(global_step=6), None)
    assert sizes == []
    for step in (7, 8):
        watch.on_step_end(None, SimpleNamespace(global_step=step), None)

    assert sizes == expected
    watch.on_train_end(None, SimpleNamespace(global_step=9), None)
    assert sizes == 2 * expected


def test_a_gpu_is_not_watched():
    assert start_sparing(torch.device("cuda")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_ARENA_MAX", "2"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
        ("LD_PRELOAD", "libjemalloc.so.2"),
    ],
)
def test_what_the_environment_chose_is_left_alone(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    assert not give_back_freed()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_freed_blocks_go_back_to_the_system():
    program = """
import ctypes
from pathlib import Path
from finetune.training.host_memory import _KEPT, _set_threshold, give_back_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def hold():  # 64 blocks of a megabyte, all but the last freed
    blocks = [ctypes.c_void_p(libc.malloc(2**20)) for _ in range(64)]
    for block in blocks:
        ctypes.memset(block, 1, 2**20)
    for block in blocks[:-1]:
        libc.free(block)

before = resident()
print(give_back_freed())
hold()
print(resident() - before < 8 * 2**20)
_set_threshold(_KEPT)
hold()
print(resident() - before > 60 * 2**20)
"""
    chosen = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(chosen)}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"PYTHONPATH": os.getcwd()},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.split() == ["True"] * 3
