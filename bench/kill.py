"""Kill the corpus stage at random moments and run it again: are the bytes those of a quiet run?

    python bench/kill.py [--kills N] [--mb MB] [--workers N]

Each round starts with an empty cache, is killed with SIGKILL at a moment drawn from the whole time
of a run, and is run again to its end. Every file of the corpus is compared by its SHA-256, and
every file of the source has to be in it once, kept or skipped.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus as bench

from finetune.corpus.build import DOCUMENTS, SKIPPED, write_corpus
from finetune.recipe_corpus import Corpus, Source


def start(source: Path, place: Path, workers: int) -> subprocess.Popen:
    """Start the stage in a process of its own."""
    (place / "corpus").mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([sys.executable, __file__, "--run", source, place, str(workers)])


def run_here(source: str, place: str, workers: str) -> None:
    """Run the stage."""
    value = Corpus(sources=(Source(git=source, name="bench"),), workers=int(workers))
    write_corpus(Path(place) / "corpus", value, 0, Path(place) / "cache", {})


def digests(place: Path) -> dict[str, str]:
    """SHA-256 of each file of a corpus; what a killed run left unfinished is none of it."""
    files = (path for path in (place / "corpus").iterdir() if not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def count_paths(place: Path) -> tuple[int, int]:
    """Rows of a corpus, kept or skipped, and how many different files they name."""
    from pyarrow import parquet

    tables = (
        parquet.read_table(place / "corpus" / n, columns=["path"]) for n in (DOCUMENTS, SKIPPED)
    )
    paths = [path for table in tables for path in table["path"].to_pylist()]
    return len(paths), len(set(paths))


def main() -> None:
    """Print what came out of each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--mb", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
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
            )
        )


if __name__ == "__main__":
    main()
