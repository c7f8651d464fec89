"""Files that a base model finds far harder, or far easier, to read than others of their language.

A file of noise, data or broken text has a loss far above its like and makes training spike; one
that the base knows by heart, or that repeats itself, has one far below and teaches nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fim import Document, FimError, Sample, Tokens, TooLong, encode, pack, pack_lengths
from finetune.corpus.build import document_ids, read_documents
from finetune.model import load_base, load_tuned
from finetune.prepare import check_run_folder
from finetune.progress import progress
from finetune.recipe.schema import Recipe
from finetune.samples.tokenizer import load_run_tokenizer
from finetune.show import align, visible
from finetune.store import MANIFEST
from finetune.training.attention import choose_attention
from finetune.training.device import choose_device, choose_dtype
from finetune.training.isolation import check_isolation
from finetune.training.losses import collate, token_losses

OUTLIERS = "outliers.parquet"
THRESHOLD = 3.5
"""Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers": modified z-scores above 3.5."""
MIN_FILES = 20
"""Languages with fewer files are compared with the files of all languages."""
MIN_TOKENS = 64
"""Shorter files are not judged: a mean over a few tokens is far off by chance."""
_BYTES_PER_TOKEN = 8
"""More than a window's tokens hold in ordinary code, so that only its tokens limit it."""
_FILES_AT_ONCE = 256
"""Files whose tokens are in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLoss:
    """How hard the base finds one file."""

    repo: str
    path: str
    language: str
    loss: float
    """Mean negative log-likelihood, nats per token, over the file's first window."""
    tokens: int
    """Tokens it is the mean of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier(FileLoss):
    """A file whose loss is far from that of its like."""

    score: float
    """Modified z-score of its log loss; below 0 is easier than most."""
    side: str
    """`low` or `high`."""
    reason: str
    """`loss-low` or `loss-high`: what it is counted under when it is dropped."""


def find_outliers(
    recipe: Recipe, threshold: float = THRESHOLD, max_loss: float = 0.0
) -> dict[str, Any]:
    """Take the loss of every training file under the base, and list the outliers of each language.

    They are written to `outliers.parquet` of the run, which `corpus.drop_list` takes.

    Args:
        recipe: a prepared run. Its base is `model.name`; of a model from nothing, what was trained.
        threshold: modified z-score beyond which a file is an outlier, on either side.
        max_loss: files above are outliers whatever the others are, in nats per token; 0 for none.

    Returns:
        What `sfim outliers --json` prints: `files` and `judged`, `languages` with the median loss
        and the number of files of each, `outliers` (rows of `Outlier`, those of each side from the
        farthest on) and `file`, the path of the list.

    Raises:
        FimError: no corpus or another recipe's, no base, or out of memory.

    Source:
        refact drops files above 3.0 nats per token (smallcloudai/refact, `filter_loss_threshold`).
    """
    check_run_folder(recipe)
    corpus = recipe.folder / "corpus"
    if not (corpus / MANIFEST).exists():
        raise FimError(f"{corpus}: not made yet; run: sfim prepare RECIPE")
    number = len(document_ids(corpus, "train"))
    documents = progress(read_documents(corpus, "train"), "losses (base)", number)
    try:
        losses = list(file_losses(recipe, documents))
    except torch.OutOfMemoryError:
        raise FimError("out of memory: lower fim.max_length") from None
    found = mark_outliers(losses, threshold, max_loss)
    path = recipe.folder / OUTLIERS
    _write_list(path, found)
    return {
        "files": number,
        "judged": len(losses),
        "languages": _medians(losses),
        "outliers": [asdict(outlier) for outlier in found],
        "file": str(path),
    }


def file_losses(recipe: Recipe, documents: Iterable[Document]) -> Iterator[FileLoss]:
    """Yield the loss of each document that has `MIN_TOKENS`, of its first window, as in training.

    Raises:
        FimError: the base or its tokenizer cannot be had.
    """
    tokenizer, form = load_run_tokenizer(recipe)
    model = _load_model(recipe)
    length = recipe.fim.max_length

    def tokens_of(document: Document) -> Tokens | None:
        piece = _first_piece(document, length * _BYTES_PER_TOKEN)
        try:
            return encode(
                piece, form, tokenizer, max_length=length, path_header=recipe.fim.path_header
            )
        except TooLong:  # not one line fits
            return None

    waiting = iter(documents)
    while group := list(islice(waiting, _FILES_AT_ONCE)):
        rows = [(document, tokens_of(document)) for document in group]
        rows = [(document, t) for document, t in rows if t and len(t.input_ids) > MIN_TOKENS]
        means = _means(model, [tokens for _, tokens in rows], length)
        for (document, tokens), loss in zip(rows, means, strict=True):
            yield FileLoss(
                repo=document.repo, path=document.path, language=document.language,
                loss=loss, tokens=len(tokens.input_ids),
            )  # fmt: skip


def mark_outliers(
    losses: Sequence[FileLoss], threshold: float = THRESHOLD, max_loss: float = 0.0
) -> list[Outlier]:
    """Compare each file with those of its language; losses are positive and skewed, so their logs.

    A language of fewer than `MIN_FILES` is compared with all files; of fewer files in all, only
    `max_loss` speaks.

    Args:
        losses: at most one per file.
        threshold: see `find_outliers`.
        max_loss: see `find_outliers`.

    Returns:
        The outliers, the low ones first, those of each side from the farthest on.
    """
    counts = Counter(file.language for file in losses)
    groups = {name: [f for f in losses if f.language == name] for name in counts}
    found = []
    for name, files in groups.items():
        others = files if counts[name] >= MIN_FILES else losses
        scores = _scores([f.loss for f in files], [f.loss for f in others])
        for file, score in zip(files, scores, strict=True):
            high = score > threshold or 0 < max_loss < file.loss
            if high or score < -threshold:
                side = "high" if high else "low"
                found.append(Outlier(**asdict(file), score=score, side=side, reason=f"loss-{side}"))
    return sorted(found, key=lambda o: (o.side == "high", -abs(o.score), o.repo, o.path))


def outliers_summary(result: Mapping[str, Any], worst: int) -> str:
    """Return the counts, and a table of the `worst` files of each side."""
    sides = Counter(row["side"] for row in result["outliers"])
    lines = [
        f"{result['judged']:,} of {result['files']:,} training files judged: "
        f"{sides['low']:,} far below the loss of their language, {sides['high']:,} far above"
    ]
    rows = [["language", "files", "median loss"]]
    for name, row in result["languages"].items():
        rows.append([name, f"{row['files']:,}", f"{row['median']:.3f}"])
    lines += ["", align(rows)]
    for side in ("low", "high"):
        shown = [row for row in result["outliers"] if row["side"] == side][:worst]
        if shown:
            table = [[side, "loss", "score", "tokens"]]
            table += [
                [visible(f"{row['repo']}/{row['path']}"), f"{row['loss']:.3f}",
                 f"{row['score']:+.1f}", f"{row['tokens']:,}"]
                for row in shown
            ]  # fmt: skip
            lines += ["", align(table)]
    return "\n".join(
        [*lines, "", f"to drop them in another run: corpus.drop_list={result['file']}"]
    )


def _load_model(recipe: Recipe) -> Any:
    device = choose_device()
    dtype = choose_dtype(recipe.model, device)
    if recipe.model.scratch:
        model = load_tuned(recipe, dtype=dtype)
    else:
        model = load_base(recipe.model.name, recipe.model.revision, dtype=dtype)
    model.set_attn_implementation(choose_attention(recipe.model.attention, device, dtype))
    model = model.to(device).eval()
    check_isolation(model, collate)
    return model


def _first_piece(document: Document, max_bytes: int) -> Sample:
    """The document's start as plain text, without the end token: each loss is of the file's own."""
    text = document.text[:max_bytes].decode(errors="ignore").encode()
    return Sample(
        document_id=document.id, repo=document.repo, path=document.path,
        language=document.language, prefix=b"", middle=text, suffix=b"", order="ar",
        sampler="", kind="", context_split=1.0, ends_document=False,
    )  # fmt: skip


def _means(model: Any, rows: Sequence[Tokens], capacity: int) -> list[float]:
    """Return the mean loss of each row; rows of all lengths share packs and no padding."""
    means: dict[int, float] = {}
    for indices in pack_lengths([len(tokens.input_ids) for tokens in rows], capacity):
        joined = pack([rows[i] for i in indices])
        losses = token_losses(model, asdict(joined))
        means.update((i, round(float(of.mean()), 4)) for i, of in zip(indices, losses, strict=True))
    return [means[i] for i in range(len(rows))]


def _scores(losses: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return modified z-scores of the log losses among those of others; 0 where there are few.

    Where more than half of the others are alike, their mean deviation stands in for the median one.
    """
    if len(others) < MIN_FILES:
        return [0.0] * len(losses)
    logs, among = (np.log(np.maximum(values, 1e-4)) for values in (losses, others))
    middle = float(np.median(among))
    deviations = np.abs(among - middle)
    spread = 1.4826 * float(np.median(deviations)) or 1.2533 * float(deviations.mean()) or math.inf
    return [round(float(score), 2) for score in (logs - middle) / spread]


def _medians(losses: Sequence[FileLoss]) -> dict[str, dict[str, Any]]:
    counts = Counter(file.language for file in losses)
    return {
        name: {
            "files": number,
            "median": float(np.median([file.loss for file in losses if file.language == name])),
        }
        for name, number in counts.most_common()
    }


def _write_list(path: Path, found: Sequence[Outlier]) -> None:
    """Write one row per outlier; a list of none has its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {float: pa.float64(), int: pa.int64(), str: pa.string()}
    schema = pa.schema([(field.name, kinds[field.type]) for field in fields(Outlier)])
    temporary = path.with_name(f".{path.name}.new")
    pq.write_table(pa.Table.from_pylist([asdict(o) for o in found], schema), temporary)
    temporary.replace(path)
