"""The command line: options and overrides in any order, usage errors, one line per failure."""

import argparse
import errno
import os

import pytest

from finetune import cli
from finetune.cli import main


@pytest.fixture
def parsed(monkeypatch) -> list[argparse.Namespace]:
    """What each verb was called with."""
    found: list[argparse.Namespace] = []
    for verb in ("prepare", "report"):
        monkeypatch.setattr(cli, verb, found.append)
    return found


@pytest.mark.parametrize(
    "words",
    ["--json a=1 b.c=2", "a=1 --json b.c=2", "a=1 b.c=2 --json"],
)
def test_overrides_stand_before_or_after_options(parsed, words):
    assert main(["prepare", "r.yaml", *words.split()]) == 0

    (options,) = parsed
    assert (options.overrides, options.json) == (["a=1", "b.c=2"], True)


@pytest.mark.parametrize(
    "words",
    [
        "prepare r.yaml --json stray",
        "prepare r.yaml --jsn=1",
        "prepare r.yaml --show -1",
        "prepare r.yaml --show x",
        "prepare r.yaml --kind",
        "audit",
        "audit runs/a a=1",
        "complete runs/a a.py:1:1 --max-new-tokens -3",
        "report runs/a a=1",
        "report",
    ],
)
def test_wrong_usage_is_exit_code_2(parsed, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words.split())

    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not parsed


def test_a_missing_recipe_is_all_that_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        main(["train"])

    assert capsys.readouterr().err.endswith("the following arguments are required: RECIPE\n")


@pytest.mark.parametrize("words", ["--tasks 4", "--option partition=cpu"])
def test_tasks_without_an_executor_are_refused(words, capsys):
    assert main(["prepare", "absent.yaml", *words.split()]) == 1

    assert capsys.readouterr().err.startswith("error: --tasks and --option belong to --executor;")


def test_report_of_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}: no run folder")
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_working_directory_is_a_run_folder(tmp_path, monkeypatch, capsys):
    run = tmp_path / "payments"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: payments\n")
    monkeypatch.chdir(run)

    assert main(["report", "."]) == 0

    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert "<h1>payments</h1>" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), "a/b: No space left on device"),
        (OSError("the line went dead"), "the line went dead"),
    ],
)
def test_fault_of_the_system_is_one_line(monkeypatch, capsys, error, said):
    def fail(options):
        raise error

    monkeypatch.setattr(cli, "prepare", fail)

    assert main(["prepare", "r.yaml"]) == 1
    assert capsys.readouterr().err == f"error: {said}\n"
