"""The part of a recipe that says how the training runs."""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune.checks import ABOVE_0, SEED, Limit, at_least

SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt",
)  # fmt: skip
"""transformers' `SchedulerType`, but for those that need arguments no recipe has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The training run."""

    epochs: int = 2
    """Passes over the documents, each with new spans."""
    max_tokens: int = 0
    """Stop after so many tokens; 0 for no limit."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    scheduler: str = "cosine"
    """`linear`, `cosine`, `cosine_with_restarts`, `polynomial`, `constant`,
    `constant_with_warmup` or `inverse_sqrt`, as in transformers."""
    warmup_rate: float = 0.03
    """Share of the steps with rising learning rate, 0 to below 1."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    max_grad_norm: float = 1.0
    """Gradient norm above which gradients are scaled down."""
    packs_per_step: int = 1
    """Packs per process and micro-step."""
    gradient_accumulation: int = 1
    """Micro-steps per optimizer step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    end_token_weight: float = 1.0
    """Loss weight of the end token, above 0; above 1 the model learns to stop sooner."""
    save_steps: int = 0
    """Optimizer steps between checkpoints; 0 saves only at the end."""
    eval_steps: int = 0
    """Optimizer steps between held-out losses; 0 for four per run."""
    num_processes: int = 0
    """Processes the run must have; 0 accepts what was launched."""
    report_to: str = "none"
    """`none`, `wandb` or `tensorboard`; numbers only, never source code."""
    seed: int = 0
    """Seed of weights and dropout."""


TRAIN_LIMITS: tuple[tuple[Limit, str], ...] = (
    (at_least(0), "train.max_tokens train.num_processes train.weight_decay"),
    (at_least(0), "train.save_steps train.eval_steps"),
    (at_least(1), "train.epochs train.packs_per_step train.gradient_accumulation"),
    (ABOVE_0, "train.learning_rate train.max_grad_norm train.end_token_weight"),
    (("0 to below 1", lambda value: 0 <= value < 1), "train.warmup_rate"),
    (SEED, "train.seed"),
)
TRAIN_CHOICES: dict[str, tuple[str, ...]] = {
    "train.scheduler": SCHEDULERS,
    "train.report_to": ("none", "wandb", "tensorboard"),
}


def train_faults(train: Train) -> Iterator[str]:
    """Yield what no single field shows."""
    yield from ()
