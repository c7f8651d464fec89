"""Kill training runs at random moments and go on: whole checkpoints, and the very same losses?

    make soak
    OMP_NUM_THREADS=1 python tests/soak.py [--kills N] [--only lora-2 ...] [--states SHARE]

A tiny run saves at every step. It is killed with SIGKILL, most often while a checkpoint is being
written, or now and then asked to stop, and started again until it ends; then every loss and the
weights are held to those of a run that nobody disturbed. Runs are forked from one process that has
imported everything, so that a kill costs seconds. Two processes are killed at once or one after
the other. Then runs are started in every state that the folder of an unbroken run goes through, see
`fault_points`.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from finetune import prepare as prepare_module
from finetune import store
from finetune import train as train_module
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.training.checkpoint import COMPLETE
from finetune.training.step_log import read_log

CONFIGURATIONS = {  # adapter and processes
    "lora-1": ("lora", 1), "full-1": ("full", 1), "lora-2": ("lora", 2), "full-2": ("full", 2),
}  # fmt: skip
SCRATCH = {
    "vocab_size": 400, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32,
}  # fmt: skip
PREPARED = ("packs", "tokenizer")
"""Folders of a run that training reads and leaves alone."""
LIMIT_SECONDS = 120


def fork(work: Callable[[], object], errors: Path, **environment: str) -> int:
    """Run `work` in a forked process; return its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        with open(errors, "w") as file:
            os.dup2(file.fileno(), 2)
            os.dup2(file.fileno(), 1)
        os.environ.update(environment)
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt as stop:
        code = getattr(stop, "exit_code", 130)
        print(stop, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(recipe: Recipe, processes: int, work: Callable[[Recipe], object] | None = None) -> list:
    """Fork the processes of a run; return their ids."""
    work = work or train_module.train
    if processes == 1:
        return [fork(lambda: work(recipe), recipe.folder / "errors-0")]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    return [
        fork(
            lambda: work(recipe), recipe.folder / f"errors-{rank}",
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_PORT=port,
            LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true",
        )
        for rank in range(processes)
    ]  # fmt: skip


def wait(processes: list[int]) -> list[int]:
    """Return how each process ended: an exit code, or minus a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def read_versions_once() -> None:
    """Read the versions of all libraries here, and not in every process that is forked."""
    versions = store.library_versions()
    store.library_versions = prepare_module.library_versions = lambda: versions


def run_here(work: Callable[[], object], errors: Path) -> None:
    """Run `work` in a process of its own, so that this one stays fit to fork."""
    if wait([fork(work, errors)]) != [0]:
        raise RuntimeError(errors.read_text())


def write_recipe(folder: Path, name: str, model: dict, **train: object) -> Recipe:
    """Write a recipe that saves at every step, and the code it learns."""
    source = folder / "source"
    fresh = not source.exists()  # a rewritten file makes older packs stale
    source.mkdir(parents=True, exist_ok=True)
    for i in range(6) if fresh else ():
        functions = (
            f"def name_{i}_{j}(value):\n    if value > {j}:\n        return value * {i}\n"
            f"    return [item + {j} for item in range(value)]\n\n\n"
            for j in range(7)
        )
        (source / f"module_{i}.py").write_text("".join(functions))
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({
        "name": name, "runs": str(folder / "runs"), "model": model,
        "train": {"save_steps": 1, "learning_rate": 1e-2, **train},
        "corpus": {"sources": [{"folder": str(source)}], "split": {"eval_rate": 0}},
        "fim": {"max_length": 256},
    }))  # fmt: skip
    return read_recipe(path)


def make_recipe(folder: Path, name: str, adapter: str, **train: object) -> Recipe:
    """Write a recipe, and make its packs and the base of its adapter."""
    model: dict[str, object] = {"adapter": "full", "scratch": SCRATCH}
    if adapter == "lora":
        base = folder / "runs" / "base" / "model"
        if not base.exists():
            recipe = make_recipe(folder, "base", "full", max_tokens=500)
            run_here(lambda: train_module.train(recipe), folder / "errors")
        model = {"adapter": "lora", "name": str(base), "lora_dropout": 0.1}
    recipe = write_recipe(folder, name, model, **train)
    if not (recipe.folder / "packs").exists():
        run_here(lambda: prepare_module.prepare(recipe), folder / "errors")
    return recipe


def copy_run(recipe: Recipe, name: str) -> Recipe:
    """Give a run another name; what was prepared is copied, nothing else."""
    copy = replace(recipe, name=name)
    shutil.rmtree(copy.folder, ignore_errors=True)
    for stage in PREPARED:
        if (recipe.folder / stage).exists():
            shutil.copytree(recipe.folder / stage, copy.folder / stage)
    return copy


def hex_losses(recipe: Recipe) -> list[tuple[int, str]]:
    """Step and loss of each line of the log, every bit of it."""
    lines = read_log(recipe.folder / "log.jsonl")
    return [(line["step"], float(line["loss"]).hex()) for line in lines if "loss" in line]


def weights_digest(recipe: Recipe) -> str:
    """SHA-256 of the weights that came out."""
    (path,) = train_module.tuned_folder(recipe).glob("*.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checkpoint_steps(recipe: Recipe, *, whole: bool) -> list[int]:
    """Steps of the checkpoints there are, or of those marked complete."""
    folders = (recipe.folder / "checkpoints").glob("checkpoint-*")
    return sorted(
        int(folder.name.removeprefix("checkpoint-"))
        for folder in folders
        if not whole or (folder / COMPLETE).exists()
    )


def soak(folder: Path, name: str, kills: int, rng: random.Random) -> Counter:
    """Kill one configuration so many times; count what became of it."""
    adapter, processes = CONFIGURATIONS[name]
    unbroken = make_recipe(folder, name, adapter, epochs=2 * processes)
    if wait(start(unbroken, processes)) != [0] * processes:
        raise RuntimeError((unbroken.folder / "errors-0").read_text())
    wanted, digest = hex_losses(unbroken), weights_digest(unbroken)
    assert len(wanted) >= 12, wanted
    seen = Counter(steps_of_a_run=len(wanted))
    killed = copy_run(unbroken, f"{name}-killed")
    while True:
        running = start(killed, processes)
        if seen["kills"] < kills and kill(killed, running, len(wanted), rng, seen):
            continue
        codes = wait(running) if running else [0]
        if any(codes):
            seen["unusable"] += 1
            print((killed.folder / "errors-0").read_text(), file=sys.stderr)
            killed = copy_run(unbroken, f"{name}-killed")
        else:
            losses = hex_losses(killed)
            seen["runs_finished"] += 1
            seen["losses_compared"] += len(losses)
            seen["losses_differ"] += sum(a != b for a, b in zip(losses, wanted, strict=False))
            seen["losses_differ"] += abs(len(losses) - len(wanted))
            seen["weights_differ"] += weights_digest(killed) != digest
            killed = copy_run(unbroken, f"{name}-killed")
        if seen["kills"] >= kills:
            return seen


def kill(recipe: Recipe, running: list[int], steps: int, rng: random.Random, seen: Counter) -> bool:
    """Kill a run at a random moment, or ask it to stop; whether it was still at work."""
    before = max(checkpoint_steps(recipe, whole=True), default=0)
    goal = min(before + rng.randint(0, 4), steps)
    ask, in_save = rng.random() < 0.2, rng.random() < 0.7
    if ask:  # once every process trains, and can be asked
        goal, in_save = before + 1, False
    if not wait_for(recipe, running[0], goal + in_save, whole=not in_save):
        return False
    time.sleep(rng.random() * (0.03 if in_save else 0.15))
    logged = hex_losses(recipe)
    for process in rng.sample(running, len(running)):
        os.kill(process, signal.SIGTERM if ask else signal.SIGKILL)
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.02)
    codes = wait(running)
    if all(code == 0 for code in codes):
        running.clear()
        return False
    whole = max(checkpoint_steps(recipe, whole=True), default=0)
    if ask:
        seen["asked_to_stop"] += 1
        finished = whole == steps  # what is then left is begun again
        seen["stopped_badly"] += set(codes) != {128 + signal.SIGTERM} and not finished
        seen["more_than_one_step_lost"] += whole != hex_losses(recipe)[-1][0]
        return True
    seen["kills"] += 1
    seen["kills_while_saving"] += max(checkpoint_steps(recipe, whole=False), default=0) > whole
    # a step is logged, then saved: of the steps logged, one may be without its checkpoint
    seen["more_than_one_step_lost"] += whole < (logged[-1][0] if logged else 0) - 1
    return True


def wait_for(recipe: Recipe, process: int, step: int, *, whole: bool) -> bool:
    """Wait for the checkpoint of a step; whether the run is still at work."""
    limit = time.monotonic() + LIMIT_SECONDS
    while max(checkpoint_steps(recipe, whole=whole), default=0) < step:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        if time.monotonic() > limit:
            os.kill(process, signal.SIGKILL)
            raise SystemExit(f"no checkpoint of step {step} within {LIMIT_SECONDS} seconds")
        time.sleep(0.001)
    return True


def main() -> None:
    """Print what came of each configuration; fail if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="for each configuration")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=[*CONFIGURATIONS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--states", type=float, default=1.0, metavar="SHARE",
        help="of the states of an unbroken run's folder, how many to start in",
    )  # fmt: skip
    options = parser.parse_args()
    import fault_points

    read_versions_once()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = Path(scratch)
        for name in options.only if options.kills else ():
            rng = random.Random(f"{options.seed} {name}")
            bad += report(name, lambda: soak(folder, name, options.kills, rng))  # noqa: B023
        for adapter in ("lora", "full") if options.states else ():
            rng = random.Random(f"{options.seed} {adapter}")
            bad += report(
                f"{adapter}-states",
                lambda: fault_points.sweep(folder, adapter, options.states, rng),  # noqa: B023
            )
    sys.exit(bool(bad))


def report(name: str, work: Callable[[], Counter]) -> int:
    """Print what was counted as a line of JSON; return how much of it is bad."""
    started = time.monotonic()
    seen = work()
    bad = {key: seen[key] for key in LOST}
    seconds = round(time.monotonic() - started)
    print(json.dumps({"configuration": name, **seen, **bad, "seconds": seconds}), flush=True)
    return sum(bad.values())


LOST = (
    "unusable", "more_than_one_step_lost", "stopped_badly", "losses_differ", "weights_differ",
)  # fmt: skip
"""What has to be 0."""


if __name__ == "__main__":
    main()
