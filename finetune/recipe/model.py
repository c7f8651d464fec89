"""The part of a recipe that says what is tuned, and how."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fim import FORMATS
from finetune.recipe.checks import RATE, Limit, at_least, limit_faults

ATTENTIONS = (
    "auto", "blocks", "flash_attention_2", "flash_attention_3", "flex_attention", "sdpa",
)  # fmt: skip
ADAPTERS = {
    "lora": "LoRA", "rslora": "rank-stabilized LoRA", "dora": "DoRA", "pissa": "PiSSA",
    "qlora": "QLoRA", "full": "full weights",
}  # fmt: skip
"""What may be trained, and what reports and model cards call it."""


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
    """`lora`, `rslora`, `dora`, `pissa`, `qlora` (LoRA on a base in four bits), or `full`."""
    adapter_from: str = ""
    """Folder or hub id of an adapter to train further; rank, alpha and targets are its own."""
    lora_r: int = 16
    """Rank of the LoRA matrices; a small corpus needs no more ("LoRA Without Regret", 2025)."""
    lora_alpha: int = 32
    """LoRA scale is `lora_alpha / lora_r`; with `rslora` `lora_alpha / sqrt(lora_r)`."""
    lora_dropout: float = 0.0
    """Dropout on the LoRA input, 0 to 1."""
    lora_targets: str = "all-linear"
    """Modules with an adapter: `all-linear`, or names separated by commas. Attention alone learns
    less, at the same number of parameters too (QLoRA, arXiv 2305.14314; "LoRA Without Regret")."""
    train_sentinels: bool = False
    """Train the sentinels' rows of embedding and output layer as well; vLLM and llama.cpp refuse
    such an adapter until it is merged."""
    rope_theta: float = 0.0
    """Base of the rotary positions, for samples longer than the model was trained on; 0 keeps the
    model's. Code Llama has 1e6 for 16,384 tokens."""
    attention: str = "auto"
    """`auto` (flash-attn where installed, else `blocks`), `blocks` (ours, on any machine),
    `flash_attention_2`, `flash_attention_3`, `flex_attention` (CUDA) or `sdpa` (dense masks)."""
    dtype: str = "auto"
    """`auto` (bfloat16 on CUDA, float32 on CPU), `float32`, `bfloat16` or `float64`."""
    allow_untrained_fim: bool = False
    """Accept a model family that is known not to be trained on FIM."""
    scratch: Scratch | None = None
    """Train a tiny model from nothing instead of loading `name`."""


MODEL_LIMITS: tuple[tuple[Limit, str], ...] = (
    (at_least(1), "model.lora_r model.lora_alpha"),
    (at_least(0), "model.rope_theta"),
    (RATE, "model.lora_dropout"),
)
MODEL_CHOICES: dict[str, tuple[str, ...]] = {
    "model.format": ("auto", *FORMATS),
    "model.tokenizer": ("auto", "transformers", "fastokens"),
    "model.adapter": tuple(ADAPTERS),
    "model.attention": ATTENTIONS,
    "model.dtype": ("auto", "float32", "bfloat16", "float64"),
}
_SCRATCH_LIMITS: tuple[tuple[Limit, str], ...] = (
    (at_least(300), "model.scratch.vocab_size"),
    (at_least(1), "model.scratch.hidden_size model.scratch.num_layers"),
    (at_least(1), "model.scratch.num_heads model.scratch.intermediate_size"),
)


def model_faults(recipe: Any) -> Iterator[str]:
    """Yield what no single field shows; takes the recipe, for the keys are dotted from there."""
    model, scratch = recipe.model, recipe.model.scratch
    if bool(model.name) == (scratch is not None):
        yield "model: set exactly one of 'name' and 'scratch'"
    if not model.lora_targets.strip():
        yield "model.lora_targets: expected all-linear or names separated by commas, got ''"
    if model.adapter_from and model.adapter not in ("lora", "qlora"):
        yield "model.adapter_from: an adapter is what it is; set model.adapter to lora or qlora"
    if model.train_sentinels and (model.adapter == "full" or model.adapter_from):
        yield "model.train_sentinels: only a fresh adapter leaves embeddings out; set it to false"
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
