"""Hostile and mutated files through `prepare`: does it end, is each file accounted for, how fast?

    python bench/hostile.py FOLDER [FOLDER ...] [--mutated 10000] [--scale 100000] [--without NAME]

Mutates the code below the folders, in every language found there, adds the hand-made kinds of
`tests/hostile_files.py`, and prepares all of it as a git repository and as a plain folder, with the
default filters and with filters that let through whatever can be read. Prints how many files were
kept or skipped against how many there are, what `sfim audit` finds, and the files that took longest
from their bytes to their tokens, in CPU time of this process.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hostile_files  # noqa: E402

from fim import Document, detect_language  # noqa: E402
from finetune.audit.samples import audit  # noqa: E402
from finetune.corpus.entries import File  # noqa: E402
from finetune.corpus.filters import check_document, to_document  # noqa: E402
from finetune.prepare import prepare  # noqa: E402
from finetune.recipe.corpus import Corpus, Source  # noqa: E402
from finetune.recipe.filters import Filters  # noqa: E402
from finetune.recipe.presets import FILTER_PRESETS  # noqa: E402
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train  # noqa: E402
from finetune.samples.sampling import Encoder  # noqa: E402
from finetune.samples.tokenizer import save_tokenizer, train_tokenizer  # noqa: E402

LOOSE = Filters(**{**FILTER_PRESETS["off"], "max_bytes": 4_000_000})
ORIGINAL_BYTES = 20_000
PER_LANGUAGE = 60


def read_originals(folders: list[Path]) -> dict[str, list[tuple[str, bytes]]]:
    """Extension and content of some files of each language."""
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or not path.suffix:
                continue
            data = path.read_bytes()[:ORIGINAL_BYTES].decode(errors="ignore").encode()
            language = detect_language(path.name, data)
            if language and len(data) > 200 and len(found[language]) < PER_LANGUAGE:
                found[language].append((path.suffix[1:], data))
    return found


def run(recipe: Recipe, files: int) -> None:
    """Prepare, count and audit."""
    started = time.process_time()
    stats = prepare(recipe)
    documents = stats["documents"]
    seen = documents["kept"] + sum(documents["skipped"].values())
    result = audit(recipe.folder, workers=1)
    broken = {rule: n for rule, n in result["violations"].items() if n}
    skipped = ", ".join(f"{n} {reason}" for reason, n in documents["skipped"].items())
    print(
        f"{recipe.name}: {files} files, {seen} accounted for ({documents['kept']} kept; {skipped})"
    )
    print(
        f"  {sum(result['samples'].values())} samples, violations {broken or 0}, lost "
        f"{stats['lost'] or 0}, {time.process_time() - started:.0f} s of CPU time"
    )
    for example in result["examples"][:5]:
        print(f"    {example}")


def time_files(
    recipe: Recipe, files: dict[str, bytes]
) -> list[tuple[float, str, dict[str, float]]]:
    """CPU seconds of each file, with their parts, slowest first."""
    fim = replace(recipe.fim, window_bytes=6_000, orders={"psm": 0.5, "spm": 0.5})
    encoder = Encoder(replace(recipe, fim=fim), epochs=1)
    rows = []
    for name, data in files.items():
        parts = {}
        result, parts["detect"] = timed(to_document, File(repo="r", path=name, data=data))
        if isinstance(result, Document):
            reason, parts["filter"] = timed(check_document, result, LOOSE)
            if not reason:
                _, parts["encode"] = timed(encoder, [result])
        rows.append((sum(parts.values()), name, parts))
    return sorted(rows, reverse=True)


def timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and its CPU seconds."""
    started = time.process_time()
    value = function(*arguments)
    return value, time.process_time() - started


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--mutated", type=int, default=10_000)
    parser.add_argument("--scale", type=int, default=100_000)
    parser.add_argument("--without", action="append", default=[], help="a language to leave out")
    options = parser.parse_args()
    originals = read_originals(options.folders)
    originals = {name: files for name, files in originals.items() if name not in options.without}
    print(f"originals: { {name: len(files) for name, files in sorted(originals.items())} }")
    flat = [item for group in zip(*map(cycled, originals.values()), strict=True) for item in group]
    hand = hostile_files.hostile_contents(options.scale)
    mutated = dict(hostile_files.mutated_files(flat, options.mutated, seed=0))
    print(
        f"{len(hand) + len(hostile_files.BYTE_NAMES)} kinds by hand, {len(mutated)} mutated files"
    )
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        save_tokenizer(train_tokenizer([text for _, text in flat[:200]], 4_096), place / "base")
        recipe = Recipe(
            name="git, default filters", runs=str(place / "runs"),
            model=Model(name=str(place / "base")),
            corpus=Corpus(sources=(Source(git=str(place / "repository")),), workers=1),
            fim=Fim(max_length=2_048), train=Train(epochs=1), evaluate=Evaluate(items=0),
        )  # fmt: skip
        hostile_files.write_hostile(place / "repository", hand | mutated)
        hostile_files.add_links(place / "repository")
        hostile_files.commit_hostile(place / "repository")
        committed = hostile_files.count_committed(place / "repository")
        run(recipe, committed)
        run(with_filters(recipe, "git, loose filters"), committed)
        hostile_files.write_hostile(place / "folder", hand)
        hostile_files.add_links(place / "folder")
        hostile_files.add_devices(place / "folder")
        folder = replace(
            recipe, name="folder, default filters",
            corpus=replace(recipe.corpus, sources=(Source(folder=str(place / "folder")),)),
        )  # fmt: skip
        run(folder, hostile_files.count_files(place / "folder"))
        (place / "folder" / "locked").chmod(0o700)
        print("slowest files, CPU seconds:")
        for seconds, name, parts in time_files(recipe, hand | mutated)[:8]:
            shown = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
            print(f"  {seconds:6.2f} {name!a} ({shown})")


def with_filters(recipe: Recipe, name: str) -> Recipe:
    """The same with filters that let through whatever can be read."""
    return replace(recipe, name=name, corpus=replace(recipe.corpus, filters=LOOSE))


def cycled(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """As many of each language: those there are, again and again."""
    return [files[i % len(files)] for i in range(PER_LANGUAGE)]


if __name__ == "__main__":
    main()
