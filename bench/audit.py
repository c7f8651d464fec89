"""Real code through `prepare` and `audit`: are all files accounted for, is any sample wrong?

    python bench/audit.py REPOSITORY [REPOSITORY ...] [--tokenizer FOLDER] [--max-length 4096]

Prepares the git repositories as one corpus, and prints how many of their committed files are
accounted for, what `sfim audit` finds, and its speed; then, with only the samplers that take syntax
(no random cuts, no empty MIDDLE, no autoregressive window), the share of files of 200 bytes or more
that gave no structured sample at all, by language.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fim import LANGUAGES
from finetune.audit.read import BuiltRun, open_run, read_columns
from finetune.audit.samples import audit, audit_summary
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.model import Scratch
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train

STRUCTURED = {"node": 0.4, "siblings": 0.3, "construct": 0.2, "cursor": 0.1}
SMALL_BYTES = 200


def count_committed(repository: Path) -> int:
    """Count the entries of a repository's last commit."""
    listing = subprocess.run(
        ["git", "-C", str(repository), "ls-tree", "-r", "-z", "HEAD"],
        check=True,
        capture_output=True,
    )
    return listing.stdout.count(b"\0")


def measure(recipe: Recipe, committed: int) -> BuiltRun:
    """Prepare and audit, and print both."""
    started = time.process_time()
    stats = prepare(recipe)
    documents = stats["documents"]
    seen = documents["kept"] + sum(documents["skipped"].values())
    skipped = ", ".join(f"{n:,} {reason}" for reason, n in documents["skipped"].items())
    languages = ", ".join(f"{n:,} {name}" for name, n in stats["languages"].items())
    print(f"== {recipe.name}: {time.process_time() - started:.0f} s of CPU time here")
    print(f"files       {committed:,} committed, {seen:,} accounted for ({seen / committed:.2%})")
    print(f"kept        {documents['kept']:,} ({languages})")
    print(f"skipped     {skipped}")
    print(f"lost        {sum(stats['lost'].values())}, redrawn {sum(stats['redrawn'].values())}")
    started = time.process_time()
    result = audit(recipe.folder, workers=1)
    seconds = time.process_time() - started
    print(audit_summary(result))
    print(
        f"audit       {result['bytes'] / seconds / 1e6:.2f} MB per second of CPU time", flush=True
    )
    return open_run(recipe.folder)


def print_unstructured(run: BuiltRun) -> None:
    """Print the share of files without any structured sample, by language."""
    documents = read_columns(run.documents, ("id", "path", "language", "num_bytes", "split"))
    samples = read_columns(run.folder / "packs" / "train" / "samples.parquet")
    with_structure = {
        name
        for name, sampler in zip(samples["document_id"], samples["sampler"], strict=True)
        if sampler in STRUCTURED
    }
    total: Counter[str] = Counter()
    without: dict[str, list[str]] = {}
    for name, path, language, size in zip(
        documents["id"], documents["path"], documents["language"], documents["num_bytes"],
        strict=True,
    ):  # fmt: skip
        if size >= SMALL_BYTES and LANGUAGES[language].is_code:
            total[language] += 1
            if name not in with_structure:
                without.setdefault(language, []).append(path)
    print(f"code files of {SMALL_BYTES} bytes or more without a structured sample:")
    for language, number in total.most_common():
        paths = without.get(language, [])
        share = f"{len(paths):5} of {number:6,} ({len(paths) / number:6.2%})"
        print(f"  {language:12} {share} {paths[:3]}")
    missed = sum(map(len, without.values()))
    print(f"  {'all':12} {missed:5} of {total.total():6,} ({missed / total.total():6.2%})")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repositories", nargs="+", type=Path)
    parser.add_argument("--tokenizer", default="", help="folder with a tokenizer.json")
    parser.add_argument("--max-length", type=int, default=4_096)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    committed = sum(map(count_committed, options.repositories))
    sources = tuple(Source(git=str(path.resolve())) for path in options.repositories)
    scratch = None if options.tokenizer else Scratch(vocab_size=16_384)
    with tempfile.TemporaryDirectory() as temporary:
        recipe = Recipe(
            name="default", runs=temporary,
            model=Model(
                name=options.tokenizer, scratch=scratch, adapter="full" if scratch else "lora"
            ),
            corpus=Corpus(sources=sources), train=Train(epochs=options.epochs),
            fim=Fim(max_length=options.max_length, orders={"psm": 0.5, "spm": 0.5}),
            evaluate=Evaluate(items=0),
        )  # fmt: skip
        measure(recipe, committed)
        structured = replace(
            recipe, name="structured",
            corpus=replace(recipe.corpus, split=Split(eval_rate=0.0)), train=Train(epochs=1),
            fim=replace(recipe.fim, fim_rate=1.0, samplers=STRUCTURED),
        )  # fmt: skip
        print_unstructured(measure(structured, committed))


if __name__ == "__main__":
    main()
