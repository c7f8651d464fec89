"""A run killed at any moment goes on from a whole checkpoint, to the very same weights."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune.prepare import prepare
from finetune.recipe.file import read_recipe
from finetune.training.checkpoint import mark_complete, newest_complete
from finetune.training.step_log import WriteLog, read_log

ROOT = Path(__file__).parents[1]
KILLS = 8
MAIN = SimpleNamespace(is_world_process_zero=True)


def make_checkpoint(folder: Path, step: int, complete: bool) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if complete:
        mark_complete(checkpoint)
    return checkpoint


def test_newest_complete_takes_the_newest_marked_and_deletes_the_unmarked(tmp_path):
    make_checkpoint(tmp_path, 9, complete=True)
    newest = make_checkpoint(tmp_path, 10, complete=True)
    unfinished = make_checkpoint(tmp_path, 11, complete=False)
    (tmp_path / "checkpoint-notes").mkdir()

    assert newest_complete(tmp_path) == newest
    assert not unfinished.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10", "checkpoint-9", "checkpoint-notes",
    ]  # fmt: skip


def test_newest_complete_of_nothing_is_none(tmp_path):
    assert newest_complete(tmp_path / "absent") is None


def make_log(path: Path) -> WriteLog:
    return WriteLog(path, tokens_per_row=[10, 20, 30], rows_per_step=2)


def log(writer: WriteLog, step: int, **logs: float) -> None:
    state = SimpleNamespace(is_world_process_zero=True, global_step=step)
    writer.on_log(None, state, None, logs=logs)


def begin(writer: WriteLog, step: int) -> None:
    state = SimpleNamespace(is_world_process_zero=True, global_step=step)
    writer.on_train_begin(None, state, None)


def test_the_log_counts_tokens_and_names_held_out_losses(tmp_path):
    writer = make_log(tmp_path / "log.jsonl")
    begin(writer, 0)

    log(writer, 1, loss=2.5, learning_rate=0.1, grad_norm=1.5)
    log(writer, 1, eval_loss_middle=3.5)
    log(writer, 2, loss=2.0)
    log(writer, 2, train_runtime=1.0)

    lines = read_log(tmp_path / "log.jsonl")
    assert lines[0].pop("seconds") >= 0
    assert lines[0].pop("tokens_per_second") > 0
    assert lines[:2] == [
        {"step": 1, "tokens": 30, "loss": 2.5, "learning_rate": 0.1, "grad_norm": 1.5, "mfu": None},
        {"step": 1, "loss_middle": 3.5},
    ]
    assert [line.get("tokens") for line in lines] == [30, None, 60]


def test_a_resumed_run_drops_the_lines_after_its_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    first = make_log(path)
    begin(first, 0)
    for step in (1, 2, 3):
        log(first, step, loss=float(step))
    with open(path, "a") as file:
        file.write('{"step": 4, "lo')  # cut by the kill
    lines = path.read_text().splitlines()
    second = make_log(path)

    begin(second, 2)
    log(second, 3, loss=3.0)

    assert path.read_text().splitlines()[:2] == lines[:2]
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]


def test_a_fresh_run_starts_an_empty_log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 9.0}\n')

    begin(make_log(path), 0)

    assert path.read_text() == ""


def test_the_clock_of_a_resumed_run_goes_on(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 9.0, "seconds": 1000.0}\n')
    writer = make_log(path)

    begin(writer, 1)
    log(writer, 2, loss=8.0)

    assert 1000.0 <= read_log(path)[1]["seconds"] < 1060.0


RECIPE = """
runs: RUNS
name: base
model:
  adapter: full
  scratch: {vocab_size: 400, hidden_size: 16, num_layers: 1, num_heads: 2, intermediate_size: 16}
corpus:
  sources: [{folder: SOURCE}]
  split: {eval_rate: 0}
fim: {max_length: 256}
train: {epochs: 2, save_steps: 1, learning_rate: 1.0e-2}
"""


def prepare_run(tmp_path: Path, name: str) -> tuple[Path, list[str]]:
    """Write a recipe and its packs; return the run folder and the command that trains it."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    for i in range(6):
        functions = (
            f"def name_{i}_{j}(value):\n    if value > {j}:\n        return value * {i}\n"
            f"    return [item + {j} for item in range(value)]\n\n\n"
            for j in range(14)
        )
        (source / f"module_{i}.py").write_text("".join(functions))
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.replace("SOURCE", str(source)).replace("RUNS", str(tmp_path / "runs"))
    recipe.write_text(text)
    override = f"name={name}"
    prepare(read_recipe(recipe, [override]))
    command = [sys.executable, "-m", "finetune.train", str(recipe), override]
    return tmp_path / "runs" / name, command


def start(command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def hex_losses(run: Path) -> list[tuple[int, str]]:
    return [
        (line["step"], float(line["loss"]).hex())
        for line in read_log(run / "log.jsonl")
        if "loss" in line
    ]


def weights_digest(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def steps_logged(run: Path) -> int:
    return len((run / "log.jsonl").read_text().splitlines()) if (run / "log.jsonl").exists() else 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_runs_end_with_the_losses_and_weights_of_an_unbroken_one(tmp_path):
    unbroken, command = prepare_run(tmp_path, "unbroken")
    out, err = (process := start(command)).communicate(timeout=300)
    assert process.returncode == 0, err
    assert out == f"{unbroken / 'model'}\n"
    steps = len(hex_losses(unbroken))
    killed, command = prepare_run(tmp_path, "killed")
    rng = random.Random(0)

    kills = 0
    while True:
        # a random moment of one of the next few steps, so that kills spread over the whole run
        goal, pause = steps_logged(killed) + rng.randint(1, steps // KILLS), rng.random() * 0.05
        process = start(command)
        deadline = time.monotonic() + 120
        before = steps_logged(killed)
        fresh = False  # a resumed run first cuts its log
        while process.poll() is None and time.monotonic() < deadline:
            fresh = fresh or steps_logged(killed) != before
            if kills < KILLS and fresh and steps_logged(killed) >= goal:
                time.sleep(pause)
                process.kill()
                break
            time.sleep(0.002)
        _, err = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1

    assert process.returncode == 0, err
    assert kills == KILLS
    assert hex_losses(killed) == hex_losses(unbroken)
    assert [step for step, _ in hex_losses(killed)] == list(range(1, steps + 1))
    assert weights_digest(killed) == weights_digest(unbroken)
    manifest = json.loads((killed / "model" / "manifest.json").read_text())
    assert manifest["files"]["model.safetensors"] == weights_digest(unbroken)
