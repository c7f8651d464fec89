"""The recipe's `train` section as transformers and TRL spell it, and the processes that run it."""

import math
import os

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from accelerate.utils.other import is_repeated_blocks
from transformers import AttentionInterface
from trl import SFTConfig

from fim import FimError
from finetune.progress import first_line
from finetune.recipe.schema import Recipe
from finetune.training.attention import BLOCKS, block_attention
from finetune.training.device import choose_dtype

# newer than 5.17, transformers has another name for it, and the old one warns
_RECOMPUTE = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in SFTConfig.__dataclass_fields__
)
_WORLD_SIZES = (
    "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS",
)  # fmt: skip
"""Where torchrun, MPI and Slurm say how many processes they started, the first counts."""
_STRATEGIES = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DEEPSPEED"}
"""What `accelerate launch` sets for a strategy, and Accelerate's name of it."""


def training_arguments(
    recipe: Recipe, rows: int, held_out: bool, device: torch.device
) -> SFTConfig:
    """Spell the recipe's `train` section for TRL.

    Where a launcher says that it is for a CPU, a GPU beside it stays idle.

    Args:
        recipe: the run.
        rows: packs of the training split.
        held_out: whether there are held-out packs to measure the loss on.
        device: where the model runs.

    Raises:
        FimError: a launch that is not what was asked, or a value that the libraries refuse.
    """
    t = recipe.train
    check_launch(device)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    per_step = t.packs_per_step * t.gradient_accumulation * world_size
    steps = math.ceil(rows / per_step)
    try:
        return SFTConfig(
            output_dir=str(recipe.folder / "checkpoints"),
            run_name=recipe.name,
            num_train_epochs=1,  # the packs already hold every epoch
            per_device_train_batch_size=t.packs_per_step,
            per_device_eval_batch_size=t.packs_per_step,
            gradient_accumulation_steps=t.gradient_accumulation,
            **{_RECOMPUTE: t.gradient_checkpointing},
            learning_rate=t.learning_rate,
            weight_decay=t.weight_decay,
            max_grad_norm=t.max_grad_norm,
            bf16=device.type == "cuda" and choose_dtype(recipe.model, device) == torch.bfloat16,
            use_cpu=device.type == "cpu",  # else two processes on a CPU are two runs of one
            ddp_find_unused_parameters=False,  # every trained weight has a part in every step
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="steps" if t.save_steps or t.keep_best else "no",
            save_steps=t.save_steps or max(1, steps),
            eval_strategy="steps" if held_out else "no",
            eval_steps=t.eval_steps or max(1, steps // 4),
            prediction_loss_only=True,
            report_to="none",  # LogNumbers
            seed=t.seed,
            disable_tqdm=True,  # ShowProgress
            packing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
    except ValueError as error:
        raise FimError(f"train: {first_line(error)}") from None


def check_launch(device: torch.device) -> None:
    """Refuse what Accelerate would drop without a word, before anything is loaded.

    Raises:
        FimError: says what was asked, what would run, and how to start it.
    """
    if device.type == "cpu" and (strategy := asked_strategy()):
        raise FimError(
            f"{strategy} was asked for, but on a CPU Accelerate runs plain data parallelism; start "
            f"with {_launch('cpu_2')}"
        )
    # accelerate launch names a meeting place when several processes were asked for, and starts one
    # all the same with --cpu, or with a config file whose distributed_type is NO
    alone = not any(name in os.environ for name in _WORLD_SIZES)
    if alone and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys():
        raise FimError(
            "accelerate launch was asked for several processes and started one; start with "
            f"{_launch('cpu_2' if device.type == 'cpu' else 'ddp')}"
        )


def check_processes(recipe: Recipe, args: SFTConfig) -> None:
    """Refuse processes other than those asked for: each would be a run of its own, in one folder.

    Raises:
        FimError: says what was asked, what runs, and how to start it.
    """
    if args.n_gpu > 1:
        raise FimError(
            f"{args.n_gpu} GPUs are visible to one process; start with {_launch('ddp')}, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )
    launched = next((int(os.environ[name]) for name in _WORLD_SIZES if name in os.environ), 1)
    asked = recipe.train.num_processes or launched
    if args.world_size != asked:
        raise FimError(
            f"{asked} processes were asked for, {args.world_size} run; start them with "
            f"{_launch('cpu_2' if args.device.type == 'cpu' else 'ddp')}"
        )


def check_strategy(accelerator: Accelerator) -> None:
    """Refuse a run whose weights are not spread as `accelerate launch` was told.

    Raises:
        FimError: names what was asked and what runs.
    """
    asked, runs = asked_strategy(), accelerator.distributed_type.value
    if asked and asked != runs:
        raise FimError(
            f"{asked} was asked for, {runs} runs; start with "
            f"{_launch('fsdp2' if asked == 'FSDP' else 'deepspeed_zero3')}"
        )


def compile_layers(model: torch.nn.Module) -> None:
    """Compile every layer in place: one compilation serves all, whatever a pack's length.

    Names, adapters and checkpoints stay as they are.

    Raises:
        FimError: on a CPU, there is no C++ compiler.
    """
    # weights that are to be spread over GPUs may be on the CPU still
    if not asked_strategy() and next(model.parameters()).device.type == "cpu":
        if not _has_compiler():
            raise FimError("train.compile: needs a C++ compiler; install g++ or set it to false")
        # there attention is a loop over samples, which differ in number from pack to pack
        AttentionInterface.register(BLOCKS, torch.compiler.disable(block_attention))
    for module in model.modules():
        if is_repeated_blocks(module):
            for layer in module:
                layer.compile(dynamic=True)


def _has_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


def asked_strategy() -> str:
    """Accelerate's name of the strategy that `accelerate launch` was told; empty for none."""
    return next((name for flag, name in _STRATEGIES.items() if parse_flag_from_env(flag)), "")


def _launch(config: str) -> str:
    file = f"accelerate_configs/{config}.yaml"
    return f"accelerate launch --config_file {file} -m finetune.train RECIPE"
