"""What is trained on a frozen base: one row for each kind of adapter, and how it is saved.

Whatever way an adapter was trained, what is saved loads on the unchanged base with plain PEFT and,
but for DoRA and trained sentinels, in vLLM and llama.cpp, which know plain LoRA only.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, load_peft_weights
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, PreTrainedModel

from fim import FimError
from finetune.progress import first_line
from finetune.recipe.schema import Model
from finetune.samples.tokenizer import load_or_refuse
from finetune.store import read_json, write_json

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MORE_THAN_LORA = ("modules_to_save", "trainable_token_indices")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A way to train a low-rank change of a base."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of PEFT's `LoraConfig`, beside rank, alpha, dropout and targets."""
    is_quantized: bool = False
    """Whether the base is loaded in four bits."""


ADAPTERS = {
    # Hu et al. 2021, arXiv 2106.09685
    "lora": Adapter(),
    # Kalajdzievski 2023, arXiv 2312.03732: with alpha / sqrt(r) a high rank learns like a low one
    "rslora": Adapter(arguments={"use_rslora": True}),
    # Liu et al. 2024, arXiv 2402.09353: learns the length of each row apart from its direction
    "dora": Adapter(arguments={"use_dora": True}),
    # Meng et al. 2024, arXiv 2404.02948: begins with the principal directions of each weight, by
    # randomized SVD with 16 iterations, which the paper finds as good as the full one
    "pissa": Adapter(arguments={"init_lora_weights": "pissa_niter_16"}),
    # Dettmers et al. 2023, arXiv 2305.14314
    "qlora": Adapter(is_quantized=True),
}


def add_adapter(base: PreTrainedModel, model: Model, sentinel_ids: Sequence[int] = ()) -> PeftModel:
    """Put a fresh adapter on a base, without new tokens or saved modules.

    Args:
        base: loaded as `quantization` says; PiSSA changes its weights.
        model: kind, rank, scale and targets.
        sentinel_ids: tokens whose rows in embedding and output layer are trained as well.

    Raises:
        FimError: the base has no module of the names asked for, or one of them is an embedding.
    """
    targets: Any = model.lora_targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",")]
        _refuse_embeddings(base, targets)
    arguments = dict(ADAPTERS[model.adapter].arguments)
    if next(base.parameters()).is_meta:  # FSDP brings the first process's weights here
        arguments.pop("init_lora_weights", None)
    if sentinel_ids:
        names = _embedding_names(base)  # of tied ones the first row is the other's, too
        rows = sorted(sentinel_ids)
        arguments["trainable_token_indices"] = dict.fromkeys(names[: 2 - _is_tied(base)], rows)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=model.lora_r,
        lora_alpha=model.lora_alpha,
        lora_dropout=model.lora_dropout,
        target_modules=targets,
        **arguments,
    )
    try:
        with quiet_peft():
            tuned = get_peft_model(base, config)
    except ValueError as error:
        raise FimError(f"model.lora_targets: {first_line(error)}") from None
    except TypeError as error:  # PiSSA in float64
        raise FimError(f"model.adapter: {first_line(error)}") from None
    if "init_lora_weights" in arguments:
        saved = get_peft_model_state_dict(tuned, save_embedding_layers=False)
        tuned.pissa_start = {name: tensor.cpu().clone() for name, tensor in saved.items()}
    return tuned


def continue_adapter(base: PreTrainedModel, name: str) -> PeftModel:
    """Put a saved adapter on its base, to be trained further: rank, scale and targets are its own.

    Args:
        base: the base it was trained on.
        name: folder or hub id of the adapter.

    Raises:
        FimError: it is no LoRA adapter, or it holds rows of new tokens.
    """
    config = read_adapter_config(name)
    weights = load_or_refuse(lambda: load_peft_weights(name, device="cpu"), name)
    more = [key for key in _MORE_THAN_LORA if getattr(config, key, None)]
    more += [key for key in weights if ".lora_" not in key][:1]
    if not isinstance(config, LoraConfig) or more:
        raise FimError(
            f"model.adapter_from: {name}: has {more[0] if more else config.peft_type}, and only "
            "plain LoRA can be trained further; merge it and give the result as model.name"
        )
    with quiet_peft():
        return PeftModel.from_pretrained(base, name, is_trainable=True)


def read_adapter_config(name: str) -> PeftConfig:
    """Read what an adapter says of itself.

    Raises:
        FimError: there is no adapter of that name.
    """
    if Path(name).is_dir() and not (Path(name) / _CONFIG).is_file():
        raise FimError(f"{name}: no adapter ({_CONFIG} is missing); give a run's adapter/")
    return load_or_refuse(lambda: PeftConfig.from_pretrained(name), name)


def quantization(model: Model, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How the base is to be quantized while it is loaded: NF4, its constants quantized as well.

    PEFT's `prepare_model_for_kbit_training` is not called: it would copy embeddings and output
    layer to float32, 4 GB of a 7B model, and recompute activations unasked.

    Args:
        model: the kind of adapter.
        dtype: that the products are computed in.

    Raises:
        FimError: bitsandbytes is missing, or has no such dtype.
    """
    if model.adapter not in ADAPTERS or not ADAPTERS[model.adapter].is_quantized:
        return None
    if find_spec("bitsandbytes") is None:
        raise FimError("model.adapter: qlora needs bitsandbytes; run: pip install 'sfim[qlora]'")
    if dtype == torch.float64:
        raise FimError("model.dtype: four bits are multiplied in bfloat16 or float32; set auto")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def adapter_notes(model: Model, tuned: PeftModel) -> Iterator[str]:
    """Yield what its user should hear before an adapter is trained."""
    config = tuned.peft_config["default"]
    if model.adapter_from:
        yield (
            f"continuing {model.adapter_from}: rank {config.r}, alpha {config.lora_alpha:g}, "
            f"{', '.join(sorted(config.target_modules))}"
        )
    if config.use_dora:
        yield "warning: vLLM and llama.cpp refuse DoRA; serve what sfim merge writes"
    if config.trainable_token_indices:
        yield (
            "warning: vLLM and llama.cpp refuse adapters with trained sentinels; serve what sfim "
            "merge writes"
        )
    if model.rope_theta:
        yield (
            f"warning: the base must be served with a rotary base of {model.rope_theta:g}, too; "
            "the model card says how"
        )
    experts = sum(
        p.numel() for name, p in tuned.named_parameters() if p.ndim == 3 and "experts" in name
    )
    if experts:
        share = experts / sum(p.numel() for p in tuned.parameters())
        yield (
            f"warning: the experts, {share:.0%} of the weights, get no adapter: they are no linear "
            "layers to PEFT"
        )


def save_adapter(
    tuned: PeftModel, state: Mapping[str, torch.Tensor] | None, folder: Path, identity: str
) -> None:
    """Write an adapter that plain PEFT puts on the unchanged base.

    PiSSA's matrices `A, B` are meant for a base less their start `A0, B0`. On the base itself the
    same change is `[A, A0]` and `[B, -B0]`, plain LoRA of twice the rank. Rank-stabilized LoRA is
    saved as LoRA with `alpha * sqrt(r)`: the same scale, which llama.cpp would miss.

    Args:
        tuned: from `add_adapter` or `continue_adapter`.
        state: gathered weights of a sharded model; `None` takes the model's own.
        folder: an existing folder.
        identity: written as the base, in place of a path.
    """
    # "auto" would ask the hub whether the vocabulary grew; it never does here
    tuned.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card names the base's path
    config = read_json(folder / _CONFIG) | {"base_model_name_or_path": identity}
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # of a set, so another order each time
    if start := getattr(tuned, "pissa_start", None):
        weights = load_file(folder / _WEIGHTS)
        save_file(
            {name: _with_start(name, weight, start[name]) for name, weight in weights.items()},
            folder / _WEIGHTS,
            metadata={"format": "pt"},
        )
        twice = {key: 2 * config[key] for key in ("r", "lora_alpha")}
        config |= {**twice, "init_lora_weights": True}
    if config["use_rslora"] and not (config["rank_pattern"] or config["alpha_pattern"]):
        alpha = config["lora_alpha"] * math.sqrt(config["r"])
        config |= {"lora_alpha": int(alpha) if alpha.is_integer() else alpha, "use_rslora": False}
    write_json(folder / _CONFIG, config)


def _with_start(name: str, weight: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    if ".lora_A." in name:
        return torch.cat([weight, start.to(weight)], dim=0)
    return torch.cat([weight, -start.to(weight)], dim=1) if ".lora_B." in name else weight


def _is_tied(base: PreTrainedModel) -> bool:
    return base.get_output_embeddings().weight is base.get_input_embeddings().weight


def _embedding_names(base: PreTrainedModel) -> list[str]:
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    paths = {id(module): path for path, module in base.named_modules()}
    return [paths[id(layer)].rpartition(".")[2] for layer in layers]


def _refuse_embeddings(base: PreTrainedModel, targets: Sequence[str]) -> None:
    if refused := sorted(set(_embedding_names(base)) & set(targets)):
        raise FimError(
            f"model.lora_targets: {refused[0]}: servers refuse adapters on embeddings and output "
            "layer; leave it out"
        )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Peft 0.21 asks transformers under a name that transformers warns about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield
