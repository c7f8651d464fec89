"""Where a run computes, and in numbers of how many bits."""

import torch
from accelerate.utils import parse_flag_from_env

from finetune.recipe.schema import Model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def choose_device() -> torch.device:
    """The accelerator of this process; the CPU without one or with `ACCELERATE_USE_CPU`."""
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    return torch.device("cpu" if on_cpu else "cuda")


def choose_dtype(model: Model, device: torch.device) -> torch.dtype:
    """The dtype the recipe asks for; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    if model.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[model.dtype]
