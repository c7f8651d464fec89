"""Every state that a run's folder goes through, and what a run makes of each when it starts there.

A kill leaves behind what was written so far. So one run is watched: before each call that changes
a folder or a file, and around each flush, the whole run folder is recorded. Where a file grew
between two records, the states are added in which it is empty or only half of it is there, which
covers the writes that libraries do out of Python's sight.
"""

import os
import pickle
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import soak

from finetune import train as train_module

State = dict[str, bytes | None]
"""Content by path of a run folder; `None` for a folder."""
_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def read_state(folder: Path) -> State:
    """Read a run folder, all but what was there before and what the test writes there."""
    found: State = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith((*soak.PREPARED, "corpus", "cache", "errors", ".lock")):
            try:
                found[name] = None if path.is_dir() else path.read_bytes()
            except FileNotFoundError:
                continue
    return found


def write_state(folder: Path, state: State) -> None:
    """Put a run folder into a state."""
    for path in folder.iterdir():
        if path.name not in soak.PREPARED:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def watch(folder: Path, work: Callable[[], object], states: Path) -> None:
    """Run `work` and write down the states of `folder`; for a process of its own."""
    found: list[State] = []
    watching = True

    def record() -> None:
        nonlocal watching
        if watching:
            watching = False
            state = read_state(folder)
            if not found or state != found[-1]:
                found.append(state)
            watching = True

    def on_event(event: str, values: tuple) -> None:
        # deleting a tree names files by their folder's descriptor, and so without a path
        if watching and event in _EVENTS and isinstance(values[0], str | Path):
            path = os.fspath(values[0])
            if not os.path.isabs(path) or path.startswith(str(folder)):
                record()

    fsync = os.fsync

    def recorded_fsync(descriptor: int) -> None:
        record()
        fsync(descriptor)
        record()

    os.fsync = recorded_fsync
    sys.addaudithook(on_event)
    work()
    record()
    watching = False
    states.write_bytes(pickle.dumps(found))


def with_torn_files(states: list[State]) -> Iterator[State]:
    """Yield each state, and before it those in which a file that grew is empty or half there."""
    before: State = {}
    for state in states:
        renamed = set(before.values())
        for name, content in state.items():
            old = before.get(name) or b""
            if content and content != old and content not in renamed:
                kept = len(old) if content.startswith(old) else 0
                for cut in {kept, (kept + len(content)) // 2}:
                    if content[:cut] != old:
                        yield {**state, name: content[:cut]}
        yield state
        before = state


def sweep(folder: Path, adapter: str, share: float, rng: random.Random) -> Counter:
    """Start a run in a share of the states of an unbroken one; count what became of it."""
    recipe = soak.make_recipe(folder, f"{adapter}-watched", adapter, max_tokens=1000)
    states = folder / "states"

    def run() -> None:
        watch(recipe.folder, lambda: train_module.train(recipe), states)

    soak.run_here(run, recipe.folder / "errors")
    points = list(with_torn_files(pickle.loads(states.read_bytes())))
    wanted, digest = soak.hex_losses(recipe), soak.weights_digest(recipe)
    seen = Counter(states=len(points), steps_of_a_run=len(wanted))
    for point in points:
        if rng.random() >= share:
            continue
        seen["started_in"] += 1
        again = soak.copy_run(recipe, f"{adapter}-started")
        write_state(again.folder, point)
        if soak.wait(soak.start(again, 1)) != [0]:
            seen["unusable"] += 1
            sys.stderr.write((again.folder / "errors-0").read_text())
            continue
        seen["losses_differ"] += soak.hex_losses(again) != wanted
        seen["weights_differ"] += soak.weights_digest(again) != digest
        whole = [name for name in point if name.endswith("COMPLETE")]
        marked = max((int(name.split("-")[-1].split("/")[0]) for name in whole), default=0)
        logged = point.get("log.jsonl") or b""
        seen["more_than_one_step_lost"] += marked < logged.count(b'"loss"') - 1
    return seen
