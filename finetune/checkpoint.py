"""What a run leaves behind when it is killed: whole checkpoints, and a log that agrees with them.

transformers writes a checkpoint in place and resumes from the highest number, whole or not. Here a
checkpoint is flushed, then marked complete; a run resumes from the newest marked one, and its log
is cut back to that step, so that every step stands in it once.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from finetune.store import fsync_tree, write_text

COMPLETE = "COMPLETE"
"""File whose presence says that everything beside it was flushed to the disk before."""


class MarkComplete(TrainerCallback):
    """Flush each checkpoint and mark it complete once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint of the current step."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def mark_complete(folder: Path) -> None:
    """Flush a checkpoint's files, then mark it."""
    # a pickle of the arguments, which may hold a token; and cards that name paths
    for name in ("training_args.bin", "README.md"):
        (folder / name).unlink(missing_ok=True)
    fsync_tree(folder)
    write_text(folder / COMPLETE, "")


def newest_complete(checkpoints: Path) -> Path | None:
    """Return the newest whole checkpoint and delete those that a crash left unfinished."""
    numbered = {
        int(folder.name.removeprefix("checkpoint-")): folder
        for folder in checkpoints.glob("checkpoint-*")
        if folder.name.removeprefix("checkpoint-").isdecimal()
    }
    whole = {step: folder for step, folder in numbered.items() if (folder / COMPLETE).exists()}
    for step in numbered.keys() - whole.keys():
        shutil.rmtree(numbered[step])
    return whole[max(whole)] if whole else None
