"""What a run leaves behind when it is killed: whole checkpoints, and a log that agrees with them.

transformers writes a checkpoint in place and resumes from the highest number, whole or not. Here a
checkpoint is flushed, then marked complete; a run resumes from the newest marked one, and its log
is cut back to that step, so that every step stands in it once. A checkpoint loses its mark before
its files: what a kill leaves of it is never taken for a whole one.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel, TrainerCallback

from finetune.store import fsync_path, fsync_tree, write_text
from finetune.training.guards import hold_back_writes, stop_if_one_failed

COMPLETE = "COMPLETE"
"""File whose presence says that everything beside it was flushed to the disk before."""
KEPT = 2
"""Whole checkpoints that stay; while one is written there are three."""


class MarkComplete(TrainerCallback):
    """Flush each checkpoint and mark it complete once every process has written its part."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and measure as often as this run asks, not as the one it resumes did."""
        state.compute_steps(args, state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint of the current step, and delete those older than the one before."""
        first, checkpoints = state.is_world_process_zero, Path(args.output_dir)
        errors: list[BaseException] = []
        with hold_back_writes(errors):
            if first:
                mark_complete(checkpoints / f"checkpoint-{state.global_step}")
                delete_older(checkpoints, state.best_global_step)
        stop_if_one_failed(errors, checkpoints, 0, first, args.device)


def mark_complete(folder: Path) -> None:
    """Flush a checkpoint's files, then mark it."""
    fsync_tree(folder)
    write_text(folder / COMPLETE, "")


def newest_complete(checkpoints: Path) -> Path | None:
    """Return the newest whole checkpoint and delete those that a crash left unfinished."""
    numbered = _numbered(checkpoints)
    whole = {step: folder for step, folder in numbered.items() if (folder / COMPLETE).exists()}
    for step in numbered.keys() - whole.keys():
        shutil.rmtree(numbered[step])
    return whole[max(whole)] if whole else None


def delete_older(checkpoints: Path, best: int | None = None) -> None:
    """Delete all but the newest two checkpoints and that of the step `best`."""
    numbered = _numbered(checkpoints)
    for step in sorted(numbered)[:-KEPT]:
        if step != best:
            delete_checkpoint(numbered[step])


def delete_checkpoint(folder: Path) -> None:
    """Take the mark off before the files go."""
    (folder / COMPLETE).unlink(missing_ok=True)
    fsync_path(folder)
    shutil.rmtree(folder)


def _numbered(checkpoints: Path) -> dict[int, Path]:
    folders = checkpoints.glob("checkpoint-*")
    matches = ((re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in folders)
    return {int(match[1]): folder for match, folder in matches if match}


def save_weights(
    model: PreTrainedModel | PeftModel, state: Mapping[str, torch.Tensor] | None, folder: Path
) -> None:
    """Write what a run resumes from: no tokenizer, no card, no path of the base.

    Args:
        model: of a `PeftModel` only the adapter is written.
        state: gathered weights of a sharded model; `None` takes the model's own.
        folder: made where it is missing.
    """
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder, state_dict=without_tied(model, state))
        return
    # peft's own writes the base's path into a card and the config
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, state, save_embedding_layers=False)
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy(model.peft_config["default"])
    config.base_model_name_or_path = None
    config.save_pretrained(str(folder))


def without_tied(
    model: PreTrainedModel, state: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor] | None:
    """Leave out of a gathered state the weights that the model ties to others; it holds both."""
    tied = model.all_tied_weights_keys
    return state and {name: weight for name, weight in state.items() if name not in tied}


def checkpoint_bytes(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int, strategy: str = ""
) -> int:
    """Bytes of a checkpoint, within 5 percent and some kilobytes.

    Args:
        model: of a `PeftModel` the weights that are trained count, else all.
        optimizer: its state counts as it is, which is nothing before the first step.
        steps: of the log that goes with it.
        strategy: Accelerate's name of it. FSDP keeps the weights in a file of its own beside the
            plain one, tied ones twice; DeepSpeed keeps the moments and trained weights of all
            processes in float32.
    """
    weights = saved_weights(model)
    moments = [
        value for state in optimizer.state.values() for value in state.values()
        if isinstance(value, torch.Tensor)
    ]  # fmt: skip
    again = saved_weights(model, with_tied=True) if strategy == "FSDP" else []
    tensors = [*weights, *again, *moments]
    framing = 300 * len(tensors) + 300 * steps + 2**15  # archives, the log, the random generators
    if strategy == "DEEPSPEED":
        framing += 2**16  # shapes of all weights, and scripts that put them together
        return weights_bytes(weights) + 12 * sum(map(whole_numel, weights)) + framing
    return weights_bytes(tensors) + framing


def saved_weights(model: torch.nn.Module, *, with_tied: bool = False) -> list[torch.nn.Parameter]:
    """Return what is written of a model: all, or of a `PeftModel` what is trained."""
    adapter = isinstance(model, PeftModel)
    named = model.named_parameters(remove_duplicate=not with_tied)
    return [p for _, p in named if p.requires_grad or not adapter]


def weights_bytes(tensors: Iterable[torch.Tensor], *, wide: bool = False) -> int:
    """Bytes of weights, whole where they are spread; `wide` counts at least four for each."""
    return sum(whole_numel(t) * max(t.element_size(), 4 * wide) for t in tensors)


def whole_numel(tensor: torch.Tensor) -> int:
    """Numbers in a weight; one that ZeRO-3 has dealt out is empty in every process."""
    return getattr(tensor, "ds_numel", tensor.numel())
