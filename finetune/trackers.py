"""What a tracker is told: numbers, and nothing else."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from transformers import TrainerCallback

from finetune.recipe import Recipe


class LogToWandb(TrainerCallback):
    """Numbers to wandb, and nothing else.

    transformers' own callback and wandb's defaults also send paths, the command line, the name of
    the machine and the model's configuration with the place of its base.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a run in the first process; raises an error of wandb without a login."""
        if not state.is_world_process_zero:
            return
        import wandb

        wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sfim"),
            name=self.recipe.name,
            dir=self.recipe.folder,
            config=recipe_numbers(self.recipe),
            settings=wandb.Settings(
                console="off", host="private", username="private", program="sfim",
                program_relpath="sfim", program_abspath="sfim", x_executable="python",
                disable_code=True, disable_git=True, disable_job_creation=True, silent=True,
                x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True,
                x_save_requirements=False,
            ),
        )  # fmt: skip

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Send the numbers of a step."""
        import wandb

        if wandb.run is not None and logs:
            numbers = {key: v for key, v in logs.items() if isinstance(v, int | float)}
            wandb.run.log({"step": state.global_step, **numbers})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the run, and delete wandb's own logs, which name the folder."""
        import wandb

        if wandb.run is None:
            return
        wandb.finish()
        for path in (self.recipe.folder / "wandb").rglob("debug*.log"):
            path.unlink(missing_ok=True)


def recipe_numbers(recipe: Recipe) -> dict[str, float]:
    """The settings a tracker may know: the numbers of `train` and `fim`, and those of LoRA."""
    lora = {k: v for k, v in asdict(recipe.model).items() if k.startswith("lora_")}
    sections = {"train": asdict(recipe.train), "fim": asdict(recipe.fim), "model": lora}
    return dict(_flat_numbers(sections, ""))


def _flat_numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value
