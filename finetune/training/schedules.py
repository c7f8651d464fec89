"""The learning rate over the steps of a run: transformers' schedules by their names, and `wcl`."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_scheduler

from finetune.recipe.train import Train

COSINE_END = 0.1
"""Share of the peak at which the cosine of `wcl` hands over to the straight line."""
_OTHER_NAMES = {"wsd": "warmup_stable_decay"}
"""What transformers calls a schedule where we take the name of the papers."""
_WSD_DECAY = "1-sqrt"
"""How `wsd` falls, the best of those that Haegele et al. 2024 (arXiv 2405.18392) compare."""


def make_schedule(train: Train, optimizer: Optimizer, num_steps: int) -> LRScheduler:
    """Build the schedule of a recipe over the optimizer steps of a run.

    Args:
        train: `scheduler`, `warmup_rate` and `decay_rate` decide.
        optimizer: its learning rates are the peak.
        num_steps: of the whole run.
    """
    warmup, decay = warmup_steps(train, num_steps), decay_steps(train, num_steps)
    if train.scheduler == "wcl":
        factor = partial(wcl, warmup=warmup, decay=decay, num_steps=num_steps)
        return LambdaLR(optimizer, factor)
    more = {"num_decay_steps": decay, "decay_type": _WSD_DECAY} if train.scheduler == "wsd" else {}
    name = _OTHER_NAMES.get(train.scheduler, train.scheduler)
    return get_scheduler(name, optimizer, warmup, num_steps, more)


def warmup_steps(train: Train, num_steps: int) -> int:
    """Return the steps with rising learning rate."""
    return math.ceil(train.warmup_rate * num_steps)


def decay_steps(train: Train, num_steps: int) -> int:
    """Return the steps of the decay phase, the last ones; never those of the warmup."""
    return min(math.ceil(train.decay_rate * num_steps), num_steps - warmup_steps(train, num_steps))


def wcl(step: int, *, warmup: int, decay: int, num_steps: int) -> float:
    """Return the share of the peak at a step: warmup, cosine, then linear decay to 0.

    With w = `warmup`, d = `decay`, n = `num_steps`, c = n - w - d, e = `COSINE_END`:

        s / w                                                  0 <= s < w
        e + (1 - e) * (1 + cos(pi * (s - w) / c)) / 2          w <= s < n - d
        e * (n - s) / d                                        n - d <= s < n
        0                                                      n <= s

    Source:
        HIT-SCIR/Abacus ("Zhusuan"), README, section 4: the stable phase of WSD, falling slowly as
        a cosine, before a fast linear decay over the last 7 % of the tokens. It does not say where
        the cosine ends; a tenth is what Hoffmann et al. 2022 (arXiv 2203.15556) end theirs at.
    """
    if step < warmup:
        return step / warmup
    cosine = num_steps - warmup - decay
    if step < num_steps - decay:
        half = (1 + math.cos(math.pi * (step - warmup) / cosine)) / 2
        return COSINE_END + (1 - COSINE_END) * half
    return COSINE_END * max(0, num_steps - step) / max(1, decay)
