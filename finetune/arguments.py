"""The recipe's `train` section as transformers and TRL spell it, and the processes that run it."""

import math
import os

import torch
from transformers.integrations import is_tensorboard_available
from trl import SFTConfig

from fim import FimError
from finetune.model import choose_dtype
from finetune.recipe import Recipe

# newer than 5.17, transformers has another name for it, and the old one warns
_RECOMPUTE = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in SFTConfig.__dataclass_fields__
)


def training_arguments(
    recipe: Recipe, rows: int, held_out: bool, device: torch.device
) -> SFTConfig:
    """Spell the recipe's `train` section for TRL.

    Args:
        recipe: the run.
        rows: packs of the training split.
        held_out: whether there are held-out packs to measure the loss on.
        device: where the model runs.

    Raises:
        FimError: a value that the libraries refuse, or a tracker that is not installed.
    """
    t = recipe.train
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    per_step = t.packs_per_step * t.gradient_accumulation * world_size
    steps = math.ceil(rows / per_step)
    if t.report_to == "tensorboard" and not is_tensorboard_available():
        raise FimError("train.report_to: tensorboard is missing; run: pip install tensorboard")
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
            lr_scheduler_type=t.scheduler,
            warmup_steps=math.ceil(t.warmup_rate * steps),
            weight_decay=t.weight_decay,
            max_grad_norm=t.max_grad_norm,
            bf16=device.type == "cuda" and choose_dtype(recipe.model, device) == torch.bfloat16,
            use_cpu=device.type == "cpu",  # else two processes on a CPU are two runs of one
            ddp_find_unused_parameters=False,  # every trained weight has a part in every step
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="steps" if t.save_steps else "no",
            save_steps=t.save_steps or 1,
            save_total_limit=2,
            eval_strategy="steps" if held_out else "no",
            eval_steps=t.eval_steps or max(1, steps // 4),
            prediction_loss_only=True,
            report_to="none" if t.report_to == "wandb" else t.report_to,  # LogToWandb
            seed=t.seed,
            disable_tqdm=True,  # ShowProgress
            packing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
    except ValueError as error:
        raise FimError(f"train: {str(error).splitlines()[0]}") from None


def check_processes(recipe: Recipe, args: SFTConfig) -> None:
    """Refuse processes and strategies other than those asked for; Accelerate drops some quietly.

    Raises:
        FimError: says what was asked, what runs, and how to start it.
    """
    if args.n_gpu > 1:
        raise FimError(
            f"{args.n_gpu} GPUs are visible to one process; start with accelerate launch "
            "--config_file accelerate_configs/ddp.yaml, or set CUDA_VISIBLE_DEVICES=0"
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    asked = recipe.train.num_processes or launched
    if args.world_size != asked:
        raise FimError(
            f"{asked} processes were asked for, {args.world_size} run; on a CPU start them with: "
            "accelerate launch --config_file accelerate_configs/cpu_2.yaml -m finetune.train RECIPE"
        )
    if args.device.type == "cpu" and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise FimError("FSDP was asked for, but on a CPU Accelerate runs plain DDP; use cpu_2.yaml")
