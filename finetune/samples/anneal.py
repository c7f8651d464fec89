"""The decay phase's own mix: documents drawn once more, with other weights, for the last packs.

It is a few more epochs after the passes over the documents. A document is in each of them by lot,
with a chance that grows with its weight, so each holds the mix that was asked for, with spans that
no other epoch has. The trainer needs nothing but the order of the packs.

Source:
    MiniCPM (arXiv 2404.06395) and OpenCoder (arXiv 2411.04905), which change the mix while the
    learning rate decays.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fim import FimError
from finetune.corpus.build import DOCUMENTS
from finetune.corpus.weights import draw
from finetune.recipe.train import Train

MAX_EPOCHS = 100
"""A document is drawn from at most so many times in the decay phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """Which documents are drawn from in the epochs of the decay phase."""

    epochs: range
    """Their numbers, after those of the passes."""
    chance: float
    """Of a document of weight 1 to be in one of them."""
    sources: Mapping[str, float]
    """`Train.anneal_sources`."""
    languages: Mapping[str, float]
    """`Train.anneal_languages`."""
    seed: int

    def epochs_of(self, document_id: str, repo: str, language: str) -> list[int]:
        """Return the epochs that draw from a document: always the same for one seed and id."""
        chance = self.chance * _weight(repo, language, self.sources, self.languages)
        key = document_id.encode()
        return [n for n in self.epochs if draw(key, f"decay-{n}", self.seed) < chance]


def plan_decay(train: Train, corpus: Path, seed: int) -> Decay | None:
    """Plan epochs that hold `decay_rate` of all bytes drawn from, the passes included.

    Args:
        train: the recipe's section.
        corpus: the corpus of the run, of which no text is read.
        seed: another seed draws other documents.

    Returns:
        `None` where the decay phase has no mix of its own.

    Raises:
        FimError: a source that is named is not there, or the weights leave too little to draw.
    """
    if not train.has_anneal:
        return None
    rows = _read_facts(corpus)
    repos = sorted({row["repo"] for row in rows})
    for name in train.anneal_sources:
        if not any(fnmatchcase(repo, name) for repo in repos):
            raise FimError(
                f"train.anneal_sources: no source is called {name!r}; there are {', '.join(repos)}"
            )
    weights = [
        _weight(row["repo"], row["language"], train.anneal_sources, train.anneal_languages)
        for row in rows
    ]
    sizes = [row["num_bytes"] for row in rows]
    weighted = sum(weight * size for weight, size in zip(weights, sizes, strict=True))
    if not weighted:
        raise FimError("train.anneal_sources, train.anneal_languages: every document has weight 0")
    wanted = train.epochs * sum(sizes) * train.decay_rate / (1 - train.decay_rate)
    times = wanted / weighted  # a document of weight 1 is drawn from
    num_epochs = max(1, math.ceil(times * max(weights)))
    if num_epochs > MAX_EPOCHS:
        raise FimError(
            "train.anneal_sources, train.anneal_languages: the weightiest documents would be drawn "
            f"from {num_epochs} times; give them less weight, or others more"
        )
    return Decay(
        epochs=range(train.epochs, train.epochs + num_epochs), chance=times / num_epochs,
        sources=train.anneal_sources, languages=train.anneal_languages, seed=seed,
    )  # fmt: skip


def count_decay(packs: Path, decay: Decay) -> dict[str, Any]:
    """Return what the decay phase holds: packs, tokens, and samples by source and language."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from datasets import load_from_disk

    first = decay.epochs.start
    rows = pq.read_table(
        packs / "samples.parquet", columns=["repo", "language"], partitioning=None,
        filters=[("epoch", ">=", first)],
    )  # fmt: skip
    table = load_from_disk(str(packs)).data
    late = pc.greater_equal(table.column("epoch"), first)
    lengths = table.column("seq_lengths").filter(late)
    repos, languages = (Counter(rows.column(name).to_pylist()) for name in ("repo", "language"))
    return {
        "packs": len(lengths),
        "tokens": sum(map(sum, lengths.to_pylist())),
        "samples": rows.num_rows,
        "sources": dict(repos.most_common()),
        "languages": dict(languages.most_common()),
    }


def _weight(
    repo: str, language: str, sources: Mapping[str, float], languages: Mapping[str, float]
) -> float:
    """Weight of a document in the decay phase; of patterns the first that fits counts."""
    of_source = next((w for name, w in sources.items() if fnmatchcase(repo, name)), 1.0)
    return of_source * languages.get(language, 1.0)


def _read_facts(corpus: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(
        corpus / DOCUMENTS, columns=["repo", "language", "num_bytes"], partitioning=None,
        filters=[("split", "==", "train")],
    ).to_pylist()  # fmt: skip
