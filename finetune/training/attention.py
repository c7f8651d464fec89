"""Block-diagonal attention over packs without a mask.

transformers finds the samples of a pack only while no attention mask and no cache is in play, and
then builds a dense mask of length x length. Ours takes the boundaries from the collator: on CUDA
the FlashAttention kernels inside torch, elsewhere one call of scaled-dot-product attention per
sample. 8,192 tokens of 9 samples, forward and backward on a CPU: 0.3 s against 3.4 s with a mask.
"""

import inspect
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad, scaled_dot_product_attention, softmax
from transformers import AttentionInterface
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from fim import FimError
from finetune.progress import say

BLOCKS = "sfim_blocks"
"""Name under which transformers knows `block_attention`."""
_ON_GPU = ("flash_attention_2", "flash_attention_3", "flex_attention")
"""transformers' attentions that follow boundaries without a dense mask; none trains on a CPU."""
_HALF = (torch.float16, torch.bfloat16)
_GROUPED_KERNEL = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Newer than 2.11, torch's kernel takes fewer key heads than query heads."""


def choose_attention(asked: str, device: torch.device, dtype: torch.dtype | None = None) -> str:
    """Name the transformers attention for packed training; dense masks only if asked for, aloud.

    Args:
        asked: `model.attention` of the recipe.
        device: where the model runs.
        dtype: of the weights; flash-attn has kernels for half precision only.

    Raises:
        FimError: unknown name, or one that cannot train here.
    """
    if asked == "auto" and device.type == "cuda" and dtype in (None, *_HALF):
        return _installed_flash_attention(device) or BLOCKS
    if asked in ("auto", "blocks"):
        return BLOCKS
    if asked == "sdpa":
        _warn_of_masks()
    elif asked not in _ON_GPU:
        known = ", ".join(("auto", "blocks", *_ON_GPU, "sdpa"))
        raise FimError(f"model.attention: unknown {asked!r}; known: {known}")
    elif device.type != "cuda":
        raise FimError(f"model.attention: {asked} cannot train on a CPU; set it to blocks")
    return asked


def _installed_flash_attention(device: torch.device) -> str | None:
    """The package's newest kernels that this GPU runs: those of version 3 are Hopper's."""
    if is_flash_attn_3_available() and torch.cuda.get_device_capability(device)[0] == 9:
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else None


@cache
def _warn_of_masks() -> None:
    say(
        "attention sdpa: a dense mask is built for every pack, and memory grows with the square "
        "of its length; model.attention=blocks needs none"
    )


def block_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each sample of one flattened pack.

    Args:
        module: the attention layer.
        query: `(1, heads, length, dim)`.
        key: `(1, key_heads, length, dim)`.
        value: `(1, key_heads, length, value_dim)`.
        attention_mask: must be `None`.
        scaling: factor of the scores, `None` for `dim ** -0.5`.
        dropout: probability of dropping a weight.
        cu_seq_lens_q: `int32`, `(samples + 1,)`: where each sample starts, and the length.
        max_length_q: tokens of the longest sample.
        position_ids: `(1, length)`, each sample from 0; read where a model passes them alone.
        sliding_window: tokens a query may look back, itself included.
        softcap: scores are kept within plus and minus this; no kernel here does it.
        s_aux: attention sinks, not supported.
        kwargs: what other implementations need.

    Returns:
        Output of shape `(1, length, heads, value_dim)`, and no weights.

    RoPE can leave float32 queries and keys beside bfloat16 values; all take the values' dtype,
    which is that of the output projection.

    Raises:
        FimError: sample boundaries are missing, or the model asks for what this cannot do.
    """
    if cu_seq_lens_q is None and position_ids is not None:
        cu_seq_lens_q, max_length_q = _boundaries(position_ids)
    if cu_seq_lens_q is None or query.shape[0] != 1 or attention_mask is not None:
        raise FimError("packed attention needs one flat row with cu_seq_lens_q and no mask")
    if s_aux is not None:
        raise FimError("this model has attention sinks, which packed attention would drop")
    query, key = query.to(value.dtype), key.to(value.dtype)
    dropout = dropout if module.training else 0.0
    if softcap is None and not dropout and _fits_kernel(query, value):
        return _varlen(query, key, value, scaling, cu_seq_lens_q, max_length_q, sliding_window)
    if softcap is not None or query.is_cuda:  # there, few key heads mean a slow kernel
        key, value = _repeat_heads(query, key, value)
    outputs = []
    for first, last, back in _tiles(cu_seq_lens_q, sliding_window):
        states = query[:, :, first:last], key[:, :, back:last], value[:, :, back:last]
        band = None
        if back < first:
            band = _band(sliding_window, query.device)[: last - first, : last - back]
        if softcap is not None:
            output = _capped(*states, band, dropout, scaling, softcap)
        else:
            output = scaled_dot_product_attention(
                *states, band, dropout, is_causal=band is None, scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )  # fmt: skip
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1), None


@lru_cache(maxsize=2)
def _boundaries(position_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Find where samples start: once per step, for all layers are given the same tensor."""
    starts = (position_ids[0] == 0).nonzero().flatten()
    edges = pad(starts, (0, 1), value=position_ids.shape[1]).to(torch.int32)
    return edges, int(edges.diff().max())


@lru_cache(maxsize=4)
def _tiles(cu_seq_lens: torch.Tensor, window: int | None) -> list[tuple[int, int, int]]:
    """Cut samples into runs of at most a window, so that no mask is as long as a sample.

    Kept for the tensor itself, which all layers of a step share: one transfer from the device.

    Returns:
        First query, one past the last query, and first key of each tile.
    """
    return [
        (first, min(first + (window or end), end), max(start, first - (window or end) + 1))
        for start, end in pairwise(cu_seq_lens.tolist())
        for first in range(start, end, window or end)
    ]


@lru_cache(maxsize=2)
@torch.inference_mode(False)  # it outlives the forward it was made for
def _band(window: int, device: torch.device) -> torch.Tensor:
    """The mask of a tile that looks back into the one before: 32 MiB for a window of 4,096."""
    mask = torch.ones(window, 2 * window - 1, dtype=torch.bool, device=device)
    return mask.triu().tril(window - 1)


def _repeat_heads(query: torch.Tensor, *states: torch.Tensor) -> list[torch.Tensor]:
    return [x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in states]


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
    cap: float,
) -> torch.Tensor:
    """Attention by its formula, scores softly capped as in Gemma 2; arguments as for SDPA."""
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = mask.tril()
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (cap * torch.tanh(scores / cap)).masked_fill(~mask, float("-inf"))
    weights = softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return drop(weights.to(value.dtype), dropout) @ value


def _fits_kernel(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's FlashAttention takes these states."""
    dim = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in _HALF
        and dim <= 256
        and dim % 8 == 0
        and value.shape[-1] <= dim
    )


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    cu_seq_lens: torch.Tensor,
    longest: int,
    window: int | None,
) -> tuple[torch.Tensor, None]:
    """The variable-length FlashAttention kernel of torch >= 2.11, in `(length, heads, dim)`."""
    grouped = {"enable_gqa": query.shape[1] != key.shape[1]} if _GROUPED_KERNEL else {}
    if not grouped:
        key, value = _repeat_heads(query, key, value)
    dim = value.shape[-1]
    value = pad(value, (0, query.shape[-1] - dim))  # latent attention has shorter values
    output = varlen_attn(
        *(x[0].transpose(0, 1).contiguous() for x in (query, key, value)),
        cu_seq_lens, cu_seq_lens, longest, longest,
        scale=scaling, window_size=(-1 if window is None else window - 1, 0), **grouped,
    )  # fmt: skip
    return output[None, ..., :dim], None


AttentionInterface.register(BLOCKS, block_attention)
