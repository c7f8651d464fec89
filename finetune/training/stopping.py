"""Which held-out loss was the lowest: when to stop, and whose weights are the result."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from fim import FimError
from finetune.progress import say
from finetune.training.checkpoint import COMPLETE


class WatchHeldOut(TrainerCallback):
    """Stops a run that learns no more, and has its best step saved.

    It remembers nothing itself: everything follows from the losses in the trainer's state, which
    every checkpoint holds, so a resumed run decides as the unbroken one.
    """

    def __init__(self, stop_after: int, keep_best: bool) -> None:
        self.stop_after = stop_after
        self.keep_best = keep_best

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Decide after a held-out loss, which stands in the log by now."""
        losses = held_out_losses(state.log_history)
        best, waited = best_step(losses)
        if self.keep_best:
            state.best_global_step = best
            control.should_save |= best == state.global_step
        if self.stop_after and waited >= self.stop_after:
            control.should_training_stop = True
            control.should_save = False  # a run that resumed from here would go on
            if state.global_step < state.max_steps:
                say(
                    f"stopped at step {state.global_step} of {state.max_steps}: the held-out loss "
                    f"was lowest at step {best}, {dict(losses)[best]:.4f}"
                )


def held_out_losses(entries: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return step and loss of each measurement in a trainer's log.

    The loss is that of MIDDLEs, and where none is held out that of autoregressive samples. One
    that is no number counts as infinite.
    """
    found = ((entry["step"], held_out_loss(entry, "eval_")) for entry in entries)
    return [(s, loss if math.isfinite(loss) else math.inf) for s, loss in found if loss is not None]


def held_out_loss(entry: Mapping[str, Any], prefix: str = "") -> float | None:
    """Return the loss that a measurement is judged by; `None` if the entry is no measurement."""
    return entry.get(f"{prefix}loss_middle", entry.get(f"{prefix}loss_ar"))


def best_step(losses: list[tuple[int, float]]) -> tuple[int, int]:
    """Return the first step with the lowest loss, and how many measurements came after it."""
    place = min(range(len(losses)), key=lambda place: losses[place][1])
    return losses[place][0], len(losses) - 1 - place


def load_best(trainer: Trainer, checkpoints: Path) -> int:
    """Put the weights of the best step into the trainer's model; every process takes part.

    Returns:
        The step whose weights the model has now.

    Raises:
        FimError: its checkpoint is not there, or not whole.
    """
    best, now = trainer.state.best_global_step, trainer.state.global_step
    if not best or best == now:
        return now
    folder = checkpoints / f"checkpoint-{best}"
    if not (folder / COMPLETE).exists():
        raise FimError(
            f"{folder}: the weights of the lowest held-out loss are gone; set "
            "train.keep_best=false and another name=, or train again"
        )
    trainer.state.best_model_checkpoint = str(folder)
    trainer._load_best_model()  # knows LoRA, FSDP and DeepSpeed
    return best
