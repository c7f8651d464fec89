"""The shipped base on code of packages it never saw, against the same size trained for less.

    python bench/fetch.py recipes/tiny-base/packages.csv
    sfim run recipes/quickstart-base.yaml
    python bench/tiny_base.py runs/quickstart-base/model recipes/tiny-base

Lines of the packages that the table holds out, up to three per file, are completed by each model:
the construct `line` of `sfim evaluate`. The last model is compared with each one before it.
Tokenizers differ, so losses are also given per byte of the lines.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import fetch

from fim import (
    Document,
    Sample,
    SpanPolicy,
    candidate_spans,
    detect_language,
    encode,
    encode_prompt,
    make_rng,
    pack,
    parse,
    resolve_format,
    split_at,
)
from finetune.complete import Completion, complete
from finetune.metrics import Score, edit_similarity, exact_match, paired_interval, parses
from finetune.model import load_base
from finetune.progress import progress
from finetune.samples.tokenizer import load_tokenizer, model_hint
from finetune.training.losses import token_losses

LANGUAGES = ("python", "javascript", "typescript", "java", "go", "rust", "cpp")
MAX_FILE_BYTES = 100_000
MIDDLE_BYTES = (6, 100)
PER_FILE = 3
PER_LANGUAGE = 100
MAX_LENGTH, MAX_NEW_TOKENS = 256, 48
BATCH = 32
RESAMPLES = 2_000


class Result(NamedTuple):
    """What one model did on every line."""

    scores: list[Score]
    nats: list[float]
    """Summed loss of each MIDDLE and its end token."""


def read_lines(folder: Path) -> list[Sample]:
    """Choose whole lines of the files below a folder, spread over languages and files."""
    chosen: list[Sample] = []
    for language in LANGUAGES:
        found: list[Sample] = []
        for document in _documents(folder / language, language):
            rng = make_rng(0, document.id)
            spans = candidate_spans(
                parse(document.text, language), SpanPolicy(max_middle_bytes=MIDDLE_BYTES[1])
            ).get("line", [])
            fitting = [s for s in spans if s.end_byte - s.start_byte >= MIDDLE_BYTES[0]]
            for span in rng.sample(fitting, min(PER_FILE, len(fitting))):
                found.append(split_at(document, span, order="spm", context_split=0.75))
        make_rng(0, language).shuffle(found)
        chosen += found[:PER_LANGUAGE]
    return chosen


def _documents(folder: Path, language: str) -> Iterator[Document]:
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        compiled = {"dist", "build"} & set(path.parts) or place.endswith(".d.ts")
        if not path.is_file() or compiled or path.stat().st_size > MAX_FILE_BYTES:
            continue
        text = path.read_bytes()
        if detect_language(place, text) == language and _is_utf8(text):
            repo, _, inside = place.partition("/")
            yield Document(repo=repo, path=inside, language=language, text=text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def measure(name: str, samples: list[Sample]) -> Result:
    """Complete every line with a model, and take the loss of what stands there."""
    tokenizer = load_tokenizer(name)
    form = resolve_format(tokenizer, hint=model_hint(name))
    model: Any = load_base(name).float().eval()
    prompts = [
        encode_prompt(s, form, tokenizer, max_length=MAX_LENGTH, max_new_tokens=MAX_NEW_TOKENS)
        for s in samples
    ]
    by_length = sorted(range(len(samples)), key=lambda i: len(prompts[i]))
    batches = [by_length[i : i + BATCH] for i in range(0, len(by_length), BATCH)]
    scores, nats = {}, {}
    for batch in progress(batches, name):
        written = complete(model, tokenizer, form, [prompts[i] for i in batch], MAX_NEW_TOKENS)
        for i, completion in zip(batch, written, strict=True):
            tokens = encode(samples[i], form, tokenizer, max_length=MAX_LENGTH, loss="middle")
            (losses,) = token_losses(model, asdict(pack([tokens])))
            scores[i] = _score(samples[i], completion, float(losses.mean()))
            nats[i] = float(losses.sum())
    return Result(*([found[i] for i in range(len(samples))] for found in (scores, nats)))


def _score(sample: Sample, completion: Completion, loss: float) -> Score:
    middle = sample.middle.decode()
    return Score(
        file=sample.document_id,
        scenario="line",
        language=sample.language,
        exact_match=exact_match(completion.text, middle),
        edit_similarity=edit_similarity(completion.text, middle),
        stop_rate=float(completion.stopped),
        parse_rate=parses(
            sample.prefix, completion.text.encode(errors="replace"), sample.suffix, sample.middle,
            sample.language,
        ),
        loss_middle=loss,
    )  # fmt: skip


def columns(result: Result, samples: list[Sample]) -> dict[str, tuple[list[float], list[float]]]:
    """Value and weight of every line, by the name of the measure."""
    ones = [1.0] * len(samples)
    means = {
        label: ([getattr(score, name) for score in result.scores], ones)
        for label, name in (
            ("loss_middle, per token", "loss_middle"),
            ("exact match", "exact_match"),
            ("edit similarity", "edit_similarity"),
            ("stops", "stop_rate"),
            ("parses", "parse_rate"),
        )
    }
    sizes = [float(len(sample.middle)) for sample in samples]
    return {"loss_middle, per byte": (result.nats, sizes)} | means


def interval(values: list[float], weights: list[float], files: list[str]) -> str:
    """A mean and its 95 % interval as text."""
    found = paired_interval(files, values, weights, RESAMPLES, 0)
    return f"{found['difference']:7.4f} [{found['low']:7.4f}, {found['high']:7.4f}]"


def main() -> None:
    """Print a table per model, and the differences to the last one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="folders of models; the last one is compared")
    names = parser.parse_args().models
    samples = read_lines(fetch.CACHE / "tiny-base" / "held-out")
    if not samples:
        raise SystemExit("error: run first: python bench/fetch.py recipes/tiny-base/packages.csv")
    files = [sample.document_id for sample in samples]
    counts = ", ".join(f"{sum(s.language == x for s in samples)} {x}" for x in LANGUAGES)
    print(f"{len(samples)} lines of {len(set(files))} files: {counts}")
    measured = {name: columns(measure(name, samples), samples) for name in names}
    last = measured[names[-1]]
    for name in names:
        print(f"\n{name}")
        for label, (values, weights) in measured[name].items():
            line = f"{label:24}{interval(values, weights, files)}"
            if name != names[-1]:
                gain = [b - a for a, b in zip(values, last[label][0], strict=True)]
                line += f"   last - this {interval(gain, weights, files)}"
            print(line)
        exact = measured[name]["exact match"][0]
        by = {x: [e for e, s in zip(exact, samples, strict=True) if s.language == x]
              for x in LANGUAGES}  # fmt: skip
        print("exact match by language: "
              + ", ".join(f"{x} {sum(v) / max(1, len(v)):.2f}" for x, v in by.items()))  # fmt: skip


if __name__ == "__main__":
    main()
