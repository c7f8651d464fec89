"""Shards of files through killable processes: one that hangs, dies or eats memory costs itself.

Each process has a pipe of its own. In a pool that shares one, as `concurrent.futures` and Pebble
do, a process killed at the wrong moment takes the pool with it (Pebble 5.2.3: 1 of 24 kills).
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from fim import FimError
from finetune.corpus.entries import Reason

FAILURES = ("time-limit", "memory-limit", "worker-died", "failed")
"""Reasons why an item has no result."""
_SHARDS_AHEAD = 2
"""Shards per process that are begun before the first of them is done."""
_STARTS = 3
"""Times in a row that a process may end before it takes its first shard."""
_NO_MEMORY = 77
"""Exit code of a process whose memory was refused."""
_PRELOADED = ["finetune.corpus.study"]
"""What the server has imported that all processes are forked from: one starts in 20 ms."""

Work = Callable[[Any], Any]
"""What is done to each item, in another process: a function of a module that can be imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one item may use."""

    seconds: float
    """Processor time, so that a busy machine drops no file."""
    memory: int
    """Bytes of address space above those of a process that has just started."""

    @property
    def wall_seconds(self) -> float:
        """Time after which an item that does not use its processor is given up."""
        return 60 + 10 * self.seconds


@dataclass(slots=True, kw_only=True)
class _Task:
    """Some items of a shard, or one."""

    shard: int
    place: int
    """Of the first item in the shard."""
    items: Sequence[Any]
    is_last_try: bool = False


def run_shards(
    work: Work, shards: Iterable[Sequence[Any]], limits: Limits, workers: int
) -> Iterator[list[Any]]:
    """Do `work` to every item, and give the results shard by shard in the order they came.

    A shard whose process is lost is done again item by item, each with a whole process for itself
    if need be. Processes start when there is something to do, hold a few shards, and end with the
    iteration or with this process, however that comes.

    Args:
        work: a function of one item, without effects.
        shards: taken as they are needed; none is empty.
        limits: of each item.
        workers: processes, 1 or more.

    Yields:
        A result per item. For one without: a `Reason`, `time-limit`, `memory-limit`, `worker-died`
        (twice, by a signal or exit), or `failed` for an exception, whose text is not kept.

    Raises:
        FimError: `work` raised it, or no process starts.
    """
    todo = _Todo(iter(shards), _SHARDS_AHEAD * workers)
    crew = [_Worker(work, limits) for _ in range(workers)]
    try:
        while True:
            for worker in crew:
                if worker.task is None and (task := todo.take()) is not None:
                    worker.give(task)
            busy = [worker for worker in crew if worker.task is not None]
            if not busy:
                return
            for worker in _ready(busy):
                task, outcome = worker.take()
                todo.put(task, outcome)
            yield from todo.done()
    finally:
        for worker in crew:
            worker.end()


class _Todo:
    """Which items wait, and the results of the shards that are begun."""

    def __init__(self, shards: Iterator[Sequence[Any]], ahead: int) -> None:
        self._shards = enumerate(shards)
        self._ahead = ahead
        self._again: deque[_Task] = deque()
        self._results: dict[int, list[Any]] = {}
        self._missing: dict[int, int] = {}
        self._next = 0

    def take(self) -> _Task | None:
        """Give what to do next: what was lost first."""
        if self._again:
            return self._again.popleft()
        if len(self._results) > self._ahead:
            return None
        number, items = next(self._shards, (0, ()))
        if not items:
            return None
        self._results[number] = [None] * len(items)
        self._missing[number] = len(items)
        return _Task(shard=number, place=0, items=items)

    def put(self, task: _Task, outcome: list[Any] | Reason) -> None:
        """Take the results of a task, or why there are none."""
        if isinstance(outcome, Reason):
            alone = len(task.items) == 1
            if not alone or (outcome.name == "worker-died" and not task.is_last_try):
                self._again.extend(
                    _Task(shard=task.shard, place=place, items=[item], is_last_try=True)
                    for place, item in enumerate(task.items, task.place)
                )
                return
            outcome = [outcome]
        self._results[task.shard][task.place : task.place + len(outcome)] = outcome
        self._missing[task.shard] -= len(outcome)

    def done(self) -> Iterator[list[Any]]:
        """Give the shards that are done, as long as none before them is not."""
        while self._missing.get(self._next) == 0:
            del self._missing[self._next]
            yield self._results.pop(self._next)
            self._next += 1


class _Worker:
    """One process at a time, started when it has something to do, and again when it was lost."""

    def __init__(self, work: Work, limits: Limits) -> None:
        self.task: _Task | None = None
        self.deadline = 0.0
        self.connection: Connection | None = None
        self._arguments = work, limits
        self._process: Any = None

    def give(self, task: _Task) -> None:
        """Let the process do a task."""
        if self.connection is None:
            self._start()
        self.task = task
        self.deadline = time.monotonic() + self._arguments[1].wall_seconds
        with suppress(OSError):  # it died while it waited; `take` finds out
            self.connection.send(task.items)

    def take(self) -> tuple[_Task, list[Any] | Reason]:
        """Take what became of the task: the process answered, died, or its time is over.

        Raises:
            FimError: `work` raised it.
        """
        task, self.task = self.task, None
        outcome = None
        with suppress(EOFError, OSError):
            outcome = self.connection.recv() if self.connection.poll() else None
        if isinstance(outcome, FimError):
            raise outcome
        if outcome is None:
            late = time.monotonic() >= self.deadline
            outcome = _reason_of(self._lost(), late, self._arguments[1])
        return task, outcome

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
            self._process.kill()
            self._process.join()

    def _lost(self) -> int | None:
        """Return the exit code of a process that ended by itself, and None if it did not."""
        self._process.join(0.5)  # its pipe is closed a little before it has ended
        code = self._process.exitcode
        self.end()
        return code

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")  # a fork of threads can hang
        context.set_forkserver_preload(_PRELOADED)
        for _ in range(_STARTS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
            try:
                with _no_main():
                    process.start()
            except OSError as error:  # as of the server's socket, whose path may have 107 bytes
                raise FimError(
                    f"no worker process starts ({error}); free memory and space in the temporary "
                    "folder, or set TMPDIR to another with a short path"
                ) from None
            theirs.close()
            self.connection, self._process = ours, process
            with suppress(EOFError, OSError):
                self.connection.recv()
                return
            code = self._lost()
        raise FimError(f"no worker process starts (exit code {code}); see what it printed above")


@contextmanager
def _no_main() -> Iterator[None]:
    """Hide the script at work from a new process, which else would run it as a module first."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ready(busy: list[_Worker]) -> list[_Worker]:
    """Wait until a process answered or ended, or its time is over."""
    seconds = min(worker.deadline for worker in busy) - time.monotonic()
    heard = wait([worker.connection for worker in busy], max(0, seconds))
    now = time.monotonic()
    return [w for w in busy if w.connection in heard or now >= w.deadline]


def _reason_of(code: int | None, late: bool, limits: Limits) -> Reason:
    if code == -signal.SIGPROF:
        return Reason(name="time-limit", detail=f"over {limits.seconds:g} processor seconds")
    if code is None and late:
        return Reason(name="time-limit", detail=f"no answer in {limits.wall_seconds:g} seconds")
    if code == _NO_MEMORY:
        return Reason(name="memory-limit", detail=f"over {limits.memory:,} bytes")
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return Reason(name="worker-died", detail=how)


def _serve(connection: Connection, work: Work, limits: Limits) -> None:
    """What a process does until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(limits.memory)
    connection.send("ready")
    with suppress(EOFError, OSError):
        while True:
            _answer(connection, work, connection.recv(), limits)


def _answer(connection: Connection, work: Work, items: Sequence[Any], limits: Limits) -> None:
    try:
        connection.send([_call(work, item, limits) for item in items])
    except FimError as error:
        connection.send(FimError(str(error)))
    except MemoryError:
        os._exit(_NO_MEMORY)


def _call(work: Work, item: Any, limits: Limits) -> Any:
    # the kernel ends the process, whatever code it is in
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    try:
        return work(item)
    except (FimError, MemoryError):
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return Reason(name="failed", detail=f"{type(error).__name__} in {where}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(num_bytes: int) -> None:
    with suppress(OSError, ValueError):  # no /proc, or a lower limit is set already
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, most))


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
