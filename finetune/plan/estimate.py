"""What a run takes before anything is spent: memory, disk, steps, tokens and hours.

Needs the base's `config.json` and no weights; packs make tokens and steps exact.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from fim import FimError
from finetune.plan.data import count_data, kept_checkpoints, measured_hours, predicted_hours
from finetune.plan.memory import Need, Shape, model_shape, spread, step_bytes
from finetune.recipe.model import Model
from finetune.recipe.schema import Recipe
from finetune.samples.tokenizer import load_or_refuse
from finetune.training.adapters import read_adapter_config
from finetune.training.device import choose_device, choose_dtype
from finetune.training.host_memory import memory_limit
from finetune.training.positions import set_positions

_GIB = 2**30
_USABLE = 0.92
"""Share of a GPU's memory that tensors may fill; the rest is lost between them."""
_USABLE_CPU = 0.8
"""The same of a CPU, where the system and an idle trainer's 0.6 GiB are beside them."""
_GPU_OVERHEAD = _GIB
"""CUDA, cuBLAS and their workspaces; as much again for NCCL where there are several GPUs."""
_LEAST_STEP = 0.01
"""Seconds; what starts a step's thousands of kernels takes as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way to train the same batches."""

    strategy: str
    """`single` or a file of `accelerate_configs/`."""
    adapter: str
    packs_per_step: int
    gradient_checkpointing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What is planned for."""

    gpus: int
    """0 for the CPU."""
    memory: int
    """Bytes of each device."""
    name: str
    """Of this machine's GPU; empty for another's."""

    @property
    def overhead(self) -> int:
        """Bytes that are no tensors'."""
        return _GPU_OVERHEAD * ((self.gpus > 0) + (self.gpus > 1))

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return torch.device("cuda" if self.gpus else "cpu")


def make_plan(recipe: Recipe, gpus: int | None = None, memory: float = 0.0) -> dict[str, Any]:
    """Predict what a run takes, and look for a setup that fits.

    Args:
        recipe: the run; nothing is written and nothing trained.
        gpus: to plan for; `None` for those of this machine, 0 for its CPU.
        memory: GiB of each device; 0 for this machine's, 80 for a GPU it does not have.

    Returns:
        What `sfim plan --json` prints.

    Raises:
        FimError: the base's config cannot be had, or its memory cannot be planned.
    """
    hardware = _find_hardware(gpus, memory)
    data = count_data(recipe)
    config = load_config(recipe)
    per_step = recipe.train.packs_per_step * recipe.train.gradient_accumulation
    per_step *= max(1, hardware.gpus)
    steps = math.ceil(data["packs"] / per_step)
    planner = _Planner(recipe, config, hardware, steps, data["labels"])
    asked = _asked(recipe, hardware)
    shape = planner.shape(asked.adapter, asked.strategy)
    need = planner.need(asked)
    proposed = asked if planner.fits(need) else planner.propose(hardware.memory)
    runs = proposed or asked
    if hardware.gpus:
        again = 0.0
        if runs.gradient_checkpointing:  # of 3 forward passes, or 2 where weights are frozen
            again = 1 / 3 if recipe.model.adapter == "full" else 1 / 2
        cost = planner.shape(runs.adapter, runs.strategy).cost
        hours = predicted_hours(data, cost, hardware.gpus, hardware.name, again)
    else:
        hours = measured_hours(data, recipe.folder)
    saved = {each: planner.saved(each, data["disk"]) for each in (asked, runs)}
    return {
        "model": recipe.model.name or recipe.name,
        "parameters": {"trained": shape.trained, "bytes": shape.weights},
        "hardware": {"gpus": hardware.gpus, "name": hardware.name, "memory": hardware.memory},
        "data": {**data, "steps": steps},
        "asked": {**asdict(asked), **asdict(need), "total": need.total, **saved[asked]},
        "fits": planner.fits(need),
        "proposed": asdict(proposed) | saved[proposed] if proposed else None,
        "hours": hours,
        "advice": planner.advice(asked, need, proposed),
    }


def plan_summary(plan: dict[str, Any]) -> str:
    """Return the plan as a table and one line of advice."""
    asked, data, hardware = plan["asked"], plan["data"], plan["hardware"]
    about = "" if data["exact"] else "about "
    where = f"{hardware['gpus']} GPU(s)" if hardware["gpus"] else "the CPU"
    steps = f"{data['steps']:,}" if data["packs"] else "unknown"
    tokens = f"{about}{data['tokens']:,}" if data["packs"] else "unknown: run sfim prepare"
    least = _LEAST_STEP * data["steps"] / 3600 if hardware["gpus"] else 0.0
    told = {name: h for name, h in plan["hours"].items() if h > least}
    hours = ", ".join(f"{_number(h)} on {name}" for name, h in told.items())
    rows = [
        ("model", f"{plan['model']}, {plan['parameters']['trained']:,} parameters trained"),
        ("runs on", f"{where} of {_gib(hardware['memory'])}, {asked['strategy']}"),
        *((name, _gib(asked[name])) for name in
          ("weights", "gradients", "optimizer", "activations", "total")),
        *((name, _asked_and_proposed(plan, name)) for name in ("checkpoint", "disk")),
        ("tokens", tokens),
        ("steps", steps),
        ("hours", hours or f"unknown: {_why_no_hours(data, hardware, plan['hours'])}"),
    ]  # fmt: skip
    table = "\n".join(f"{name:12} {value}" for name, value in rows)
    return f"{table}\n\n{plan['advice']}"


def _asked_and_proposed(plan: dict[str, Any], name: str) -> str:
    asked, proposed = (_gib((plan[key] or plan["asked"])[name]) for key in ("asked", "proposed"))
    return asked if asked == proposed else f"{asked}; {proposed} as proposed"


def _why_no_hours(data: dict[str, Any], hardware: dict[str, Any], hours: dict[str, float]) -> str:
    if not data["tokens"]:
        return "run sfim prepare"
    if hardware["gpus"]:
        if hours:
            return "steps this short depend on more than the GPU"
        return f"the speed of {hardware['name'] or 'this model'} is not known"
    return "no run on this CPU has been logged"


def explain_memory(recipe: Recipe) -> str:
    """Say in one line what a run that was out of memory here should change."""
    t, now = recipe.train, f"fim.max_length={recipe.fim.max_length}"
    checkpointing = str(t.gradient_checkpointing).lower()
    now += f" train.packs_per_step={t.packs_per_step} train.gradient_checkpointing={checkpointing}"
    try:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        hardware = _find_hardware(processes if choose_device().type == "cuda" else 0, 0.0)
        labels = count_data(recipe)["labels"]
        planner = _Planner(recipe, load_config(recipe), hardware, 1, labels)
        asked = _asked(recipe, hardware)
        need = planner.need(asked)
        less = planner.propose(min(hardware.memory, need.total))  # and a device is never all free
        way_out = planner.advice(asked, need, less)
    except FimError:
        way_out = "lower them, or set train.gradient_checkpointing=true"
    return f"out of memory with {now}; {way_out}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a GPU's or this machine's lack of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def load_config(recipe: Recipe) -> PretrainedConfig:
    """Read the base's config; nothing else is read or downloaded.

    Raises:
        FimError: it cannot be had.
    """
    if recipe.model.scratch:
        from finetune.training.scratch import make_model

        with torch.device("meta"):
            return make_model(
                recipe.model.scratch, _Entries(recipe.model.scratch.vocab_size),
                recipe.fim.max_length,
            ).config  # fmt: skip
    config = load_or_refuse(
        lambda: AutoConfig.from_pretrained(
            recipe.model.name, revision=recipe.model.revision or None, trust_remote_code=False
        ),
        recipe.model.name,
    )
    list(set_positions(config, recipe.model.rope_theta, recipe.fim.max_length))
    return config


class _Entries:
    """What a model from nothing asks of its tokenizer, which is not trained yet."""

    eos_token_id = pad_token_id = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number


def _find_hardware(gpus: int | None, memory: float) -> Hardware:
    here = torch.cuda.device_count()
    gpus = here if gpus is None else gpus
    name = torch.cuda.get_device_name(0) if gpus and here and not memory else ""
    if memory:
        size = int(memory * _GIB)
    elif not gpus:
        size = memory_limit()
    else:
        size = torch.cuda.get_device_properties(0).total_memory if here else 80 * _GIB
    return Hardware(gpus=gpus, memory=size, name=name)


def _asked(recipe: Recipe, hardware: Hardware) -> Setup:
    strategy = "single" if hardware.gpus < 2 else "ddp"
    if recipe.model.adapter == "full" and hardware.gpus > 1:
        strategy = "fsdp2"
    return Setup(
        strategy=strategy,
        adapter=recipe.model.adapter,
        packs_per_step=recipe.train.packs_per_step,
        gradient_checkpointing=recipe.train.gradient_checkpointing,
    )


class _Planner:
    """Measures setups of one recipe on one kind of device, each step once."""

    def __init__(
        self, recipe: Recipe, config: PretrainedConfig, hardware: Hardware, steps: int, labels: int
    ) -> None:
        recipe = replace(recipe, model=_sized_as_saved(recipe.model))
        self.recipe = recipe
        self.hardware = hardware
        self.dtype = choose_dtype(recipe.model, hardware.device)
        self.max_length = recipe.fim.max_length

        @cache
        def shape(adapter: str, strategy: str) -> Shape:
            model = replace(recipe.model, adapter=adapter)
            return model_shape(config, model, self.dtype, steps, strategy)

        @cache
        def step(
            adapter: str, packs: int, checkpointing: bool, accumulates: bool
        ) -> tuple[int, int]:
            return step_bytes(
                config, replace(recipe.model, adapter=adapter), tokens=packs * self.max_length,
                checkpointing=checkpointing, accumulates=accumulates, dtype=self.dtype,
                device=hardware.device.type, labels=packs * labels,
            )  # fmt: skip

        self.shape, self._step = shape, step

    def need(self, setup: Setup) -> Need:
        """Measure a setup."""
        shape = self.shape(setup.adapter, setup.strategy)
        per_process = self.recipe.train.packs_per_step * self.recipe.train.gradient_accumulation
        step = self._step(
            setup.adapter, setup.packs_per_step, setup.gradient_checkpointing,
            per_process > setup.packs_per_step,
        )  # fmt: skip
        return spread(setup.strategy, shape, step, max(1, self.hardware.gpus), self.dtype)

    def saved(self, setup: Setup, packs: int) -> dict[str, int]:
        """Measure a checkpoint, and all that is written; `packs` are bytes of them."""
        shape = self.shape(setup.adapter, setup.strategy)
        kept = kept_checkpoints(self.recipe.train) * shape.checkpoint
        return {"checkpoint": shape.checkpoint, "disk": kept + shape.result + packs}

    def fits(self, need: Need, memory: int = 0) -> bool:
        """Whether a device has room for it."""
        usable = self._usable(memory or self.hardware.memory)
        return need.total + self.hardware.overhead <= usable

    def _usable(self, memory: int) -> int:
        return int(memory * (_USABLE if self.hardware.gpus else _USABLE_CPU))

    def propose(self, memory: int) -> Setup | None:
        """Return the fastest setup that fits, which trains the same batches."""
        return next((s for s in self._setups() if self.fits(self.need(s), memory)), None)

    def _setups(self) -> Iterator[Setup]:
        """Yield setups, the fastest first."""
        model, gpus = self.recipe.model, self.hardware.gpus
        per_process = self.recipe.train.packs_per_step * self.recipe.train.gradient_accumulation
        packs = [n for n in range(self.recipe.train.packs_per_step, 0, -1) if per_process % n == 0]
        adapters = [model.adapter]
        if gpus and model.adapter == "lora":
            adapters.append("qlora")
        for adapter in adapters:
            several = ("ddp",) if adapter == "qlora" else ("ddp", "fsdp2", "deepspeed_zero3")
            for strategy in several if gpus > 1 else ("single",):
                for checkpointing in (False, True):
                    for number in packs:
                        yield Setup(
                            strategy=strategy, adapter=adapter, packs_per_step=number,
                            gradient_checkpointing=checkpointing,
                        )  # fmt: skip

    def advice(self, asked: Setup, need: Need, setup: Setup | None) -> str:
        """Return one line: what to change, and how to start."""
        if setup is None:
            least = min(self.need(each).total for each in self._setups())
            needed = f"at least {_gib(least + self.hardware.overhead)} are needed"
            usable = f"{_gib(self._usable(self.hardware.memory))} usable"
            found = "nothing that needs less is known" if self.fits(need) else "nothing fits"
            adapter = "train an adapter, " if asked.adapter == "full" else ""
            return (
                f"{found}: {needed} of {usable} on each device; {adapter}lower fim.max_length, "
                "take a smaller base, or more GPUs"
            )
        per_process = self.recipe.train.packs_per_step * self.recipe.train.gradient_accumulation
        values = {
            "model.adapter": setup.adapter,
            "train.packs_per_step": setup.packs_per_step,
            "train.gradient_accumulation": per_process // setup.packs_per_step,
            "train.gradient_checkpointing": str(setup.gradient_checkpointing).lower(),
        }
        before = {
            "model.adapter": asked.adapter,
            "train.packs_per_step": asked.packs_per_step,
            "train.gradient_accumulation": self.recipe.train.gradient_accumulation,
            "train.gradient_checkpointing": str(asked.gradient_checkpointing).lower(),
        }
        changes = " ".join(f"{k}={v}" for k, v in values.items() if v != before[k])
        file = ""
        if setup.strategy != "single":
            file = f"{setup.strategy}.yaml --num_processes {self.hardware.gpus}"
        elif self.hardware.gpus and self.dtype == torch.float32:
            file = "single_gpu.yaml"  # computes in bfloat16
        start = "sfim train RECIPE"
        if file:
            file = f"accelerate_configs/{file}"
            start = f"accelerate launch --config_file {file} -m finetune.train RECIPE"
        return f"{'fits as it is' if setup == asked else 'fits so'}: {start} {changes}".rstrip()


def _sized_as_saved(model: Model) -> Model:
    """Give the section rank and targets of the adapter that is to be continued.

    Raises:
        FimError: it is no folder, or its targets are no list of names.
    """
    place = model.adapter_from
    if not place:
        return model
    if not os.path.isdir(place):
        raise FimError(
            f"model.adapter_from: {place} is no folder, so its rank is not known; "
            "download it and give its folder"
        )
    config = read_adapter_config(place)
    targets = getattr(config, "target_modules", None)
    if not targets or (isinstance(targets, str) and targets != "all-linear"):
        raise FimError(
            f"model.adapter_from: {place}: its target_modules are no list of names, so "
            "its memory cannot be planned; train with train.max_tokens=1 to see it"
        )
    names = targets if isinstance(targets, str) else ",".join(sorted(targets))
    return replace(model, lora_r=config.r, lora_targets=names)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB else f"{size / 2**20:.1f} MiB"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
