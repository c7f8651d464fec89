"""Distribution, determinism and utilisation on the interpreter's standard library.

    python bench/standard_library.py [EPOCHS]

Prints, for 20 epochs and seed 0: the shares drawn against those configured, how many spans two
epochs share, the sha256 of the packs for 1, 2 and 4 workers and for a shuffled file list, and how
full packs of 4,096 tokens are.
"""

import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from fim import Document, SpanPolicy, make_samples
from finetune.corpus.build import read_documents, write_corpus
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.schema import Fim, Model, Recipe
from finetune.samples.packs import write_packs
from finetune.samples.sampling import encode_documents
from finetune.samples.tokenizer import bytes_per_token, save_tokenizer, train_tokenizer

ORDERS = {"psm": 0.5, "spm": 0.5}
WINDOW_BYTES = 12_000
CORPUS = Corpus(sources=(Source(folder="{stdlib}"),), split=Split(eval_rate=0.0))


def draw(document: Document, epochs: int) -> list[list[tuple]]:
    """Order, sampler and span of every sample of a document, epoch by epoch."""
    return [
        [
            (s.order, s.sampler, (document.id, s.start_byte, s.end_byte))
            for s in make_samples(
                document, SpanPolicy(), window_bytes=WINDOW_BYTES, fim_rate=0.7, orders=ORDERS,
                seed=0, epoch=epoch,
            )
        ]
        for epoch in range(epochs)
    ]  # fmt: skip


def distribution(documents: list[Document], epochs: int) -> None:
    """Print the shares of all samples, and the largest overlap of two epochs."""
    counts: Counter[str] = Counter()
    spans: list[set] = [set() for _ in range(epochs)]
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(draw, documents, itertools.repeat(epochs), chunksize=16)
        for epoch, samples in ((e, s) for doc in drawn for e, s in enumerate(doc)):
            for order, sampler, span in samples:
                counts[order] += 1
                if sampler:
                    counts[sampler] += 1
                    spans[epoch].add(span)
    total = sum(counts[order] for order in ("psm", "spm", "ar"))
    fim = counts["psm"] + counts["spm"]
    print(f"{total:,} samples of {len(documents):,} files, {epochs} epochs")
    print(f"{'FIM':12} configured 0.7000 drawn {fim / total:.4f}")
    print(f"{'PSM of FIM':12} configured 0.5000 drawn {counts['psm'] / fim:.4f}")
    for name, weight in SpanPolicy().samplers.items():
        print(f"{name:12} configured {weight:.4f} drawn {counts[name] / fim:.4f}")
    shared = max(len(a & b) / len(a) for a, b in itertools.combinations(spans, 2))
    print(f"two epochs share at most {shared:.2%} of their spans")


def packs(documents: list[Document]) -> None:
    """Print utilisation at 4,096 tokens, and one hash for any workers and order of files."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        tokenizer = train_tokenizer((d.text for d in documents[::3]), 16_384)
        save_tokenizer(tokenizer, place / "base")
        rate = bytes_per_token((d.text for d in documents[::20]), tokenizer)
        fim = Fim(max_length=4_096, window_bytes=int(4_096 * rate), orders=ORDERS)
        recipe = Recipe(
            name="bench", model=Model(name=str(place / "base")), corpus=CORPUS, fim=fim
        )  # fmt: skip
        shuffled = random.Random(1).sample(documents, len(documents))
        for workers, files in ((1, documents), (2, documents), (4, documents), (2, shuffled)):
            started = time.perf_counter()
            with_workers = replace(recipe, corpus=replace(CORPUS, workers=workers))
            shards = encode_documents(files, with_workers, epochs=1)
            folder = place / f"packs-{workers}-{files is shuffled}"
            stats = write_packs(folder, shards, fim, epochs=1)
            order = "shuffled files" if files is shuffled else "sorted files"
            print(
                f"{workers} workers, {order}: sha256 {stats['content'][:16]}, utilisation "
                f"{stats['utilisation']:.4f}, {time.perf_counter() - started:.0f} s"
            )


def main() -> None:
    """Print every figure."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as temporary:
        write_corpus(Path(temporary), CORPUS, seed=0)
        documents = list(read_documents(Path(temporary), "train"))
    distribution(documents, epochs)
    packs(documents)


if __name__ == "__main__":
    main()
