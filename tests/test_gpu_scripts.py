"""What can be seen of the GPU benchmarks without one: they run, on sizes a CPU can train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = (
    "1.5B-lora",
    "7B-full",
    "1.5B-lora-trl-blocks",
    "1.5B-lora-trl",
    "1.5B-lora-padded",
    "1.5B-lora-32k-dense",
)


def run(*command: str, **environment: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.splitlines()


def evaluate(expression: str) -> str:
    program = f"import sys; sys.path.insert(0, 'bench'); import gpu_train as g; print({expression})"
    return "\n".join(run(sys.executable, "-c", program))


@pytest.mark.slow
def test_every_kind_of_case_runs_at_tiny_sizes(tmp_path):
    checks = ("losses after resuming", "logits of a sample, packed against alone")

    run("bench/gpu_train.sh", "--tiny", *KINDS, *checks, OUT=str(tmp_path), PYTHON=sys.executable)

    (results,) = tmp_path.glob("gpu_train-*.txt")
    lines = results.read_text().splitlines()
    *cases, resumed, alone = [json.loads(line) for line in lines if line.startswith('{"')]
    assert len(cases) == len(KINDS)
    assert all(figures["rate"] > 0 and figures["kernels"] for figures in cases)
    assert resumed == {"compared": 5, "equal": 5}
    assert alone["torch.float32"] < 1e-5
    assert sum("GiB measured" in line for line in lines) == 6


def test_goals_and_these_tests_name_what_there_is():
    goals = "all({a, b or a} <= g.CASES.keys() and f <= t for a, b, f, t in g.GOALS)"
    kinds = f"{{g.CASES[n].kind for n in {KINDS}}} == {{c.kind for c in g.CASES.values()}}"

    assert evaluate(f"{goals}, {kinds}") == "True True"


def test_a_goal_is_judged_when_both_of_its_cases_are_measured():
    found = "{'1.5B-lora': {'rate': 36_000}, '1.5B-lora-trl-blocks': {'rate': 37_000}}"

    lines = evaluate(f"*g.goal_lines({found}, '1.5B-lora-trl-blocks')").splitlines()

    assert [" ".join(line.split()) for line in lines] == [
        "1.5B-lora / 1.5B-lora-trl-blocks 0.97 floor 1.0 goal 1.05 MISSED"
    ]


def test_a_case_that_fails_leaves_the_others_their_figures():
    assert evaluate("g.in_process('no such case', True)").splitlines() == [
        "no such case: failed; its standard error says more (CalledProcessError)",
        "{}",
    ]
