"""The training run: what `accelerate launch -m finetune.train RECIPE` and `sfim train` run.

TRL's trainer does the loop and never forms the logits of a whole pack; ours is the collator, the
attention, the proof that samples stay apart, and files that survive a crash.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# read when the libraries are imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import datasets
import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PrinterCallback

from fim import FimError, ProvedFormat
from finetune.arguments import check_processes, training_arguments
from finetune.attention import check_isolation, choose_attention
from finetune.checkpoint import MarkComplete, newest_complete
from finetune.losses import collate
from finetune.model import (
    add_adapter,
    base_identity,
    choose_device,
    choose_dtype,
    load_base,
    parameter_counts,
    save_tuned,
    tuned_folder,
)
from finetune.prepare import prepare_fingerprint, write_run_recipe
from finetune.recipe import Recipe
from finetune.recipe_file import read_recipe
from finetune.step_log import LOG, ShowProgress, WriteLog
from finetune.store import fingerprint, is_done, stage_folder, write_manifest, write_text
from finetune.tokenizer import load_run_tokenizer
from finetune.trackers import LogToWandb
from finetune.trainer import PackTrainer

datasets.disable_progress_bars()
MEASURED = ("metrics.json", "predictions.parquet", "report.html")
"""What was made from the result of a run, and goes when another takes its place."""
USAGE = "usage: python -m finetune.train RECIPE [section.key=value ...]"
_LARGE_BYTES = 1_000_000_000
HELD_OUT_PACKS = 32
"""Packs of the held-out loss during training: a trend four times a run, not the evaluation."""


def train(recipe: Recipe) -> Path:
    """Train on the packs of a run and save the result; resumes where a killed run stopped.

    Args:
        recipe: the run; its packs must be there, made from this very recipe.

    Returns:
        The folder of the adapter or the model.

    Raises:
        FimError: packs are missing or another recipe's, the model cannot be used, samples would
            leak, or the processes are not those asked for.
    """
    packs = recipe.folder / "packs"
    if not is_done(packs, prepare_fingerprint(recipe)):
        raise FimError(f"{packs}: not made, or from another recipe; run: sfim prepare RECIPE")
    made_from = train_fingerprint(recipe)
    folder = tuned_folder(recipe)
    if is_done(folder, made_from):
        return folder
    try:
        trainer, form, tokenizer = make_trainer(recipe)
        shape = f"{made_from} {trainer.args.world_size}"  # another world size sees other batches
        _refuse_other_run(recipe, shape)
        if _is_first():
            write_run_recipe(recipe)
        checkpoint = newest_complete(recipe.folder / "checkpoints") if _is_first() else None
        checkpoint = _from_first(checkpoint)
        with redirect_stdout(sys.stderr):  # wandb prints; stdout is for the result
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError:
        raise FimError(
            "out of memory: lower train.packs_per_step or fim.max_length, or set "
            "train.gradient_checkpointing=true"
        ) from None
    except _tracker_errors(recipe.train.report_to) as error:
        raise FimError(
            f"train.report_to: {str(error).splitlines()[0].rstrip('.')}; run: wandb login, "
            "or set WANDB_MODE=offline"
        ) from None
    _save(trainer, recipe, folder, made_from, form, tokenizer)
    return folder


def train_fingerprint(recipe: Recipe) -> str:
    """Digits that change when anything the trained weights depend on changes."""
    plain = replace(
        recipe.train, report_to="none", num_processes=0, save_steps=0, eval_steps=0,
        gradient_checkpointing=False,
    )  # fmt: skip
    base = base_identity(recipe.model) if recipe.model.name else ""
    return fingerprint(prepare_fingerprint(recipe), asdict(recipe.model), base, asdict(plain))


def make_trainer(recipe: Recipe) -> tuple[PackTrainer, ProvedFormat, Any]:
    """Load everything a run trains with, and prove that its samples stay apart.

    Raises:
        FimError: see `train`.
    """
    set_seed(recipe.train.seed)
    tokenizer, form = load_run_tokenizer(recipe)
    rows = _read_packs(recipe.folder / "packs" / "train", recipe.train.max_tokens)
    held_out = recipe.folder / "packs" / "eval"
    device = choose_device()
    args = training_arguments(recipe, len(rows), held_out.is_dir(), device)
    check_processes(recipe, args)
    model = _load_model(recipe, tokenizer, args.device)
    if not _is_meta(model):
        check_isolation(model, collate)
    if recipe.model.adapter == "lora":
        model = add_adapter(model, recipe.model)
    tokens = [sum(lengths) for lengths in rows["seq_lengths"]]
    rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if _is_first():
        trained, everything = parameter_counts(model)
        print(  # noqa: T201
            f"training {trained:,} of {everything:,} parameters on {sum(tokens):,} tokens in "
            f"{len(rows):,} packs, attention {model.config._attn_implementation}, "
            f"{args.world_size} process(es) on {args.device.type}",
            file=sys.stderr,
        )
    trainer = PackTrainer(
        end_id=form.end_id,
        end_token_weight=recipe.train.end_token_weight,
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=_read_held_out(held_out) if held_out.is_dir() else None,
        processing_class=tokenizer,
        callbacks=[
            WriteLog(recipe.folder / LOG, tokens, rows_per_step),
            MarkComplete(),
            ShowProgress(),
            *([LogToWandb(recipe)] if recipe.train.report_to == "wandb" else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # stdout is for the result
    return trainer, form, tokenizer


def _load_model(recipe: Recipe, tokenizer: Any, device: torch.device) -> PreTrainedModel:
    dtype = choose_dtype(recipe.model, device)
    attention = choose_attention(recipe.model.attention, device, dtype)
    if recipe.model.scratch:
        from finetune.scratch import make_model

        model = make_model(recipe.model.scratch, tokenizer, recipe.fim.max_length).to(dtype)
        model.set_attn_implementation(attention)
    else:
        _announce(recipe.model.name)
        model = load_base(
            recipe.model.name, recipe.model.revision, attention=attention, dtype=dtype
        )
    return model if _is_meta(model) else model.to(device)


def _announce(name: str) -> None:
    """Say what a long silence is about to be: a download, or a large folder."""
    folder = Path(name)
    large = not folder.is_dir() or _LARGE_BYTES < sum(
        path.stat().st_size for path in folder.glob("*.safetensors")
    )
    if large and _is_first():
        print(f"loading {name}", file=sys.stderr)  # noqa: T201


def _is_meta(model: PreTrainedModel) -> bool:
    """Whether this process has no weights yet: FSDP loads them in one process per machine."""
    return any(parameter.is_meta for parameter in model.parameters())


def _read_packs(folder: Path, max_tokens: int) -> datasets.Dataset:
    """Read packs, at most so many tokens of them."""
    rows = datasets.load_from_disk(str(folder)).remove_columns(["sample_ids", "epoch"])
    if not max_tokens:
        return rows
    total, keep = 0, 0
    for lengths in rows["seq_lengths"]:
        total += sum(lengths)
        if total > max_tokens:
            break
        keep += 1
    return rows.select(range(max(1, keep)))


def _read_held_out(folder: Path) -> datasets.Dataset:
    """Read some held-out packs; they were shuffled when they were made."""
    rows = _read_packs(folder, 0)
    return rows.select(range(min(len(rows), HELD_OUT_PACKS)))


def _tracker_errors(report_to: str) -> tuple[type[Exception], ...]:
    if report_to != "wandb":
        return ()
    import wandb

    return (wandb.errors.Error,)


def _refuse_other_run(recipe: Recipe, made_from: str) -> None:
    """Refuse to resume a run that trains something else."""
    folder = recipe.folder / "checkpoints"
    mark = folder / "made_from"
    found = mark.read_text(encoding="utf-8") if mark.exists() else None
    if _is_distributed():
        torch.distributed.barrier()  # nobody writes before all have read
    if found not in (None, made_from) and any(folder.glob("checkpoint-*")):
        raise FimError(
            f"{folder}: holds checkpoints of another recipe or number of processes; "
            "give another name= or delete them"
        )
    if _is_first() and found != made_from:
        write_text(mark, made_from)


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _from_first(value: Any) -> Any:
    """Give every process what the first one found."""
    if not _is_distributed():
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _save(
    trainer: PackTrainer,
    recipe: Recipe,
    folder: Path,
    made_from: str,
    form: ProvedFormat,
    tokenizer: Any,
) -> None:
    state = None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # sharded: every process gathers
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        identity = base_identity(recipe.model) if recipe.model.name else recipe.name
        details = {"base": identity, "steps": trainer.state.global_step}
        if commit := getattr(model.config, "_commit_hash", None):  # of a base from the hub
            details["base_commit"] = commit
        for name in MEASURED:
            (recipe.folder / name).unlink(missing_ok=True)
        with stage_folder(folder) as fresh:
            save_tuned(model, state, fresh, tokenizer, form, identity)
            write_manifest(fresh, made_from, **details)
    trainer.accelerator.wait_for_everyone()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as `python -m finetune.train RECIPE [section.key=value ...]`."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0].startswith("-"):
        return _fail(USAGE, 2)
    try:
        folder = train(read_recipe(given[0], given[1:]))
    except FimError as error:
        return _fail(f"error: {error}", 1)
    except OSError as error:
        return _fail(f"error: {error.filename or 'system'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    if _is_first():
        print(folder)  # noqa: T201
    return 0


def _fail(line: str, code: int) -> int:
    print(line, file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
