"""What a model writes at a place: greedy completions, one or many at once."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fim import (
    LANGUAGES,
    Document,
    FimError,
    ProvedFormat,
    Span,
    content_tokenizer,
    detect_language,
    encode_prompt,
    split_at,
)
from finetune.corpus.entries import File, Skip
from finetune.corpus.filters import check_document, to_document
from finetune.corpus.sources.read import walk_folder
from finetune.model import generation_config, load_tuned, read_run, tuned_folder
from finetune.recipe.corpus import Source
from finetune.recipe.schema import Recipe
from finetune.samples.tokenizer import load_format, load_tokenizer
from finetune.training.device import choose_device

_BYTES_PER_TOKEN = 4
"""Bytes of other files looked at, per token of the window; tokens are counted after."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model wrote for one prompt."""

    text: str
    stopped: bool
    """Whether it wrote a stop token itself, within the limit."""


@torch.inference_mode()
def complete(
    model: Any,
    tokenizer: Any,
    form: ProvedFormat,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[Completion]:
    """Complete prompts of token ids greedily.

    Args:
        model: in evaluation mode, with an attention that takes padding (not the packed one).
        tokenizer: to decode.
        form: its stop tokens end a completion.
        prompts: token ids of each, from `encode_prompt`.
        max_new_tokens: limit of each completion, its stop token included.
    """
    config = generation_config(form, tokenizer)
    config.max_new_tokens = max_new_tokens
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), config.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left, where no token is written
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    device = next(model.parameters()).device
    output = model.generate(
        input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
    )
    return [_read(row, tokenizer, form) for row in output[:, width:].tolist()]


def _read(ids: list[int], tokenizer: Any, form: ProvedFormat) -> Completion:
    stops = set(form.stop_ids)
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    text = content_tokenizer(tokenizer).decode(ids[:end], guarded="M" in form.row.guarded)
    return Completion(text=text, stopped=end is not None)


def served_order(recipe: Recipe, form: ProvedFormat) -> str:
    """The order prompts are sent in: the one with the largest weight, the first of equals."""
    weights: Mapping[str, float] = recipe.fim.orders or form.row.trained
    return max(weights, key=lambda order: weights[order])


def complete_at(run: Path, place: str, max_new_tokens: int = 0) -> Completion:
    """Complete a file on disk at `FILE:LINE:COLUMN`, as the run's model does.

    Args:
        run: a trained run folder.
        place: line and column count from 1, the column in characters; the cursor stands before
            that character.
        max_new_tokens: limit; 0 takes the recipe's.

    Raises:
        FimError: no such place, a language without a row, or the run is not trained.
    """
    recipe = read_run(run)
    prefix, suffix, path = read_place(place)
    text = prefix + suffix
    language = detect_language(path, text)
    if language is None:
        raise FimError(f"{path}: unknown language; known: {', '.join(sorted(LANGUAGES))}")
    model = load_tuned(recipe).to(choose_device()).eval()
    tokenizer = load_tokenizer(str(tuned_folder(recipe)))
    form = load_format(tokenizer, recipe.model)
    limit = max_new_tokens or recipe.evaluate.max_new_tokens
    repo, inside = locate(Path(path))
    document = Document(repo=repo, path=inside, language=language, text=text)
    span = Span(start_byte=len(prefix), end_byte=len(prefix), sampler="empty", kind="")
    sample = split_at(document, span, order=served_order(recipe, form), context_split=0.75)
    prompt = encode_prompt(
        sample, form, tokenizer, max_length=recipe.fim.max_length, max_new_tokens=limit,
        path_header=recipe.fim.path_header, profile=recipe.fim.profile,
        context=read_context(Path(path), recipe),
    )  # fmt: skip
    return complete(model, tokenizer, form, [prompt], limit)[0]


def locate(file: Path) -> tuple[str, str]:
    """Name a file as training named it, for the path header.

    Returns:
        The repository's name, and the path from its top: the nearest folder with a `.git`, else
        the working directory, else the file's own folder.
    """
    absolute, here = Path(os.path.abspath(file)), Path.cwd()
    tops = [folder for folder in absolute.parents if (folder / ".git").exists()]
    tops += [here] if here in absolute.parents else []
    top = next(iter(tops), absolute.parent)
    return top.name, absolute.relative_to(top).as_posix()


def read_context(file: Path, recipe: Recipe) -> tuple[Document, ...]:
    """Read the files before one in its repository that may fit the window, the nearest last.

    Those a corpus would not hold are left out; without `fim.context: repo`, all are.
    """
    if recipe.fim.context != "repo":
        return ()
    repo, inside = locate(file)
    top = Path(os.path.abspath(file)).parents[inside.count("/")]
    filters = replace(
        recipe.corpus.filters, ruff=()
    )  # a process per file would keep a user waiting
    room = recipe.fim.window_bytes or recipe.fim.max_length * _BYTES_PER_TOKEN
    limit = min(room, filters.max_bytes)
    before = [
        found.path for found in walk_folder(Source(folder=str(top)))
        if not found.reason and found.path < inside and found.num_bytes <= limit
    ]  # fmt: skip
    near: list[Document] = []
    for path in sorted(before, reverse=True):
        try:
            document = to_document(File(repo=repo, path=path, data=(top / path).read_bytes()))
        except OSError:
            continue
        if isinstance(document, Skip) or check_document(document, filters):
            continue
        room -= len(document.text)
        if room < 0:
            break
        near.insert(0, document)
    return tuple(near)


def read_place(place: str) -> tuple[bytes, bytes, str]:
    """Return what stands before and after `FILE:LINE:COLUMN`, and the file's path.

    Lines end at CR LF, LF and CR, as in editors; not at form feeds or U+2028.

    Raises:
        FimError: the place is misspelled, or the file has no such line or column.
    """
    path, line, column = ["", "", *place.rsplit(":", 2)][-3:]
    if not path or not line.isdecimal() or not column.isdecimal():
        raise FimError(f"{place}: expected FILE:LINE:COLUMN, e.g. src/app.py:12:5")
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise FimError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FimError(f"{path}: not UTF-8") from None
    lines = _LINE.findall(text)
    if not lines or text.endswith(("\n", "\r")):
        lines.append("")
    if not 1 <= int(line) <= len(lines):
        raise FimError(f"{place}: the file has {len(lines)} lines")
    width = len(lines[int(line) - 1].rstrip("\r\n"))
    if not 1 <= int(column) <= width + 1:
        raise FimError(f"{place}: that line has columns 1 to {width + 1}")
    before = "".join(lines[: int(line) - 1]) + lines[int(line) - 1][: int(column) - 1]
    return before.encode(), text[len(before) :].encode(), path
