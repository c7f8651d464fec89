"""The part of a recipe that says how the training runs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from fim import LANGUAGES
from finetune.recipe.checks import ABOVE_0, SEED, Limit, at_least, did_you_mean

SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "wsd", "wcl",
)  # fmt: skip
"""transformers' `SchedulerType`, but for those that need arguments no recipe has; and two more."""


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
    `constant_with_warmup` or `inverse_sqrt`, as in transformers; `wsd` (warmup, stable, decay:
    MiniCPM) or `wcl` (warmup, cosine to a tenth, linear to 0: Zhusuan)."""
    warmup_rate: float = 0.03
    """Share of the steps with rising learning rate, 0 to below 1."""
    decay_rate: float = 0.1
    """Share of the run that is its decay phase, 0 to 0.9: the last steps of `wsd` and `wcl`, and
    the last tokens where `anneal_sources` or `anneal_languages` are given."""
    anneal_sources: dict[str, float] = field(default_factory=dict)
    """Weights of sources in the decay phase by their names; 1 for those not named, 0 for none. The
    same documents, with new spans, fill the last packs in these shares."""
    anneal_languages: dict[str, float] = field(default_factory=dict)
    """Weights of languages in the decay phase, as `anneal_sources`; both multiply."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    max_grad_norm: float = 1.0
    """Gradient norm above which gradients are scaled down."""
    skip_spikes: float = 6.0
    """Skip steps whose loss or gradient norm is this many standard deviations above the last 128;
    0 for none. DeepSpeed skips none."""
    packs_per_step: int = 1
    """Packs per process and micro-step."""
    gradient_accumulation: int = 1
    """Micro-steps per optimizer step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time, half with LoRA."""
    compile: bool = False
    """Compile the layers with `torch.compile`: minutes at the start for faster steps."""
    end_token_weight: float = 1.0
    """Loss weight of the end token, above 0; above 1 the model learns to stop sooner."""
    save_steps: int = 0
    """Optimizer steps between checkpoints; 0 saves only at the end."""
    eval_steps: int = 0
    """Optimizer steps between held-out losses; 0 for four per run."""
    stop_after: int = 0
    """Stop once so many held-out losses in a row are no new lowest; 0 never stops early."""
    keep_best: bool = False
    """Save the weights of the lowest held-out loss as the result, instead of the last ones."""
    num_processes: int = 0
    """Processes the run must have; 0 accepts what was launched."""
    report_to: str = "none"
    """`none`, `wandb`, `tensorboard` or `trackio`; numbers only, never source code."""
    seed: int = 0
    """Seed of weights and dropout."""

    @property
    def watches_held_out(self) -> bool:
        """Whether held-out losses decide which weights come out."""
        return self.keep_best or self.stop_after > 0

    @property
    def has_anneal(self) -> bool:
        """Whether the decay phase has a mix of its own."""
        return bool(self.anneal_sources or self.anneal_languages)


TRAIN_LIMITS: tuple[tuple[Limit, str], ...] = (
    (at_least(0), "train.max_tokens train.num_processes train.weight_decay"),
    (at_least(0), "train.save_steps train.eval_steps train.stop_after"),
    (("0 to 0.9", lambda value: 0 <= value <= 0.9), "train.decay_rate"),
    (at_least(1), "train.epochs train.packs_per_step train.gradient_accumulation"),
    (ABOVE_0, "train.learning_rate train.max_grad_norm train.end_token_weight"),
    (("0 to below 1", lambda value: 0 <= value < 1), "train.warmup_rate"),
    (SEED, "train.seed"),
)
TRAIN_CHOICES: dict[str, tuple[str, ...]] = {
    "train.scheduler": SCHEDULERS,
    "train.report_to": ("none", "wandb", "tensorboard", "trackio"),
}


def train_faults(train: Train) -> Iterator[str]:
    """Yield what no single field shows."""
    for name in train.anneal_languages:
        if name not in LANGUAGES:
            yield f"train.anneal_languages: unknown language{did_you_mean(name, LANGUAGES)}"
    for key in ("anneal_sources", "anneal_languages"):
        for name, weight in getattr(train, key).items():
            if not 0 <= weight < math.inf:
                yield f"train.{key}.{name}: expected 0 or more, got {weight}"
    if train.has_anneal and not train.decay_rate:
        yield "train.decay_rate: expected above 0 for anneal_sources and anneal_languages, got 0"
    if train.has_anneal and train.max_tokens:
        yield "train.max_tokens: expected 0 with a decay phase, whose packs come last"
