"""The whole pipeline against parsing and tokenizing the same files once, on one core.

    taskset -c 0 python bench/pipeline.py [--mb MB] [--rounds N] [--corpus LANGUAGE=FOLDER ...]

Every round gives each of the jobs the same files, which none of them has seen; the order of the
jobs changes from round to round. Times are CPU time, medians over the rounds. Without `--corpus`
the files are those of `python bench/fetch.py`. The tokenizer is Qwen's where `SFIM_TEST_DATA` names
a folder with `tok-qwen2`, else one of its kind trained here; the other, of StarCoder's kind, always
is.
"""

import argparse
import gc
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fetch

from fim import FORMATS, Document, content_tokenizer, detect_language, pack, pack_lengths
from fim.syntax import parse
from finetune.recipe.corpus import Corpus, Source
from finetune.recipe.schema import Fim, Model, Recipe
from finetune.samples import fast_tokenizer
from finetune.samples.packs import write_packs
from finetune.samples.sampling import Encoder, _Work
from finetune.samples.tokenizer import (
    bytes_per_token,
    load_run_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

MAX_LENGTH = 8_192
VOCAB_SIZE = 32_768
TRAINING_BYTES = 6_000_000

Job = Callable[[list[Document]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """CPU seconds and tokens of one job on one language, round by round."""

    seconds: list[float]
    tokens: list[int]


def read_corpus(folders: dict[str, list[str]], num_bytes: int) -> dict[str, list[Document]]:
    """Read a seeded choice of files per language: UTF-8, 200 bytes to 1 MB, no two alike."""
    corpus = {}
    for language, paths in folders.items():
        files = sorted(file for path in paths for file in Path(path).rglob("*.*"))
        random.Random(0).shuffle(files)
        corpus[language] = list(_documents(files, language, num_bytes))
        total = sum(len(d.text) for d in corpus[language])
        print(f"{language}: {len(corpus[language]):,} files, {total / 1e6:.1f} MB", flush=True)
    return corpus


def _documents(files: list[Path], language: str, num_bytes: int) -> Iterator[Document]:
    seen: set[bytes] = set()
    for file in files:
        if detect_language(str(file)) != language or not file.is_file():
            continue
        text = file.read_bytes()
        if text in seen or not 200 <= len(text) <= 1_000_000 or not _is_plain(text):
            continue
        seen.add(text)
        yield Document(repo="bench", path=file.name, language=language, text=text)
        num_bytes -= len(text)
        if num_bytes <= 0:
            return


def _is_plain(text: bytes) -> bool:
    """Whether a text is UTF-8 and not minified."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return max(map(len, text.split(b"\n"))) <= 1_000


def slices(documents: list[Document], number: int) -> list[list[Document]]:
    """Deal documents into parts of about the same bytes, the largest first."""
    parts: list[list[Document]] = [[] for _ in range(number)]
    sizes = [0] * number
    for document in sorted(documents, key=lambda d: -len(d.text)):
        smallest = sizes.index(min(sizes))
        parts[smallest].append(document)
        sizes[smallest] += len(document.text)
    return parts


def parse_only(recipe: Recipe) -> Job:
    """Parse each file."""

    def job(documents: list[Document]) -> int:
        for document in documents:
            parse(document.text, document.language)
        return 0

    return job


def tokenize_only(recipe: Recipe) -> Job:
    """Tokenize each file."""
    content = content_tokenizer(load_run_tokenizer(recipe)[0])
    return lambda documents: sum(len(content.ids_of(d.text.decode())) for d in documents)


def plain(recipe: Recipe) -> Job:
    """Parse and tokenize each file once: what every other job is measured against."""
    content = content_tokenizer(load_run_tokenizer(recipe)[0])

    def job(documents: list[Document]) -> int:
        num_tokens = 0
        for document in documents:
            parse(document.text, document.language)
            num_tokens += len(content.ids_of(document.text.decode()))
        return num_tokens

    return job


def pipeline(recipe: Recipe) -> Job:
    """Parse, choose spans, encode, plan the packs and gather their tokens."""
    encoder = Encoder(recipe, epochs=1)

    def job(documents: list[Document]) -> int:
        tokens = [e.tokens for e in encoder(documents)[0]]
        plan = pack_lengths([len(t.input_ids) for t in tokens], recipe.fim.max_length)
        return sum(len(pack([tokens[i] for i in indices]).input_ids) for indices in plan)

    return job


def with_features(recipe: Recipe) -> Job:
    """The same with path headers and loss on the MIDDLE, the packs and sample rows written."""
    fim = replace(recipe.fim, path_header="family", loss="middle")
    encoder = Encoder(replace(recipe, fim=fim), epochs=1)

    def job(documents: list[Document]) -> int:
        shard = encoder.encode_shard(_Work(documents, ()))
        with tempfile.TemporaryDirectory() as scratch:
            write_packs(Path(scratch) / "packs", [shard], fim, epochs=1)
        return len(shard.input_ids)

    return job


def make_jobs(recipe: Recipe) -> dict[str, Job]:
    """The jobs of one tokenizer, each with a tokenizer of its own, so that none has seen a file."""
    every_window = replace(recipe, fim=replace(recipe.fim, fim_rate=1.0))
    makers = {
        "parse": partial(parse_only, recipe),
        "tokenize": partial(tokenize_only, recipe),
        "plain": partial(plain, recipe),
        "all-FIM": partial(pipeline, every_window),
        "70/30": partial(pipeline, recipe),
        "features": partial(with_features, every_window),
    }
    made = {}
    for name, make in makers.items():
        made[name] = make()
        fast_tokenizer._TRIED.clear()  # or the jobs would share one fastokens, and its cache
    return made


def measure(
    jobs: dict[tuple[str, str], Job], corpus: dict[str, list[Document]], rounds: int
) -> dict[tuple[str, str, str], Measured]:
    """Run every job on every language, round by round on new files; the first is for warmth."""
    dealt = {language: slices(documents, rounds + 1) for language, documents in corpus.items()}
    found = {
        (*job, language): Measured(seconds=[], tokens=[]) for job in jobs for language in dealt
    }
    order = list(jobs)
    for number in range(rounds + 1):
        for language, parts in dealt.items():
            random.Random(number).shuffle(order)
            for job in order:
                gc.collect()
                started = time.process_time()
                tokens = jobs[job](parts[number])
                seconds = time.process_time() - started
                if number:
                    found[*job, language].seconds.append(seconds)
                    found[*job, language].tokens.append(tokens)
    return found


def print_tables(found: dict[tuple[str, str, str], Measured], megabytes: dict[str, float]) -> None:
    """Print a row per language and engine: rates, and times against parsing and tokenizing once.

    Args:
        found: by engine, job and language.
        megabytes: of one round, by language.
    """
    engines = list(dict.fromkeys(engine for engine, _, _ in found))
    names = list(dict.fromkeys(name for _, name, _ in found))
    kinds = [name for name in names if name not in ("parse", "tokenize", "plain")]
    titles = ["", "engine", "parse MB/s", "tokenize MB/s", *(f"{k} x" for k in kinds), "tokens x"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for languages in (*([language] for language in megabytes), list(megabytes)):
        size = sum(megabytes[language] for language in languages)
        for engine in engines:
            seconds = {
                kind: _sums([found[engine, kind, language].seconds for language in languages])
                for kind in names
            }
            tokens = {
                kind: sum(_sums([found[engine, kind, language].tokens for language in languages]))
                for kind in ("plain", "all-FIM")
            }
            numbers = [size / statistics.median(seconds[kind]) for kind in ("parse", "tokenize")]
            numbers += [_ratio(seconds[kind], seconds["plain"]) for kind in kinds]
            numbers.append(tokens["all-FIM"] / tokens["plain"])
            title = languages[0] if len(languages) == 1 else "all"
            print(f"| {title} | {engine} | {' | '.join(f'{n:.2f}' for n in numbers)} |")
    if len(engines) == 2:
        for kind in kinds:
            slow, fast = (
                _sums([found[engine, kind, language].seconds for language in megabytes])
                for engine in engines
            )
            print(f"{kind}: {_ratio(slow, fast):.1f} x faster with {engines[1]}")


def _sums(rows: list[list[float]]) -> list[float]:
    """The sum of each round over the languages."""
    return [sum(row) for row in zip(*rows, strict=True)]


def _ratio(seconds: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def make_tokenizers(corpus: dict[str, list[Document]], folder: Path) -> dict[str, Path]:
    """Save a tokenizer of each kind; those trained here know the files, as those of users do."""
    from transformers import PreTrainedTokenizerFast

    share = TRAINING_BYTES // len(corpus)
    texts = [document.text for documents in corpus.values() for document in _head(documents, share)]
    file = Path(os.environ.get("SFIM_TEST_DATA", ".")) / "tok-qwen2" / "tokenizer.json"
    if file.is_file():
        qwen = PreTrainedTokenizerFast(tokenizer_file=str(file))
    else:
        qwen = train_tokenizer(texts, VOCAB_SIZE)
    save_tokenizer(qwen, folder / "qwen")
    save_tokenizer(star_tokenizer(texts), folder / "star")
    return {"qwen": folder / "qwen", "star": folder / "star"}


def _head(documents: list[Document], num_bytes: int) -> Iterator[Document]:
    for document in documents:
        if num_bytes <= 0:
            return
        num_bytes -= len(document.text)
        yield document


def star_tokenizer(texts: list[bytes]) -> Any:
    """Train a byte-level BPE as StarCoder's: single digits, then GPT-2's pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    row = FORMATS["starcoder2"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[
            row.end,
            row.prefix,
            row.middle,
            row.suffix,
            "<fim_pad>",
            row.repo,
            row.file,
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=row.end)


def main() -> None:
    """Measure both kinds of tokenizer, with transformers and, where installed, with fastokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=float, default=1.0, help="megabytes per language and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpus", action="append", default=[], metavar="LANGUAGE=FOLDER")
    parser.add_argument("--tokenizer", choices=("qwen", "star"), help="only this kind")
    arguments = parser.parse_args()
    folders: dict[str, list[str]] = {}
    for entry in arguments.corpus:
        language, _, folder = entry.partition("=")
        folders.setdefault(language, []).append(folder)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parts = arguments.rounds + 1
    folders = folders or {name: list(map(str, fetch.folders(name))) for name in fetch.LANGUAGES}
    corpus = read_corpus(folders, int(arguments.mb * 1e6 * parts))
    megabytes = {k: sum(len(d.text) for d in v) / 1e6 / parts for k, v in corpus.items()}
    engines = ["transformers", *(["fastokens"] if find_spec("fastokens") else [])]
    with tempfile.TemporaryDirectory() as scratch:
        for kind, folder in make_tokenizers(corpus, Path(scratch)).items():
            if arguments.tokenizer in (None, kind):
                jobs = {
                    (engine, name): job
                    for engine in engines
                    for name, job in make_jobs(make_recipe(folder, engine, corpus)).items()
                }
                print(f"\n## A tokenizer of {kind}'s kind\n")
                print_tables(measure(jobs, corpus, arguments.rounds), megabytes)


def make_recipe(folder: Path, engine: str, corpus: dict[str, list[Document]]) -> Recipe:
    """A recipe with the window that `prepare` would measure."""
    recipe = Recipe(
        name="bench", model=Model(name=str(folder), tokenizer=engine),
        corpus=Corpus(sources=(Source(folder="{stdlib}"),)),
        fim=Fim(max_length=MAX_LENGTH, orders={"psm": 0.5, "spm": 0.5}),
    )  # fmt: skip
    tokenizer, _ = load_run_tokenizer(recipe)
    texts = (document.text for documents in corpus.values() for document in documents[:16])
    window = int(MAX_LENGTH * bytes_per_token(texts, tokenizer))
    fast_tokenizer._TRIED.clear()
    return replace(recipe, fim=replace(recipe.fim, window_bytes=window))


if __name__ == "__main__":
    main()
