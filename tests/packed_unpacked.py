"""Tiny models with their families' real options, and how far packed is from unpacked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import (
    DeepseekV2Config,
    Gemma2Config,
    GemmaConfig,
    Glm4Config,
    GPTBigCodeConfig,
    GraniteConfig,
    GraniteMoeHybridConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    StableLmConfig,
    Starcoder2Config,
)

from finetune.training.attention import BLOCKS
from finetune.training.losses import collate

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
HYBRID = {
    "shared_intermediate_size": 48, "num_local_experts": 0, "num_experts_per_tok": 0,
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=8),
    "starcoder2": Starcoder2Config(**SIZES, sliding_window=8),
    "gpt_bigcode": GPTBigCodeConfig(
        vocab_size=97, n_positions=128, n_embd=32, n_layer=2, n_head=4, n_inner=48,
        multi_query=True, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    ),
    "gemma": GemmaConfig(**{**SIZES, "num_key_value_heads": 1}, head_dim=16),
    "gemma2": Gemma2Config(  # scores of random weights are small, so the cap is low to be felt
        **SIZES, head_dim=16, sliding_window=8, query_pre_attn_scalar=24,
        attn_logit_softcapping=2.0,
    ),
    "granite": GraniteConfig(
        **SIZES, attention_multiplier=0.3, residual_multiplier=0.7, embedding_multiplier=2.0,
        logits_scaling=1.5,
    ),
    "granitemoehybrid": GraniteMoeHybridConfig(
        **SIZES, **HYBRID, layer_types=["attention", "attention"], position_embedding_type="rope",
    ),
    "glm4": Glm4Config(**SIZES, head_dim=8),
    "deepseek_v2": DeepseekV2Config(  # latent attention: 12 numbers in a query, 8 in a value
        **{**SIZES, "num_key_value_heads": 4}, q_lora_rank=None, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, n_routed_experts=4,
        n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1,
        moe_intermediate_size=16, first_k_dense_replace=1,
    ),
    "phi3": Phi3Config(**SIZES, sliding_window=8),
    "stablelm": StableLmConfig(**SIZES),
}  # fmt: skip
LENGTHS = (5, 21, 1, 11)
"""One sample is longer than two sliding windows, one has a single token."""


class Results(NamedTuple):
    """What a forward and backward pass gives, or how far two of them are apart."""

    logits: Any
    loss: Any
    gradients: Any


def make_model(config: Any, attention: str = BLOCKS, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        deepcopy(config),  # models would share it, and with it the attention of the last one
        attn_implementation=attention,
        experts_implementation="eager",  # the grouped product of matrices knows no float64
        dtype=dtype,
    )
    for parameter in model.parameters():  # fresh weights are too small to tell a leak by
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def add_lora(model: Any) -> Any:
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero in a fresh adapter
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def recompute_activations(model: Any) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None)  # transformers 5.17 has none
    (enable or model.gradient_checkpointing_enable)()


def make_rows(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, list[int]]]:
    """One pack per sample; together they are one pack of all."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in lengths:
        ids = torch.randint(1, 97, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [-100, *ids[1:]], "seq_lengths": [length]})
    return rows


def packed_logits(model: Any, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    batch = collate(rows)
    del batch["labels"]
    return model(**batch, use_cache=False).logits[0]


def packed(model: Any) -> Results:
    return _backward(model, packed_logits(model, make_rows()))


def unpacked(model: Any) -> Results:
    """One sample after the other, as users of transformers ask for them."""
    logits = [
        model(torch.tensor([row["input_ids"]]), use_cache=False).logits[0] for row in make_rows()
    ]
    return _backward(model, torch.cat(logits))


def _backward(model: Any, logits: torch.Tensor) -> Results:
    """The loss is the sum over labeled tokens, so that samples add up."""
    labels = torch.tensor([label for row in make_rows() for label in row["labels"]])
    loss = torch.nn.functional.cross_entropy(
        logits[:-1], labels[1:], ignore_index=-100, reduction="sum"
    )
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return Results(logits, loss, torch.cat(gradients))


def distance(value: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    return ((value - expected).abs().max() / expected.abs().max()).item()


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Norms, routers and softmax of many models go through float32 whatever their dtype."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        for owner, name in (
            (torch.Tensor, "to"), (torch.Tensor, "type"), (torch.nn.functional, "softmax"),
        ):  # fmt: skip
            stack.enter_context(patch.object(owner, name, _widened(getattr(owner, name))))
        yield


def _widened(function: Callable[..., Any]) -> Callable[..., Any]:
    def widen(value: Any) -> Any:
        return torch.float64 if value is torch.float32 else value

    return lambda *args, **kwargs: function(
        *map(widen, args), **{key: widen(value) for key, value in kwargs.items()}
    )
