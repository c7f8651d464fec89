"""From packs to batches, and from hidden states to the loss of each token.

The logits of a pack of 8,192 tokens over 152,000 words are 5 GB, and as much again for their
softmax and their gradient. Here only labeled positions are projected, a chunk of them at a time,
and a chunk's gradient is taken at once, so that no more than 256 MB of logits are there at a time
and none is computed twice.
"""

import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from trl.trainer.utils import maybe_gather_lm_head_ctx

from fim import IGNORE_INDEX, FimError, position_ids

_CHUNK_LOGITS = 2**26
"""Logits of one chunk: 441 positions of 152,000 words, 256 MB in float32."""


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lay the samples of some packs side by side in one row, with their boundaries.

        packs                  [a0 a1 a2 b0 b1] [c0 c1]
        input_ids              (1, 7)
        position_ids           [[0 1 2 0 1 0 1]]
        cu_seq_lens_q          [0 3 5 7]

    There is no attention mask: with one, transformers forgets where samples end.

    Args:
        rows: packs with `input_ids`, `labels` and `seq_lengths`.

    Returns:
        Arguments of a transformers model: `input_ids`, `labels`, `position_ids` of shape
        `(1, tokens)`, `cu_seq_lens_q/k` (`int32`, `(samples + 1,)`) and `max_length_q/k`.
    """
    lengths = [int(length) for row in rows for length in row["seq_lengths"]]
    cu_seq_lens = torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32))
    return {
        "input_ids": _row(rows, "input_ids"),
        "labels": _row(rows, "labels"),
        "position_ids": torch.from_numpy(position_ids(lengths))[None],
        "cu_seq_lens_q": cu_seq_lens,
        "cu_seq_lens_k": cu_seq_lens,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def _row(rows: Sequence[dict[str, Any]], column: str) -> torch.Tensor:
    joined = np.concatenate([np.asarray(row[column], dtype=np.int64) for row in rows])
    return torch.from_numpy(joined)[None]


_LOGIT_SCALES = {
    "logits_scaling": True,  # Granite divides by it
    "logit_scale": False,  # Cohere
    "lm_head_multiplier": False,  # Falcon-H1
    "output_multiplier": False,  # Muse Glimmer
}
"""Keys of a config that scale its logits, and whether by division; from transformers' models."""


def add_loss(model: PreTrainedModel) -> None:
    """Teach a model to return its loss where it is called with `token_weights`.

    The loss is then computed inside the model's own `forward`, where DDP, FSDP2 and DeepSpeed
    expect every use of a weight. Without `token_weights` the model is what it was.

        model(**inputs, labels=labels, token_weights=weights).loss

    is the sum of `weights[t] * -log p(labels[t + 1] | tokens up to t)` over the labeled tokens;
    with `token_weights="each"` it is those losses themselves, `(labeled tokens,)`.

    Args:
        model: a causal language model, before or after PEFT put an adapter into it.
    """
    plain = model.forward

    def forward(self: Any, *args: Any, token_weights: Any = None, **kwargs: Any) -> Any:
        if token_weights is None:
            return plain(*args, **kwargs)
        labels = kwargs.pop("labels")
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        if isinstance(token_weights, str):
            return CausalLMOutput(loss=_labeled_losses(self, hidden[0, :-1], labels[0, 1:]))
        return CausalLMOutput(
            loss=_weighted_loss(self, hidden[0, :-1], labels[0, 1:], token_weights)
        )

    model.forward = types.MethodType(forward, model)
    model.gives_losses = True


@torch.no_grad()
def check_logits(model: PreTrainedModel) -> None:
    """Refuse a model whose logits are more than what `_logits` knows to do with hidden states.

    Raises:
        FimError: its architecture does something else after the last layer.
    """
    ids = np.arange(8) % model.config.get_text_config().vocab_size
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)]}])
    del batch["labels"]
    batch = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
    was_training = model.training
    model.eval()
    expected = model(**batch, use_cache=False).logits[0].double()
    found = _logits(model, model.base_model(**batch, use_cache=False).last_hidden_state[0])
    model.train(was_training)
    if (found.double() - expected).abs().max() > 0.02 * expected.abs().max():
        raise FimError(
            f"{model.config.model_type}: its logits are not its output layer's and the scales "
            "that its config names, so its loss would be another; choose another base"
        )


@torch.compiler.disable
def _weighted_loss(
    model: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum the weighted losses of the labeled tokens.

    Args:
        model: its output layer and the scales of its logits are used.
        hidden: `(tokens, width)`, the last layer's states.
        targets: `(tokens,)`, the token each of them predicts, or `IGNORE_INDEX`.
        weights: `(tokens,)`, of each token's loss.
    """
    kept = (targets != IGNORE_INDEX).nonzero().flatten()
    layers = [model.get_output_embeddings()]
    if model.config.get_text_config().tie_word_embeddings:  # trained rows belong to the input layer
        layers.append(model.get_input_embeddings())
    with _whole_head(model):  # changes which parameters there are
        parameters = {id(p): p for layer in layers for p in layer.parameters() if p.requires_grad}
        return _WeightedLoss.apply(
            model, hidden[kept], targets[kept], weights[kept], *parameters.values()
        )


@contextmanager
def _whole_head(model: PreTrainedModel) -> Iterator[None]:
    """Gather an output layer that is spread over processes, for as long as it is used.

    FSDP2 makes an untied one a unit of its own, which gathers when it is called; it never is here,
    for its calls differ in number between processes. DeepSpeed's ZeRO-3 has a context for it.
    """
    head = model.get_output_embeddings()
    spread = any(isinstance(p, DTensor) for p in head.parameters())
    alone = spread and isinstance(head, FSDPModule)
    if alone:
        head.unshard()
    try:
        with maybe_gather_lm_head_ctx(*head.parameters()):
            yield
    finally:
        if alone and not any(p.requires_grad for p in head.parameters()):
            head.reshard()


class _WeightedLoss(torch.autograd.Function):
    """The sum of weighted losses; its gradients are taken chunk by chunk, in the forward pass.

    So no logits are kept for the backward pass or made again in it: with a frozen output layer it
    costs what plain logits cost, two products with the vocabulary. The idea is Liger Kernel's
    (arXiv 2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, model: Any, hidden: torch.Tensor, targets: Any, weights: Any, *parameters: Any
    ) -> torch.Tensor:
        """Return the loss, with the gradients of `hidden` and `parameters` in `ctx`."""
        need = ctx.needs_input_grad[1] or any(ctx.needs_input_grad[4:])
        hidden_grads, total = [hidden[:0]], hidden.new_zeros((), dtype=_wide(hidden))
        sums = [torch.zeros_like(p, dtype=_wide(p)) if need else None for p in parameters]
        with torch.set_grad_enabled(need):
            for part in _chunks(model, len(hidden)):
                states = hidden[part].detach().requires_grad_(need)
                losses = _token_nll(_logits(model, states), targets[part])
                loss = (losses * weights[part].to(losses)).sum()
                total += loss.detach()
                if not need:
                    continue
                first, *others = torch.autograd.grad(loss, [states, *parameters], allow_unused=True)
                hidden_grads.append(first)
                for gradient, so_far in zip(others, sums, strict=True):
                    if gradient is not None:
                        so_far += gradient
        if need:
            ctx.save_for_backward(
                torch.cat(hidden_grads),
                *(so_far.to(p.dtype) for so_far, p in zip(sums, parameters, strict=True)),
            )
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        """Scale what the forward pass found."""
        hidden, *parameters = ctx.saved_tensors
        scaled = [(gradient * of_parameter).to(of_parameter) for of_parameter in parameters]
        return None, (gradient * hidden).to(hidden), None, None, *scaled


def _chunks(model: PreTrainedModel, positions: int) -> Iterator[slice]:
    size = max(1, _CHUNK_LOGITS // model.config.get_text_config().vocab_size)
    return (slice(start, start + size) for start in range(0, positions, size))


def _logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """What the model itself makes of its last hidden states, in float32 or wider.

    Source:
        The models' own `forward` in transformers; the cap is Gemma 2's.
    """
    config = model.config.get_text_config()
    # not called but its `forward`: FSDP2 and DeepSpeed count the calls, and chunks differ in number
    logits = model.get_output_embeddings().forward(hidden)
    logits = logits.to(_wide(logits))
    for name, divides in _LOGIT_SCALES.items():
        if scale := getattr(config, name, None):
            logits = logits / scale if divides else logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _labeled_losses(
    model: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Loss of each labeled token, of shape `(labeled tokens,)`; no gradient is kept for them."""
    kept = targets != IGNORE_INDEX
    hidden, targets = hidden[kept], targets[kept]
    with _whole_head(model):
        parts = [
            _token_nll(_logits(model, hidden[part]), targets[part])
            for part in _chunks(model, len(hidden))
        ]
    return torch.cat([hidden.new_zeros(0), *parts])


@torch.no_grad()  # what FSDP2 gathers in inference mode could not be trained afterwards
def token_losses(model: torch.nn.Module, pack: dict[str, Any]) -> list[np.ndarray]:
    """Return the negative log-likelihood of each labeled token, sample by sample.

    Args:
        model: a causal language model that keeps samples apart, in evaluation mode.
        pack: `input_ids`, `labels` and `seq_lengths`, as `collate` takes them.

    Returns:
        One `float64` array per sample, natural logarithm.
    """
    device = next(model.parameters()).device
    batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in collate([pack]).items()}
    inner = getattr(model, "module", model)  # of DeepSpeed's engine
    plain = inner.get_base_model() if isinstance(inner, PeftModel) else inner  # LoRA is inside
    targets = (batch["labels"][0].cpu() != IGNORE_INDEX).nonzero().flatten()
    assert 0 not in targets, "the first label of a pack has no token to predict it"
    if getattr(plain, "gives_losses", False):  # through `forward`, where FSDP2 gathers weights
        found = model(**batch, token_weights="each", use_cache=False).loss
    else:
        labels = batch.pop("labels")[0]
        hidden = plain.base_model(**batch, use_cache=False).last_hidden_state[0]
        found = _labeled_losses(plain, hidden[:-1], labels[1:])
    losses = found.cpu().double().numpy()
    sample_of_token = np.repeat(np.arange(len(pack["seq_lengths"])), pack["seq_lengths"])
    of = sample_of_token[targets.numpy()]
    return [losses[of == sample] for sample in range(len(pack["seq_lengths"]))]
