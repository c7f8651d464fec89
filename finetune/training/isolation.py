"""The proof that the samples of a pack cannot see each other, before anything is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from fim import FimError
from finetune.progress import first_line
from finetune.training.attention import BLOCKS, choose_attention
from finetune.training.losses import collate as collate_packs

_STATE = "its layers carry state from one sample into the next"
_MASKS = "transformers builds its masks without the positions"
_LEAKING_LAYERS = {
    **dict.fromkeys(("mamba", "linear_attention", "conv", "hybrid", "hybrid_sliding"), _STATE),
    "chunked_attention": "its chunks are of the row, not of the sample",
}
"""Entries of a configuration's `layer_types` that no attention can keep apart."""
_LEAKING_MODELS = {
    **dict.fromkeys(
        (
            "bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "glm5_next_text",
            "inkling_text", "inkling2_text", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "lfm3",
            "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5_moe_text",
            "qwen3_5_text", "qwen3_next", "qwen4_exp_text", "recurrent_gemma", "rwkv", "xlstm",
            "zamba", "zamba2", "zaya",
        ),
        _STATE,
    ),
    **dict.fromkeys(
        ("falcon", "gptj", "xglm"), "it has an attention of its own, which knows no samples"
    ),
}  # fmt: skip
"""Model types of transformers 5.23 that leak whatever the attention."""
_LEAKING_WITH_MASKS = ("biogpt", "gpt_oss", "granitemoehybrid", "opt")
"""Those that leak where transformers builds the mask, and not with `blocks`."""
_EXPERTS = ("moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts")
_CHOSEN = ("moe_k", "moe_topk", "num_experts_per_tok", "num_experts_per_token", "top_k_experts")
"""What configurations call the experts of a layer, and those of them that a token goes to."""
_FEWER = {
    **dict.fromkeys(("n_group", "num_expert_group", "topk_group"), 1),
    **dict.fromkeys(("num_kv_shared_layers", "zero_expert_num"), 0),
}
"""Entries of a configuration that do not fit few layers and experts, and what does."""


def refuse_leaking(config: PretrainedConfig, attention: str) -> None:
    """Refuse by name what is known to leak, before any weight is moved.

    Args:
        config: of the model.
        attention: its attention implementation, see `choose_attention`.

    Raises:
        FimError: samples of a pack would see each other; says why.
    """
    text = config.get_text_config()
    reason = _LEAKING_MODELS.get(text.model_type) or next(
        filter(None, map(_LEAKING_LAYERS.get, getattr(text, "layer_types", None) or ())), None
    )
    if reason:
        raise FimError(
            f"{text.model_type} cannot be trained on packs: {reason}; "
            "tune a model family that supports packing, such as Qwen2.5-Coder"
        )
    if text.model_type in _LEAKING_WITH_MASKS and attention in ("sdpa", "flex_attention"):
        raise FimError(
            f"{text.model_type} cannot be trained on packs with attention {attention!r}: {_MASKS}; "
            "set model.attention=blocks"
        )


@contextmanager
def packed_attention(model: PreTrainedModel, asked: str) -> Iterator[None]:
    """Let a model take packs for a while, proved, and give it its own attention back.

    Args:
        model: on its device, perhaps with an adapter.
        asked: `model.attention` of the recipe.

    Raises:
        FimError: its samples would see each other.
    """
    own = model.config._attn_implementation
    model.set_attn_implementation(choose_attention(asked, model.device, model.dtype))
    try:
        check_isolation(model, collate_packs)
        yield
    finally:
        model.set_attn_implementation(own)


@torch.no_grad()
def check_isolation(model: PreTrainedModel, collate: Any) -> None:
    """Refuse a model whose samples see each other in a pack.

    Two samples are packed by the run's own collator. Other tokens in the first must not move the
    second's logits, the second alone must give the same, and so must the model's eager attention,
    for no implementation knows what a model of tomorrow passes to it.

    Args:
        model: as it will be trained, on its device.
        collate: the run's collator.

    Raises:
        FimError: samples leak; names the model, the attention and the way out.
    """
    name = model.config._attn_implementation
    refuse_leaking(model.config, name)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    first, other, second = (
        torch.randint(vocabulary, (length,), generator=generator).tolist()
        for length in (17, 17, 23)
    )
    was_training = model.training
    who = f"{model.config.model_type} with attention {name!r}"
    way_out = (
        f"set model.attention={'sdpa' if name == BLOCKS else 'blocks'}, or tune a model family "
        "that supports packing"
    )
    model.eval()
    try:
        packed = _second_logits(model, collate, [first, second])
        moved = _second_logits(model, collate, [other, second])
        alone = _second_logits(model, collate, [second])
        eager = _eager_logits(model, collate, [second])
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError, ImportError, AssertionError) as error:
        raise FimError(f"{who} cannot run a pack ({first_line(error)}); {way_out}") from None
    finally:
        model.train(was_training)
    if not alone.isfinite().all():
        raise FimError(f"{who}: its logits are not finite; its weights are damaged")
    scale = alone.abs().max().clamp(min=1e-6)
    # many models take the softmax in float32 whatever their dtype; a leak moves a tenth and more
    tolerance = {torch.float64: 1e-5, torch.float32: 1e-4}.get(model.dtype, 5e-2)
    moved_by = max((packed - other).abs().max().item() for other in (moved, alone)) / scale.item()
    if not moved_by <= tolerance:
        raise FimError(
            f"{who} lets the samples of a pack see each other (logits move by "
            f"{moved_by:.2g} of the largest); {way_out}"
        )
    if not (eager - alone).abs().max() <= tolerance * scale:
        raise FimError(f"{who} computes something else than the model's own attention; {way_out}")


def make_stand_in(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Make the model whose isolation is proved where weights are spread over devices.

    A leak is a matter of the architecture and the attention, not of the weights. So it has the
    config, widths, vocabulary, dtype and attention of the model, random weights, and one layer of
    each kind that the config tells apart, at least two. A token goes to all experts, which are few,
    for random routers are near ties, where a rounding chooses. The generators of random numbers
    stay as they are.

    Args:
        model: perhaps too large for a device, or without weights in this process.
        device: where training runs.

    Raises:
        FimError: its architecture cannot be had with so few layers.
    """
    generators = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with torch.device(device), _default_dtype(model.dtype), generators:
        torch.manual_seed(0)
        try:  # not by `from_config`, whose weights DeepSpeed would deal out
            stand_in = type(model)(_shallow(model.config))
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise FimError(
                f"{model.config.model_type}: has no small model to prove on that its samples stay "
                f"apart ({first_line(error)}); use accelerate_configs/ddp.yaml"
            ) from None
        for parameter in stand_in.parameters():
            if parameter.ndim > 1:  # states and scores of a trained model's size
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    stand_in.set_attn_implementation(model.config._attn_implementation)
    return stand_in


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    own = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(own)


def _shallow(config: PretrainedConfig) -> PretrainedConfig:
    shallow = deepcopy(config)
    text = shallow.get_text_config()
    depth = text.num_hidden_layers
    lists = {
        name: value for name, value in vars(text).items()
        if isinstance(value, list | tuple) and len(value) == depth
    }  # fmt: skip
    kinds = [*zip(*lists.values(), strict=True)] or [()] * depth
    kept = sorted({kinds.index(kind) for kind in kinds} | set(range(min(2, depth))))
    for name, value in lists.items():
        setattr(text, name, [value[layer] for layer in kept])
    text.num_hidden_layers = len(kept)
    chosen = next(filter(None, map(vars(text).get, _CHOSEN)), 0)
    chosen = max(chosen) if isinstance(chosen, list | tuple) else chosen
    # two at least, for routers with groups rank these by their best two
    fewer = _FEWER | (dict.fromkeys(_EXPERTS + _CHOSEN, max(2, chosen)) if chosen else {})
    for name in fewer.keys() & vars(text).keys():
        if vars(text)[name]:
            setattr(text, name, fewer[name])
    return shallow


def _eager_logits(model: PreTrainedModel, collate: Any, samples: list[list[int]]) -> torch.Tensor:
    name = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return _second_logits(model, collate, samples)
    finally:
        model.set_attn_implementation(name)


def _second_logits(model: PreTrainedModel, collate: Any, samples: list[list[int]]) -> torch.Tensor:
    """Logits of the last sample, from a pack of all of them."""
    ids = [token for sample in samples for token in sample]
    lengths = [len(sample) for sample in samples]
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": lengths}])
    batch = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
    labels = batch.pop("labels")
    assert "use_cache" not in batch, "the collator asks for a cache"
    assert labels.shape == batch["input_ids"].shape
    return model(**batch, use_cache=False).logits[0, -lengths[-1] :].double()
