"""What ends a run or skips a step before harm is done: signals, spikes, a full disk."""

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint import CheckpointException

from fim import FimError
from finetune.progress import first_line

WINDOW = 128
"""Steps that a new one is compared with."""
_FEW = 8
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FAILING = {errno.EIO, errno.EROFS, errno.ESTALE}
_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]  # fmt: skip


class Stopped(KeyboardInterrupt):
    """A signal ended the run after a checkpoint was saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect the signals that ask a run to stop; one more than a second later stops it at once.

    A signal that is ignored outside, as `nohup` does with SIGHUP, stays ignored.
    """
    caught: list[int] = []
    first = 0.0

    def note(number: int, frame: Any) -> None:
        nonlocal first
        if caught and time.monotonic() - first > 1:  # launchers repeat what the terminal sent
            raise KeyboardInterrupt
        if not caught:
            first = time.monotonic()
            os.write(2, b"stopping as soon as all is saved; once more stops at once\n")
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    outside = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number in _SIGNALS if outside[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number in taken:
            signal.signal(number, outside[number] or signal.SIG_DFL)


def sum_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    """Add numbers up over all processes, which get the same bits and so decide alike."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return total.tolist()


def find_spike(
    history: Sequence[Mapping[str, Any]], loss: float, grad_norm: float, sigmas: float
) -> str | None:
    """Say what puts a step far above the 128 before it.

    A loss is far above when it is more than `sigmas` standard deviations over the mean; so is a
    gradient norm, on the logarithmic scale: norms are skewed, and their plain deviations call one
    healthy step in 300 a spike. With less than 64 steps to compare with, and at least 8, only a
    loss over four times the mean is a spike.

    Args:
        history: lines with the `loss` and `grad_norm` of each step so far, among others.
        loss: of this step.
        grad_norm: of this step, before clipping.
        sigmas: 0 finds nothing.

    Returns:
        The finding, or `None`.

    Source:
        Groeneveld et al., OLMo-core, `optim/skip_step_optimizer.py`: window and six deviations.
    """
    lines = [line for line in history[-2 * WINDOW :] if "grad_norm" in line][-WINDOW:]
    if not sigmas or len(lines) < _FEW:
        return None
    losses = np.array([line["loss"] for line in lines])
    if len(lines) < WINDOW // 2:
        mean = float(losses.mean())
        return f"loss {loss:.4g} is {loss / mean:.1f} times the mean" if loss > 4 * mean else None
    norms = _log([line["grad_norm"] for line in lines])
    for name, shown, value, before in (
        ("loss", loss, loss, losses),
        ("gradient norm", grad_norm, float(_log([grad_norm])[0]), norms),
    ):
        mean = float(before.mean())
        deviation = max(float(before.std(ddof=1)), 0.01 * abs(mean))  # equal steps have none
        if value > mean + sigmas * deviation:
            above = (value - mean) / deviation
            return f"{name} {shown:.4g} is {above:.1f} deviations above the last {len(lines)} steps"
    return None


def _log(norms: Sequence[float]) -> np.ndarray:
    return np.log(np.maximum(norms, 1e-30))


def check_room(folder: Path, needed: int) -> None:
    """Refuse to write so many bytes where there is less space.

    Raises:
        FimError: names the folder, the bytes needed and the bytes free.
    """
    if needed > shutil.disk_usage(folder).free:
        raise _disk_error(os.strerror(errno.ENOSPC), folder, needed)


@contextmanager
def explain_full_disk(folder: Path, needed: int) -> Iterator[None]:
    """Turn the many errors of a disk that is full or fails into one line.

    Args:
        folder: is written to.
        needed: bytes that will be written; the block is not entered without so much space.

    Raises:
        FimError: no space, a limit on the size of files, or a disk that cannot be written.
    """
    check_room(folder, needed)
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
        told = explained(error, folder, needed)
        if told is error:
            raise
        raise told from None


def explained(error: BaseException, folder: Path, needed: int) -> BaseException:
    """Return the one line that a disk's error is told by; another error is returned as it is.

    Args:
        error: of writing.
        folder: was to be written.
        needed: bytes of it, some of which may be there.
    """
    reason = _disk_reason(error)
    return error if reason is None else _disk_error(reason, folder, needed)


def _disk_error(reason: str, folder: Path, needed: int) -> FimError:
    way_out = "mend the disk"
    if reason not in map(os.strerror, _FAILING):
        reason += f": {needed:,} bytes needed, {shutil.disk_usage(folder).free:,} free"
        way_out = "make room"
    kept = any(folder.glob("**/checkpoint-*/COMPLETE"))
    return FimError(
        f"{folder}: {reason}; {way_out} and run again"
        f"{', it goes on from the last checkpoint' if kept else ''}"
    )


@contextmanager
def hold_back_writes(errors: list[BaseException]) -> Iterator[None]:
    """Let `torch.save` fail without ending the block; nothing is written after the first error.

    Libraries save in the middle of what all processes do together, where the others would wait for
    one that ended.

    Args:
        errors: takes them, and what ends the block.
    """
    save = torch.save

    def save_or_note(*args: Any, **kwargs: Any) -> None:
        if not errors:
            try:
                save(*args, **kwargs)
            except (OSError, RuntimeError) as error:
                errors.append(error)

    torch.save = save_or_note
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, CheckpointException, FimError) as error:
        errors.append(error)
    finally:
        torch.save = save


def _disk_reason(error: BaseException) -> str | None:
    """Whether a disk is why a file could not be written, in the system's words."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _FULL | _FAILING else None
    text = str(error)
    for number in _FULL | _FAILING:  # safetensors quotes the system
        if os.strerror(number) in text or f"os error {number})" in text:
            return os.strerror(number)
    if error.__context__ is not None and (reason := _disk_reason(error.__context__)):
        return reason
    # torch tells where its writer stood, not why it stopped
    return "disk full" if "PytorchStreamWriter" in text or "unexpected pos" in text else None


def stop_if_one_failed(
    errors: Sequence[BaseException], folder: Path, needed: int, first: bool, device: torch.device
) -> None:
    """End every process where one could not write; each that knows why says so.

    Args:
        errors: of this process.
        folder: was to be written.
        needed: bytes of it.
        first: whether this is the first process.
        device: of this process.

    Raises:
        FimError: in the first process, and in those with an error of the disk; another error is
            raised as it is.
        SystemExit: in the others.
    """
    if not sum_over_processes([float(bool(errors))], device)[0]:
        return
    if errors:
        raise explained(errors[0], folder, needed)
    fail_together(f"{folder}: another process cannot write there", first)


def leave_at_once(error: BaseException, folder: Path, needed: int) -> NoReturn:
    """Say why and end this process alone; those that wait for it end when they find it gone.

    Args:
        error: of writing, or of waiting for a process that has left.
        folder: was to be written.
        needed: bytes of it.
    """
    told = explained(error, folder, needed)
    said = str(told) if told is not error else f"{folder}: {first_line(error)}"
    os.write(2, f"error: {said}\n".encode())
    os._exit(1)


def fail_together(message: str, first: bool) -> NoReturn:
    """End every process for a reason that all know; only the first says it.

    Raises:
        FimError: in the first process.
        SystemExit: in the others.
    """
    if first:
        raise FimError(message)
    raise SystemExit(1)
