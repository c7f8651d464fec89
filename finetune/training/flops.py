"""What a training step costs in floating-point operations, and what a GPU can do at most."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

PEAK_FLOPS = (
    # dense bfloat16 with float32 sums, from the makers' data sheets; the first that fits counts
    # products of matrices reach four fifths of it at best: an H100's or H200's 790e12
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("GH200", 989e12),
    ("A100", 312e12),
    ("A40", 149.7e12),
    ("A10G", 125e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX A6000", 154.8e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
    ("MI300X", 1307e12),
    ("MI250X", 191.5e12),  # one of its two dies, which is one device
)
"""Most floating-point operations a second, by words of the name that torch gives.

`mfu` in a run's log is a share of it, and hours in a plan are at 35 % of it."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations of a training step, forward and backward, without what is computed twice."""

    per_token: float
    """Of the weights: 2 forward and 2 backward each, and 2 more each that is trained."""
    per_square: float
    """Of attention, by the squared length of a sample: half of the square is masked."""

    def of(self, seq_lengths: Iterable[int]) -> float:
        """Return the operations of one pack."""
        lengths = list(seq_lengths)
        return self.per_token * sum(lengths) + self.per_square * sum(n * n for n in lengths)


def training_cost(model: torch.nn.Module) -> Cost | None:
    """Count the operations of a model, with its adapter if it has one.

    The embedding is looked up and costs nothing; the output head counts, tied or not. Attention
    costs 2 * width of all heads per layer and squared length forward, and 2.5 times that backward,
    as FlashAttention counts it; sliding windows are counted as if they were wide enough.

    Returns:
        `None` for a mixture of experts, where the tokens decide what is computed.
    """
    config = model.config.get_text_config()
    if any((getattr(config, name, None) or 0) > 1 for name in _EXPERTS):
        return None
    total = trained = 0
    for module in model.modules():
        weights = _matmul_weights(module)
        total += weights
        if weights and module.weight.requires_grad:
            trained += weights
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Cost(4.0 * total + 2.0 * trained, 3.5 * 2 * config.num_hidden_layers * width)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return what a device can do at most in a second, if the table knows."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    return named_flops(torch.cuda.get_device_name(device))


def named_flops(name: str) -> float | None:
    """Return what a GPU of a name can do at most in a second, if the table knows.

    A card of another size keeps the name of the one in the table and has a word behind it.
    """
    pattern = r"\b{}\b(?! (?:Ti|SUPER|D|Laptop|Max-Q|Mobile)\b)"
    return next(
        (flops for words, flops in PEAK_FLOPS if re.search(pattern.format(words), name)), None
    )


def _matmul_weights(module: torch.nn.Module) -> int:
    """Weights of a linear layer, however its numbers are stored."""
    is_wrapper = hasattr(module, "base_layer")  # of PEFT, around the layer it adapts
    if is_wrapper or not isinstance(getattr(module, "weight", None), torch.nn.Parameter):
        return 0
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return module.in_features * module.out_features
    # transformers' Conv1D is GPT-2's linear layer
    return module.nx * module.nf if hasattr(module, "nx") and hasattr(module, "nf") else 0
