"""Frozen dataclasses of a recipe: defaults, their meaning and their ranges live here, once.

`finetune.recipe.file` reads them from YAML. The reference in the README is made from the strings
under the fields, so each says unit and range.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fim import BOUNDARIES, PROFILES, SAMPLERS, FimError, SpanPolicy
from fim.spans import DRAWN_CONSTRUCTS
from finetune.recipe.checks import (
    ABOVE_0,
    RATE,
    SEED,
    Limit,
    at_least,
    choice_faults,
    limit_faults,
    weight_faults,
)
from finetune.recipe.corpus import Corpus, corpus_faults
from finetune.recipe.model import MODEL_CHOICES, MODEL_LIMITS, Model, model_faults
from finetune.recipe.presets import FILTER_PRESETS, PRESETS
from finetune.recipe.train import TRAIN_CHOICES, TRAIN_LIMITS, Train, train_faults


class RecipeError(FimError):
    """The recipe is wrong; the message names file, key and the way out."""


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
    (at_least(0), "corpus.workers fim.window_bytes evaluate.items"),
    (at_least(1), "corpus.filters.max_depth"),
    (at_least(1), "corpus.filters.max_bytes corpus.filters.max_line_length"),
    (at_least(1), "evaluate.batch_size evaluate.bootstrap"),
    (at_least(8), "evaluate.max_new_tokens"),
    (at_least(6), "fim.max_middle_bytes"),  # a structured MIDDLE has more than 5 bytes
    (at_least(64), "fim.max_length"),
    (ABOVE_0, "corpus.filters.max_mean_line_length"),
    (RATE, "corpus.filters.max_error_rate fim.fim_rate"),
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
    (SEED, "fim.seed evaluate.seed"),
    *MODEL_LIMITS,
    *TRAIN_LIMITS,
)
_CHOICES: dict[str, tuple[str, ...]] = {
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
    **MODEL_CHOICES,
    **TRAIN_CHOICES,
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
    yield from model_faults(recipe)
    yield from train_faults(recipe.train)
    yield from corpus_faults(recipe.corpus)


def _table_faults(fim: Fim) -> Iterator[str]:
    for key in ("samplers", "boundaries"):
        if not getattr(fim, key):
            yield f"fim.{key}: expected a weight at least, got an empty table"


def _room_faults(recipe: Recipe) -> Iterator[str]:
    new, length = recipe.evaluate.max_new_tokens, recipe.fim.max_length
    if new >= length >= 64:
        yield f"evaluate.max_new_tokens: expected below fim.max_length, {length}, got {new}"
