"""The report's curves: what is drawn for whole, short and empty logs."""

import re

from finetune.report_read import Inputs
from finetune.report_training import points_of, smooth, training_section

STEPS = [
    {"step": 1, "loss": 3.0, "learning_rate": 1e-4, "tokens_per_second": 900.0, "mfu": None},
    {"step": 1, "loss_middle": 2.5, "loss_ar": 2.75, "order/psm": 2.5, "kind/block": 2.25},
    {"step": 2, "loss": 2.0, "learning_rate": 5e-5, "tokens_per_second": 1100.0, "mfu": None},
    {"step": 2, "loss_middle": 1.5, "loss_ar": 1.75, "order/psm": 1.5, "kind/block": 1.25},
]


def section(log: list[dict]) -> str:
    return training_section(Inputs(name="run", log=log))


def test_every_curve_of_a_log_is_drawn():
    text = section(STEPS)

    assert re.findall(r'aria-label="([^"]*) over step"', text) == [
        "loss, nats per token",
        "held-out loss, nats per token",
        "learning rate",
        "tokens a second, running mean",
    ]
    assert "Held-out loss 2.50 at step 1, 1.50 at step 2; lowest 1.50 at step 2." in text
    assert "1,000 tokens a second" in text
    assert "of what the chip can do" not in text
    assert re.findall('class="key color-[0-9]">([^<]*)<', text) == ["AR", "PSM"]


def test_node_kinds_are_listed_with_first_and_last_loss_and_a_line():
    text = section(STEPS)

    cells = re.search("<code>block</code></th>(.*?)<td><svg", text)[1]
    assert re.findall("<td>([^<]*)</td>", cells) == ["2.25", "1.25", "&minus;1.00"]
    assert '<svg class="spark"' in text


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
