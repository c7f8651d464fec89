"""The learning rate at every step, against the formulas of the papers; and after a resume."""

import math
import warnings

import pytest
import torch

from finetune.recipe.train import SCHEDULERS, Train
from finetune.training.schedules import make_schedule

STEPS, WARMUP, DECAY = 50, 5, 10
TRAIN = {"warmup_rate": 0.1, "decay_rate": 0.2}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)


def rates(train: Train, steps: int = STEPS) -> list[float]:
    """Return the share of the peak at each step."""
    made = optimizer()
    schedule = make_schedule(train, made, steps)
    found = []
    for _ in range(steps):
        found.append(made.param_groups[0]["lr"] / 2.0)
        made.step()
        schedule.step()
    assert made.param_groups[0]["lr"] >= 0
    return found


def cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def wsd(step: int) -> float:
    if step < WARMUP:
        return step / WARMUP
    return 1 - math.sqrt(max(0, step - (STEPS - DECAY)) / DECAY)


def wcl(step: int) -> float:
    if step < WARMUP:
        return step / WARMUP
    if step < STEPS - DECAY:
        return 0.1 + 0.9 * cosine((step - WARMUP) / (STEPS - DECAY - WARMUP))
    return 0.1 * (STEPS - step) / DECAY


FORMULAS = {
    "linear": lambda s: s / WARMUP if s < WARMUP else (STEPS - s) / (STEPS - WARMUP),
    "cosine": lambda s: s / WARMUP if s < WARMUP else cosine((s - WARMUP) / (STEPS - WARMUP)),
    "cosine_with_restarts": lambda s: (
        s / WARMUP if s < WARMUP else cosine((s - WARMUP) / (STEPS - WARMUP) % 1)
    ),
    "polynomial": lambda s: (
        s / WARMUP if s < WARMUP else (1 - 5e-8) * (STEPS - s) / (STEPS - WARMUP) + 5e-8
    ),
    "constant": lambda s: 1.0,
    "constant_with_warmup": lambda s: min(1.0, s / WARMUP),
    "inverse_sqrt": lambda s: s / WARMUP if s < WARMUP else (WARMUP / s) ** 0.5,
    "wsd": wsd,
    "wcl": wcl,
}


def test_every_schedule_has_a_formula():
    assert FORMULAS.keys() == set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_is_its_formula_at_every_step(name):
    found = rates(Train(scheduler=name, **TRAIN))

    assert found == pytest.approx([FORMULAS[name](step) for step in range(STEPS)], abs=1e-7)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_resumed_schedule_goes_on_where_it_was(name):
    train = Train(scheduler=name, **TRAIN)
    unbroken = rates(train)
    first = optimizer()
    before = make_schedule(train, first, STEPS)
    for _ in range(23):
        first.step()
        before.step()
    again = optimizer()
    again.load_state_dict(first.state_dict())
    resumed = make_schedule(train, again, STEPS)

    resumed.load_state_dict(before.state_dict())
    found = []
    for _ in range(23, STEPS):
        found.append(resumed.get_last_lr()[0] / 2.0)
        again.step()
        resumed.step()

    assert [rate.hex() for rate in found] == [rate.hex() for rate in unbroken[23:]]


@pytest.mark.parametrize("name", ["wsd", "wcl"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_of_a_few_steps_has_rates_from_0_to_the_peak(name, steps):
    found = rates(Train(scheduler=name, warmup_rate=0.5, decay_rate=0.9), steps)

    assert len(found) == steps
    assert all(0 <= rate <= 1 for rate in found)


def test_decay_phases_fall_to_0_after_the_last_step():
    for name in ("wsd", "wcl"):
        made = optimizer()
        schedule = make_schedule(Train(scheduler=name, **TRAIN), made, STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants optimizer steps in between
            for _ in range(STEPS):
                schedule.step()

        assert made.param_groups[0]["lr"] == 0
