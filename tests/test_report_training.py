"""The report's curves: what is drawn for whole, short and empty logs."""

import re

import pytest

from finetune.report.read import Inputs
from finetune.report.training import points_of, smooth, training_section

STEPS = [
    {"step": 1, "loss": 3.0, "learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 900.0,
     "mfu": None},
    {"step": 1, "loss_middle": 2.5, "loss_ar": 2.75, "order/psm": 2.5, "construct/if": 2.25,
     "kind/block": 2.25},
    {"step": 2, "loss": 2.0, "learning_rate": 5e-5, "grad_norm": 0.25, "tokens_per_second": 1100.0,
     "mfu": None},
    {"step": 2, "loss_middle": 1.5, "loss_ar": 1.75, "order/psm": 1.5, "construct/if": 1.25,
     "kind/block": 1.25},
]  # fmt: skip


def section(log: list[dict]) -> str:
    return training_section(Inputs(name="run", log=log))


def test_every_curve_of_a_log_is_drawn():
    text = section(STEPS)

    assert re.findall(r'aria-label="([^"]*) over step"', text) == [
        "loss, nats per token",
        "held-out loss, nats per token",
        "gradient norm",
        "learning rate",
        "tokens a second, running mean",
    ]
    assert "Held-out loss 2.50 at step 1, 1.50 at step 2; lowest 1.50 at step 2." in text
    assert "1,000 tokens a second" in text
    assert "of what the chip can do" not in text
    assert re.findall('class="key color-[0-9]">([^<]*)<', text) == ["AR", "PSM"]


@pytest.mark.parametrize("name", ["if", "block"])
def test_constructs_and_node_types_are_listed_with_first_and_last_loss_and_a_line(name):
    text = section(STEPS)

    cells = re.search(f"<code>{name}</code></th>(.*?)<td><svg", text)[1]
    assert re.findall("<td>([^<]*)</td>", cells) == ["2.25", "1.25", "&minus;1.00"]
    assert '<svg class="spark"' in text


def test_skipped_steps_are_marked_where_their_loss_and_gradient_stand():
    spike = {"step": 3, "loss": 9.0, "grad_norm": 8.0, "skipped": "loss 9 is 7 deviations <above>"}

    text = section([*STEPS, spike])

    marked = re.findall(r'<g class="line skipped"><polyline points="([^"]*)"/><circle', text)
    assert [len(points.split()) for points in marked] == [1, 1]
    assert "Skipped as spikes: step 3 (loss 9 is 7 deviations &lt;above&gt;)." in text
    assert "kipped" not in section(STEPS)
    assert section([spike] * 7).count("step 3 (") == 5
    assert ", 2 more." in section([spike] * 7)


def test_a_run_that_was_stopped_says_why():
    text = section([*STEPS, {"step": 3, "stopped": "step 3: the loss is nan"}])

    assert "Stopped at step 3: the loss is nan." in text


def test_the_share_of_the_chip_is_told_where_it_is_known():
    assert "42.0&nbsp;% of what the chip can do" in section([STEPS[0] | {"mfu": 0.42}])


def test_a_run_without_fim_is_judged_by_autoregressive_samples():
    text = section([{"step": 4, "loss_ar": 1.25}])

    assert "Held-out loss 1.25 at step 4" in text


def test_an_empty_log_names_the_command():
    assert "<code>sfim train RECIPE</code>" in section([])


def test_points_skip_lines_without_a_number():
    log = [{"step": 1, "mfu": None}, {"step": 2, "mfu": 0.5}, {"step": 3}]

    assert points_of(log, "mfu") == ((2, 0.5),)


def test_smooth_averages_a_thirtieth_of_the_run():
    points = tuple((x, float(x % 2)) for x in range(60))

    assert {y for _, y in smooth(points)[1:]} == {0.5}
