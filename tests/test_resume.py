"""Killed at any moment and run again, a corpus has the same bytes; a lost worker costs a file."""

import ctypes
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from made_code import make_code
from pyarrow import parquet

from finetune.corpus import build, collect
from finetune.corpus.study import study_files
from finetune.recipe.corpus import Corpus, Source, Split

SCRIPT = """
import sys
from pathlib import Path
from finetune.corpus.build import write_corpus
from finetune.recipe.corpus import Corpus, Source
source, cache, folder, workers = sys.argv[1:]
corpus = Corpus(sources=(Source(folder=source),), workers=int(workers))
write_corpus(Path(folder), corpus, 0, Path(cache), {})
"""
FILES = 1_200


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("code")
    for number in range(FILES):
        (root / f"{number:04}.py").write_bytes(make_code(number % (FILES - 20)))  # 20 copies
    return root


def start(code: Path, cache: Path, folder: Path, workers: int) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [str(code), str(cache), str(folder), str(workers)]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], env=environment)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def num_studies(cache: Path) -> int:
    try:
        connection = sqlite3.connect(f"file:{cache / 'studies.sqlite'}?mode=ro", uri=True)
        return connection.execute("SELECT count(*) FROM studies").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_gives_the_same_bytes(code, tmp_path):
    rng = random.Random(0)
    assert start(code, tmp_path / "whole-cache", tmp_path / "whole", 1).wait() == 0
    cache, kills, known = tmp_path / "cache", 0, [0]

    while True:
        process = start(code, cache, tmp_path / "killed", rng.choice([1, 2]))
        while num_studies(cache) == known[-1] and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2) if kills < 10 else 100)
        if process.poll() is not None or kills == 10:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        known.append(num_studies(cache))

    assert process.wait() == 0
    assert kills >= 5
    assert known == sorted(known)
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    assert num_studies(cache) == FILES
    documents = parquet.read_table(tmp_path / "killed" / build.DOCUMENTS, columns=["path"])
    skipped = parquet.read_table(tmp_path / "killed" / build.SKIPPED, columns=["path"])
    paths = [*documents["path"].to_pylist(), *skipped["path"].to_pylist()]
    assert len(paths) == len(set(paths)) == FILES


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_bytes(code, tmp_path, workers):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(code.iterdir())[:260]:
        (few / path.name).write_bytes(path.read_bytes())

    for number, folder in ((1, "one"), (workers, "others")):
        assert start(few, tmp_path / f"{folder}-cache", tmp_path / folder, number).wait() == 0

    assert digests(tmp_path / "one") == digests(tmp_path / "others")


def study_or_die(settings, files):
    """Do to its own process what a file says, in a worker."""
    text = b"".join(file.data for file in files)
    if b"segfault()" in text:
        ctypes.string_at(0)
    if b"kill()" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"hang()" in text:
        sum(range(10**12))
    if b"eat()" in text:
        return [bytearray(10**10)]  # refused at once: filling memory takes time, with a limit too
    return study_files(settings, files)


def test_files_that_end_their_worker_are_left_out_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "study_files", study_or_die)
    source = tmp_path / "code"
    source.mkdir()
    for number in range(30):
        (source / f"{number}.py").write_bytes(make_code(number))
    for act in ("segfault", "kill", "hang", "eat"):
        (source / f"{act}.py").write_bytes(make_code(99) + b"%s()\n" % act.encode())
    corpus = Corpus(
        sources=(Source(folder=str(source)),), workers=2, file_seconds=1.0, file_memory=10**9,
        split=Split(eval_rate=0.0),
    )  # fmt: skip
    folder = tmp_path / "corpus"
    folder.mkdir()

    build.write_corpus(folder, corpus, 0)

    skipped = parquet.read_table(folder / build.SKIPPED).to_pylist()
    assert {Path(row["path"]).stem: (row["reason"], row["detail"]) for row in skipped} == {
        "segfault": ("worker-died", "signal 11"),
        "kill": ("worker-died", "signal 9"),
        "hang": ("time-limit", "over 1 processor seconds"),
        "eat": ("memory-limit", "over 1,000,000,000 bytes"),
    }
    assert Counter(build.count_documents(folder)["documents"]) == Counter(
        kept=30, skipped={"worker-died": 2, "memory-limit": 1, "time-limit": 1}
    )


@pytest.mark.parametrize("damage", ["cut", "nonsense", "text"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    source, cache = tmp_path / "code", tmp_path / "cache"
    source.mkdir()
    for number in range(40):
        (source / f"{number}.py").write_bytes(make_code(number))
    corpus = Corpus(sources=(Source(folder=str(source)),), workers=1)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    build.write_corpus(tmp_path / "one", corpus, 0, cache, {})
    path = cache / "studies.sqlite"
    if damage == "text":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE texts SET text = CAST('other' AS BLOB) WHERE place = 3")
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:10_000] if damage == "cut" else b"\x5a" * len(whole))

    build.write_corpus(tmp_path / "two", corpus, 0, cache, {})

    assert digests(tmp_path / "two") == digests(tmp_path / "one")
