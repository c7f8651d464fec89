"""The whole corpus stage on one core: read, filter, redact, compare, order, split, write.

    python bench/corpus.py [--mb MB] [--parts-mb MB] [--folder FOLDER]

Makes a git repository of real code of seven languages, those of `python bench/fetch.py` and what is
installed, and prints megabytes per second of CPU time, of the first process and the worker
together, the peak of their memory, the time with twice the input, with nothing changed and with one
changed file, and where the time of a file goes. `--folder` keeps repositories between calls.
"""

import argparse
import json
import multiprocessing.forkserver
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import fetch

from fim import Document, detect_language
from finetune.corpus import build, study
from finetune.corpus.batches import cut
from finetune.corpus.parsing import parse_file
from finetune.corpus.rules.path import generated, vendored
from finetune.corpus.sources.read import expand_sources, read_source
from finetune.recipe.corpus import Corpus, Source
from finetune.recipe.filters import Filters

STARTED = time.monotonic()
FILTERS = Filters()
CHANGES = {
    "a function in": b"\n\ndef added(first, second):\n    return make_total(first) + second\n",
    "an import in": b"\nimport fractions\n",
}
"""What is added to one file; an import changes what ties it to others, and so the order."""
LANGUAGES = ("typescript", "javascript", "java", "rust", "cpp", "go", "python")
"""Those of which there is least come first; the others make up for what they lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run took, from the start of its process."""

    first: float
    """CPU time of the first process."""
    workers: float
    """CPU time of the worker, and of the server it is forked from."""
    wall: float
    memory: int
    """Most resident bytes of all processes together, shared pages counted once for each."""

    @property
    def seconds(self) -> float:
        """CPU time of all processes."""
        return self.first + self.workers


def make_repository(folder: Path, num_bytes: int) -> Path:
    """Commit so much code to a new repository, as much of each language; return its folder."""
    if (folder / ".git").is_dir():
        git(folder, "reset", "-q", "--hard", "first")
        return folder
    for number, language in enumerate(LANGUAGES):
        wanted = num_bytes * (len(LANGUAGES) - number - 1) // (len(LANGUAGES) - number)
        for root in fetch.folders(language):
            for file in _code(root, language):
                if num_bytes <= wanted:
                    break
                target = folder / language / file.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                num_bytes -= file.stat().st_size
    git(folder, "init", "-q")
    commit(folder)
    git(folder, "tag", "first")
    return folder


def _code(root: Path, language: str) -> Iterator[Path]:
    """Files that are nobody else's and made by no tool: those would be dropped at no cost."""
    for file in sorted(root.rglob("*.*")):
        if detect_language(str(file)) == language and file.is_file() and not file.is_symlink():
            path, text = file.relative_to(root).as_posix(), file.read_bytes()
            document = Document(repo="b", path=path, language=language, text=text)
            if not vendored(document, FILTERS) and not generated(document, FILTERS):
                yield file


def commit(folder: Path) -> None:
    """Commit what lies in a repository."""
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "-qm", "c")


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "-C", folder, *arguments], check=True, env=environment)


def run(repository: Path, cache: Path) -> Cost:
    """Run the stage in a process of its own."""
    command = [sys.executable, __file__, "--run", repository, cache]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return Cost(**json.loads(done.stdout))


def run_here(repository: Path, cache: Path) -> Cost:
    """Run the stage with one worker process, and say what it took with all before it."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], sum(map(_resident, _family(os.getpid()))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    corpus = Corpus(sources=(Source(git=str(repository)),), workers=1)
    corpus = replace(corpus, sources=expand_sources(corpus.sources, cache))
    try:
        with tempfile.TemporaryDirectory() as place:
            build.write_corpus(Path(place), corpus, 0, cache)
    finally:
        done.set()
        watcher.join()
    return Cost(
        first=sum(os.times()[:4]), workers=_worker_seconds(), memory=peak[0],
        wall=time.monotonic() - STARTED,
    )  # fmt: skip


def _worker_seconds() -> float:
    """CPU time of the server that workers are forked from, and of all workers."""
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    if server is None:
        return 0.0
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(n) for task in tasks for n in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _family(child)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def time_parts(repository: Path, num_bytes: int) -> None:
    """Print the CPU milliseconds per megabyte of each part of the study of some files."""
    spent: Counter[str] = Counter()
    names = (
        "to_document", "check_document", "find_licence", "clean_document", "redact", "content_key",
        "make_signatures", "find_links",
    )  # fmt: skip

    def timed(name: str) -> Callable:
        function = getattr(study, name)

        def call(*arguments: object) -> object:
            started = time.process_time()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.process_time() - started

        return call

    original = {name: getattr(study, name) for name in names}
    files = [f for f in read_source(Source(git=str(repository)), "r", 2**20) if hasattr(f, "data")]
    files = files[:: max(1, sum(len(f.data) for f in files) // num_bytes)]
    settings = study.StudySettings.of(Corpus(), 0)
    study.study_file(settings, files[0])
    for name in names:
        setattr(study, name, timed(name))
    started = time.process_time()
    shards = cut(files, lambda file: len(file.data), 64, 500_000)
    studies = (found for shard in shards for found in study.study_files(settings, shard))
    reasons = Counter(found.reason or "kept" for found in studies)
    total = time.process_time() - started
    for name, function in original.items():
        setattr(study, name, function)
    megabytes = sum(len(f.data) for f in files) / 1e6
    started = time.process_time()
    for file in files:
        language = detect_language(file.path, file.data)
        if language and b"\0" not in file.data:
            parse_file(file.data, language)
    spent["(parsing alone, part of the first that needs a tree)"] = time.process_time() - started
    print(
        f"\nStudy of {megabytes:.1f} MB, {len(files):,} files: {total / megabytes * 1e3:.0f} ms/MB"
    )
    for name, seconds in spent.most_common():
        print(f"  {name}: {seconds / megabytes * 1e3:.0f} ms/MB")
    print(f"  {dict(reasons.most_common())}")


def show(name: str, cost: Cost, extra: str = "") -> None:
    """Print one run."""
    print(
        f"{name}: {cost.seconds:.2f} s of CPU ({cost.first:.2f} + {cost.workers:.2f}), "
        f"{cost.wall:.2f} s, "
        f"{cost.memory / 2**20:.0f} MiB{extra}",
        flush=True,
    )


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=float, default=100.0)
    parser.add_argument("--parts-mb", type=float, default=8.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(asdict(run_here(*options.run))))
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        place = options.folder or Path(scratch)
        half = make_repository(place / "half", int(options.mb * 5e5))
        whole = make_repository(place / "whole", int(options.mb * 1e6))
        files = [file for file in whole.rglob("*.*") if ".git" not in file.parts and file.is_file()]
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        print(f"{megabytes:.1f} MB of code, {len(files):,} files")
        time_parts(whole, int(options.parts_mb * 1e6))
        smaller = run(half, Path(scratch) / "half-cache")
        show("half of it", smaller)
        cache = Path(scratch) / "cache"
        first = run(whole, cache)
        show("first run", first, f", {megabytes / first.seconds:.2f} MB/s")
        print(f"twice the input: {first.seconds / smaller.seconds:.2f} x the time")
        show("nothing changed", same := run(whole, cache), f", {same.seconds / first.seconds:.1%}")
        python = [file for file in files if file.suffix == ".py"]
        changed = min(python, key=lambda file: (abs(file.stat().st_size - 10_000), file))
        for name, text in CHANGES.items():
            changed.write_bytes(changed.read_bytes() + text)
            commit(whole)
            one = run(whole, cache)
            show(f"{name} one file", one, f", {one.seconds / first.seconds:.1%}")
        size = sum(file.stat().st_size for file in cache.rglob("*"))
        print(f"cache: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
