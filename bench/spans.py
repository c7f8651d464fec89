"""The choice of spans against parsing alone, and against public ways to choose them.

    python bench/spans.py --corpus java=/usr/lib/jvm/src --corpus go=/usr/share/go-1.19/src

Everything is a ratio of CPU times on one core, interleaved file by file, median of the rounds.
Python's files are the standard library's; those of the other languages come from
`python bench/fetch.py`, or from the folders given.
"""

import argparse
import hashlib
import math
import random
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import process_time

import fetch
import tree_sitter
from peers import ast_fim, character_cut, visit_all

from fim import LANGUAGES, Document, SpanPolicy, choose_span, make_samples, parse
from fim.languages import grammar

MIN_BYTES, MAX_BYTES, PEER_BYTES = 200, 1_000_000, 20_000
DENSITY = 500
"""Bytes of file for each span where many are drawn."""
ONE, MANY, PEER = "1 span a file", f"1 span per {DENSITY} B", "AST-FIM"
POLICY = SpanPolicy()


def read_files(folder: Path, language: str, megabytes: float) -> list[bytes]:
    """Read a seeded choice of the files of a language: UTF-8, none twice, none minified."""
    suffixes = {*LANGUAGES[language].extensions, *((".h",) if language == "cpp" else ())}
    paths = sorted(p for p in folder.rglob("*") if p.suffix in suffixes and p.is_file())
    random.Random(0).shuffle(paths)
    texts: dict[str, bytes] = {}
    for path in paths:
        text = path.read_bytes()
        if MIN_BYTES <= len(text) <= MAX_BYTES and _is_plain(text):
            texts[hashlib.sha256(text).hexdigest()] = text
        if sum(map(len, texts.values())) > megabytes * 1e6:
            break
    return list(texts.values())


def _is_plain(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return max(map(len, text.split(b"\n"))) <= 2_000 and len(text) <= 120 * (text.count(b"\n") + 1)


def draw(text: bytes, language: str, number: int, seed: int) -> None:
    """Parse a file and choose so many spans."""
    syntax, rng = parse(text, language), random.Random(seed)
    for _ in range(number):
        choose_span(syntax, POLICY, rng)


def sample(text: bytes, language: str, window_bytes: int, seed: int) -> None:
    """Make the samples of one epoch, every window FIM."""
    document = Document(repo="bench", path="file", language=language, text=text)
    for _ in make_samples(
        document, POLICY, window_bytes=window_bytes, fim_rate=1.0, orders={"psm": 1.0}, seed=seed,
        epoch=0,
    ):  # fmt: skip
        pass


def jobs(language: str) -> dict[str, Callable[[bytes, int], object]]:
    """What is timed on each file with a seed; `parse` is the measure of all."""
    parser = tree_sitter.Parser(grammar(language))

    def peer(text: bytes, seed: int) -> None:
        if len(text) <= PEER_BYTES:
            number = math.ceil(len(text) / DENSITY)
            ast_fim(parser.parse(text).root_node, number, random.Random(seed))

    def dense(text: bytes, seed: int) -> None:
        draw(text, language, math.ceil(len(text) / DENSITY), seed)

    return {
        "parse": lambda text, seed: parser.parse(text),
        ONE: lambda text, seed: draw(text, language, 1, seed),
        MANY: dense,
        "samples, 12,000 B": lambda text, seed: sample(text, language, 12_000, seed),
        f"samples, {DENSITY} B": lambda text, seed: sample(text, language, DENSITY, seed),
        PEER: peer,
        "visit every node": lambda text, seed: visit_all(parser.parse(text).root_node),
        "random cut": lambda text, seed: character_cut(text, random.Random(seed)),
    }


def measure(texts: list[bytes], language: str, rounds: int) -> dict[str, list[list[float]]]:
    """CPU seconds of each job, round by round, file by file; every draw with a seed of its own."""
    times: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in range(rounds)])
    for number in range(rounds):
        for place, text in enumerate(texts):
            for name, job in jobs(language).items():
                started = process_time()
                job(text, number * len(texts) + place)
                times[name][number].append(process_time() - started)
    return times


def report(language: str, texts: list[bytes], rounds: int) -> None:
    """Print the ratios of one language."""
    times = measure(texts, language, rounds)
    parsing = [sum(seconds) for seconds in times["parse"]]
    size = sum(map(len, texts)) / 1e6
    print(f"\n{language}: {len(texts)} files, {size:.1f} MB, {size / median(parsing):.1f} MB/s")
    for name, of_rounds in times.items():
        if name not in ("parse", PEER):
            ratio = median(sum(own) / whole for own, whole in zip(of_rounds, parsing, strict=True))
            print(f"  {name:22} {ratio:6.2f} x parse")
    small = [place for place, text in enumerate(texts) if len(text) <= PEER_BYTES]
    ratio = median(
        sum(peer) / max(1e-9, sum(own[place] for place in small))
        for peer, own in zip(times[PEER], times[MANY], strict=True)
    )
    print(f"  {PEER:22} {ratio:6.1f} x ours at the same density, files to 20 kB")
    ratio, place = max(
        (
            median(own[place] for own in times[MANY]) / median(p[place] for p in times["parse"]),
            place,
        )
        for place in range(len(texts))
    )
    print(f"  {'worst file':22} {ratio:6.2f} x its parse ({len(texts[place])} bytes)")


def generated() -> Iterator[tuple[str, str, bytes]]:
    """Files no one writes: very many siblings, very deep nesting."""
    yield "20,000 siblings", "python", b"value = compute(1)\n" * 20_000
    yield "20,000 deep", "javascript", b"f(" * 20_000 + b"one" + b")" * 20_000


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", action="append", default=[], metavar="LANGUAGE=FOLDER")
    parser.add_argument("--mb", type=float, default=5.0, help="megabytes of each language")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    folders = {name: fetch.CACHE / name for name in fetch.LANGUAGES[1:]}
    folders = {"python": Path(sysconfig.get_path("stdlib"))} | folders
    folders |= {name: Path(folder) for name, _, folder in (c.partition("=") for c in given.corpus)}
    for language, folder in folders.items():
        texts = read_files(folder, language, given.mb)
        if texts:
            report(language, texts, given.rounds)
        else:
            print(f"\n{language}: no file in {folder}")
    print("\ngenerated files, 1 span a file and 1 per 500 B")
    for name, language, text in generated():
        runs = Counter()
        for seed in range(given.rounds):
            for job, run in list(jobs(language).items())[:3]:
                started = process_time()
                run(text, seed)
                runs[job] += process_time() - started
        ratios = [f"{seconds / runs['parse']:.2f}" for seconds in runs.values()]
        print(f"  {name:22} {ratios[1]} and {ratios[2]} x parse")


if __name__ == "__main__":
    main()
