"""Kill the corpus stage and its workers, damage its cache: are the bytes those of a quiet run?

    python bench/kill.py [--kills N] [--deaths N] [--flips N] [--mb MB] [--workers N]

A killed run starts with an empty cache, is killed with SIGKILL at a moment drawn from the whole
time of a run, and is run again to its end. Every file of the corpus is compared by its SHA-256, and
every file of the source has to be in it once, kept or skipped.

Deaths are of workers, all in one run: files are added of which each ends the process that studies
it, in one of five ways. Each has to be listed with its reason, and the documents have to be those
of a run that leaves the added files out.

Flips are of one byte anywhere in the cache of a whole run, before it is run again. How many files
were studied again is counted beside the bytes.
"""

import argparse
import ctypes
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

import corpus as bench
from pyarrow import parquet

from finetune.corpus import collect
from finetune.corpus import workers as workers_module
from finetune.corpus.build import DOCUMENTS, SKIPPED, write_corpus
from finetune.corpus.entries import File
from finetune.corpus.study import Study, StudySettings, study_files
from finetune.corpus.workers import Work
from finetune.recipe.corpus import Corpus, Source

DEATHS: dict[str, tuple[Callable[[], object], str]] = {
    "segfault": (lambda: ctypes.string_at(0), "worker-died"),
    "exit": (lambda: os._exit(3), "worker-died"),
    "sigkill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker-died"),
    "memory": (lambda: [bytearray(2**24) for _ in range(2**16)], "memory-limit"),
    "hang": (lambda: sum(iter(int, 1)), "time-limit"),
}
"""How a worker dies, and the reason that its file is listed with."""


def start(source: Path, place: Path, workers: int, exclude: str = "") -> subprocess.Popen:
    """Start the stage in a process of its own."""
    (place / "corpus").mkdir(parents=True, exist_ok=True)
    words = [sys.executable, __file__, "--run", source, place, str(workers), exclude]
    return subprocess.Popen(words)


def run_here(source: str, place: str, workers: str, exclude: str) -> None:
    """Run the stage, write the number of files that were studied."""
    import kill  # a worker cannot import `__main__`

    studied = 0

    def run_shards(work: Work, shards: Iterable[Sequence], *rest: object) -> Iterator[list]:
        nonlocal studied
        for results in workers_module.run_shards(work, shards, *rest):
            studied += sum(len(each) for each in results if isinstance(each, list))
            yield results

    collect.study_files, collect.run_shards = kill.study_or_die, run_shards
    given = Source(git=source, name="bench", exclude=(exclude,) if exclude else ())
    limits = {"file_seconds": 2.0, "file_memory": 2**30}
    value = Corpus(sources=(given,), workers=int(workers), **limits)
    write_corpus(Path(place) / "corpus", value, 0, Path(place) / "cache", {})
    (Path(place) / "studied").write_text(str(studied))


def study_or_die(settings: StudySettings, files: Sequence[File]) -> list[Study]:
    """Study files, if none of them is one of those that end the process."""
    for file in files:
        if file.path.startswith("dies/"):
            DEATHS[Path(file.path).name.partition("-")[0]][0]()
    return study_files(settings, files)


def count_deaths(source: Path, here: Path, number: int, workers: int) -> dict[str, object]:
    """Let workers die in one run, and compare it with one without the files they died of."""
    (source / "dies").mkdir()
    wanted = {}
    for count, (way, (_, reason)) in zip(range(number), cycle(DEATHS.items())):
        path = f"dies/{way}-{count}.py"
        (source / path).write_text(f"number = {count}\n" * 20)
        wanted[path] = reason
    bench.commit(source)
    assert start(source, here / "deaths", workers).wait() == 0
    assert start(source, here / "without", workers, "dies/**").wait() == 0
    rows = parquet.read_table(here / "deaths" / "corpus" / SKIPPED).to_pylist()
    found = {row["path"]: row["reason"] for row in rows if row["path"].startswith("dies/")}
    one, other = (digests(here / name)[DOCUMENTS] for name in ("deaths", "without"))
    return {
        "deaths": number,
        "listed with their reason": found == wanted,
        "same documents": one == other,
    }


def count_flips(source: Path, here: Path, number: int, workers: int) -> dict[str, object]:
    """Change one byte of the cache at a time, and run again."""
    rng, again, equal = random.Random(0), Counter(), 0
    assert start(source, here / "flips", workers).wait() == 0
    wanted, cache = digests(here / "flips"), here / "flips" / "cache"
    whole = (cache / "studies.sqlite").read_bytes()
    for _ in range(number):
        changed, place = bytearray(whole), rng.randrange(len(whole))
        changed[place] ^= rng.randrange(1, 256)
        (cache / "studies.sqlite").write_bytes(changed)
        assert start(source, here / "flips", workers).wait() == 0
        equal += digests(here / "flips") == wanted
        again[int((here / "flips" / "studied").read_text())] += 1
    return {
        "flips": number,
        "same bytes": equal,
        "files studied again": dict(sorted(again.items())),
    }


def digests(place: Path) -> dict[str, str]:
    """SHA-256 of each file of a corpus; what a killed run left unfinished is none of it."""
    files = (path for path in (place / "corpus").iterdir() if not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def count_paths(place: Path) -> tuple[int, int]:
    """Rows of a corpus, kept or skipped, and how many different files they name."""
    names = (DOCUMENTS, SKIPPED)
    tables = (parquet.read_table(place / "corpus" / name, columns=["path"]) for name in names)
    paths = [path for table in tables for path in table["path"].to_pylist()]
    return len(paths), len(set(paths))


def main() -> None:
    """Print what came out of each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--deaths", type=int, default=50)
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--mb", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(*options.run)
        return
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        source = bench.make_repository(here / "source", int(options.mb * 1e6))
        started = time.monotonic()
        assert start(source, here / "whole", options.workers).wait() == 0
        seconds = time.monotonic() - started
        wanted = digests(here / "whole")
        rows, files = count_paths(here / "whole")
        print(f"a run of {rows} files takes {seconds:.1f} s", flush=True)
        outcomes = []
        for number in range(options.kills):
            place = here / str(number)
            process = start(source, place, options.workers)
            time.sleep(rng.uniform(0, seconds))
            process.send_signal(signal.SIGKILL)
            was_running = process.wait() == -signal.SIGKILL
            assert start(source, place, options.workers).wait() == 0
            equal = digests(place) == wanted and count_paths(place) == (rows, files)
            outcomes.append((was_running, equal))
        killed = sum(was for was, _ in outcomes)
        print(
            json.dumps(
                {
                    "rounds": len(outcomes),
                    "killed while at work": killed,
                    "same bytes": sum(equal for _, equal in outcomes),
                    "lost or doubled": rows - files,
                }
            ),
            flush=True,
        )
        print(json.dumps(count_flips(source, here, options.flips, options.workers)), flush=True)
        print(json.dumps(count_deaths(source, here, options.deaths, options.workers)))


if __name__ == "__main__":
    main()
