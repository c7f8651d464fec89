"""What a training step holds in memory, counted on tensors that have shapes and no numbers.

The model is made from its config alone and takes a step, forward and backward, on fake tensors,
while the storages that are alive are added up. So nothing is guessed per model family, and a step
of a 7B model costs seconds and no memory: it is taken with few layers, and what a further layer
adds is multiplied.
"""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig

from fim import FimError
from finetune.model import add_adapter
from finetune.recipe.schema import Model
from finetune.training.checkpoint import checkpoint_bytes, saved_weights, weights_bytes
from finetune.training.flops import Cost, training_cost
from finetune.training.losses import add_loss

_ATTENTION = "sfim_plan"
_DEPTHS = (2, 4)
"""Layers of the models that a step is taken with."""
_ACCELERATE_NAMES = {"fsdp2": "FSDP", "deepspeed_zero3": "DEEPSPEED"}
_NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in NF4 with double quantization: 4 bits, an 8-bit scale for 64, one for 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model of a recipe, in bytes."""

    weights: int
    """All weights as they are loaded, adapter included."""
    gradients: int
    """Gradients of the trained weights."""
    trained: int
    """Trained weights, a number of weights."""
    largest: int
    """Weights of the largest layer, or of the embedding: what is gathered where they are spread."""
    ends: int
    """Weights outside of the layers: the embedding and the output head."""
    checkpoint: int
    """Of one checkpoint: trained weights or all, and two moments of what is trained."""
    result: int
    """Of the adapter or the model that is saved in the end."""
    cost: Cost | None
    """Operations of a step; `None` for a mixture of experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes on each device, above what an idle trainer has."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them: they are there at the same time."""
        return self.weights + self.gradients + self.optimizer + self.activations


def model_shape(
    config: PretrainedConfig, model: Model, dtype: torch.dtype, steps: int, strategy: str = "single"
) -> Shape:
    """Measure a model that is made from its config, without weights.

    Args:
        config: of the base.
        model: the recipe's section.
        dtype: of the base's weights.
        steps: of the run; its log is part of a checkpoint.
        strategy: `single` or a file of `accelerate_configs/`; what is saved depends on it, and the
            rest is of the model before it is spread.

    Raises:
        FimError: the adapter does not fit the base.
    """
    tuned, base = _make(config, model, dtype)
    layers = _layers(base)
    inside = sum(_bytes(layer) for layer in layers)
    weights = _bytes(tuned)
    if model.adapter == "qlora":
        linear = sum(_linear_bytes(layer) for layer in layers)
        weights += int(linear * (_NF4 / dtype.itemsize - 1))
    trained = [p for p in tuned.parameters() if p.requires_grad]
    saved = tuned
    if strategy == "fsdp2":  # Accelerate keeps what is trained in float32
        saved, _ = _make(config, model, torch.promote_types(dtype, torch.float32))
    moments = {
        p: {"exp_avg": p, "exp_avg_sq": p, "step": torch.zeros(())}
        for p in saved.parameters() if p.requires_grad
    }  # fmt: skip
    name = _ACCELERATE_NAMES.get(strategy, "")
    return Shape(
        weights=weights,
        gradients=sum(p.nbytes for p in trained),
        trained=sum(p.numel() for p in trained),
        largest=max(_bytes(layer) for layer in layers),
        ends=_bytes(tuned) - inside,
        checkpoint=checkpoint_bytes(saved, SimpleNamespace(state=moments), steps, name),
        result=weights_bytes(saved_weights(saved)),
        cost=training_cost(tuned),
    )


def step_bytes(
    config: PretrainedConfig,
    model: Model,
    *,
    tokens: int,
    checkpointing: bool,
    accumulates: bool,
    dtype: torch.dtype,
    device: str,
    labels: int | None = None,
) -> tuple[int, int]:
    """Count the most bytes that a step holds beside weights and optimizer, gradients included.

    Args:
        config: of the base.
        model: the recipe's section.
        tokens: of one micro-step.
        checkpointing: whether activations are computed again in the backward pass.
        accumulates: whether gradients of a micro-step before are there already.
        dtype: of the base's weights.
        device: `cuda` or `cpu`: how attention keeps what it needs, and whether autocast computes
            in bfloat16, as the launch files have it.
        labels: tokens that have one; `None` for all.

    Returns:
        The peaks until half of the layers are back, and after: only the second is sure to hold all
        gradients.

    Raises:
        FimError: what the model computes depends on its tokens, as in a mixture of experts.
    """
    total = config.get_text_config().num_hidden_layers
    depths = _DEPTHS if total > max(_DEPTHS) else (total,)
    half = device == "cuda" and dtype in (torch.float32, torch.bfloat16)
    peaks = []
    for depth in depths:
        tuned, base = _make(_shallow(config, depth), model, dtype)
        try:
            with FakeTensorMode(), _LiveBytes(labels) as memory, _attention_of(device):
                peaks.append(_run(memory, tuned, base, tokens, checkpointing, accumulates, half))
        except (RuntimeError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise FimError(
                f"{config.model_type}: what it computes depends on its tokens, so its memory "
                f"cannot be planned ({reason}); train with train.max_tokens=1 to see it"
            ) from None
    if len(depths) == 1:
        return peaks[0]
    few, more = depths
    early, late = (
        low + (high - low) * (total - few) // (more - few) for low, high in zip(*peaks, strict=True)
    )
    return early, late


def spread(
    strategy: str, shape: Shape, step: tuple[int, int], gpus: int, dtype: torch.dtype
) -> Need:
    """Divide a model and its step over devices.

    Args:
        strategy: `single` or a file of `accelerate_configs/`.
        shape: of the model.
        step: both peaks of a step beside weights and optimizer, see `step_bytes`.
        gpus: devices.
        dtype: of the base's weights.

    Source:
        `fully_shard` and Accelerate's `fsdp2_prepare_model`, which keeps trained weights in
        float32; ZeRO-3 (Rajbhandari et al. 2020), whose optimizer has a copy in float32.
    """
    gradients = shape.gradients
    if strategy in ("single", "ddp"):
        copies = 2 if strategy == "ddp" and gpus > 1 else 1  # DDP's buckets
        return Need(
            weights=shape.weights, gradients=copies * gradients, optimizer=2 * gradients,
            activations=max(0, max(step) - gradients),
        )  # fmt: skip
    early, late = step
    wide = shape.trained * max(4, dtype.itemsize)
    gathered = shape.ends + 2 * shape.largest
    trained_rate = gradients / max(1, shape.weights)
    if strategy == "fsdp2":
        weights, optimizer, kept = shape.weights - gradients + wide, 2 * wide, wide
    else:
        weights, optimizer, kept = shape.weights, 3 * wide, gradients
    return Need(
        weights=weights // gpus + gathered,
        gradients=kept // gpus + int(2 * gathered * trained_rate),
        optimizer=optimizer // gpus,
        activations=max(early, late - gradients),  # early, few of them are there
    )


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that are alive; of labels without numbers, so many are there, or all."""

    def __init__(self, labels: int | None = None) -> None:
        super().__init__()
        self.labels = labels
        self.live = self.peak = 0
        self.peaks: list[int] = []
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.ops.aten.nonzero.default and isinstance(args[0], FakeTensor):
            # of labels: its length is in no shape
            size = args[0].numel() if self.labels is None else min(self.labels, args[0].numel())
            result = args[0].new_empty((size, args[0].dim()), dtype=torch.int64)
        else:
            result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._add, result)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen[storage] = None
        size = storage.nbytes()
        weakref.finalize(storage, self._drop, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _drop(self, size: int) -> None:
        self.live -= size

    def cut(self, *_: Any) -> None:
        """Begin a new part of the step, with a peak of its own."""
        self.peaks.append(self.peak)
        self.peak = self.live


def _run(
    memory: _LiveBytes,
    tuned: Any,
    base: Any,
    tokens: int,
    checkpointing: bool,
    accumulates: bool,
    half: bool,
) -> tuple[int, int]:
    """Take a step.

    Returns:
        The peaks until half of the layers are back, and after. In the first activations count, in
        the second gradients; each grows by the same with every layer.
    """
    layers = _layers(base)
    _fill(tuned)
    weights = memory.live
    tuned.train()
    if checkpointing:
        recompute_activations(base)
    add_loss(base)
    layers[len(layers) // 2 - 1].register_forward_hook(
        lambda module, inputs, output: _first(output).register_hook(memory.cut) and None
    )
    for _ in range(1 + accumulates):
        memory.peaks.clear()
        memory.peak = memory.live
        ids = torch.zeros(1, tokens, dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = tuned(
                input_ids=ids, position_ids=ids.clone(), labels=ids.clone(),
                token_weights=torch.ones(tokens - 1), use_cache=False,
            ).loss  # fmt: skip
        loss.backward()
        del loss
    memory.cut()
    return max(memory.peaks[:-1]) - weights, memory.peaks[-1] - weights


def recompute_activations(base: Any) -> None:
    """Do what the trainer does for `train.gradient_checkpointing`."""
    # newer than 5.17, transformers has another name for it, and the old one warns
    new = getattr(base, "activation_checkpointing_enable", None)
    (new or base.gradient_checkpointing_enable)({"use_reentrant": False})
    base.enable_input_require_grads()  # as PEFT asks; else no layer would need a gradient


def _first(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def _make(config: PretrainedConfig, model: Model, dtype: torch.dtype) -> tuple[Any, Any]:
    """Make the tuned model and its base, without memory."""
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(
            config, attn_implementation=_ATTENTION, dtype=dtype, trust_remote_code=False
        )
        return (base if model.adapter == "full" else add_adapter(base, model)), base


def _shallow(config: PretrainedConfig, depth: int) -> PretrainedConfig:
    shallow = copy.deepcopy(config)
    text = shallow.get_text_config()
    text.num_hidden_layers = depth
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:depth]
    return shallow


def _layers(base: Any) -> torch.nn.ModuleList:
    number = base.config.get_text_config().num_hidden_layers
    return next(
        module
        for module in base.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == number
    )


def _fill(model: torch.nn.Module) -> None:
    """Give every weight and buffer a storage of its size, tied ones the same."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None and id(old) not in made:
                new = torch.empty(old.shape, dtype=old.dtype)
                made[id(old)] = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            if old is not None:
                module._parameters[name] = made[id(old)]
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype)


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _linear_bytes(layer: torch.nn.Module) -> int:
    """Weights that are quantized: those of frozen linear layers."""
    return sum(
        module.weight.nbytes
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear) and not module.weight.requires_grad
    )


class _Flash(torch.autograd.Function):
    """Allocates and keeps what FlashAttention does: the states, its output, a number per row."""

    @staticmethod
    def forward(ctx: Any, *states: torch.Tensor) -> torch.Tensor:
        query, _, value = states
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(*states, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(state) for state in ctx.saved_tensors[:3])


def _on_gpu(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    query, key = query.to(value.dtype), key.to(value.dtype)
    return _Flash.apply(*(x.transpose(1, 2).contiguous() for x in (query, key, value))), None


def _on_cpu(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    query, key = query.to(value.dtype), key.to(value.dtype)
    output = _Flash.apply(query, key, value).transpose(1, 2)
    return torch.cat([output]), None  # the samples are put together again


@contextmanager
def _attention_of(device: str) -> Iterator[None]:
    AttentionInterface.register(_ATTENTION, _on_gpu if device == "cuda" else _on_cpu)
    yield


AttentionInterface.register(_ATTENTION, _on_gpu)
