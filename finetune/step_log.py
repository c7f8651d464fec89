"""What a run says while it trains: `log.jsonl`, a line per step, and a bar on the terminal."""

import json
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from finetune.store import fsync_path, write_text

LOG = "log.jsonl"


class WriteLog(TrainerCallback):
    """One JSON line per logged step in `log.jsonl`."""

    def __init__(self, path: Path, tokens_per_row: Sequence[int], rows_per_step: int) -> None:
        self.path = path
        self.tokens_after_row = [0, *accumulate(tokens_per_row)]
        self.rows_per_step = rows_per_step
        self.started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop what a killed run logged after the checkpoint that this one resumes from."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_log(self.path) if line["step"] <= state.global_step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        seconds = max((line.get("seconds", 0.0) for line in kept), default=0.0)
        self.started = time.monotonic() - seconds

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append training and held-out losses as they come."""
        if not state.is_world_process_zero or not logs:
            return
        line: dict[str, Any] = {"step": state.global_step}
        if "loss" in logs:
            rows = min(state.global_step * self.rows_per_step, len(self.tokens_after_row) - 1)
            line |= {
                "tokens": self.tokens_after_row[rows],
                "loss": logs["loss"],
                "learning_rate": logs.get("learning_rate"),
                "grad_norm": logs.get("grad_norm"),
                "seconds": round(time.monotonic() - self.started, 3),
            }
        elif "eval_loss" in logs:
            line["eval_loss"] = logs["eval_loss"]
        else:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Flush the log before `MarkComplete`, which is added after this, marks the checkpoint."""
        if state.is_world_process_zero and self.path.exists():
            fsync_path(self.path)


class ShowProgress(TrainerCallback):
    """A bar with the loss on stderr; transformers' own writes losses to stdout."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the bar where stderr is a terminal."""
        hidden = None if state.is_world_process_zero else True
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, disable=hidden)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest loss."""
        self.bar.update(state.global_step - self.bar.n)
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the finished bar."""
        self.bar.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read `log.jsonl`; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
