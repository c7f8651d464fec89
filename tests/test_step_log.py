"""Speed, share of the chip and progress: what is written and said at each step."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.training import step_log
from finetune.training.step_log import ShowProgress, WriteLog, read_log


class Clock:
    """Stands in for `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(step_log, "time", made)
    return made


def state(step: int, steps: int = 4, first: bool = True) -> Any:
    return SimpleNamespace(global_step=step, max_steps=steps, is_world_process_zero=first)


def make_log(path: Path, **more: Any) -> WriteLog:
    writer = WriteLog(path, tokens_per_row=[10, 20, 30, 40, 50], rows_per_step=2, **more)
    writer.on_train_begin(None, state(0), None)
    return writer


def step(writer: WriteLog, clock: Clock, number: int, seconds: float) -> dict[str, Any]:
    writer.on_step_begin(None, state(number - 1), None)
    clock.now += seconds
    writer.on_log(None, state(number), None, logs={"loss": 1.0, "epoch": 0.5})
    return writer.newest


def test_speed_is_the_tokens_of_a_step_over_its_seconds(tmp_path, clock):
    writer = make_log(tmp_path / "log.jsonl")

    speeds = [
        step(writer, clock, n, seconds)["tokens_per_second"] for n, seconds in ((1, 2), (2, 5))
    ]
    last = step(writer, clock, 3, 0.5)

    assert speeds == [15.0, 14.0]
    assert (last["tokens"], last["tokens_per_second"], last["seconds"]) == (150, 100.0, 7.5)


def test_held_out_losses_and_checkpoints_are_not_in_the_speed(tmp_path, clock):
    writer = make_log(tmp_path / "log.jsonl")
    step(writer, clock, 1, 2)

    clock.now += 50
    writer.on_log(None, state(1), None, logs={"eval_loss_middle": 2.0, "eval_kind/if": 3.0})
    clock.now += 50
    writer.on_save(None, state(1), None)
    clock.now += 50

    assert step(writer, clock, 2, 5)["tokens_per_second"] == 14.0
    assert read_log(tmp_path / "log.jsonl")[1] == {"step": 1, "loss_middle": 2.0, "kind/if": 3.0}


def test_waiting_for_data_is_in_the_speed(tmp_path, clock):
    writer = make_log(tmp_path / "log.jsonl")
    step(writer, clock, 1, 2)

    clock.now += 2

    assert step(writer, clock, 2, 5)["tokens_per_second"] == 10.0


def test_mfu_is_operations_over_what_the_chips_can_do(tmp_path, clock):
    writer = make_log(
        tmp_path / "log.jsonl", flops_per_row=[1e3, 3e3, 5e3, 5e3, 2e3], peak_flops=2e4
    )

    assert [step(writer, clock, n, 0.5)["mfu"] for n in (1, 2, 3)] == [0.4, 1.0, 0.2]


def test_mfu_is_null_where_nothing_is_known(tmp_path, clock):
    assert step(make_log(tmp_path / "log.jsonl"), clock, 1, 1)["mfu"] is None
    assert '"mfu": null' in (tmp_path / "log.jsonl").read_text()


def test_equal_runs_write_equal_lines_but_for_the_time(tmp_path, clock):
    for name, seconds in (("a", 1), ("b", 3)):
        writer = make_log(tmp_path / name)
        for number in (1, 2):
            step(writer, clock, number, seconds)

    timing = ("seconds", "tokens_per_second")
    one, two = (
        [{k: v for k, v in json.loads(line).items() if k not in timing} for line in text]
        for text in ((tmp_path / name).read_text().splitlines() for name in ("a", "b"))
    )
    assert one == two
    assert one[0] == {
        "step": 1, "tokens": 30, "loss": 1.0, "learning_rate": None, "grad_norm": None, "mfu": None
    }  # fmt: skip


def test_the_summary_of_a_run_is_no_line(tmp_path, clock):
    writer = make_log(tmp_path / "log.jsonl")

    writer.on_log(None, state(4), None, logs={"train_runtime": 3.0, "train_loss": 1.0})

    assert (read_log(tmp_path / "log.jsonl"), writer.newest) == ([], {})


def test_other_processes_write_nothing(tmp_path, clock):
    writer = WriteLog(tmp_path / "log.jsonl", [10, 20], 1)

    writer.on_train_begin(None, state(0, first=False), None)
    writer.on_log(None, state(1, first=False), None, logs={"loss": 1.0})

    assert (list(tmp_path.iterdir()), writer.newest) == ([], {})


def show(tmp_path: Path, clock: Clock, steps: int, first: int = 0, **more: Any) -> None:
    writer = WriteLog(tmp_path / "log.jsonl", [10] * steps, 1, **more)
    shown = ShowProgress(writer)
    for callback in (writer, shown):
        callback.on_train_begin(None, state(first, steps), None)
    for number in range(first + 1, steps + 1):
        step(writer, clock, number, 60)
        shown.on_log(None, state(number, steps), None)
        if number == 1:
            writer.on_log(None, state(number, steps), None, logs={"eval_loss_middle": 2.5})
            shown.on_log(None, state(number, steps), None)
    shown.on_train_end(None, state(steps, steps), None)


def test_without_a_terminal_a_run_says_ten_lines(tmp_path, clock, capsys):
    show(tmp_path, clock, 40)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "step 4 of 40, loss 1.000, held out 2.500, 0 tokens/s, 0:36:00 left"
    assert lines[-1].startswith("step 40 of 40, ")
    assert lines[-1].endswith("0:00:00 left")


def test_a_short_run_says_a_line_per_step_with_the_share_of_the_chip(tmp_path, clock, capsys):
    show(tmp_path, clock, 2, flops_per_row=[6.0, 6.0], peak_flops=0.4)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 1 of 2, loss 1.000, 0 tokens/s, 25% of the chip, 0:01:00 left"
    assert len(lines) == 2


def test_a_resumed_run_reckons_with_its_own_speed(tmp_path, clock, capsys):
    show(tmp_path, clock, 40, first=30)

    assert capsys.readouterr().err.splitlines()[0].endswith(", 0:08:00 left")


def test_a_terminal_shows_a_bar_and_no_lines(tmp_path, clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(step_log, "tqdm", lambda **kwargs: bars.append(Bar(kwargs)) or bars[-1])

    class Bar:
        disable = False
        n = 0

        def __init__(self, kwargs: dict[str, Any]) -> None:
            self.kwargs, self.texts = kwargs, []

        def update(self, number: int) -> None:
            self.n += number

        def set_postfix_str(self, text: str) -> None:
            self.texts.append(text)

        def close(self) -> None:
            self.closed = True

    bars: list[Bar] = []
    show(tmp_path, clock, 3)

    assert capsys.readouterr().err == ""
    assert (bars[0].n, bars[0].closed, len(bars[0].texts)) == (3, True, 3)
    assert bars[0].texts[-1] == "loss 1.000, held out 2.500, 0 tokens/s"
