"""What a tracker is told: numbers of the log and the recipe, and nothing of code or machine."""

import getpass
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fim import FimError
from finetune.recipe.corpus import Corpus, Source
from finetune.recipe.model import Model
from finetune.recipe.schema import Recipe
from finetune.recipe.train import TRAIN_CHOICES, Train
from finetune.training import trackers
from finetune.training.step_log import WriteLog
from finetune.training.trackers import TRACKERS, LogNumbers, check_tracker, recipe_numbers

ROOT = Path(__file__).parents[1]
LINES = [
    {"loss": 2.5, "learning_rate": 0.001, "grad_norm": 1.5},
    {"eval_loss_middle": 1.25, "eval_kind/if_statement": 0.75},
    {"train_runtime": 9.0},
]
DRIVE = "import sys, test_trackers; test_trackers.drive(*sys.argv[1:])"
ENDS = {"well": 0, "raises": 1, "killed": -signal.SIGKILL}
"""How a run ends, and the exit code of its process."""
API_KEY = "0123456789abcdef" * 3


def make_recipe(runs: Path, report_to: str) -> Recipe:
    return Recipe(
        name="tiny",
        model=Model(name="secret_base/model"),
        corpus=Corpus(sources=(Source(folder="secret_folder"),)),
        train=Train(report_to=report_to, anneal_sources={"secret_repo": 2.0}),
        runs=str(runs),
    )


def drive(runs: str, report_to: str, end: str) -> None:
    """Send a few lines as a trainer does, and end like it."""
    recipe = make_recipe(Path(runs), report_to)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    log = WriteLog(recipe.folder / "log.jsonl", [10, 20], 1)
    tracker = LogNumbers(recipe, log)
    state = SimpleNamespace(global_step=0, is_world_process_zero=True, max_steps=2)
    for callback in (log, tracker):
        callback.on_train_begin(None, state, None)
    for logs in LINES:
        state.global_step = 1
        for callback in (log, tracker):
            callback.on_log(None, state, None, logs=logs)
    if end == "raises":
        raise RuntimeError("a step that fails")
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    tracker.on_train_end(None, state, None)


def send(tmp_path: Path, report_to: str, end: str = "well", **more: str) -> bytes:
    """Send the lines in a process of its own, and return all that was written."""
    (tmp_path / "sitecustomize.py").write_text(
        "import platform, socket\nsocket.gethostname = platform.node = lambda: 'plantedhost'\n"
    )
    places = [str(tmp_path), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TRACKIO_"))}
    done = subprocess.run(
        [sys.executable, "-c", DRIVE, str(tmp_path / "runs"), report_to, end],
        env=environment | {"PYTHONPATH": os.pathsep.join(places), "USER": "planteduser", **more},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == ENDS[end], done.stderr
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    return b"".join(os.fsencode(path.relative_to(tmp_path)) + path.read_bytes() for path in files)


def assert_private(everything: bytes, tmp_path: Path) -> None:
    here = {name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 4}
    for private in (
        str(tmp_path), str(ROOT), sys.prefix, "secret_base", "secret_folder", "secret_repo",
        "plantedhost", "planteduser", API_KEY, *here,
    ):  # fmt: skip
        assert private.encode() not in everything, private


@pytest.mark.slow
@pytest.mark.parametrize("end", ["raises", "killed"])
def test_wandb_is_sent_numbers_alone(tmp_path, end):
    before = tmp_path / "runs" / "tiny" / "wandb" / "offline-run-before" / "logs"
    before.mkdir(parents=True)
    (before / "debug-internal.log").write_text("of a run that was killed on plantedhost")

    everything = send(tmp_path, "wandb", end, WANDB_MODE="offline", WANDB_API_KEY=API_KEY)

    assert_private(everything, tmp_path)
    assert b".wandb:W&B" in everything
    _, sent = everything.split(b"/run-", 1)
    for number in (b"learning_rate", b"kind/if_statement", b"train.warmup_rate", b"model.lora_r"):
        assert number in sent or end == "killed"  # before anything was written
    assert b"train_runtime" not in sent


@pytest.mark.slow
@pytest.mark.parametrize("end", ["well", "killed"])
@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_is_sent_numbers_alone(tmp_path, end):
    everything = send(tmp_path, "tensorboard", end)

    assert_private(everything, tmp_path)
    (file,) = (tmp_path / "runs" / "tiny" / "tensorboard").iterdir()
    assert re.fullmatch(r"events\.out\.tfevents\.\d+", file.name)
    assert read_scalars(file) == [
        ("loss", 1, 2.5), ("learning_rate", 1, 0.001), ("grad_norm", 1, 1.5),
        ("loss_middle", 1, 1.25), ("kind/if_statement", 1, 0.75),
    ]  # fmt: skip


def read_scalars(file: Path) -> list[tuple[str, int, float]]:
    """Names, steps and values as TensorBoard reads them, without what differs between runs."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (value.tag, event.step, pytest.approx(value.tensor.float_val[0]))
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag not in ("tokens", "seconds", "tokens_per_second")
    ]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trackio") is None, reason="needs trackio")
def test_trackio_is_sent_numbers_alone(tmp_path):
    folder = tmp_path / "runs" / "trackio"

    everything = send(tmp_path, "trackio", TRACKIO_DIR=str(folder), HF_HUB_OFFLINE="1")

    with sqlite3.connect(folder / "sfim.db") as database:
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
    assert [step for step, _ in rows] == [1, 1]
    assert b'"kind/if_statement":0.75' in rows[1][1]
    assert b"train.warmup_rate" in everything
    assert_private(everything, tmp_path)


def test_every_choice_has_a_tracker():
    assert {"none", *TRACKERS} == set(TRAIN_CHOICES["train.report_to"])


@pytest.mark.parametrize(
    ("name", "command"),
    [("tensorboard", "pip install tensorboard"), ("trackio", "pip install 'sfim[trackio]'")],
)
def test_a_missing_tracker_is_refused_with_the_way_out(monkeypatch, name, command):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)

    with pytest.raises(FimError, match=f"train.report_to: {name} is missing; run: ") as refused:
        check_tracker(name)

    assert str(refused.value).endswith(command)
    check_tracker("none")


def test_names_of_repositories_are_no_settings(tmp_path):
    numbers = recipe_numbers(make_recipe(tmp_path, "none"))

    assert not any("secret" in name for name in numbers)
    assert numbers["train.decay_rate"] == 0.1


def test_other_processes_send_nothing(tmp_path, monkeypatch):
    def refuse(recipe: Recipe) -> Any:
        raise AssertionError("opened")

    monkeypatch.setitem(TRACKERS, "wandb", refuse)
    log = WriteLog(tmp_path / "log.jsonl", [10], 1)
    tracker = LogNumbers(make_recipe(tmp_path, "wandb"), log)
    state = SimpleNamespace(global_step=1, is_world_process_zero=False)

    tracker.on_train_begin(None, state, None)
    log.on_log(None, state, None, logs={"loss": 1.0})
    tracker.on_log(None, state, None, logs={"loss": 1.0})
    tracker.on_train_end(None, state, None)

    assert tracker.send is None
