"""The training run: what `accelerate launch -m finetune.train RECIPE` and `sfim train` run.

TRL's trainer does the loop and never forms the logits of a whole pack; ours is the collator, the
attention, the proof that samples stay apart, and files that survive a crash.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

# read when the libraries are imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import datasets
import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PrinterCallback
from trl import SFTConfig

from fim import FimError, ProvedFormat
from finetune.model import (
    base_identity,
    load_base,
    model_identity,
    parameter_counts,
    save_tuned,
    start_adapter,
    tuned_folder,
)
from finetune.plan.estimate import explain_memory, is_out_of_memory
from finetune.prepare import prepare_fingerprint, write_run_recipe
from finetune.progress import first_line, is_first, say
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.samples.tokenizer import load_run_tokenizer
from finetune.store import fingerprint, hold_run, is_done, stage_folder, write_manifest, write_text
from finetune.training.adapters import adapter_notes, quantization
from finetune.training.arguments import (
    asked_strategy,
    check_processes,
    check_strategy,
    compile_layers,
    training_arguments,
)
from finetune.training.attention import choose_attention
from finetune.training.checkpoint import MarkComplete, newest_complete, saved_weights, weights_bytes
from finetune.training.device import choose_device, choose_dtype
from finetune.training.flops import peak_flops, training_cost
from finetune.training.guards import catch_signals, check_room, explain_full_disk
from finetune.training.held_out import HeldOut, read_held_out
from finetune.training.host_memory import start_sparing
from finetune.training.isolation import check_isolation, make_stand_in
from finetune.training.losses import check_logits, collate
from finetune.training.positions import read_positions
from finetune.training.schedules import make_schedule
from finetune.training.step_log import LOG, ShowProgress, WriteLog
from finetune.training.stopping import WatchHeldOut, load_best
from finetune.training.trackers import LogNumbers, check_tracker
from finetune.training.trainer import PackTrainer

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
            leak, the processes are not those asked for, or another run trains there.
        Stopped: a signal ended it; a checkpoint is saved.
    """
    packs = recipe.folder / "packs"
    if not is_done(packs, prepare_fingerprint(recipe)):
        raise FimError(f"{packs}: not made, or from another recipe; run: sfim prepare RECIPE")
    made_from = train_fingerprint(recipe)
    folder = tuned_folder(recipe)
    if is_done(folder, made_from):
        return folder
    with hold_run(recipe.folder) if is_first() else nullcontext():
        _train(recipe, folder, made_from)
    return folder


def _train(recipe: Recipe, folder: Path, made_from: str) -> None:
    try:
        trainer, form, tokenizer = make_trainer(recipe)
        # another world size sees other batches, another strategy has checkpoints of its own
        shape = f"{made_from} {trainer.args.world_size} {asked_strategy()}".strip()
        wide = trainer.is_fsdp_enabled and trainer.args.bf16  # trained weights become float32
        needed = weights_bytes(saved_weights(trainer.model), wide=wide)
        checkpoint = _in_first(partial(_open_run, recipe, shape, needed))
        with redirect_stdout(sys.stderr):  # wandb prints; stdout is for the result
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise FimError(explain_memory(recipe)) from None
    except _tracker_errors(recipe.train.report_to) as error:
        raise FimError(
            f"train.report_to: {first_line(error).rstrip('.')}; run: wandb login, "
            "or set WANDB_MODE=offline"
        ) from None
    with catch_signals():  # a run without checkpoints would be lost
        _save(trainer, recipe, folder, made_from, form, tokenizer)


def train_fingerprint(recipe: Recipe) -> str:
    """Digits that change when anything the trained weights depend on changes."""
    plain = replace(
        recipe.train, report_to="none", num_processes=0, save_steps=0,
        eval_steps=recipe.train.eval_steps if recipe.train.watches_held_out else 0,
        gradient_checkpointing=False,
    )  # fmt: skip
    start = [model_identity(place) for place in (recipe.model.name, recipe.model.adapter_from)]
    return fingerprint(prepare_fingerprint(recipe), asdict(recipe.model), start, asdict(plain))


def make_trainer(recipe: Recipe) -> tuple[PackTrainer, ProvedFormat, Any]:
    """Load everything a run trains with, and prove that its samples stay apart.

    Raises:
        FimError: see `train`.
    """
    check_tracker(recipe.train.report_to)
    set_seed(recipe.train.seed)
    tokenizer, form = load_run_tokenizer(recipe)
    rows = _read_packs(recipe.folder / "packs" / "train", recipe.train.max_tokens)
    held_out = _read_held_out(recipe)
    device = choose_device()
    args = training_arguments(recipe, len(rows), held_out is not None, device)
    check_processes(recipe, args)
    sparing = start_sparing(args.device)
    model = _load_model(recipe, tokenizer, args.device)
    proved = make_stand_in(model, args.device) if asked_strategy() else model
    check_isolation(proved, collate)
    check_logits(proved)
    del proved
    if recipe.model.adapter != "full":
        model = start_adapter(model, recipe.model, form)
        for line in adapter_notes(recipe.model, model):
            say(line)
    if recipe.train.compile:
        compile_layers(model)
    tokens = [sum(lengths) for lengths in rows["seq_lengths"]]
    rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    log = WriteLog(
        recipe.folder / LOG, tokens, rows_per_step, *_count_flops(model, args, rows["seq_lengths"])
    )
    trained, everything = parameter_counts(model)
    say(
        f"training {trained:,} of {everything:,} parameters on {sum(tokens):,} tokens in "
        f"{len(rows):,} packs, attention {model.config._attn_implementation}, "
        f"{args.world_size} process(es) on {args.device.type}"
    )
    trainer = PackTrainer(
        end_id=form.end_id,
        end_token_weight=recipe.train.end_token_weight,
        skip_spikes=recipe.train.skip_spikes,
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=held_out.packs if held_out else None,
        held_out=held_out,
        schedule=partial(make_schedule, recipe.train),
        processing_class=tokenizer,
        callbacks=[
            log,
            MarkComplete(),
            ShowProgress(log),
            WatchHeldOut(recipe.train.stop_after, recipe.train.keep_best),
            *sparing,
            *([] if recipe.train.report_to == "none" else [LogNumbers(recipe, log)]),
        ],
    )
    check_strategy(trainer.accelerator)
    trainer.remove_callback(PrinterCallback)  # stdout is for the result
    return trainer, form, tokenizer


def _load_model(recipe: Recipe, tokenizer: Any, device: torch.device) -> PreTrainedModel:
    dtype = choose_dtype(recipe.model, device)
    attention = choose_attention(recipe.model.attention, device, dtype)
    if recipe.model.scratch:
        from finetune.training.scratch import make_model

        model = make_model(recipe.model.scratch, tokenizer, recipe.fim.max_length).to(dtype)
        model.set_attn_implementation(attention)
    else:
        quantized = quantization(recipe.model, dtype)
        if (quantized or recipe.model.train_sentinels) and (strategy := asked_strategy()):
            what = "model.adapter=qlora" if quantized else "model.train_sentinels"
            raise FimError(
                f"{what}: cannot be spread by {strategy}; use accelerate_configs/ddp.yaml"
            )
        _announce(recipe.model.name)
        model = load_base(
            recipe.model.name,
            recipe.model.revision,
            attention=attention,
            dtype=dtype,
            rope_theta=recipe.model.rope_theta,
            max_length=recipe.fim.max_length,
            quantized=quantized,
            device=device if quantized else None,  # it cannot be moved afterwards
        )
    # what is spread over devices may be too large for one, and is moved by what spreads it
    return model if asked_strategy() or model.device == device else model.to(device)


def _announce(name: str) -> None:
    """Say what a long silence is about to be: a download, or a large folder."""
    folder = Path(name)
    large = not folder.is_dir() or _LARGE_BYTES < sum(
        path.stat().st_size for path in folder.glob("*.safetensors")
    )
    if large:
        say(f"loading {name}")


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


def _read_held_out(recipe: Recipe) -> HeldOut | None:
    """Read some held-out packs, if there are any.

    Raises:
        FimError: the recipe needs some.
    """
    folder = recipe.folder / "packs" / "eval"
    if folder.is_dir():
        return read_held_out(folder, HELD_OUT_PACKS)
    if recipe.train.watches_held_out:
        raise FimError(
            "train.stop_after and train.keep_best need held-out files, and there are none; raise "
            "corpus.split.eval_rate"
        )
    return None


def _count_flops(
    model: PreTrainedModel, args: SFTConfig, rows: Iterable[Sequence[int]]
) -> tuple[list[float], float]:
    """Operations of each pack, and the most that all devices do in a second; nothing if unknown."""
    cost = training_cost(model)
    peak = peak_flops(args.device, torch.bfloat16 if args.bf16 else model.dtype)
    if cost is None or peak is None:
        return [], 0.0
    return [cost.of(lengths) for lengths in rows], peak * args.world_size


def _tracker_errors(report_to: str) -> tuple[type[Exception], ...]:
    if report_to != "wandb":
        return ()
    import wandb

    return (wandb.errors.Error,)


def _open_run(recipe: Recipe, made_from: str, needed: int) -> Path | None:
    """Make a run's folder ready, and return the checkpoint to go on from.

    Raises:
        FimError: its checkpoints are of something else, or its result of so many bytes would find
            no room.
    """
    folder = recipe.folder / "checkpoints"
    mark = folder / "made_from"
    found = mark.read_text(encoding="utf-8") if mark.exists() else None
    if found not in (None, made_from) and any(folder.glob("checkpoint-*")):
        raise FimError(
            f"{folder}: holds checkpoints of another recipe, number of processes or strategy; "
            "give another name= or delete them"
        )
    if found != made_from:
        write_text(mark, made_from)
    write_run_recipe(recipe)
    checkpoint = newest_complete(folder)  # deletes what a crash left
    check_room(recipe.folder, needed)
    return checkpoint


def _in_first(work: Callable[[], Any]) -> Any:
    """Do something in the first process; all get its result, or end when it fails."""
    value, error = None, None
    if is_first():
        try:
            value = work()
        except Exception as failure:  # the others wait to be told
            error = failure
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        box = [value, error is not None]
        torch.distributed.broadcast_object_list(box, src=0)
        value, failed = box
        if failed and error is None:
            raise SystemExit(1)
    if error is not None:
        raise error
    return value


def _save(
    trainer: PackTrainer,
    recipe: Recipe,
    folder: Path,
    made_from: str,
    form: ProvedFormat,
    tokenizer: Any,
) -> None:
    steps = load_best(trainer, recipe.folder / "checkpoints")
    state = None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # sharded: every process gathers
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)

    def write() -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        identity = base_identity(recipe.model) if recipe.model.name else recipe.name
        details = {"base": identity, "steps": steps}
        if commit := getattr(model.config, "_commit_hash", None):  # of a base from the hub
            details["base_commit"] = commit
        if recipe.model.rope_theta:
            details["positions"] = read_positions(model.config)
        for name in MEASURED:
            (recipe.folder / name).unlink(missing_ok=True)
        needed = weights_bytes(saved_weights(model))
        with explain_full_disk(recipe.folder, needed), stage_folder(folder) as fresh:
            save_tuned(model, state, fresh, tokenizer, form, identity)
            write_manifest(fresh, made_from, **details)

    _in_first(write)


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
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped", getattr(stop, "exit_code", 130))
    if is_first():
        print(folder)  # noqa: T201
    return 0


def _fail(line: str, code: int) -> int:
    print(line, file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
