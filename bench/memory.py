"""Peak memory of `sfim prepare` at ten times the input, and what a second process brings.

    python bench/memory.py [MEGABYTES [ROUNDS]]

Input is the standard library, repeated with another first line per copy: MEGABYTES (10) of it and
ten times as many, sampled for one epoch. Memory is the largest resident set of the process, and of
its workers. Then, on MEGABYTES times three: the throughput of `encode_documents` with two workers
against one, next to that of two processes that do nothing but parse the same files against one;
wall time, started processes, medians of ROUNDS (3) of all four in turn.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from itertools import accumulate, product
from multiprocessing import get_context
from pathlib import Path

from fim import Document, parse
from finetune.corpus.build import read_documents, write_corpus
from finetune.corpus.sources.read import source_path
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Dedup, Source, Split
from finetune.recipe.schema import Fim, Model, Recipe, Train
from finetune.samples.sampling import encode_documents
from finetune.samples.tokenizer import save_tokenizer, train_tokenizer

WINDOW_BYTES = 15_000
ORDERS = {"psm": 0.5, "spm": 0.5}
STANDARD_LIBRARY = source_path(Source(folder="{stdlib}"))


def write_copies(folder: Path, num_bytes: int, copies: int) -> None:
    """Fill a folder with so many bytes of the standard library's modules, so many times."""
    files = sorted(STANDARD_LIBRARY.glob("*.py")) + sorted(STANDARD_LIBRARY.glob("*/*.py"))
    texts = [file.read_bytes() for file in files if "-packages" not in str(file)]
    chosen = [
        text
        for text, end in zip(texts, accumulate(map(len, texts)), strict=True)
        if end <= num_bytes
    ]
    for copy in range(copies):
        place = folder / f"copy{copy}"
        place.mkdir(parents=True)
        for number, text in enumerate(chosen):
            (place / f"m{number}.py").write_bytes(b"# copy %d\n" % copy + text)


def make_recipe(place: Path, code: str) -> Recipe:
    """A run over one folder of code, with the tokenizer trained for this bench."""
    return Recipe(
        name=code,
        runs=str(place / "runs"),
        model=Model(name=str(place / "base")),
        corpus=Corpus(
            sources=(Source(folder=str(place / code)),),
            split=Split(eval_rate=0.0),
            workers=2,
            dedup=Dedup(exact=False, near=False),  # the corpus is made of copies
        ),
        fim=Fim(max_length=4_096, window_bytes=WINDOW_BYTES, orders=ORDERS),
        train=Train(epochs=1),
    )


def largest(who: int) -> float:
    """Most megabytes a process had resident; Linux counts in kilobytes, macOS in bytes."""
    unit = 1_000_000 if sys.platform == "darwin" else 1_000
    return resource.getrusage(who).ru_maxrss / unit


def run_stage(place: Path, code: str, stage: str) -> dict[str, float]:
    """Run one stage in a process of its own and return its peaks in megabytes."""
    done = subprocess.run(
        [sys.executable, __file__, "--stage", str(place), code, stage],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(done.stdout)


def stage(place: Path, code: str, name: str) -> None:
    """Be that process."""
    recipe = make_recipe(place, code)
    started = time.perf_counter()
    if name == "corpus":
        folder = place / f"corpus-{code}"
        folder.mkdir()
        write_corpus(folder, recipe.corpus, seed=0)
    else:
        prepare(recipe)
    peaks = {
        "process": largest(resource.RUSAGE_SELF),
        "workers": largest(resource.RUSAGE_CHILDREN),
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(peaks))


def memory(place: Path, megabytes: int) -> None:
    """Print the peaks of both stages at both sizes."""
    for name, copies in (("small", 1), ("large", 10)):
        write_copies(place / name, megabytes * 1_000_000, copies)
    for name in ("corpus", "prepare"):
        small, large = (run_stage(place, code, name) for code in ("small", "large"))
        print(f"{name}: {megabytes} MB in {small['seconds']:.0f} s, ten times that in "
              f"{large['seconds']:.0f} s")  # fmt: skip
        for who in ("process", "workers") if name == "prepare" else ("process",):
            print(
                f"  peak of the {who}: {small[who]:.0f} MB and {large[who]:.0f} MB, "
                f"ratio {large[who] / small[who]:.3f}"
            )


_documents: list[Document] = []


def _load(corpus: Path) -> None:
    _documents.extend(read_documents(corpus, "train"))


def _parse_all(_: int) -> None:
    for document in _documents:
        parse(document.text, document.language)


def parse_rate(pool: ProcessPoolExecutor, processes: int) -> float:
    """Megabytes a second that so many processes parse, each every file."""
    started = time.perf_counter()
    list(pool.map(_parse_all, range(processes)))
    seconds = time.perf_counter() - started
    return processes * sum(len(d.text) for d in _documents) / 1e6 / seconds


def encode_rate(recipe: Recipe, workers: int) -> float:
    """Megabytes a second that come out of `encode_documents` once all workers are at work."""
    recipe = replace(recipe, corpus=replace(recipe.corpus, workers=workers))
    sizes = {document.id: len(document.text) for document in _documents}
    num_bytes = 0
    started = 0.0
    for number, shard in enumerate(encode_documents(_documents, recipe, epochs=1), start=1):
        if number > workers:
            num_bytes += sum(sizes[name] for name in set(shard.rows["document_id"]))
        elif number == workers:
            started = time.perf_counter()
    return num_bytes / 1e6 / (time.perf_counter() - started)


def processes(place: Path, megabytes: int, rounds: int) -> None:
    """Print what a second process brings to parsing and to encoding."""
    write_copies(place / "speed", megabytes * 1_000_000, 3)
    recipe = make_recipe(place, "speed")
    corpus = place / "corpus-speed"
    corpus.mkdir()
    write_corpus(corpus, recipe.corpus, seed=0)
    _load(corpus)
    rates: dict[tuple[str, int], list[float]] = {}
    engines = ("transformers", "fastokens") if find_spec("fastokens") else ("transformers",)
    with ProcessPoolExecutor(
        2, mp_context=get_context("spawn"), initializer=_load, initargs=(corpus,)
    ) as pool:
        parse_rate(pool, 2)  # both are started now
        for _, number in product(range(rounds), (1, 2)):
            rates.setdefault(("parsing", number), []).append(parse_rate(pool, number))
            for engine in engines:
                with_engine = replace(recipe, model=replace(recipe.model, tokenizer=engine))
                rate = encode_rate(with_engine, number)
                rates.setdefault((f"encoding by {engine}", number), []).append(rate)
    median = {key: statistics.median(values) for key, values in rates.items()}
    gains = {what: median[what, 2] / median[what, 1] for what, number in median if number == 2}
    for what, gain in gains.items():
        print(
            f"{what}: {median[what, 1]:.2f} MB/s in one process, {median[what, 2]:.2f} in two, "
            f"{gain:.2f} times as much, {gain / gains['parsing']:.3f} of what parsing gains"
        )


def main(arguments: Sequence[str]) -> None:
    """Print every figure."""
    megabytes = int(arguments[0]) if arguments else 10
    rounds = int(arguments[1]) if len(arguments) > 1 else 3
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        texts = (file.read_bytes() for file in sorted(STANDARD_LIBRARY.glob("*.py"))[::3])
        save_tokenizer(train_tokenizer(texts, 16_384), place / "base")
        memory(place, megabytes)
        processes(place, megabytes, rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        stage(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main(sys.argv[1:])
