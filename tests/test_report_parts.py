"""Verdicts, numbers, charts and the choice of what a report shows.

PYTHONPATH=. python -m pytest tests/test_report_parts.py
"""

import math

import pytest

from finetune.report.charts import (
    Series,
    bars,
    count,
    duration,
    histogram,
    lines,
    percent,
    signed,
    significant,
    size,
)
from finetune.report.excerpts import code, pick_completions
from finetune.report.page import METRICS, verdict
from finetune.report.read import pick_samples, without_folders


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("exact_match", 0.01, 0.02, "better"),
        ("exact_match", -0.02, -0.01, "worse"),
        ("exact_match", -0.01, 0.2, "undecided"),
        ("exact_match", 0.0, 0.2, "undecided"),
        ("loss_middle", -0.2, -0.1, "better"),
        ("loss_middle", 0.1, 0.2, "worse"),
        ("loss_middle", -0.2, 0.0, "undecided"),
        ("loss_middle", math.nan, 0.2, "undecided"),
        ("loss_middle", None, None, "undecided"),
    ],
)
def test_verdict_needs_an_interval_without_zero(name, low, high, expected):
    assert verdict(METRICS[name], {"difference": 0.1, "low": low, "high": high}) == expected


def test_numbers_are_readable():
    assert count(7311204) == "7,311,204"
    assert count(None) == "&ndash;"
    assert [significant(x) for x in (0, 1.23456, 99.96, 999.7, -0.5)] == [
        "0.00",
        "1.23",
        "100",
        "1,000",
        "&minus;0.500",
    ]
    assert significant(math.nan) == "&ndash;"
    assert percent(0.9787) == "97.9&nbsp;%"
    assert [size(n) for n in (9, 24_300, 14_802_113)] == [
        "9&nbsp;B",
        "24.3&nbsp;kB",
        "14.8&nbsp;MB",
    ]
    assert [duration(s) for s in (5.2, 83.2, 7505)] == [
        "5.20&nbsp;s",
        "1&nbsp;min 23&nbsp;s",
        "2&nbsp;h 5&nbsp;min",
    ]


def test_code_is_cut_in_the_middle():
    text = "\n".join(f"line <{n}>" for n in range(20))

    assert code(text, 1, 1) == (
        'line &lt;0&gt;\n<span class="cut">&hellip; 18 lines &hellip;</span>\nline &lt;19&gt;'
    )
    assert code("a\x00\tb", 5, 5) == "a\ufffd\tb"
    assert "&hellip; 60 characters &hellip;" in code("x" * 300, 5, 5)


def test_one_logged_step_gives_a_chart():
    one = Series(label="a", css="train", points=((5, 0.0),))

    assert "<polyline" in lines([one], "step", "loss")


def test_completions_are_chosen_from_both_ends():
    rows = [
        {"path": "a", "start_byte": n, "base_loss": 1.0, "adapter_loss": n / 100}
        for n in range(101)
    ]  # fmt: skip

    chosen = pick_completions(rows)

    assert [row["start_byte"] for _, row in chosen] == [0, 1, 2, 25, 50, 75, 98, 99, 100]
    assert chosen[0][0] == "1 of 101"
    assert [rank for rank, _ in pick_completions(rows[:2])] == ["1 of 2", "2 of 2"]


def test_samples_are_chosen_by_id_with_every_order():
    ids = ["c", "a", "b", "d"]

    chosen = pick_samples(ids, ["psm", "psm", "ar", "spm"], ["x", "x", "", "x"], ["java"] * 4)

    assert [ids[i] for i in chosen] == ["a", "d", "b"]


def test_recipe_values_lose_folders_and_credentials():
    assert without_folders({"a": ["/home/me/code/payments", "../payments", "main"]}) == {
        "a": [".../payments", "../payments", "main"]
    }
    assert without_folders("https://me:token@host/x.git") == "https://host/x.git"
    assert without_folders("C:\\Users\\me\\code") == ".../code"
    assert without_folders("file:///home/me/code/") == ".../code"


def test_differences_share_the_decimals_of_their_largest():
    assert [signed(x, 10.4) for x in (2.1, 10.4, -0.04, 0)] == ["+2.1", "+10.4", "0.0", "0.0"]
    assert signed(-0.07, 0.15) == "&minus;0.070"
    assert signed(None, 1.0) == "&ndash;"


def test_bars_are_ranked_and_the_rest_is_summed():
    drawn = bars({"a": 1, "<b>": 5, "c": 2, "d": 2}, limit=2)

    assert drawn.index("&lt;b&gt;") < drawn.index(">c<") < drawn.index("2 others")
    assert "3 <small>30.0&nbsp;%</small>" in drawn


def test_histogram_counts_every_length():
    drawn = histogram([0, 0, 1, 2, 3, 1000], "tokens", "samples")

    assert drawn.count("<rect") == 11
    assert ">512</text>" in drawn


def test_a_wide_range_of_losses_gets_a_logarithmic_axis():
    def chart(last: float) -> str:
        return lines([Series(label="a", css="train", points=((0, 8.0), (9, last)))], "step", "loss")

    assert "log scale" in chart(0.1)
    assert "log scale" not in chart(4.0)
    assert "log scale" not in chart(0.0)
