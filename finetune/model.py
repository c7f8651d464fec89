"""Bases, adapters and tokenizers: loaded, made, and saved without a path or a name of anyone."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from fim import FimError, ProvedFormat
from finetune.progress import say
from finetune.recipe.schema import Model, Recipe
from finetune.samples.tokenizer import load_or_refuse, save_tokenizer
from finetune.store import read_json, sha256_file, write_json
from finetune.training.adapters import (
    add_adapter,
    continue_adapter,
    quiet_peft,
    read_adapter_config,
    save_adapter,
)
from finetune.training.checkpoint import whole_numel, without_tied
from finetune.training.isolation import refuse_leaking
from finetune.training.positions import set_positions

transformers_logging.disable_progress_bar()


def load_base(
    name: str,
    revision: str = "",
    *,
    attention: str | None = None,
    dtype: torch.dtype | None = None,
    rope_theta: float = 0.0,
    max_length: int = 0,
    quantized: BitsAndBytesConfig | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load a causal language model from a folder or the hub; safetensors only, never its code.

    Args:
        name: folder or hub id.
        revision: commit of the hub model.
        attention: of packed training; `None` leaves the choice to transformers.
        dtype: of the weights; `None` takes the checkpoint's.
        rope_theta: base of the rotary frequencies; 0 keeps the model's.
        max_length: tokens it is to take; a change of its config is said on stderr.
        quantized: how to quantize it, on `device`.
        device: where it goes; `None` leaves it on the CPU.

    Raises:
        FimError: it cannot be had, has no such positions, or is known to mix the samples of a pack;
            says why in one line.
    """
    config = load_or_refuse(
        lambda: AutoConfig.from_pretrained(
            name, revision=revision or None, trust_remote_code=False
        ),
        name,
    )
    if attention:
        refuse_leaking(config, attention)
    for line in set_positions(config, rope_theta, max_length):
        say(line)
    base = load_or_refuse(
        lambda: AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision or None,
            config=config,
            attn_implementation=attention,
            dtype=dtype or "auto",
            quantization_config=quantized,
            device_map={"": device} if device else None,
            use_safetensors=True,
            trust_remote_code=False,  # unset, transformers would ask on stdin
        ),
        name,
    )
    for module in base.modules() if quantized else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would pack the weights at the first evaluation, and gradients end there
            module.support_avx512bf16_for_cpu = False
    return base


def start_adapter(base: PreTrainedModel, model: Model, form: ProvedFormat) -> PeftModel:
    """Put a fresh adapter on a base, or the one to be continued.

    Raises:
        FimError: the base has no module of the names asked for, or the adapter is another base's or
            of another kind.
    """
    if not model.adapter_from:
        ids = {part for layout in form.layouts.values() for part in layout if isinstance(part, int)}
        return add_adapter(base, model, sorted(ids) if model.train_sentinels else ())
    wanted = read_adapter_config(model.adapter_from).base_model_name_or_path or "an unknown base"
    if model_identity(wanted) != base_identity(model):
        raise FimError(
            f"model.adapter_from: {model.adapter_from} was trained on {wanted}, but model.name is "
            f"{base_identity(model)}; give its own base"
        )
    return continue_adapter(base, model.adapter_from)


def base_identity(model: Model) -> str:
    """Name a base so that no path leaves the machine, see `model_identity`."""
    return model_identity(model.name)


def model_identity(place: str) -> str:
    """Name a model or an adapter so that no path leaves the machine.

    Returns:
        A hub id as it is; for a folder its bare name (of the run, for a run's result) and the
        sha256 of its weights, as in `quickstart-base@sha256:0f3c...`.
    """
    folder = Path(place)
    if not folder.is_dir():
        return place
    real = folder.resolve()
    name = real.parent.name if real.name in ("model", "adapter") else real.name
    weights = sorted(real.glob("*.safetensors"))
    digests = "".join(_digest(path) for path in weights)
    digest = digests if len(weights) == 1 else hashlib.sha256(digests.encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}@sha256:{digest}"


def _digest(path: Path) -> str:
    stat = path.stat()
    return _digest_once(path.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _digest_once(path: Path, size: int, mtime: int) -> str:
    """Gigabytes are hashed once per process, unless size or time say that they changed."""
    return sha256_file(path)


def save_tuned(
    model: PreTrainedModel | PeftModel,
    state: dict[str, torch.Tensor] | None,
    folder: Path,
    tokenizer: Any,
    form: ProvedFormat,
    identity: str,
) -> None:
    """Write what a server needs: weights, tokenizer, and a generation config that stops.

    Args:
        model: the tuned model; of a `PeftModel` only the adapter is written.
        state: gathered weights of a sharded model; `None` takes the model's own.
        folder: an existing folder.
        tokenizer: the base's.
        form: its stop tokens go into `generation_config.json`.
        identity: written as the adapter's base, see `base_identity`.
    """
    if isinstance(model, PeftModel):
        save_adapter(model, state, folder, identity)
    else:
        model.save_pretrained(folder, state_dict=without_tied(model, state))
        config = read_json(folder / "config.json")
        config.pop("_name_or_path", None)
        write_json(folder / "config.json", {**config, "use_cache": True})
    save_tokenizer(tokenizer, folder)
    write_json(folder / "generation_config.json", generation_config(form, tokenizer).to_diff_dict())


def generation_config(form: ProvedFormat, tokenizer: Any) -> GenerationConfig:
    """Greedy decoding that stops at every stop token of the family."""
    return GenerationConfig(
        do_sample=False,
        eos_token_id=list(form.stop_ids),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else form.end_id,
    )


def tuned_folder(recipe: Recipe) -> Path:
    """Where training puts its result: `adapter/` or `model/` of the run."""
    return recipe.folder / ("model" if recipe.model.adapter == "full" else "adapter")


def load_tuned(recipe: Recipe, *, dtype: torch.dtype | None = None) -> PreTrainedModel | PeftModel:
    """Load what a run trained, on its base, ready to generate.

    Raises:
        FimError: the run is not trained, or its base cannot be had or is another one.
    """
    folder = tuned_folder(recipe)
    if not (folder / "manifest.json").exists():
        raise FimError(f"{recipe.folder}: not trained yet; run: sfim train RECIPE")
    if recipe.model.adapter == "full":
        return load_base(str(folder), dtype=dtype)
    base = load_base(
        recipe.model.name, recipe.model.revision, dtype=dtype, rope_theta=recipe.model.rope_theta
    )
    return load_adapter(base, folder, recipe.model)


def load_adapter(base: PreTrainedModel, folder: Path, model: Model) -> PeftModel:
    """Put a saved adapter on its base; one that was loaded with another rotary base is loaded anew.

    Raises:
        FimError: the adapter was trained on another base.
    """
    wanted = read_json(folder / "adapter_config.json")["base_model_name_or_path"]
    found = base_identity(model)
    if wanted != found:
        raise FimError(
            f"{folder}: trained on {wanted}, but model.name is {found}; give its own base"
        )
    theta = model.rope_theta
    if theta and base.config.get_text_config().rope_parameters["rope_theta"] != theta:
        base = load_base(
            model.name, model.revision, dtype=base.dtype, rope_theta=theta, device=base.device
        )
    with quiet_peft():
        return PeftModel.from_pretrained(base, folder)


def parameter_counts(model: torch.nn.Module) -> tuple[int, int]:
    """Return (trained, all) parameters; a byte of a base in four bits is two."""
    sizes = [
        (p.requires_grad, whole_numel(p) * (2 if hasattr(p, "quant_state") else 1))
        for p in model.parameters()
    ]
    return sum(size for is_trained, size in sizes if is_trained), sum(size for _, size in sizes)


def read_run(run: Path) -> Recipe:
    """Read the recipe a run folder was made from.

    Raises:
        FimError: no run folder.
    """
    from finetune.recipe.file import read_recipe

    if not (run / "recipe.yaml").is_file():
        raise FimError(f"{run}: no run folder (no recipe.yaml); give one like runs/quickstart")
    here = [f"runs={json.dumps(str(run.parent), ensure_ascii=False)}"]
    return read_recipe(run / "recipe.yaml", [*here, f"name={json.dumps(run.name)}"])
