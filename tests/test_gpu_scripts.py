"""What can be seen of the GPU benchmarks without one: they run, on sizes a CPU can train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_every_kind_of_case_runs_at_tiny_sizes():
    names = ["1.5B-lora", "7B-full", "1.5B-lora-trl", "1.5B-lora-padded", "1.5B-lora-32k-dense"]

    lines = run("bench/gpu_train.py", "--tiny", *names)

    found = [json.loads(line) for line in lines if line.startswith('{"')]
    assert len(found) == len(names)
    assert all(figures["rate"] > 0 for figures in found)
    assert found[0]["kernels"]  # of the attention, by name


def test_goals_name_cases_that_exist():
    program = (
        "import sys; sys.path.insert(0, 'bench'); import gpu_train as g;"
        "print(all({a, b or a} <= g.CASES.keys() and f <= t for a, b, f, t in g.GOALS))"
    )

    assert run("-c", program)[-1] == "True"
