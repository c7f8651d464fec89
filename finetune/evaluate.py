"""Base against adapter on held-out spans: completions, losses, and paired intervals."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from fim import (
    Document,
    FimError,
    ProvedFormat,
    Sample,
    Tokens,
    TooLong,
    content_tokenizer,
    encode,
    encode_prompt,
    pack,
    pack_lengths,
)
from fim.spans import MIN_MIDDLE_BYTES
from finetune.complete import Completion, complete, served_order
from finetune.corpus.build import read_documents
from finetune.metrics import (
    FEW_FILES,
    Score,
    compare,
    edit_similarity,
    exact_match,
    paired_interval,
    parses,
    summarize,
)
from finetune.model import load_adapter, load_base, read_run, tuned_folder
from finetune.progress import progress, warn
from finetune.recipe.schema import Recipe
from finetune.samples.neighbors import find_contexts
from finetune.samples.tokenizer import load_format, load_tokenizer
from finetune.scenarios import Item, make_items, whole_pieces
from finetune.store import fingerprint, is_done, read_json, write_json
from finetune.training.device import choose_device, choose_dtype
from finetune.training.isolation import packed_attention
from finetune.training.losses import token_losses

_BYTES_PER_TOKEN = 4
"""Longest MIDDLE looked at, in bytes per token of `max_new_tokens`; tokens are counted after."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one model did on all items, and on the held-out files read from start to end."""

    scores: list[Score]
    """One per item, in the order of the items."""
    completions: list[Completion]
    """What it wrote for each item."""
    ar_losses: list[tuple[str, float, int]]
    """Document id, summed loss and tokens of each piece."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """What every model of one evaluation is measured with."""

    recipe: Recipe
    tokenizer: Any
    form: ProvedFormat
    items: list[Item]
    prompts: list[list[int]]
    """What is sent for each item."""
    middles: list[Tokens]
    """Each item with labels on its MIDDLE and end token."""
    pieces: list[Sample]
    """The held-out files from start to end."""
    piece_tokens: list[Tokens]


def evaluate(recipe: Recipe) -> dict[str, Any]:
    """Measure base and tuned model of a run on its held-out files, and write `metrics.json`.

    Args:
        recipe: a trained run. With `evaluate.control`, the adapter of that run is measured on the
            same spans as well.

    Returns:
        The content of `metrics.json`: `base`, `adapter` and, if given, `control` hold what
        `summarize` returns and `loss_ar`; `paired` (adapter - base), `paired_control` and
        `adapter_against_control` what `compare` returns and the interval of `loss_ar`;
        `made_from` the fingerprint of all that went in.

    Raises:
        FimError: not trained or from something else, no held-out file, a control that cannot be
            compared, or out of memory.
    """
    if not recipe.evaluate.items:
        raise FimError("evaluate.items is 0; set it above 0")
    control = _find_control(recipe)
    made_from = _made_from(recipe, control)
    path = recipe.folder / "metrics.json"
    if path.exists() and read_json(path).get("made_from") == made_from:
        return read_json(path)
    setting = _make_setting(recipe)
    try:
        results = dict(_measure_all(setting, control))
    except torch.OutOfMemoryError:
        raise FimError("out of memory: lower evaluate.batch_size") from None
    names = list(results)
    metrics: dict[str, Any] = {name: _summary(results[name]) for name in names}
    for name, tuned in (("paired", "adapter"), ("paired_control", "control")):
        if tuned in results and "base" in results:
            metrics[name] = _differences(results["base"], results[tuned], recipe)
    if "control" in results:
        metrics["adapter_against_control"] = _differences(
            results["control"], results["adapter"], recipe
        )
    metrics["made_from"] = made_from
    _save_predictions(recipe.folder / "predictions.parquet", setting.items, results)
    write_json(path, metrics)
    return metrics


def _find_control(recipe: Recipe) -> Path | None:
    """The folder of the control's adapter, proved to be trained on the same base."""
    folder = tuned_folder(recipe)
    _check_trained(recipe)
    if not recipe.evaluate.control:
        return None
    run = read_run(Path(os.path.abspath(recipe.evaluate.control)))
    if "full" in (recipe.model.adapter, run.model.adapter):
        raise FimError(f"evaluate.control: {run.folder}: only adapters of one base are compared")
    control = tuned_folder(run)
    if not (control / "manifest.json").exists():
        raise FimError(f"evaluate.control: {run.folder}: not trained yet; run: sfim train RECIPE")
    wanted, found = (read_json(f / "manifest.json").get("base") for f in (folder, control))
    if wanted != found:
        raise FimError(f"evaluate.control: {run.folder}: trained on {found}, not on {wanted}")
    return control


def _check_trained(recipe: Recipe) -> None:
    """Refuse a result that is not there, or was trained from something else."""
    from finetune.train import train_fingerprint

    folder = tuned_folder(recipe)
    if not (folder / "manifest.json").exists():
        raise FimError(f"{recipe.folder}: not trained yet; run: sfim train RECIPE")
    if not is_done(folder, train_fingerprint(recipe)):
        raise FimError(
            f"{folder}: trained from another recipe or other files; run: sfim train RECIPE"
        )


def _made_from(recipe: Recipe, control: Path | None) -> str:
    """Digits that change when a model, the held-out files or the recipe's section changes."""
    folders = [tuned_folder(recipe), recipe.folder / "corpus", *([control] if control else [])]
    files = [read_json(folder / "manifest.json")["files"] for folder in folders]
    return fingerprint(files, asdict(recipe.evaluate))


def _make_setting(recipe: Recipe) -> _Setting:
    documents = list(read_documents(recipe.folder / "corpus", "eval"))
    if not documents:
        raise FimError("no held-out file: raise corpus.split.eval_rate or corpus.split.min_files")
    if len(documents) < FEW_FILES:
        warn(
            f"{len(documents)} held-out file(s): too few for intervals; raise "
            "corpus.split.min_files"
        )
    tokenizer = load_tokenizer(str(tuned_folder(recipe)))
    form = load_format(tokenizer, recipe.model)
    items = _choose_items(recipe, documents, tokenizer, form)
    if not items:
        raise FimError("no span of the held-out files can be evaluated")
    limit = recipe.evaluate.max_new_tokens
    window = read_json(recipe.folder / "packs" / "stats.json")["window_bytes"]
    contexts = find_contexts(documents, replace(recipe.fim, window_bytes=window))

    def options(sample: Sample) -> dict[str, Any]:
        """What the samples of training were encoded with."""
        return {
            "max_length": recipe.fim.max_length,
            "path_header": recipe.fim.path_header,
            "profile": recipe.fim.profile,
            "context": contexts[sample.document_id],
        }

    def encode_piece(piece: Sample) -> Tokens:
        return encode(piece, form, tokenizer, **options(piece))

    document_end = form.ids[form.row.document_end]
    pieces = [
        piece
        for document in documents
        for piece in whole_pieces(document, window, encode_piece, document_end)
    ]
    samples = [item.sample for item in items]
    return _Setting(
        recipe=recipe,
        tokenizer=tokenizer,
        form=form,
        items=items,
        prompts=[
            encode_prompt(sample, form, tokenizer, max_new_tokens=limit, **options(sample))
            for sample in samples
        ],
        middles=[
            encode(sample, form, tokenizer, loss="middle", **options(sample)) for sample in samples
        ],
        pieces=[piece for piece, _ in pieces],
        piece_tokens=[tokens for _, tokens in pieces],
    )


def _choose_items(
    recipe: Recipe, documents: Sequence[Document], tokenizer: Any, form: ProvedFormat
) -> list[Item]:
    """Held-out spans whose MIDDLE and end token fit `max_new_tokens`."""
    content, evaluation = content_tokenizer(tokenizer), recipe.evaluate

    def fits(sample: Sample) -> bool:
        tokens = len(content.encode(sample.middle, "M" in form.row.guarded))
        if tokens >= evaluation.max_new_tokens:
            return False
        try:
            encode_prompt(
                sample, form, tokenizer, max_length=recipe.fim.max_length,
                max_new_tokens=evaluation.max_new_tokens, path_header=recipe.fim.path_header,
            )  # fmt: skip
        except TooLong:  # a long path in a small window
            return False
        return True

    return make_items(
        documents,
        number=evaluation.items,
        order=served_order(recipe, form),
        max_middle_bytes=max(MIN_MIDDLE_BYTES, evaluation.max_new_tokens * _BYTES_PER_TOKEN),
        seed=evaluation.seed,
        accept=fits,
    )


def _measure_all(setting: _Setting, control: Path | None) -> Iterator[tuple[str, Result]]:
    """Measure base, adapter and control, holding one set of weights of each kind at a time."""
    recipe, device = setting.recipe, choose_device()
    dtype = choose_dtype(recipe.model, device)

    def load(name: str, revision: str = "") -> Any:
        return load_base(name, revision, dtype=dtype).to(device).eval()

    folder = tuned_folder(recipe)
    if recipe.model.adapter == "full":
        if recipe.model.name:
            yield "base", _measure(load(recipe.model.name, recipe.model.revision), setting, "base")
        yield "adapter", _measure(load(str(folder)), setting, "tuned")
        return
    base = load(recipe.model.name, recipe.model.revision)
    yield "base", _measure(base, setting, "base")
    adapters = {"adapter": folder}
    if control:
        adapters["control"] = control
    for name, adapter in adapters.items():
        model: PeftModel = load_adapter(base, adapter, recipe.model).eval()
        yield name, _measure(model, setting, name)
        base = model.unload()


def _measure(model: Any, setting: _Setting, name: str) -> Result:
    """Complete every item, then take the loss of every MIDDLE and of whole files."""
    completions = _completions(model, setting, name)
    capacity = setting.recipe.fim.max_length
    with packed_attention(model, setting.recipe.model.attention):
        middles = _losses(model, setting.middles, capacity, name)
        pieces = _losses(model, setting.piece_tokens, capacity, name)
    scores = [
        _score(item, completion, losses)
        for item, completion, losses in zip(setting.items, completions, middles, strict=True)
    ]
    sums = [
        (piece.document_id, float(losses.sum()), len(losses))
        for piece, losses in zip(setting.pieces, pieces, strict=True)
    ]
    return Result(scores, completions, sums)


def _completions(model: Any, setting: _Setting, name: str) -> list[Completion]:
    """Complete the items, prompts of like length together."""
    evaluation, prompts = setting.recipe.evaluate, setting.prompts
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    size = evaluation.batch_size
    batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
    done: dict[int, Completion] = {}
    for batch in progress(batches, f"completing ({name})"):
        written = complete(
            model, setting.tokenizer, setting.form, [prompts[i] for i in batch],
            evaluation.max_new_tokens,
        )  # fmt: skip
        done.update(zip(batch, written, strict=True))
    return [done[i] for i in range(len(prompts))]


def _losses(model: Any, samples: Sequence[Tokens], capacity: int, name: str) -> list[np.ndarray]:
    """Return the token losses of each sample, computed in packs."""
    bins = pack_lengths([len(tokens.input_ids) for tokens in samples], capacity)
    found: dict[int, np.ndarray] = {}
    for indices in progress(bins, f"losses ({name})"):
        joined = pack([samples[i] for i in indices])
        found.update(zip(indices, token_losses(model, asdict(joined)), strict=True))
    return [found[i] for i in range(len(samples))]


def _score(item: Item, completion: Completion, losses: np.ndarray) -> Score:
    sample = item.sample
    middle = sample.middle.decode()
    return Score(
        file=sample.document_id,
        scenario=item.scenario,
        language=sample.language,
        exact_match=exact_match(completion.text, middle),
        edit_similarity=edit_similarity(completion.text, middle),
        stop_rate=float(completion.stopped),
        parse_rate=parses(
            sample.prefix, completion.text.encode(errors="replace"), sample.suffix,
            sample.middle, sample.language,
        ),
        loss_middle=float(losses.mean()),
    )  # fmt: skip


def _summary(result: Result) -> dict[str, Any]:
    total, tokens = (sum(column) for column in list(zip(*result.ar_losses, strict=True))[1:])
    return summarize(result.scores) | {"loss_ar": total / tokens}


def _differences(base: Result, tuned: Result, recipe: Recipe) -> dict[str, Any]:
    evaluation = recipe.evaluate
    pairs = list(zip(base.ar_losses, tuned.ar_losses, strict=True))
    loss_ar = paired_interval(
        [a[0] for a, _ in pairs],
        [b[1] - a[1] for a, b in pairs],
        [a[2] for a, _ in pairs],
        evaluation.bootstrap,
        evaluation.seed,
    )
    found = compare(base.scores, tuned.scores, evaluation.bootstrap, evaluation.seed)
    return found | {"loss_ar": loss_ar}


def _save_predictions(path: Path, items: Sequence[Item], results: dict[str, Result]) -> None:
    """Write what each model wrote, for the report; stays in the run folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def text(data: bytes) -> str:
        return data.decode(errors="replace")

    columns: dict[str, list[Any]] = {
        "path": [i.sample.path for i in items],
        "language": [i.sample.language for i in items],
        "scenario": [i.scenario for i in items],
        "start_byte": [i.sample.start_byte for i in items],
        "end_byte": [i.sample.end_byte for i in items],
        "prefix_tail": [text(i.sample.prefix[-400:]) for i in items],
        "middle": [text(i.sample.middle) for i in items],
        "suffix_head": [text(i.sample.suffix[:200]) for i in items],
    }
    for name, result in results.items():
        columns[name] = [completion.text for completion in result.completions]
        columns[f"{name}_loss"] = [score.loss_middle for score in result.scores]
    pq.write_table(pa.table(columns), path)
