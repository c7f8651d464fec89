"""A tiny recipe, trained end to end: what comes out, what is refused, and what never leaves."""

import getpass
import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from packed_unpacked import FAMILIES
from safetensors.torch import load_file, save_file

from fim import FimError
from finetune import train as train_module
from finetune.evaluate import evaluate
from finetune.model import load_base
from finetune.prepare import prepare
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.store import is_done
from finetune.train import main, make_trainer, train, train_fingerprint
from finetune.training.losses import collate, token_losses
from finetune.training.step_log import read_log

ROOT = Path(__file__).parents[1]
MARKER = "planted_marker_4711"
TINY = {
    "adapter": "full",
    "scratch": {
        "vocab_size": 500, "hidden_size": 32, "num_layers": 1, "num_heads": 2,
        "intermediate_size": 32,
    },
}  # fmt: skip


def write_source(folder: Path) -> None:
    """Write eight Python files."""
    folder.mkdir()
    for i in range(8):
        functions = (
            f"def {MARKER}_{i}_{j}(value, other):\n    if value > {j}:\n"
            f"        return value * {i} + other\n"
            f"    return [item + {j} for item in range(other)]\n\n\n"
            for j in range(9)
        )
        (folder / f"module_{i}.py").write_text("".join(functions))


def make_run(tmp_path: Path, *overrides: str, model: dict = TINY, packs: bool = True) -> Recipe:
    """Write a recipe, and make its packs."""
    if not (tmp_path / "source").exists():  # a rewritten file makes older packs stale
        write_source(tmp_path / "source")
    values = {
        "name": "tiny",
        "runs": str(tmp_path / "runs"),
        "model": model,
        "corpus": {
            "sources": [{"folder": str(tmp_path / "source")}],
            "split": {"eval_rate": 0.2},
        },
        "fim": {"max_length": 256},
        "train": {"epochs": 1, "learning_rate": 1e-2},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    recipe = read_recipe(path, overrides)
    if packs:
        prepare(recipe)
    return recipe


def tokens_trained(recipe: Recipe) -> int:
    return max(line.get("tokens", 0) for line in read_log(recipe.folder / "log.jsonl"))


def hex_losses(recipe: Recipe) -> list[str]:
    return [line["loss"].hex() for line in read_log(recipe.folder / "log.jsonl") if "loss" in line]


def assert_anonymous(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        for private in (str(tmp_path), f"{Path.home()}/", str(ROOT)):
            assert private == "//" or private.encode() not in path.read_bytes(), path


def test_a_full_run_and_an_adapter_on_it_name_no_place(tmp_path):
    recipe = make_run(tmp_path)

    model = train(recipe)

    assert model == recipe.folder / "model"
    assert sorted(path.name for path in model.iterdir()) == [
        "config.json", "generation_config.json", "manifest.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert is_done(model, train_fingerprint(recipe))
    assert_anonymous(model, tmp_path)

    adapted = make_run(tmp_path, "name=adapted", model={"name": str(model), "adapter": "lora"})
    adapter = train(adapted)

    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "generation_config.json",
        "manifest.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert re.fullmatch(r"tiny@sha256:[0-9a-f]{64}", base)
    assert_anonymous(adapter, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt_bigcode", "granitemoehybrid"])
def test_a_base_that_reads_or_returns_more_than_others_is_trained_and_measured(tmp_path, family):
    tiny = train(make_run(tmp_path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    lengths = {"n_positions": 512, "max_position_embeddings": 512}
    fields = {**FAMILIES[family].to_dict(), **lengths, "vocab_size": len(tokenizer)}
    base = transformers.AutoModelForCausalLM.from_config(type(FAMILIES[family])(**fields))
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = {"name": str(tmp_path / "base"), "adapter": "full"}
    recipe = make_run(tmp_path, "name=tuned", "evaluate.items=4", model=model)

    tuned = train(recipe)

    assert evaluate(recipe)["adapter"]
    configs = [
        json.loads((place / "config.json").read_text()) for place in (tmp_path / "base", tuned)
    ]
    assert {k: v for k, v in configs[0].items() if "router" in k}.items() <= configs[1].items()


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    recipe = make_run(tmp_path)
    folder = train(recipe)
    monkeypatch.setattr(train_module, "make_trainer", None)

    assert train(recipe) == folder


def test_other_weights_under_the_same_name_are_another_run(tmp_path):
    base = train(make_run(tmp_path))
    recipe = make_run(tmp_path, "name=new", model={"name": str(base), "adapter": "lora"})
    before = train_fingerprint(recipe)
    weights = load_file(base / "model.safetensors")

    assert train_fingerprint(recipe) == before
    save_file({name: weight + 1 for name, weight in weights.items()}, base / "model.safetensors")

    assert train_fingerprint(recipe) != before


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("train.save_steps=3", True),
        ("train.eval_steps=3", True),
        ("train.gradient_checkpointing=true", True),
        ("train.seed=3", False),
    ],
)
def test_only_what_changes_the_weights_is_in_the_fingerprint(tmp_path, override, same):
    plain, changed = (make_run(tmp_path, *more, packs=False) for more in ((), (override,)))

    assert (train_fingerprint(plain) == train_fingerprint(changed)) == same


def test_held_out_losses_leave_the_weights_alone(tmp_path):
    base = train(make_run(tmp_path))
    model = {"name": str(base), "adapter": "lora", "lora_dropout": 0.5}
    losses = []
    for name, steps in (("often", 1), ("once", 1000)):
        recipe = make_run(tmp_path, f"name={name}", f"train.eval_steps={steps}", model=model)
        train(recipe)
        losses.append(hex_losses(recipe))

    assert len(losses[0]) > 5
    assert losses[0] == losses[1]


def test_the_run_folder_tells_the_recipe_that_was_trained(tmp_path):
    make_run(tmp_path)
    recipe = make_run(tmp_path, "train.learning_rate=0.002", packs=False)

    train(recipe)

    assert read_recipe(recipe.folder / "recipe.yaml") == recipe


def test_a_new_result_takes_the_old_measurements_with_it(tmp_path):
    recipe = make_run(tmp_path)
    for name in ("metrics.json", "predictions.parquet", "report.html"):
        (recipe.folder / name).write_text("old")

    train(recipe)

    assert not any((recipe.folder / name).exists() for name in train_module.MEASURED)
    assert len(train_module.MEASURED) == 3


def test_code_in_a_model_folder_never_runs(tmp_path, monkeypatch):
    base = train(make_run(tmp_path))
    canary = tmp_path / "canary"
    (base / "canary.py").write_text(
        f"open({str(canary)!r}, 'w')\n"
        "from transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    )
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "canary.C", "AutoModelForCausalLM": "canary.M"}
    for kind in (config["model_type"], "unheard-of"):
        (base / "config.json").write_text(json.dumps(config | {"model_type": kind}))
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        refused = pytest.raises(FimError, match="custom code")
        with refused if kind == "unheard-of" else nullcontext():
            load_base(str(base))

        assert sys.stdin.read() == "y\n" * 9
        assert not canary.exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FimError("no"), 1, "error: no\n"),
        (OSError(28, "No space left on device", "x/y"), 1, "error: x/y: No space left on device\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_the_command_ends_in_one_line(monkeypatch, capsys, error, code, line):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(train_module, "read_recipe", fail)

    assert main(["recipe.yaml"]) == code
    assert capsys.readouterr() == ("", line)


def test_the_command_without_a_recipe_says_how(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: python -m finetune.train RECIPE")


def test_a_download_is_announced_and_a_small_folder_is_not(tmp_path, capsys):
    for name in ("acme/coder", str(tmp_path)):
        train_module._announce(name)

    assert capsys.readouterr() == ("", "loading acme/coder\n")


def test_equal_seeds_give_equal_losses_and_other_seeds_do_not(tmp_path):
    runs = [
        make_run(tmp_path, "name=one"),
        make_run(tmp_path, "name=two"),
        make_run(tmp_path, "name=other", "train.seed=1"),
    ]

    for recipe in runs:
        train(recipe)

    one, two, other = map(hex_losses, runs)
    assert len(one) > 5
    assert one == two
    assert one[0] != other[0]


def test_two_epochs_train_on_different_spans(tmp_path):
    recipe = make_run(tmp_path, "train.epochs=2")

    train(recipe)

    samples = pq.read_table(recipe.folder / "packs" / "train" / "samples.parquet").to_pylist()
    spans = [
        {(s["document_id"], s["start_byte"], s["end_byte"]) for s in samples
         if s["epoch"] == epoch and s["order"] != "ar"}
        for epoch in (0, 1)
    ]  # fmt: skip
    assert all(len(of_epoch) > 5 for of_epoch in spans)
    assert len(spans[0] & spans[1]) < len(spans[0]) / 4
    stats = json.loads((recipe.folder / "packs" / "stats.json").read_text())
    assert tokens_trained(recipe) == stats["tokens"]


def weights_of(trainer: train_module.PackTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def assert_stops_before_weights_change(trainer: train_module.PackTrainer, message: str) -> None:
    before = weights_of(trainer)
    with pytest.raises(FimError, match=message):
        trainer.train()
    for parameter, old in zip(weights_of(trainer), before, strict=True):
        assert torch.equal(parameter.nan_to_num(7.0), old.nan_to_num(7.0))


def test_a_loss_that_is_no_number_stops_the_run_before_the_weights_change(tmp_path):
    trainer, _, _ = make_trainer(make_run(tmp_path, "train.warmup_rate=0"))
    trainer.model.model.norm.weight.data[0] = math.nan

    assert_stops_before_weights_change(trainer, "step 1: the loss is nan; lower train.learning_ra")


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_change(tmp_path):
    trainer, _, _ = make_trainer(make_run(tmp_path, "train.warmup_rate=0"))
    trainer.model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)

    assert_stops_before_weights_change(trainer, r"step 1: the gradient norm is (inf|nan); lower")


def test_a_run_that_diverges_ends_in_one_line(tmp_path, capsys):
    make_run(tmp_path, "train.learning_rate=1e30", "train.warmup_rate=0")

    code = main([
        str(tmp_path / "recipe.yaml"), "train.learning_rate=1e30", "train.warmup_rate=0",
    ])  # fmt: skip

    captured = capsys.readouterr()
    assert code == 1
    assert captured.out == ""
    assert re.search(r"^error: step \d+: the (loss|gradient norm) is (nan|inf)", captured.err, re.M)
    assert not (tmp_path / "runs" / "tiny" / "model").exists()


def test_a_run_without_packs_is_sent_to_prepare(tmp_path):
    with pytest.raises(FimError, match="packs: not made, or from another recipe; run: sfim prepar"):
        train(make_run(tmp_path, packs=False))


def test_packs_of_another_recipe_are_sent_to_prepare(tmp_path):
    make_run(tmp_path)

    with pytest.raises(FimError, match="run: sfim prepare"):
        train(make_run(tmp_path, "fim.fim_rate=0.1", packs=False))


def test_checkpoints_of_another_run_are_refused(tmp_path):
    train(make_run(tmp_path, "train.save_steps=4"))

    with pytest.raises(FimError, match="checkpoints of another recipe"):
        train(make_run(tmp_path, "train.save_steps=4", "train.learning_rate=0.5"))


def test_max_tokens_caps_the_run(tmp_path):
    recipe = make_run(tmp_path, "train.max_tokens=1000")

    train(recipe)

    assert 500 < tokens_trained(recipe) <= 1000


def test_held_out_losses_read_a_few_packs_four_times(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "HELD_OUT_PACKS", 2)
    recipe = make_run(tmp_path, "train.eval_steps=4")

    trainer, _, _ = make_trainer(recipe)
    train(recipe)

    assert len(trainer.held_out.packs) == 2
    lines = read_log(recipe.folder / "log.jsonl")
    assert [line["step"] for line in lines if "loss_ar" in line][:2] == [4, 8]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_the_loss_is_the_mean_over_tokens_with_the_end_token_weighted(
    tmp_path, dtype, tolerance, weight
):
    recipe = make_run(tmp_path, f"model.dtype={dtype}", f"train.end_token_weight={weight}")
    trainer, form, _ = make_trainer(recipe)
    trainer.model.eval()
    row = next(row for row in trainer.train_dataset if form.end_id in row["labels"])

    loss = trainer.compute_loss(trainer.model, collate([row]))

    losses = [loss for of_sample in token_losses(trainer.model, row) for loss in of_sample]
    targets = [label for label in row["labels"] if label != -100]
    by_hand = sum(
        loss * (weight if target == form.end_id else 1.0)
        for loss, target in zip(losses, targets, strict=True)
    ) / len(losses)
    assert loss.item() == pytest.approx(by_hand, rel=tolerance)
    batch = collate([row])
    with torch.no_grad():
        logits = trainer.model(**batch, use_cache=False).logits
    plain = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:])
    assert (loss.item() == pytest.approx(plain.item(), rel=tolerance)) == (weight == 1.0)


def test_training_connects_to_nothing_but_this_machine(tmp_path, monkeypatch):
    recipe = make_run(tmp_path)
    monkeypatch.delenv("CI", raising=False)  # TRL sends nothing from continuous integration
    for switch in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(huggingface_hub.constants, switch, False)
    called = []

    connect = socket.socket.connect

    def refuse(self, address):
        if isinstance(address, str):  # worker processes, on this machine
            return connect(self, address)
        called.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: refuse(None, args))

    adapted = train(recipe)
    train(make_run(tmp_path, "name=adapted", model={"name": str(adapted), "adapter": "lora"}))
    time.sleep(0.5)  # telemetry goes out from a thread

    assert [address for address in called if address[0] not in ("127.0.0.1", "::1")] == []


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "ACCELERATE_"))}
    return {
        **kept, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more,
    }  # fmt: skip


def launch(*command: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment(**more), timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_prints_the_folder_and_warns_of_nothing(tmp_path):
    base = train(make_run(tmp_path))
    overrides = ["name=adapted", "train.gradient_checkpointing=true"]
    adapted = make_run(tmp_path, *overrides, model={"name": str(base), "adapter": "lora"})

    done = launch("finetune.train", str(tmp_path / "recipe.yaml"), *overrides)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{adapted.folder / 'adapter'}\n"
    assert re.fullmatch(
        r"training [\d,]+ of [\d,]+ parameters on [\d,]+ tokens in \d+ packs, "
        r"attention sfim_blocks, 1 process\(es\) on cpu\n"
        r"(step \d+ of \d+, loss [\d.]+(, held out [\d.]+)?, [\d,]+ tokens/s, [\d:]+ left\n)+",
        done.stderr,
    )


@pytest.mark.slow
def test_wandb_gets_numbers_and_nothing_of_the_machine(tmp_path):
    recipe = make_run(tmp_path, "train.report_to=wandb")
    command = ("finetune.train", str(tmp_path / "recipe.yaml"), "train.report_to=wandb")
    (tmp_path / "sitecustomize.py").write_text(
        "import platform, socket\nsocket.gethostname = platform.node = lambda: 'plantedhost'\n"
    )
    planted = {"USER": "planteduser", "LOGNAME": "planteduser", "PYTHONPATH": f"{tmp_path}:{ROOT}"}

    done = launch(*command, WANDB_MODE="offline", **planted)

    # transformers greets on stdout when it is imported in this mode
    assert done.stdout.replace("[INFO] Running in WANDB offline mode\n", "") == (
        f"{recipe.folder / 'model'}\n"
    )
    files = [path for path in (recipe.folder / "wandb").rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    for number in (b"learning_rate", b"grad_norm", b"train.warmup_rate", b"model.lora_r"):
        assert number in everything
    here = {socket.gethostname(), getpass.getuser()}
    for private in (
        MARKER, str(tmp_path), tmp_path.name, str(ROOT), sys.prefix, "recipe.yaml", "report_to",
        "finetune.train", "plantedhost", "planteduser", *(name for name in here if len(name) > 4),
    ):  # fmt: skip
        assert private.encode() not in everything, private


@pytest.mark.slow
def test_wandb_without_a_login_is_refused_in_one_line(tmp_path):
    make_run(tmp_path, "train.report_to=wandb")
    command = ("finetune.train", str(tmp_path / "recipe.yaml"), "train.report_to=wandb")

    done = launch(*command, HOME=str(tmp_path), NETRC=str(tmp_path / "netrc"))

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"^error: .*wandb login", done.stderr, re.M)


@pytest.mark.slow
def test_a_launch_that_quietly_drops_processes_is_refused(tmp_path):
    make_run(tmp_path, "train.num_processes=2")

    done = launch(
        "accelerate.commands.launch", "--quiet", "--cpu", "--num_processes", "2",
        "-m", "finetune.train", str(tmp_path / "recipe.yaml"), "train.num_processes=2",
    )  # fmt: skip

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.findall("^error: .*", done.stderr, re.M) == [
        "error: accelerate launch was asked for several processes and started one; start with "
        "accelerate launch --config_file accelerate_configs/cpu_2.yaml -m finetune.train RECIPE"
    ]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_resume_after_a_kill(tmp_path):
    one = make_run(tmp_path, "name=one", "train.packs_per_step=2")
    train(one)
    common = ["train.num_processes=2", "train.save_steps=1"]
    two = make_run(tmp_path, "name=two", *common)
    killed = make_run(tmp_path, "name=killed", *common)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    command = [
        "accelerate.commands.launch",
        *("--config_file", str(ROOT / "accelerate_configs" / "cpu_2.yaml")),
        *("--main_process_port", port),
        *("-m", "finetune.train", str(tmp_path / "recipe.yaml"), *common),
    ]

    done = launch(*command, "name=two")
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu" in done.stderr
    assert done.stdout == f"{two.folder / 'model'}\n"
    of_one, of_two = ([float.fromhex(x) for x in hex_losses(run)] for run in (one, two))
    assert of_two[0] == pytest.approx(of_one[0], rel=1e-6)
    assert of_two[:-1] == pytest.approx(of_one[: len(of_two) - 1], rel=1e-4)
    before, after = (
        next(line for line in read_log(run.folder / "log.jsonl") if "loss_middle" in line)
        for run in (one, two)
    )
    assert after == pytest.approx(before, rel=1e-4)  # held-out losses by kind

    process = subprocess.Popen(
        [sys.executable, "-m", *command, "name=killed"], cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and len(read_log(killed.folder / "log.jsonl")) < 4:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed.folder / "model").exists()

    done = launch(*command, "name=killed")
    assert done.returncode == 0, done.stderr
    assert hex_losses(killed) == hex_losses(two)
    weights = [(run.folder / "model" / "model.safetensors").read_bytes() for run in (two, killed)]
    assert weights[0] == weights[1]
