"""What becomes of two processes when one of them cannot write; a line of JSON for each case.

`test_failing_writes` runs it in a process of its own, which imports everything once and forks the
processes of each case. FSDP2 runs on a CPU, see `several_processes`.
"""

import errno
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import several_processes
import soak
import torch
from accelerate import Accelerator
from transformers import TrainerCallback

from finetune import store
from finetune import train as train_module
from finetune.recipe.schema import Recipe
from finetune.training import checkpoint, trainer
from finetune.training.checkpoint import newest_complete

FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "ACCELERATE_MIXED_PRECISION": "no",
}  # fmt: skip
"""What `accelerate launch` sets for `accelerate_configs/fsdp2.yaml`."""
BREAKS_AT = 3
"""Step whose checkpoint cannot be written; the one before is whole."""


class BreakAt(TrainerCallback):
    """Break the disk of this process in the middle of a step."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == BREAKS_AT:
            self.work()


def cut_files() -> None:
    """Let no file grow beyond some kilobytes: the weights fail midway."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))


def fail_flush() -> None:
    """Let the flush of a checkpoint fail, as a network's disk does with what it took before."""

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    checkpoint.fsync_tree = store.fsync_tree = fail


def fail_gather() -> None:
    """Let this process run out of memory where all gather the weights."""

    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("out of memory in a gather")

    Accelerator.get_state_dict = fail


def start(recipe: Recipe, environment: dict[str, str], broken: int, work: Callable) -> list[int]:
    """Fork two processes that train, the disk of one of which breaks."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    make_trainer = train_module.make_trainer

    def train(rank: int) -> None:
        def make_and_break(recipe: Recipe) -> tuple:
            made = make_trainer(recipe)
            if rank == broken:
                made[0].add_callback(BreakAt(work))
            return made

        def told(*args: object) -> int:
            found = checkpoint.checkpoint_bytes(*args)
            (recipe.folder / "told").write_text(str(found))
            return found

        trainer.checkpoint_bytes = told
        train_module.make_trainer = make_and_break
        train_module.read_recipe = lambda *_: recipe
        several_processes.run_as_asked()
        sys.exit(train_module.main(["recipe.yaml"]))

    return [
        soak.fork(
            lambda: train(rank), recipe.folder / f"errors-{rank}",  # noqa: B023
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
            MASTER_PORT=port, MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true", **environment,
        )
        for rank in (0, 1)
    ]  # fmt: skip


def say(line: dict[str, object]) -> None:
    """Write a line at once: what is still in a buffer, forks would write again."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def try_case(name: str, whole: Recipe, environment: dict, broken: int, work: Callable) -> None:
    """Break a run, go on with it, and print what was seen."""
    recipe = soak.copy_run(whole, name)
    began = time.monotonic()
    codes = soak.wait(start(recipe, environment, broken, work))
    seconds = time.monotonic() - began
    said = []
    for rank in (0, 1):
        lines = (recipe.folder / f"errors-{rank}").read_text().splitlines()
        said.append([line for line in lines if not line.startswith("[rank")][-1:])  # torch's own
    newest = newest_complete(recipe.folder / "checkpoints")
    again = soak.wait(start(recipe, environment, -1, work))
    same = again == [0, 0] and (
        soak.hex_losses(recipe) == soak.hex_losses(whole)
        and soak.weights_digest(recipe) == soak.weights_digest(whole)
    )
    say({
        "case": name, "codes": codes, "seconds": round(seconds, 1), "said": said,
        "newest": newest and newest.name, "again": again, "same": same,
    })  # fmt: skip


def train_whole(recipe: Recipe, name: str, environment: dict[str, str]) -> Recipe:
    """Train without a fault, and print how many bytes a checkpoint was said to take and takes."""
    whole = soak.copy_run(recipe, name)
    if soak.wait(start(whole, environment, -1, cut_files)) != [0, 0]:
        raise RuntimeError((whole.folder / "errors-0").read_text())
    if newest := newest_complete(whole.folder / "checkpoints"):
        told = int((whole.folder / "told").read_text())
        real = sum(path.stat().st_size for path in newest.iterdir())
        say({"case": name, "told": told, "real": real})
    return whole


def main() -> None:
    """Try every case in a folder."""
    soak.read_versions_once()
    recipe = soak.make_recipe(Path(sys.argv[1]), "whole", "full", max_tokens=2500)
    at_end = replace(recipe, train=replace(recipe.train, save_steps=0))
    for strategy, environment, run, cases in (
        ("fsdp", FSDP, recipe, [("weights", 0, cut_files), ("gather", 0, fail_gather)]),
        ("ddp", {}, recipe, [("generators", 1, cut_files), ("flush", 0, fail_flush)]),
        ("end", {}, at_end, [("weights", 0, cut_files)]),
    ):
        whole = train_whole(run, strategy, environment)
        for what, rank, work in cases:
            try_case(f"{strategy}-{what}", whole, environment, rank, work)


if __name__ == "__main__":
    main()
