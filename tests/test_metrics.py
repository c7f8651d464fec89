"""Measures of completions, and intervals that resample files."""

import pytest

from finetune.metrics import (
    MEASURES,
    METRICS,
    Score,
    compare,
    edit_similarity,
    exact_match,
    paired_interval,
    parses,
    summarize,
)
from finetune.report.page import verdict
from finetune.report.table import interval, results_table


def score(file="a", scenario="call", language="python", **measures):
    values = dict.fromkeys(MEASURES, 0.0) | measures
    return Score(file=file, scenario=scenario, language=language, **values)


@pytest.mark.parametrize(
    ("completion", "middle", "expected"),
    [("x = 1", "x = 1", 1.0), ("  x = 1\n", "x = 1", 1.0), ("x = 2", "x = 1", 0.0)],
)
def test_exact_match_ignores_blanks_at_the_ends_only(completion, middle, expected):
    assert exact_match(completion, middle) == expected


@pytest.mark.parametrize(
    ("completion", "middle", "expected"),
    [("abcd", "abcd", 1.0), ("abcd", "abcx", 0.75), ("", "ab", 0.0), ("", "", 1.0)],
)
def test_edit_similarity_is_one_minus_the_share_of_edits(completion, middle, expected):
    assert edit_similarity(completion, middle) == pytest.approx(expected)


def test_completion_parses_when_it_brings_no_new_error():
    assert parses(b"x = f(", b"1", b")\n", b"2", "python") == 1.0
    assert parses(b"x = f(", b"((", b")\n", b"2", "python") == 0.0


def test_file_that_was_broken_before_may_stay_as_broken():
    assert parses(b"x = f(", b"1", b")\ny = = 3\n", b"2", "python") == 1.0


def test_summary_groups_by_scenario_and_language():
    summary = summarize(
        [
            score(scenario="call", loss_middle=1.0),
            score(file="b", scenario="if", language="go", loss_middle=3.0),
        ]
    )

    assert (summary["n"], summary["files"], summary["loss_middle"]) == (2, 2, 2.0)
    assert summary["by_scenario"]["if"]["loss_middle"] == 3.0
    assert summary["by_language"]["python"]["n"] == 1


def test_equal_differences_leave_no_uncertainty():
    base = [score(file=f, loss_middle=2.0) for f in "aabbcde"]
    tuned = [score(file=f, loss_middle=1.5) for f in "aabbcde"]

    paired = compare(base, tuned, resamples=200, seed=0)

    assert paired["loss_middle"] == {"difference": -0.5, "low": -0.5, "high": -0.5}
    assert paired["by_scenario"]["call"]["n"] == 7


def test_spans_of_one_file_do_not_narrow_the_interval():
    """Files that disagree leave the interval wide however many spans each has."""
    files, differences = [*"abcdef"], [-1.0, 1.0] * 3
    few = paired_interval(files, differences, [1] * 6, 2000, seed=0)
    many = paired_interval(files * 50, differences * 50, [1] * 300, 2000, seed=0)

    assert few["low"] < -0.6
    assert few["high"] > 0.6
    assert many == pytest.approx(few)


def test_interval_weighs_items_by_their_counts():
    found = paired_interval(["a", "b"], [10.0, 0.0], [1, 9], 500, seed=0)

    assert found["difference"] == 1.0


def test_equal_seeds_give_equal_intervals():
    files = [str(number) for number in range(40)]
    arguments = (files, [0.1 * number**2 for number in range(40)], [1] * 40, 300)

    assert paired_interval(*arguments, seed=3) == paired_interval(*arguments, seed=3)
    assert paired_interval(*arguments, seed=3) != paired_interval(*arguments, seed=4)


@pytest.mark.parametrize("files", ["aaaaaaaaa", "abcdabcda"])
def test_few_files_have_no_interval(files):
    found = paired_interval([*files], [-1.0] * 9, [1] * 9, 100, seed=0)

    assert found == {"difference": -1.0, "low": None, "high": None}
    assert interval(found) == "-1.0000 [n/a]"
    assert verdict(METRICS["loss_middle"], found) == "undecided"


def test_token_the_parser_makes_up_is_an_error():
    assert parses(b"function f(a) {\n  return ", b"(1;", b"\n}\n", b"1;", "javascript") == 0.0
    assert parses(b"function f(a) {\n  return ", b"2;", b"\n}\n", b"1;", "javascript") == 1.0


def test_longer_file_may_not_have_more_bytes_in_errors():
    """A share of the file would let a long completion bring errors of its own."""
    assert parses(b"", b"x = 1\n" * 99 + b"y = = 31\n", b"z = = 3\n", b"", "python") == 0.0


def test_every_measure_of_a_score_is_in_the_table():
    assert {*MEASURES, "loss_ar"} == METRICS.keys()
    assert [n for n, m in METRICS.items() if m.lower_is_better] == ["loss_middle", "loss_ar"]


def test_results_table_names_models_and_differences():
    values = dict.fromkeys(METRICS, 0.5) | {"n": 9, "files": 1}
    paired = {name: {"difference": 0.1, "low": None, "high": None} for name in METRICS}

    table = results_table({"base": values, "adapter": values, "paired": paired}).splitlines()

    assert table[0].split()[:2] == ["base", "adapter"]
    assert table[1].split()[-4:] == ["0.5000", "0.5000", "+0.1000", "[n/a]"]
    assert table[-1] == "9 spans of 1 held-out files"
