"""Frozen dataclasses of a recipe: defaults, their meaning and their ranges live here, once.

`finetune.recipe_file` reads them from YAML. The reference in the README is made from the strings
under the fields, so each says unit and range.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fim import BOUNDARIES, FORMATS, PROFILES, SAMPLERS, FimError, SpanPolicy
from fim.spans import DRAWN_CONSTRUCTS
from finetune.checks import (
    ABOVE_0,
    RATE,
    SEED,
    Limit,
    at_least,
    choice_faults,
    limit_faults,
    weight_faults,
)
from finetune.presets import FILTER_PRESETS, PRESETS
from finetune.recipe_corpus import Corpus, corpus_faults

ATTENTIONS = ("auto", "blocks", "flash_attention_2", "flash_attention_3", "sdpa", "eager")
SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt",
)  # fmt: skip
"""transformers' `SchedulerType`, but for those that need arguments no recipe has."""


class RecipeError(FimError):
    """The recipe is wrong; the message names file, key and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A tiny Qwen2 model and byte-level BPE, trained from nothing; needs `model.adapter: full`."""

    vocab_size: int = 4096
    """Entries of the tokenizer, its 256 bytes and the sentinels included; 300 or more."""
    hidden_size: int = 256
    """Width of the model; a multiple of twice `num_heads`."""
    num_layers: int = 4
    """Decoder layers."""
    num_heads: int = 4
    """Attention heads: one or an even number; half as many key-value heads."""
    intermediate_size: int = 704
    """Width of the feed-forward block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is tuned, and how."""

    name: str = ""
    """Hub id or folder of the base model; required unless `scratch` is given."""
    revision: str = ""
    """Commit of the hub model; empty for the newest."""
    format: str = "auto"
    """Row of `sfim formats`; `auto` finds the one the tokenizer proves."""
    tokenizer: str = "auto"
    """Encodes text: `transformers`, `fastokens` (extra `fast`, same ids) or `auto`, the faster."""
    adapter: str = "lora"
    """`lora` or `full`."""
    lora_r: int = 16
    """Rank of the LoRA matrices."""
    lora_alpha: int = 32
    """LoRA scale is `lora_alpha / lora_r`."""
    lora_dropout: float = 0.0
    """Dropout on the LoRA input, 0 to 1."""
    lora_targets: str = "all-linear"
    """Modules with an adapter: `all-linear`, or names separated by commas."""
    attention: str = "auto"
    """`auto`, `blocks` (ours), `flash_attention_2`, `flash_attention_3`, `sdpa` or `eager`."""
    dtype: str = "auto"
    """`auto` (bfloat16 on CUDA, float32 on CPU), `float32`, `bfloat16` or `float64`."""
    allow_untrained_fim: bool = False
    """Accept a model family that is known not to be trained on FIM."""
    scratch: Scratch | None = None
    """Train a tiny model from nothing instead of loading `name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fim:
    """How documents become samples and packs."""

    preset: str = ""
    """`aixcoder`, `ast-fim`, `random` or `execrepobench` fills what is not given below."""
    fim_rate: float = 0.7
    """Share of windows cut into prefix, middle and suffix, 0 to 1; the rest is autoregressive."""
    orders: dict[str, float] = field(default_factory=dict)
    """Weights of `psm` and `spm`; empty for those the family was trained on."""
    samplers: dict[str, float] = field(default_factory=lambda: dict(SpanPolicy().samplers))
    """Weights of the span samplers; whatever is given replaces the whole table."""
    boundaries: dict[str, float] = field(default_factory=lambda: dict(SpanPolicy().boundaries))
    """Weights of where a MIDDLE starts: at the node, at its leading blanks, at its line."""
    constructs: dict[str, float] = field(default_factory=dict)
    """Weights of what the `construct` sampler takes; empty for all that a file has, alike."""
    max_middle_bytes: int = 2_000
    """Larger nodes are never a MIDDLE; a MIDDLE is never cut. 6 or more."""
    max_length: int = 8_192
    """Tokens of one pack, and the most one sample may have; 64 or more."""
    window_bytes: int = 0
    """Bytes per sample; 0 measures the tokenizer's bytes per token."""
    path_header: str = "none"
    """`none`, `comment` (a first line with the path) or `family` (the model family's own way)."""
    context: str = "none"
    """`none` or `repo`: what a window has left holds the files before it in its repository."""
    profile: str = "none"
    """How much prefix and suffix are sent: `none` (what fits), `continue`, `llama.cpp`,
    `llama.vim` or `tabby`, as these clients do."""
    loss: str = "all"
    """`all` (every token) or `middle` (MIDDLE and end token only)."""
    seed: int = 0
    """Seed of every choice."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Base against adapter on held-out spans."""

    items: int = 1_000
    """Spans; 0 skips the evaluation."""
    max_new_tokens: int = 96
    """Tokens a completion may have, 8 to below `fim.max_length`; longer MIDDLEs are not chosen."""
    batch_size: int = 16
    """Completions generated at once."""
    bootstrap: int = 2_000
    """Resamples of the files for the 95 % intervals."""
    control: str = ""
    """Run folder of another adapter of the same base, measured on the same spans."""
    seed: int = 0
    """Seed of spans and resamples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run: `runs/<name>/` is made from it."""

    name: str
    """Name of the run folder under `runs/`."""
    model: Model
    corpus: Corpus
    fim: Fim = field(default_factory=Fim)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    runs: str = "runs"
    """Folder that holds the run folders."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs) / self.name

    def __post_init__(self) -> None:
        """Refuse values no run can use.

        Raises:
            RecipeError: all of them, one per line.
        """
        faults = list(_find_faults(self))
        if faults:
            raise RecipeError("\n".join(faults))


_LIMITS: tuple[tuple[Limit, str], ...] = (
    (at_least(0), "corpus.filters.min_bytes corpus.split.min_files corpus.max_documents"),
    (at_least(0), "corpus.workers fim.window_bytes train.max_tokens train.num_processes"),
    (at_least(0), "train.weight_decay train.save_steps train.eval_steps evaluate.items"),
    (at_least(1), "model.lora_r model.lora_alpha corpus.filters.max_depth"),
    (at_least(1), "corpus.filters.max_bytes corpus.filters.max_line_length"),
    (at_least(1), "train.epochs train.packs_per_step train.gradient_accumulation"),
    (at_least(1), "evaluate.batch_size evaluate.bootstrap"),
    (at_least(8), "evaluate.max_new_tokens"),
    (at_least(6), "fim.max_middle_bytes"),  # a structured MIDDLE has more than 5 bytes
    (at_least(64), "fim.max_length"),
    (ABOVE_0, "corpus.filters.max_mean_line_length train.learning_rate train.max_grad_norm"),
    (ABOVE_0, "train.end_token_weight"),
    (RATE, "model.lora_dropout corpus.filters.max_error_rate fim.fim_rate"),
    (RATE, "corpus.filters.min_letters corpus.filters.max_data_rate"),
    (RATE, "corpus.filters.max_table_rate corpus.filters.max_repeated_lines"),
    (RATE, "corpus.filters.max_repeated_ngrams corpus.filters.max_ladder_rate"),
    (RATE, "corpus.filters.commented_code_rate"),
    (at_least(0), "corpus.filters.max_literal_bytes corpus.filters.max_ruff"),
    (RATE, "corpus.order.shuffle_rate"),
    (("0 to 0.9", lambda value: 0 <= value <= 0.9), "corpus.replay_rate corpus.drop_projects"),
    (("0.5 to 1", lambda value: 0.5 <= value <= 1), "corpus.dedup.threshold"),
    (ABOVE_0, "corpus.file_seconds"),
    (at_least(268_435_456), "corpus.file_memory"),
    (("0 to 0.5", lambda value: 0 <= value <= 0.5), "corpus.split.eval_rate"),
    (("0 to below 1", lambda value: 0 <= value < 1), "train.warmup_rate"),
    (SEED, "fim.seed train.seed evaluate.seed"),
)
_SCRATCH_LIMITS: tuple[tuple[Limit, str], ...] = (
    (at_least(300), "model.scratch.vocab_size"),
    (at_least(1), "model.scratch.hidden_size model.scratch.num_layers"),
    (at_least(1), "model.scratch.num_heads model.scratch.intermediate_size"),
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "model.format": ("auto", *FORMATS),
    "model.tokenizer": ("auto", "transformers", "fastokens"),
    "model.adapter": ("lora", "full"),
    "model.attention": ATTENTIONS,
    "model.dtype": ("auto", "float32", "bfloat16", "float64"),
    "corpus.filters.preset": ("", *FILTER_PRESETS),
    "corpus.split.by": ("file", "repo", "time"),
    "corpus.secrets.secrets": ("redact", "drop", "keep"),
    "corpus.secrets.personal": ("redact", "drop", "keep"),
    "corpus.dedup.keep": ("weightiest", "newest"),
    "corpus.order.by": ("imports", "path"),
    "fim.preset": ("", *PRESETS),
    "fim.path_header": ("none", "comment", "family"),
    "fim.context": ("none", "repo"),
    "fim.profile": tuple(PROFILES),
    "fim.loss": ("all", "middle"),
    "train.scheduler": SCHEDULERS,
    "train.report_to": ("none", "wandb", "tensorboard"),
}
_WEIGHTS: dict[str, tuple[str, ...]] = {
    "fim.orders": ("psm", "spm"),
    "fim.samplers": tuple(SAMPLERS),
    "fim.boundaries": tuple(BOUNDARIES),
    "fim.constructs": DRAWN_CONSTRUCTS,
}


def _find_faults(recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong with the values of a recipe, by dotted key."""
    plain = recipe.name.isprintable() and not {"/", "\\"} & set(recipe.name)
    if not recipe.name.strip() or not plain or recipe.name.startswith("."):
        yield f"name: expected a plain folder name, got {recipe.name!r}"
    yield from limit_faults(recipe, _LIMITS)
    yield from choice_faults(recipe, _CHOICES)
    yield from weight_faults(recipe, _WEIGHTS)
    yield from _table_faults(recipe.fim)
    yield from _room_faults(recipe)
    yield from _model_faults(recipe)
    yield from corpus_faults(recipe.corpus)


def _table_faults(fim: Fim) -> Iterator[str]:
    for key in ("samplers", "boundaries"):
        if not getattr(fim, key):
            yield f"fim.{key}: expected a weight at least, got an empty table"


def _room_faults(recipe: Recipe) -> Iterator[str]:
    new, length = recipe.evaluate.max_new_tokens, recipe.fim.max_length
    if new >= length >= 64:
        yield f"evaluate.max_new_tokens: expected below fim.max_length, {length}, got {new}"


def _model_faults(recipe: Recipe) -> Iterator[str]:
    model, scratch = recipe.model, recipe.model.scratch
    if bool(model.name) == (scratch is not None):
        yield "model: set exactly one of 'name' and 'scratch'"
    if not model.lora_targets.strip():
        yield "model.lora_targets: expected all-linear or names separated by commas, got ''"
    if scratch is None:
        return
    if model.adapter != "full":
        yield "model.adapter: a model from scratch has no base to adapt; set it to 'full'"
    faults = list(limit_faults(recipe, _SCRATCH_LIMITS))
    yield from faults
    if faults:
        return
    if scratch.num_heads > 1 and scratch.num_heads % 2:
        yield f"model.scratch.num_heads: expected 1 or an even number, got {scratch.num_heads}"
    if scratch.hidden_size % (2 * scratch.num_heads):
        yield (
            "model.scratch.hidden_size: expected a multiple of twice num_heads, "
            f"{2 * scratch.num_heads}, got {scratch.hidden_size}"
        )
