"""What a tracker is told: the numbers of the log and of the recipe, and nothing else.

transformers' own callbacks and the trackers' defaults also send paths, the command line, the names
of the machine and its user, and the model's configuration with the place of its base. What they
leave in the run folder holds none of it either, however a run ends.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from transformers import TrainerCallback

from fim import FimError
from finetune.recipe.schema import Recipe
from finetune.training.step_log import WriteLog

Send = Callable[[Mapping[str, float], int], None]
"""Takes numbers by their names, and the step they belong to."""
Close = Callable[[], None]
_PACKAGES = {"tensorboard": "tensorboard", "trackio": "'sfim[trackio]'", "wandb": "wandb"}
"""What pip installs for each tracker, which is also the module's name."""


class LogNumbers(TrainerCallback):
    """Sends each line of `log.jsonl` to the tracker of the recipe, from the first process."""

    def __init__(self, recipe: Recipe, log: WriteLog) -> None:
        self.recipe = recipe
        self.log = log
        self.send: Send | None = None
        self.close: Close | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a run; raises wandb's error without a login."""
        if state.is_world_process_zero:
            self.send, self.close = TRACKERS[self.recipe.train.report_to](self.recipe)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Send what the log, which is added before this, has just written."""
        line = self.log.newest
        numbers = {k: v for k, v in line.items() if k != "step" and isinstance(v, int | float)}
        if self.send and numbers:
            self.send(numbers, line["step"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the run."""
        if self.close:
            self.close()


def check_tracker(report_to: str) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        FimError: says what to install.
    """
    package = _PACKAGES.get(report_to)
    if package and find_spec(report_to) is None:
        raise FimError(f"train.report_to: {report_to} is missing; run: pip install {package}")


def recipe_numbers(recipe: Recipe) -> dict[str, float]:
    """The settings a tracker may know: the numbers of `train` and `fim`, and those of LoRA."""
    lora = {k: v for k, v in asdict(recipe.model).items() if k.startswith("lora_")}
    train = replace(recipe.train, anneal_sources={})  # keys are names of repositories
    sections = {"train": asdict(train), "fim": asdict(recipe.fim), "model": lora}
    return dict(_flat_numbers(sections, ""))


def _flat_numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value


def _open_wandb(recipe: Recipe) -> tuple[Send, Close]:
    """Open a run of Weights & Biases; its own logs, which name the folder, lose their names."""
    import wandb

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sfim"),
            name=recipe.name,
            dir=recipe.folder,
            config=recipe_numbers(recipe),
            settings=wandb.Settings(
                console="off", host="private", username="private", program="sfim",
                program_relpath="sfim", program_abspath="sfim", x_executable="python",
                disable_code=True, disable_git=True, disable_job_creation=True, silent=True,
                symlink=False, x_disable_meta=True, x_disable_machine_info=True,
                x_disable_stats=True, x_save_requirements=False,
            ),
        )  # fmt: skip
    finally:  # those of a run that was killed here, too; what is open is written to nowhere
        for path in (recipe.folder / "wandb").rglob("debug*.log"):
            path.unlink(missing_ok=True)
    return lambda numbers, step: run.log({"step": step, **numbers}), wandb.finish


def _open_tensorboard(recipe: Recipe) -> tuple[Send, Close]:
    """Open a file of events in `tensorboard/` of the run folder.

    The writers of torch and TensorBoard put the machine's name into its name.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder = recipe.folder / "tensorboard"
    folder.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(open(folder / f"events.out.tfevents.{time.time():.0f}", "ab"))

    def write(**of_event: Any) -> None:
        writer.write(Event(wall_time=time.time(), **of_event).SerializeToString())
        writer.flush()

    def send(numbers: Mapping[str, float], step: int) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        write(step=step, summary=Summary(value=values))

    write(file_version="brain.Event:2")
    return send, writer.close


def _open_trackio(recipe: Recipe) -> tuple[Send, Close]:
    """Open a run of trackio, which stays on this machine unless `TRACKIO_SPACE_ID` is set."""
    import trackio
    import trackio.run

    trackio.run._get_default_namespace = lambda: None  # would ask the hub for the user's name
    run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", "sfim"),
        name=recipe.name,
        config=recipe_numbers(recipe),
        resume="allow",
        private=True,
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    return lambda numbers, step: run.log(dict(numbers), step=step), run.finish


TRACKERS: dict[str, Callable[[Recipe], tuple[Send, Close]]] = {
    "wandb": _open_wandb,
    "tensorboard": _open_tensorboard,
    "trackio": _open_trackio,
}
