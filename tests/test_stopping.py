"""When a run stops by itself, and whose weights are kept."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fim import FimError
from finetune.prepare import prepare
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.training.checkpoint import COMPLETE
from finetune.training.step_log import read_log
from finetune.training.stopping import WatchHeldOut, best_step, held_out_losses, load_best


def run(losses: list[float], stop_after: int, keep_best: bool) -> tuple[int, list[int], int | None]:
    """Return the step after which a run stops, the steps it saves, and its best step."""
    watch = WatchHeldOut(stop_after, keep_best)
    state = SimpleNamespace(
        log_history=[], global_step=0, max_steps=100, best_global_step=None,
        is_world_process_zero=True,
    )  # fmt: skip
    saved = []
    for step, loss in enumerate(losses, start=1):
        state.log_history += [{"step": step, "loss": 9.0}, {"step": step, "eval_loss_middle": loss}]
        state.global_step = step
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        watch.on_evaluate(None, state, control)
        saved += [step] * control.should_save
        if control.should_training_stop:
            break
    return state.global_step, saved, state.best_global_step


@pytest.mark.parametrize(
    ("losses", "stop_after", "stops"),
    [
        ([5, 4, 3, 2, 1], 1, 5),
        ([5, 4, 4, 3, 2], 1, 3),  # as low is not lower
        ([5, 4, 6, 3, 6, 6, 6], 2, 6),
        ([5, 6, 7, 8], 0, 4),
        ([5, math.nan, math.inf, 4, 6], 3, 5),
        ([math.nan, math.nan, math.nan], 2, 3),
    ],
)
def test_a_run_stops_after_so_many_losses_that_are_no_new_lowest(losses, stop_after, stops):
    assert run(losses, stop_after, keep_best=False)[0] == stops


def test_each_new_lowest_loss_is_saved_and_is_the_best():
    assert run([5, 4, 6, 3, 6], 0, keep_best=True) == (5, [1, 2, 4], 4)


def test_nothing_is_saved_for_a_best_that_is_not_asked_for():
    assert run([5, 4, 6, 3, 6], 0, keep_best=False) == (5, [], None)


def test_the_step_that_stops_is_no_checkpoint():
    watch, log = WatchHeldOut(1, True), [{"step": n, "eval_loss_middle": n} for n in (1, 2)]
    state = SimpleNamespace(
        log_history=log, global_step=2, max_steps=9, is_world_process_zero=False
    )
    control = SimpleNamespace(should_save=True, should_training_stop=False)

    watch.on_evaluate(None, state, control)

    assert (control.should_training_stop, control.should_save) == (True, False)


def test_a_stop_says_where_the_best_step_was(capsys):
    run([5, 4.5, 6, 6], 2, keep_best=True)

    assert capsys.readouterr().err == (
        "stopped at step 4 of 100: the held-out loss was lowest at step 2, 4.5000\n"
    )


def test_without_a_middle_autoregressive_samples_are_judged():
    only, both = {"eval_loss_ar": 2.0}, {"eval_loss_ar": 1.0, "eval_loss_middle": 3.0}

    losses = held_out_losses([{"step": 1, **only}, {"step": 2, **both}, {"step": 2, "loss": 0.5}])

    assert losses == [(1, 2.0), (2, 3.0)]
    assert best_step(losses) == (1, 1)


def trainer(best: int | None, now: int) -> SimpleNamespace:
    return SimpleNamespace(
        state=SimpleNamespace(best_global_step=best, global_step=now, best_model_checkpoint=None),
        loaded=0,
    )


@pytest.mark.parametrize("best", [None, 7])
def test_the_last_step_needs_no_loading(tmp_path, best):
    assert load_best(trainer(best, 7), tmp_path) == 7


def test_a_best_checkpoint_that_is_not_whole_is_refused(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()

    with pytest.raises(FimError, match="checkpoint-3: the weights of the lowest held-out loss are"):
        load_best(trainer(3, 7), tmp_path)


def make_recipe(tmp_path: Path, name: str, eval_rate: float = 0.2, **train: Any) -> Recipe:
    """Write six files and a recipe of eleven steps or so, and make its packs."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    for number in range(6):
        functions = (
            f"def name_{number}_{i}(value):\n    if value > {i}:\n"
            f"        return value * {number}\n    return [value, {i}]\n\n\n"
            for i in range(12)
        )
        (source / f"module_{number}.py").write_text("".join(functions))
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 16}
    recipe = {
        "name": name,
        "runs": str(tmp_path / "runs"),
        "model": {"adapter": "full", "scratch": {"vocab_size": 400, **sizes}},
        "corpus": {"sources": [{"folder": str(source)}], "split": {"eval_rate": eval_rate}},
        "fim": {"max_length": 256},
        "train": {"learning_rate": 1e-2, "eval_steps": 1, **train},
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(recipe))
    made = read_recipe(path)
    prepare(made)
    return made


def planned(losses: list[float], seen: dict[int, dict], killed_at: int = 0) -> Callable:
    """Stand in for `measure`: planned losses, and the weights they are said of."""

    def measure(held_out: Any, model: torch.nn.Module, *args: Any) -> dict[str, float]:
        step = len(seen) + 1
        if step == killed_at:
            raise KeyboardInterrupt
        seen[step] = {name: weight.clone() for name, weight in model.state_dict().items()}
        return {"loss_middle": losses[step - 1]}

    return measure


@pytest.mark.slow
def test_the_best_weights_are_the_result_after_a_stop_and_a_kill(tmp_path, monkeypatch):
    from finetune.train import train

    losses, settings = [5, 4, 3, 6, 6, 6, 6, 6, 6], {"keep_best": True, "stop_after": 4}
    seen: dict[int, dict] = {}
    monkeypatch.setattr("finetune.training.trainer.measure", planned(losses, seen))
    unbroken = make_recipe(tmp_path, "unbroken", **settings)
    folder = train(unbroken)
    killed = make_recipe(tmp_path, "killed", save_steps=1, **settings)
    monkeypatch.setattr("finetune.training.trainer.measure", planned(losses, {}, killed_at=6))
    with pytest.raises(KeyboardInterrupt):
        train(killed)
    # the last whole checkpoint is that of step 5
    monkeypatch.setattr(
        "finetune.training.trainer.measure", planned(losses, dict.fromkeys(range(1, 6)))
    )

    again = train(killed)

    log = [[line["step"] for line in read_log(run.folder / "log.jsonl") if "loss_middle" in line]
           for run in (unbroken, killed)]  # fmt: skip
    assert log == [[1, 2, 3, 4, 5, 6, 7]] * 2
    weights, resumed = (load_file(place / "model.safetensors") for place in (folder, again))
    assert all(torch.equal(weights[name], seen[3][name]) for name in weights)
    assert any(not torch.equal(weights[name], seen[7][name]) for name in weights)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert json.loads((folder / "manifest.json").read_text())["steps"] == 3
    assert (killed.folder / "checkpoints" / "checkpoint-3" / COMPLETE).exists()


def test_what_needs_held_out_files_is_refused_without_them(tmp_path):
    from finetune.train import train

    recipe = make_recipe(tmp_path, "none", eval_rate=0.0, keep_best=True)

    with pytest.raises(FimError, match="keep_best need held-out files, and there are none"):
        train(recipe)
