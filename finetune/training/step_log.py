"""What a run says while it trains: `log.jsonl`, a line per step, and its progress on stderr."""

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from finetune.progress import say
from finetune.store import append_text, fsync_path, write_text
from finetune.training.stopping import held_out_loss

LOG = "log.jsonl"
SPOKEN = 10
"""Lines of progress in a whole run where stderr is no terminal."""


class WriteLog(TrainerCallback):
    """One JSON line per step and per held-out loss in `log.jsonl`.

    Equal runs write equal lines, but for `seconds`, `tokens_per_second` and `mfu`.
    """

    def __init__(
        self,
        path: Path,
        tokens_per_row: Sequence[int],
        rows_per_step: int,
        flops_per_row: Sequence[float] = (),
        peak_flops: float = 0.0,
    ) -> None:
        """Take what a step is made of.

        Args:
            path: of the log.
            tokens_per_row: tokens of each pack, in the order of the training.
            rows_per_step: packs of an optimizer step, of all processes.
            flops_per_row: operations of each pack, if they could be counted.
            peak_flops: most operations a second of all devices together; 0 if unknown.
        """
        self.path = path
        self.tokens_after_row = [0, *accumulate(tokens_per_row)]
        self.flops_after_row = [0.0, *accumulate(flops_per_row)]
        self.rows_per_step = rows_per_step
        self.peak_flops = peak_flops if flops_per_row else 0.0
        self.started = time.monotonic()
        self.since: float | None = None
        self.newest: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop what a killed run logged after the checkpoint that this one resumes from."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_log(self.path) if line["step"] <= state.global_step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        seconds = max((line.get("seconds", 0.0) for line in kept), default=0.0)
        self.started = time.monotonic() - seconds

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of a step, unless it runs since the last one ended."""
        self.since = self.since or time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Append training and held-out losses as they come."""
        self.newest = {}
        if not state.is_world_process_zero or not logs:
            return
        line: dict[str, Any] = {"step": state.global_step}
        if "loss" in logs:
            line |= self._step(state.global_step, logs)
        elif "stopped" in logs:  # on a number that JSON has not
            line["stopped"] = logs["stopped"]
        elif held_out := {key[5:]: v for key, v in logs.items() if key.startswith("eval_")}:
            line |= held_out
            self.since = None
        else:
            return
        self.newest = line
        append_text(self.path, json.dumps(line) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Flush the log before `MarkComplete`, which is added after this, marks the checkpoint."""
        self.since = None
        if state.is_world_process_zero and self.path.exists():
            fsync_path(self.path)

    def _step(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        seconds = max(now - (self.since or self.started), 1e-9)
        self.since = now
        tokens, flops = (
            self._of_step(sums, step) for sums in (self.tokens_after_row, self.flops_after_row)
        )
        return {
            "tokens": self.tokens_after_row[self._rows(step)],
            "seconds": round(now - self.started, 3),
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "tokens_per_second": round(tokens / seconds, 1),
            "mfu": round(flops / seconds / self.peak_flops, 4) if self.peak_flops else None,
        } | {key: logs[key] for key in ("skipped",) if key in logs}

    def _rows(self, step: int) -> int:
        return min(step * self.rows_per_step, len(self.tokens_after_row) - 1)

    def _of_step(self, sums: Sequence[float], step: int) -> float:
        if len(sums) == 1:
            return 0.0
        return sums[self._rows(step)] - sums[self._rows(step - 1)]


class ShowProgress(TrainerCallback):
    """Loss, speed and time left on stderr: a bar on a terminal, else ten lines a run."""

    def __init__(self, log: WriteLog) -> None:
        self.log = log
        self.held_out = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the bar where stderr is a terminal."""
        hidden = None if state.is_world_process_zero else True
        self.begun = time.monotonic()
        self.first = state.global_step
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, disable=hidden)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest figures; the log is added before this and has them."""
        self.bar.update(state.global_step - self.bar.n)
        line = self.log.newest
        held_out = held_out_loss(line)
        if held_out is not None:
            self.held_out = f", held out {held_out:.3f}"
        if "loss" not in line:
            return
        chip = "" if line["mfu"] is None else f", {line['mfu']:.0%} of the chip"
        speed = f"{line['tokens_per_second']:,.0f} tokens/s{chip}"
        figures = f"loss {line['loss']:.3f}{self.held_out}, {speed}"
        self.bar.set_postfix_str(figures)
        step, steps = state.global_step, state.max_steps
        if self.bar.disable and step * SPOKEN // steps > (step - 1) * SPOKEN // steps:
            left = (time.monotonic() - self.begun) / (step - self.first) * (steps - step)
            say(f"step {step} of {steps}, {figures}, {timedelta(seconds=round(left))} left")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the finished bar."""
        self.bar.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read `log.jsonl`; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
