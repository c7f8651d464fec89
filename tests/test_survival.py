"""What a run survives: kills, signals, full disks, numbers that are none, spikes, a second run."""

import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soak
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from fim import FimError
from finetune import cli
from finetune import train as train_module
from finetune.prepare import prepare
from finetune.recipe.schema import Recipe
from finetune.store import append_text, hold_run
from finetune.train import main, make_trainer, train
from finetune.training import guards
from finetune.training.checkpoint import (
    COMPLETE,
    checkpoint_bytes,
    delete_older,
    mark_complete,
    newest_complete,
)
from finetune.training.guards import (
    Stopped,
    catch_signals,
    explain_full_disk,
    explained,
    find_spike,
    hold_back_writes,
    leave_at_once,
)
from finetune.training.step_log import read_log

ROOT = Path(__file__).parents[1]
TOKEN = "hf_plantedToken4711"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, Recipe]:
    """A full run and one of an adapter, prepared; they save at every step."""
    folder = tmp_path_factory.mktemp("survival")
    scratch = {"adapter": "full", "scratch": soak.SCRATCH}
    full = soak.write_recipe(folder, "full", scratch, epochs=4)
    base = soak.write_recipe(folder, "base", scratch, max_tokens=300)
    prepare(base)
    model = {"adapter": "lora", "name": str(train(base)), "lora_dropout": 0.1}
    lora = soak.write_recipe(folder, "lora", model)
    for recipe in (full, lora):
        prepare(recipe)
    return {"full": full, "lora": lora}


@pytest.fixture(autouse=True)
def _foreground() -> Iterator[None]:
    """Take signals as at a terminal: what a shell or `nohup` starts may ignore some."""
    numbers = [signal.SIGINT, signal.SIGHUP]
    outside = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, action in zip(numbers, outside, strict=True):
        signal.signal(number, action)


@pytest.fixture
def run(prepared, tmp_path) -> Callable[..., Recipe]:
    """A factory `(adapter, **train) -> Recipe` of runs that are prepared and not begun."""

    def make(adapter: str = "full", **values: object) -> Recipe:
        recipe = prepared[adapter]
        recipe = replace(recipe, train=replace(recipe.train, **values))
        for stage in soak.PREPARED:
            if (recipe.folder / stage).exists():
                shutil.copytree(recipe.folder / stage, tmp_path / adapter / stage)
        return replace(recipe, runs=str(tmp_path))

    return make


def losses(recipe: Recipe) -> list[tuple[int, str]]:
    return soak.hex_losses(recipe)


def spoil(monkeypatch, change: Callable[[train_module.PackTrainer], None]) -> None:
    """Let `change` at every trainer that `train` makes."""
    make = train_module.make_trainer

    def make_and_change(recipe: Recipe) -> tuple:
        made = make(recipe)
        change(made[0])
        return made

    monkeypatch.setattr(train_module, "make_trainer", make_and_change)


class At(TrainerCallback):
    """Do something once a step has been trained."""

    def __init__(self, steps: int | range, work: Callable[[], object]) -> None:
        self.steps = range(steps, steps + 1) if isinstance(steps, int) else steps
        self.work = work

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 in self.steps:
            self.work()


def weights_of(trainer: train_module.PackTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.slow
def test_killed_runs_lose_one_step_at_most_and_not_a_bit(tmp_path):
    command = [sys.executable, "tests/soak.py", "--kills", "2", "--states", "0.02"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["configuration"] for line in lines] == [
        "lora-1", "full-1", "lora-2", "full-2", "lora-states", "full-states",
    ]  # fmt: skip
    for line in lines:
        assert {key: line[key] for key in soak.LOST} == dict.fromkeys(soak.LOST, 0)
    assert all(line["kills"] == 2 and line["losses_compared"] >= 12 for line in lines[:4])
    assert all(line["states"] > 50 and line["started_in"] >= 1 for line in lines[4:])


def digest(values: Iterable[object]) -> str:
    total = hashlib.sha256()
    for value in values:
        is_tensor = isinstance(value, torch.Tensor)
        total.update(value.numpy().tobytes() if is_tensor else repr(value).encode())
    return total.hexdigest()


def watch_steps(trainer: train_module.PackTrainer, first: int = 0, last: int = 99) -> dict:
    """Take digests of all that a step depends on, before the steps from `first` to `last`."""
    seen: dict[int, dict[str, str]] = {}
    fetch = trainer.get_batch_samples

    def fetch_and_keep(*args):
        batches, count = fetch(*args)
        trainer.next_ids = [batch["input_ids"].tolist() for batch in batches]
        return batches, count

    def keep() -> None:
        step = trainer.state.global_step
        state = trainer.optimizer.state_dict()
        moments = [sorted(of_weight.items()) for of_weight in state["state"].values()]
        seen[step] = {
            "weights": digest(value for _, value in sorted(weights_of(trainer).items())),
            "optimizer": digest(part for pairs in moments for pair in pairs for part in pair),
            "learning rate": state["param_groups"][0]["lr"].hex(),
            "generators": digest([torch.get_rng_state(), random.getstate()]),
            "batches": digest(trainer.next_ids),
        }
        if step >= last:
            trainer.control.should_training_stop = True

    trainer.get_batch_samples = fetch_and_keep
    trainer.add_callback(At(range(first, 99), keep))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_ten_points_to_go_on_from_have_equal_state(prepared, run, tmp_path, adapter):
    if adapter == "full":
        recipe = run("full")
    else:  # several epochs, and several micro-steps in a step
        model = {"adapter": "lora", "name": prepared["lora"].model.name, "lora_dropout": 0.1}
        values = {"epochs": 9, "gradient_accumulation": 5}
        recipe = soak.write_recipe(tmp_path, "long", model, **values)
        prepare(recipe)
    trainer, _, _ = make_trainer(recipe)
    unbroken = watch_steps(trainer)
    checkpoints = tmp_path / "kept"

    def keep(folder: Path) -> None:
        shutil.copytree(folder, checkpoints / folder.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.training.checkpoint.mark_complete", keep)
        trainer.train()
    assert len(unbroken) >= 11
    for step in range(1, 11):
        trainer, _, _ = make_trainer(recipe)
        resumed = watch_steps(trainer, last=step)
        trainer.train(resume_from_checkpoint=str(checkpoints / f"checkpoint-{step}"))

        assert resumed[step] == unbroken[step], step


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_load_data_change_nothing(run, monkeypatch, workers):
    make = train_module.training_arguments

    def with_workers(*args):
        arguments = make(*args)
        arguments.dataloader_num_workers = workers
        return arguments

    recipe = run("lora", max_tokens=1000)
    plain = replace(recipe, name="plain")
    shutil.copytree(recipe.folder, plain.folder)
    train(plain)
    monkeypatch.setattr(train_module, "training_arguments", with_workers)

    train(recipe)

    assert len(losses(plain)) >= 3
    assert losses(recipe) == losses(plain)


def spoil_loss(trainer: train_module.PackTrainer) -> None:
    compute = trainer.compute_loss

    def compute_and_spoil(*args, **kwargs):
        loss = compute(*args, **kwargs)
        return loss * math.nan if trainer.state.global_step == 3 else loss

    trainer.compute_loss = compute_and_spoil


def spoil_gradient(trainer: train_module.PackTrainer) -> None:
    weight = next(p for p in trainer.model.parameters() if p.requires_grad)
    weight.register_hook(lambda g: g * math.inf if trainer.state.global_step == 3 else g)


def spoil_data(trainer: train_module.PackTrainer) -> None:
    def spoil_embeddings(module, inputs, output):
        return output * math.nan if trainer.state.global_step == 3 else output

    trainer.model.get_input_embeddings().register_forward_hook(spoil_embeddings)


@pytest.mark.parametrize("change", [spoil_loss, spoil_gradient, spoil_data])
def test_a_number_that_is_none_ends_the_run_at_its_step(run, monkeypatch, capsys, change):
    recipe = run()
    trainers = []
    spoil(monkeypatch, change)
    spoil(monkeypatch, trainers.append)
    before = []
    spoil(monkeypatch, lambda t: t.add_callback(At(4, lambda: before.append(weights_of(t)))))
    monkeypatch.setattr(train_module, "read_recipe", lambda *_: recipe)

    assert main(["recipe.yaml"]) == 1

    error = capsys.readouterr().err.splitlines()[-1]
    found = re.fullmatch(r"error: (step 4: the (loss|gradient norm) is (nan|inf)); lower .*", error)
    lines = read_log(recipe.folder / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert lines[-1] == {"step": 3, "stopped": found[1]}
    after = weights_of(trainers[0])
    assert all(torch.equal(after[name], weight) for name, weight in before[0].items())
    assert newest_complete(recipe.folder / "checkpoints").name == "checkpoint-3"
    json.loads(
        (recipe.folder / "log.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail
    )


def make_history(steps: int) -> list[dict]:
    return [{"loss": 2 + 0.1 * (i % 3), "grad_norm": 1 + 0.2 * (i % 2)} for i in range(steps)]


@pytest.mark.parametrize(
    ("steps", "loss", "grad_norm", "expected"),
    [
        (200, 2.4, 1.1, None),
        (200, 2.7, 1.1, "loss 2.7 is 7.3 deviations above the last 128 steps"),
        (200, 2.1, 1.8, None),
        (200, 2.1, 110.0, "gradient norm 110 is 50.4 deviations above the last 128 steps"),
        (64, 200.0, 1.1, "loss 200 is 2395.9 deviations above the last 64 steps"),
        (63, 200.0, 1.1, "loss 200 is 95.2 times the mean"),
        (63, 8.0, 999.0, None),
        (7, 200.0, 1.1, None),
    ],
)
def test_a_spike_is_far_above_the_steps_before_it(steps, loss, grad_norm, expected):
    assert find_spike(make_history(steps), loss, grad_norm, 6.0) == expected
    assert find_spike(make_history(steps), loss, grad_norm, 0.0) is None


def test_held_out_losses_are_no_steps():
    history = [line for step in make_history(128) for line in (step, {"eval_loss": 9.0})]

    assert find_spike(history, 2.7, 1.1, 6.0) == find_spike(make_history(128), 2.7, 1.1, 6.0)


def add_spike(trainer: train_module.PackTrainer) -> None:
    compute = trainer.compute_loss

    def compute_and_add(*args, **kwargs):
        return compute(*args, **kwargs) * (100 if trainer.state.global_step == 9 else 1)

    trainer.compute_loss = compute_and_add


def test_a_spike_is_skipped_named_and_skipped_again_after_a_stop(run, monkeypatch, capsys):
    recipe = run()
    unbroken = replace(recipe, name="unbroken")
    shutil.copytree(recipe.folder, unbroken.folder)
    seen: dict[int, dict[str, torch.Tensor]] = {}
    spoil(monkeypatch, add_spike)
    with monkeypatch.context() as patch:
        spoil(patch, lambda t: t.add_callback(
            At(range(10, 12), lambda: seen.update({t.state.global_step: weights_of(t)}))
        ))  # fmt: skip
        train(unbroken)
    error = capsys.readouterr().err

    assert all(torch.equal(seen[9][name], weight) for name, weight in seen[10].items())
    lines = read_log(unbroken.folder / "log.jsonl")
    (skipped,) = [line for line in lines if "skipped" in line]
    assert skipped["step"] == 10
    assert skipped["loss"] > 100
    assert f"step 10: skipped, {skipped['skipped']}\n" in error
    assert re.search(r"skipped 1 of \d+ steps as spikes; log.jsonl names them\n", error)

    with monkeypatch.context() as patch:
        spoil(patch, lambda t: t.add_callback(At(9, lambda: os.kill(os.getpid(), signal.SIGTERM))))
        with pytest.raises(Stopped):
            train(recipe)
    train(recipe)
    assert losses(recipe) == losses(unbroken)
    assert [x.get("skipped") for x in read_log(recipe.folder / "log.jsonl")] == [
        x.get("skipped") for x in lines
    ]


@pytest.mark.slow
def test_twenty_signals_stop_a_run_twenty_times_and_change_nothing(run, monkeypatch, capsys):
    recipe = run()
    unbroken = replace(recipe, name="unbroken")
    shutil.copytree(recipe.folder, unbroken.folder)
    train(unbroken)
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1] * 5
    monkeypatch.setattr(train_module, "read_recipe", lambda *_: recipe)
    steps = len(losses(unbroken))
    assert steps > len(numbers)

    outside = signal.getsignal(signal.SIGTERM)
    for step, number in enumerate(numbers, 1):
        with monkeypatch.context() as patch:
            spoil(patch, lambda t: t.add_callback(
                At(step, lambda: os.kill(os.getpid(), number))  # noqa: B023
            ))  # fmt: skip
            started = time.monotonic()
            assert main(["recipe.yaml"]) == 128 + number
            assert time.monotonic() - started < 60
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"stopped by {number.name} after step {step} of {steps}; run again to go on"
        )
        assert newest_complete(recipe.folder / "checkpoints").name == f"checkpoint-{step}"
        assert signal.getsignal(signal.SIGTERM) is outside

    assert main(["recipe.yaml"]) == 0
    assert losses(recipe) == losses(unbroken)
    assert soak.weights_digest(recipe) == soak.weights_digest(unbroken)


def test_a_signal_in_the_last_step_lets_the_run_end(run, monkeypatch):
    recipe = run(max_tokens=600)
    spoil(monkeypatch, lambda t: t.add_callback(
        At(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    ))  # fmt: skip

    assert (train(recipe) / "model.safetensors").exists()
    assert len(losses(recipe)) == 2


def test_a_second_signal_stops_at_once_and_a_repeated_one_does_not(capfd, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: 10.0)
    monkeypatch.setattr(guards, "time", clock)

    def signal_twice() -> None:
        with catch_signals() as caught:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            assert caught == [signal.SIGTERM, signal.SIGINT]
            clock.monotonic = lambda: 12.0
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        signal_twice()
    assert capfd.readouterr().err == "stopping as soon as all is saved; once more stops at once\n"


def test_a_signal_that_nohup_ignores_stays_ignored():
    outside = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals() as caught:
            os.kill(os.getpid(), signal.SIGHUP)
        assert caught == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, outside)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_full_disk_names_folder_and_bytes_and_leaves_the_older_checkpoints(run, adapter):
    recipe = run(adapter, max_tokens=1000)
    trainer, _, _ = make_trainer(recipe)
    trainer.train()
    checkpoints = recipe.folder / "checkpoints"
    whole = sorted(checkpoints.iterdir())
    before = {path: path.read_bytes() for path in checkpoints.rglob("*") if path.is_file()}
    largest = max(map(len, before.values()))
    trainer.state.global_step += 1
    cuts = [0, 1, 63, 500, *(largest * part // 12 for part in range(1, 12))]

    for cut in cuts:
        with file_limit(cut), pytest.raises(FimError) as stopped:
            trainer._save_checkpoint(trainer.model, None)

        assert re.fullmatch(
            rf"{re.escape(str(checkpoints))}: (File too large|disk full): [\d,]+ bytes needed, "
            r"[\d,]+ free; make room and run again, it goes on from the last checkpoint",
            str(stopped.value),
        )
        assert sorted(checkpoints.iterdir()) == whole
        assert all(path.read_bytes() == content for path, content in before.items())


def test_a_run_that_filled_the_disk_goes_on_when_there_is_room(run, monkeypatch, capsys):
    recipe = run()
    unbroken = replace(recipe, name="unbroken")
    shutil.copytree(recipe.folder, unbroken.folder)
    train(unbroken)
    monkeypatch.setattr(train_module, "read_recipe", lambda *_: recipe)
    free = shutil.disk_usage(recipe.folder)._replace(free=1234)
    with monkeypatch.context() as patch:
        fill = SimpleNamespace(disk_usage=lambda path: free)
        spoil(patch, lambda t: t.add_callback(At(5, lambda: patch.setattr(guards, "shutil", fill))))
        assert main(["recipe.yaml"]) == 1

    line = capsys.readouterr().err.splitlines()[-1]
    needed = re.fullmatch(
        rf"error: {recipe.folder}/checkpoints: No space left on device: ([\d,]+) bytes needed, "
        "1,234 free; make room and run again, it goes on from the last checkpoint", line,
    )[1]  # fmt: skip
    assert int(needed.replace(",", "")) > 1234
    assert newest_complete(recipe.folder / "checkpoints").name == "checkpoint-4"
    assert main(["recipe.yaml"]) == 0
    assert losses(recipe) == losses(unbroken)


def test_a_checkpoint_takes_the_bytes_that_were_told(tmp_path, run):
    for adapter in ("full", "lora"):
        recipe = run(adapter, max_tokens=600)
        trainer, _, _ = make_trainer(recipe)
        trainer.train()
        told = checkpoint_bytes(trainer.model, trainer.optimizer, 2)
        folder = recipe.folder / "checkpoints" / "checkpoint-2"
        real = sum(path.stat().st_size for path in folder.iterdir())

        assert real <= told
        assert told - real < 0.05 * real + 60_000


def test_no_room_for_the_result_is_said_before_anything_is_trained(run, monkeypatch, capsys):
    recipe = run(save_steps=0)
    monkeypatch.setattr(train_module, "read_recipe", lambda *_: recipe)
    free = shutil.disk_usage(recipe.folder)._replace(free=1234)
    with monkeypatch.context() as patch:
        patch.setattr(guards, "shutil", SimpleNamespace(disk_usage=lambda path: free))
        assert main(["recipe.yaml"]) == 1

    line = capsys.readouterr().err.splitlines()[-1]
    needed = re.fullmatch(
        rf"error: {recipe.folder}: No space left on device: ([\d,]+) bytes needed, 1,234 free; "
        "make room and run again", line,
    )[1]  # fmt: skip
    assert not (recipe.folder / "log.jsonl").exists()
    assert main(["recipe.yaml"]) == 0
    real = (recipe.folder / "model" / "model.safetensors").stat().st_size
    assert 0 <= real - int(needed.replace(",", "")) < 3000


def test_checkpoints_of_another_strategy_are_refused(run, monkeypatch):
    recipe = run(max_tokens=600)
    train(recipe)
    shutil.rmtree(recipe.folder / "model")
    monkeypatch.setattr(train_module, "asked_strategy", lambda: "FSDP")

    with pytest.raises(FimError, match=r"checkpoints of another .* or strategy; give another"):
        train(recipe)


def test_a_base_that_is_spread_over_devices_is_not_moved_to_one(run, monkeypatch):
    recipe, elsewhere = run("lora"), torch.device("meta")
    assert train_module._load_model(recipe, None, elsewhere).device == elsewhere
    monkeypatch.setattr(train_module, "asked_strategy", lambda: "FSDP")

    assert train_module._load_model(recipe, None, elsewhere).device == torch.device("cpu")


def test_an_error_of_torch_save_waits_and_nothing_is_written_after_it(tmp_path):
    save, errors = torch.save, []
    with hold_back_writes(errors):
        torch.save(1, tmp_path / "first")
        torch.save(2, tmp_path / "absent" / "second")
        torch.save(3, tmp_path / "third")
        raise OSError(5, "Input/output error")

    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert [type(error) for error in errors] == [RuntimeError, OSError]
    assert torch.save is save


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error"), "Input/output error; mend the disk and run again"),
        (RuntimeError("connection closed by peer\nby it"), "connection closed by peer"),
    ],
)
def test_a_process_that_others_wait_for_leaves_at_once_with_a_line(
    tmp_path, monkeypatch, capfd, error, said
):
    monkeypatch.setattr(os, "_exit", sys.exit)

    with pytest.raises(SystemExit, match=r"^1$"):
        leave_at_once(error, tmp_path, 1)

    assert capfd.readouterr().err == f"error: {tmp_path}: {said}\n"


def test_a_disk_that_fails_is_told_from_one_that_is_full(tmp_path):
    with pytest.raises(FimError, match=r"Input/output error; mend the disk and run again$"):
        with explain_full_disk(tmp_path, 1):
            raise OSError(5, "Input/output error")
    with pytest.raises(FimError, match=r"Read-only file system; mend the disk"):
        with explain_full_disk(tmp_path, 1):
            raise SafetensorError("Read-only file system (os error 30)")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: an illegal address"), PermissionError(13, "Permission denied")],
)
def test_other_errors_stay_what_they_are_where_room_has_become_short(tmp_path, error):
    assert explained(error, tmp_path, 2**62) is error
    failed = OSError(5, "Input/output error")
    assert "Input/output error; mend" in str(explained(failed, tmp_path, 2**62))


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), explain_full_disk(tmp_path, 1):
        raise RuntimeError("shape mismatch")
    with pytest.raises(PermissionError), explain_full_disk(tmp_path, 1):
        raise PermissionError(13, "Permission denied", "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_is_named(run, monkeypatch, capsys):
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        append_text(Path("/dev/full"), "x")
    recipe = run()
    log = recipe.folder / "log.jsonl"

    def fill() -> None:
        log.rename(log.with_name("log.kept"))
        log.symlink_to("/dev/full")

    spoil(monkeypatch, lambda t: t.add_callback(At(3, fill)))
    monkeypatch.setattr(train_module, "read_recipe", lambda *_: recipe)

    assert main(["recipe.yaml"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {log}: No space left on device"
    assert newest_complete(recipe.folder / "checkpoints").name == "checkpoint-2"


def test_a_second_run_in_one_folder_is_refused_in_one_line(run, monkeypatch, capsys):
    recipe = run()
    monkeypatch.setattr(train_module, "read_recipe", lambda *_: recipe)

    with hold_run(recipe.folder):
        assert main(["recipe.yaml"]) == 1

    assert capsys.readouterr() == (
        "", f"error: {recipe.folder}: another process is writing there; wait for it\n",
    )  # fmt: skip
    with hold_run(recipe.folder):  # the end of a run lets go
        pass


def test_a_killed_run_holds_nothing(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from finetune.store import hold_run\n"
        "with hold_run(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(FimError, match="another process is writing there"), hold_run(tmp_path):
        pass

    process.kill()
    process.communicate()

    with hold_run(tmp_path):
        pass


def name_best(trainer: train_module.PackTrainer) -> None:
    trainer.state.best_global_step = 1  # transformers adds the path of its checkpoint


def test_no_token_and_no_path_is_in_checkpoints_and_adapter(run, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    tmp_root = str(tmp_path_factory.getbasetemp())
    for adapter in ("full", "lora"):
        recipe = run(adapter)
        spoil(monkeypatch, lambda t: setattr(t.args, "hub_token", TOKEN))
        spoil(monkeypatch, lambda t: t.add_callback(At(2, lambda: name_best(t))))
        names = set()

        def check(folder: Path) -> None:
            for path in folder.rglob("*"):
                names.add(path.name)  # noqa: B023
                for private in (TOKEN, tmp_root, str(ROOT), f"{Path.home()}/"):
                    content = path.read_bytes() if path.is_file() else b""
                    assert private == "//" or private.encode() not in content, path

        checkpoints = recipe.folder / "checkpoints"
        spoil(monkeypatch, lambda t: t.add_callback(At(3, lambda: check(checkpoints))))  # noqa: B023
        check(train(recipe))
        check(checkpoints)

        assert "trainer_state.json" in names
        assert "training_args.bin" not in names


def test_a_checkpoint_without_some_weights_is_refused(run):
    recipe = run(max_tokens=600)
    train(recipe)
    file = recipe.folder / "checkpoints" / "checkpoint-2" / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    trainer, _, _ = make_trainer(recipe)

    with pytest.raises(FimError, match=r"checkpoints: no model\.norm\.weight in the checkpoint"):
        trainer.train(resume_from_checkpoint=str(file.parent))


def test_the_command_line_ends_a_stopped_run_with_the_code_of_its_signal(monkeypatch, capsys):
    def stop(_: object) -> None:
        raise Stopped("stopped by SIGTERM after step 1 of 2; run again to go on", signal.SIGTERM)

    monkeypatch.setattr(cli, "_recipe", lambda _: None)
    monkeypatch.setattr(train_module, "train", stop)

    assert cli.main(["train", "recipe.yaml"]) == 143
    assert capsys.readouterr() == ("", "stopped by SIGTERM after step 1 of 2; run again to go on\n")


def make_checkpoints(folder: Path, steps: range) -> None:
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"weights")
        mark_complete(folder / f"checkpoint-{step}")


def test_old_checkpoints_go_by_their_step_and_lose_their_mark_first(tmp_path, monkeypatch):
    make_checkpoints(tmp_path, range(8, 12))
    os.utime(tmp_path / "checkpoint-8", (2e9, 2e9))  # as a kill in the middle of deleting leaves it
    marked = []
    rmtree = shutil.rmtree

    def look_and_delete(folder, **kwargs):
        marked.append((folder / COMPLETE).exists())
        rmtree(folder, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", look_and_delete)

    delete_older(tmp_path, best=9)

    assert marked == [False]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10", "checkpoint-11", "checkpoint-9",
    ]  # fmt: skip
