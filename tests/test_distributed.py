"""Several processes train as one does, and a run that is not the one asked for stops."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from several_processes import recorded
from transformers import AutoModelForCausalLM

from fim import FimError
from finetune.prepare import prepare
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.train import train
from finetune.training import arguments as arguments_module
from finetune.training.arguments import (
    check_launch,
    check_processes,
    check_strategy,
    compile_layers,
)
from finetune.training.step_log import read_log
from finetune.training.trainer import PackTrainer

ROOT = Path(__file__).parents[1]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STEPS = 20
SCRATCH = {
    "vocab_size": 400, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "FSDP_", "MASTER_", "SLURM_", "OMPI_", "PMI_")):
            monkeypatch.delenv(name)


def make_run(folder: Path, *overrides: str, model: dict | None = None) -> Recipe:
    """Write a recipe in float64 whose packs have unequal numbers of labels, and make its packs."""
    source = folder / "source"
    if not source.exists():
        source.mkdir()
        for i in range(6):
            functions = (
                f"def step_{i}_{j}(value, other):\n    if value > {j}:\n"
                f"        return value * {i} + other\n    return {'other + ' * j}{i}\n\n\n"
                for j in range(7)
            )
            (source / f"module_{i}.py").write_text("".join(functions))
    values = {
        "name": "one",
        "runs": str(folder / "runs"),
        "model": {"dtype": "float64", **(model or {"adapter": "full", "scratch": SCRATCH})},
        "corpus": {"sources": [{"folder": str(source)}], "split": {"eval_rate": 0}},
        "fim": {"max_length": 128, "loss": "middle", "fim_rate": 0.8},
        "train": {"epochs": 10, "learning_rate": 1e-3},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    recipe = read_recipe(path, overrides)
    prepare(recipe)
    return recipe


def launch(*command: str) -> subprocess.CompletedProcess:
    """Run `accelerate launch` at a free port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", port, *command],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, timeout=600,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def train_alone(monkeypatch):
    """Train in this process, and keep the losses of the micro-steps."""
    monkeypatch.setattr(PackTrainer, "training_step", recorded(PackTrainer.training_step))
    return train


def assert_same_steps(one: Recipe, two: Recipe) -> None:
    """Hold loss and gradient norm of the first steps of two runs together."""
    accumulated = one.train.gradient_accumulation

    def losses(path: Path) -> np.ndarray:
        return np.loadtxt(path)[: STEPS * accumulated].reshape(STEPS, accumulated).sum(axis=1)

    alone = losses(one.folder / "losses_0")
    together = np.mean([losses(two.folder / f"losses_{process}") for process in (0, 1)], axis=0)
    assert np.ptp(alone) > 0.1
    assert np.abs(together - alone).max() <= 1e-9
    norms = [
        [line["grad_norm"] for line in read_log(run.folder / "log.jsonl")[:STEPS]]
        for run in (one, two)
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-9, abs=0)


@pytest.mark.slow
def test_two_processes_under_ddp_have_the_losses_of_one(tmp_path, train_alone):
    common = ["train.gradient_accumulation=2"]
    one = make_run(tmp_path, *common, "train.packs_per_step=2")
    train_alone(one)
    overrides = ["name=two", "train.num_processes=2", *common]
    two = make_run(tmp_path, *overrides)

    done = launch(
        "--config_file", "accelerate_configs/cpu_2.yaml",
        "-m", "several_processes", str(tmp_path / "recipe.yaml"), *overrides,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("MULTI_CPU: 0 units, spread=False") == 2
    assert_same_steps(one, two)


def untie(base: Path) -> None:
    """Give a base an output layer of its own, which FSDP2 then gathers by itself."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.1)
    model.save_pretrained(base)


@pytest.mark.slow
def test_two_processes_under_fsdp2_have_the_losses_of_one_and_a_plain_adapter(
    tmp_path, train_alone
):
    base = train(make_run(tmp_path, "name=base", "train.epochs=1"))
    untie(base)
    model = {"name": str(base), "adapter": "lora", "lora_r": 4}
    one = make_run(tmp_path, "train.packs_per_step=2", model=model)
    train_alone(one)
    overrides = ["name=two", "train.num_processes=2"]
    two = make_run(tmp_path, *overrides, model=model)

    done = launch(
        "--config_file", "accelerate_configs/fsdp2.yaml", "--num_processes", "2",
        "--mixed_precision", "no",
        "-m", "several_processes", str(tmp_path / "recipe.yaml"), *overrides,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    # two layers, their two ends, the whole
    assert (
        re.findall(r"^FSDP: \d units, spread=\w+$", done.stderr, re.M)
        == ["FSDP: 5 units, spread=True"] * 2
    )
    assert_same_steps(one, two)
    ids = torch.arange(8, 40)[None]
    logits = []
    for run in (one, two):
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        with torch.no_grad():
            before = plain(ids).logits
            after = PeftModel.from_pretrained(plain, run.folder / "adapter").eval()(ids).logits
        assert (after - before).abs().max() > 1e-2
        logits.append(after)
    assert (logits[1] - logits[0]).abs().max() <= 1e-9


NO_ROOM = r"(File too large|disk full): [\d,]+ bytes needed, [\d,]+ free; make room and run again"
GOES_ON = ", it goes on from the last checkpoint"
ANOTHER = "another process cannot write there"
FAILING = {
    "fsdp-weights": (f"/checkpoints: {NO_ROOM}{GOES_ON}", None),
    "fsdp-gather": ("/checkpoints: out of memory in a gather", "/checkpoints: .+"),
    "ddp-generators": (f"/checkpoints: {ANOTHER}", f"/checkpoints: {NO_ROOM}{GOES_ON}"),
    "ddp-flush": (f"/checkpoints: Input/output error; mend the disk and run again{GOES_ON}", None),
    "end-weights": (f": {NO_ROOM}", None),
}
"""What cannot be written, and what the two processes say at the end; `None` for nothing."""


@pytest.mark.slow
def test_two_processes_end_together_when_one_cannot_write_and_go_on_to_the_same_weights(tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "tests/failing_writes.py", str(tmp_path)], cwd=ROOT, timeout=600,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    lines = {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert lines.keys() == {*FAILING, "fsdp", "ddp"}
    for case, ends in FAILING.items():
        line = lines[case]
        assert line["codes"] == [1, 1], case
        assert line["seconds"] < 60
        assert line["newest"] == (None if case == "end-weights" else "checkpoint-2")
        assert line["again"] == [0, 0]
        assert line["same"]
        for said, end in zip(line["said"], ends, strict=True):
            assert (said == []) == (end is None), said
            assert end is None or re.fullmatch(rf"error: {tmp_path}/runs/{case}{end}", said[0])
    for strategy in ("fsdp", "ddp"):
        told, real = lines[strategy]["told"], lines[strategy]["real"]
        assert real <= told < 1.05 * real + 60_000


LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no"}


@pytest.mark.parametrize(
    ("environment", "device", "said"),
    [
        (
            {**LAUNCHED, "ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, CPU,
            "FSDP was asked for, but on a CPU .* plain data parallelism; .*cpu_2.yaml",
        ),
        (
            {**LAUNCHED, "ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
            CPU, "DEEPSPEED was asked for, but on a CPU .* plain data parallelism; .*cpu_2.yaml",
        ),
        (  # accelerate launch --cpu --num_processes 2
            {**LAUNCHED, "ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, CPU,
            "asked for several processes and started one; .*cpu_2.yaml",
        ),
        (  # accelerate launch --config_file accelerate_configs/single_gpu.yaml --num_processes 4
            {**LAUNCHED, "ACCELERATE_USE_CPU": "False", "MASTER_ADDR": "127.0.0.1"}, CUDA,
            "asked for several processes and started one; .*ddp.yaml",
        ),
    ],
)  # fmt: skip
def test_a_launch_that_accelerate_would_change_is_refused(environment, device, said, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(FimError, match=said):
        check_launch(device)


@pytest.mark.parametrize(
    ("environment", "device"),
    [
        ({}, CPU),
        ({"MASTER_ADDR": "node7"}, CUDA),  # in the shell of a cluster, no accelerate
        ({**LAUNCHED, "ACCELERATE_USE_CPU": "True"}, CPU),
        ({**LAUNCHED, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, CPU),
        ({**LAUNCHED, "ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, CUDA),
    ],
)
def test_a_launch_that_runs_as_asked_is_accepted(environment, device, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    check_launch(device)


def arguments(world_size: int, device: torch.device, n_gpu: int = 1) -> SimpleNamespace:
    return SimpleNamespace(world_size=world_size, device=device, n_gpu=n_gpu)


@pytest.mark.parametrize(
    ("environment", "asked", "runs", "said"),
    [
        # two processes on a machine without a GPU, each a run of its own in the same folder
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, 0, arguments(1, CPU), "2 .* 1 run; .*cpu_2"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 0, arguments(1, CUDA), "4 .* 1 run; .*ddp"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 0, arguments(1, CUDA), "2 .* 1 run; .*ddp"),
        ({}, 8, arguments(1, CUDA), "8 processes were asked for, 1 run"),
        ({"WORLD_SIZE": "2"}, 4, arguments(2, CPU), "4 processes were asked for, 2 run"),
        ({}, 0, arguments(1, CUDA, n_gpu=4), "4 GPUs are visible to one process"),
    ],
)
def test_another_number_of_processes_is_refused(environment, asked, runs, said, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    recipe = SimpleNamespace(train=SimpleNamespace(num_processes=asked))

    with pytest.raises(FimError, match=said):
        check_processes(recipe, runs)


@pytest.mark.parametrize(
    ("environment", "runs"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "2"}, 2),
        ({"WORLD_SIZE": "16", "SLURM_STEP_NUM_TASKS": "2"}, 16),  # srun starts a launcher per node
    ],
)
def test_the_number_of_processes_that_was_launched_is_accepted(environment, runs, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    recipe = SimpleNamespace(train=SimpleNamespace(num_processes=0))
    check_processes(recipe, arguments(runs, CUDA))


@pytest.mark.parametrize(
    ("flag", "runs", "said"),
    [
        (
            "ACCELERATE_USE_DEEPSPEED",
            "MULTI_GPU",
            "DEEPSPEED was asked for, MULTI_GPU runs",
        ),
        ("ACCELERATE_USE_FSDP", "NO", "FSDP was asked for, NO runs; .*fsdp2"),
    ],
)
def test_another_strategy_is_refused(flag, runs, said, monkeypatch):
    accelerator = SimpleNamespace(distributed_type=SimpleNamespace(value=runs))
    check_strategy(accelerator)
    monkeypatch.setenv(flag, "true")

    with pytest.raises(FimError, match=said):
        check_strategy(accelerator)


def test_weights_that_go_to_gpus_later_are_compiled_without_a_compiler_for_the_cpu(monkeypatch):
    monkeypatch.setattr(arguments_module, "_has_compiler", lambda: False)
    with pytest.raises(FimError, match=r"needs a C\+\+ compiler"):
        compile_layers(torch.nn.Linear(2, 2))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")

    compile_layers(torch.nn.Linear(2, 2))
