"""Processes that die, hang, eat memory or fail take their item only; order and results hold."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fim import FimError
from finetune.corpus.entries import Reason
from finetune.corpus.workers import Limits, run_shards

LIMITS = Limits(seconds=1.0, memory=600_000_000)


def act(item):
    """Do to its own process what an item says; else double it."""
    if item == "segfault":
        ctypes.string_at(0)
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "exit":
        os._exit(3)
    if item == "hang":
        while True:
            pass
    if item == "hang in C":
        sum(range(10**12))
    if item == "eat":
        return len([bytearray(50_000_000) for _ in range(100)])
    if item == "raise":
        raise ValueError("the file's text")
    if item == "refuse":
        raise FimError("ruff is missing; install it")
    if isinstance(item, str) and item.startswith("once:"):
        path = Path(item[5:])
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return item * 2


def run(shards, workers=1, limits=LIMITS):
    return list(run_shards(act, shards, limits, workers))


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_shards(workers):
    shards = [list(range(n, n + 3)) for n in range(0, 60, 3)]

    assert run(shards, workers) == [[2 * n for n in shard] for shard in shards]


def test_no_shard_gives_no_result():
    assert run([]) == []


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("segfault", Reason(name="worker-died", detail="signal 11")),
        ("kill", Reason(name="worker-died", detail="signal 9")),
        ("exit", Reason(name="worker-died", detail="exit code 3")),
        ("hang", Reason(name="time-limit", detail="over 0.3 processor seconds")),
        ("hang in C", Reason(name="time-limit", detail="over 0.3 processor seconds")),
        ("eat", Reason(name="memory-limit", detail="over 600,000,000 bytes")),
    ],
)
def test_a_lost_process_takes_its_item_only(item, reason):
    limits = Limits(seconds=0.3 if "hang" in item else 10.0, memory=600_000_000)

    assert run([[1, item, 2], [3]], limits=limits) == [[2, reason, 4], [6]]


DEATHS = {
    "segfault": "worker-died",
    "kill": "worker-died",
    "exit": "worker-died",
    "hang": "time-limit",
    "eat": "memory-limit",
}


def test_ten_deaths_in_one_run_take_ten_items():
    items = [*range(90), *DEATHS, *DEATHS]
    random.Random(0).shuffle(items)
    shards = [items[start : start + 8] for start in range(0, len(items), 8)]

    results = run(shards, workers=2, limits=Limits(seconds=0.5, memory=300_000_000))

    names = [r.name if isinstance(r, Reason) else r for shard in results for r in shard]
    assert names == [DEATHS.get(item, 2 * item) for item in items]


def test_an_exception_is_a_reason_without_its_text():
    ((one, reason),) = run([[1, "raise"]])

    assert one == 2
    assert reason.name == "failed"
    assert reason.detail.startswith("ValueError in test_workers.py:")


def test_an_error_of_ours_is_raised_here():
    with pytest.raises(FimError, match="ruff is missing; install it"):
        run([[1], ["refuse"]])


@pytest.mark.parametrize("others", [[], [1]])
def test_what_dies_once_by_accident_is_done_again(tmp_path, others):
    item = f"once:{tmp_path / 'died'}"

    assert run([[item, *others]]) == [[item * 2, *(n * 2 for n in others)]]


def test_time_that_is_not_spent_computing_does_not_count():
    assert list(run_shards(nap, [[0.4]], Limits(seconds=0.2, memory=10**9), 1)) == [[0.4]]


def nap(seconds):
    time.sleep(seconds)
    return seconds


def test_only_a_few_shards_are_taken_ahead():
    taken = 0

    def shards():
        nonlocal taken
        for number in range(50):
            taken += 1
            yield [number]

    results = run_shards(act, shards(), LIMITS, 2)
    next(results)

    assert taken < 10
    results.close()


SCRIPT = """
import signal
import sys
from finetune.corpus.workers import Limits, run_shards
from test_workers import report
limits = Limits(seconds=60.0, memory=10**9)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
list(run_shards(report, [[sys.argv[1]], [sys.argv[1]]], limits, 2))  # no `if __name__ == ...`
"""


def report(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_one_that_started_it(tmp_path, end):
    (tmp_path / "main.py").write_text(SCRIPT)
    (tmp_path / "pids").mkdir()
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parent}:{here}"}
    arguments = [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "pids")]
    parent = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    pids = _until(lambda: [int(p.name) for p in (tmp_path / "pids").iterdir()], 2)

    parent.send_signal(end)
    parent.wait(60)

    _until(lambda: [pid for pid in pids if not Path(f"/proc/{pid}").exists()], 2)


def _until(look, number):
    deadline = time.monotonic() + 60
    while len(found := look()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_place_without_room_for_the_servers_socket_is_one_line(tmp_path):
    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    script = (
        "from finetune.corpus.workers import *\n"
        "list(run_shards(str, [[1]], Limits(seconds=1, memory=10**9), 1))\n"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "TMPDIR": str(folder)}

    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )

    assert "FimError: no worker process starts" in done.stderr
    assert "set TMPDIR" in done.stderr
