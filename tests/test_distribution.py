"""Shares of orders, samplers, boundaries and constructs, against those configured.

Samples are those of the standard library's files whose path hashes to a sixth of all, in six
epochs; `SFIM_FULL=1` takes all files and 20 epochs: about 300,000 samples, three minutes. Weights
are held to 100,000 draws of each kind on a few large files.
"""

import hashlib
import os
import random
import sysconfig
from collections import Counter
from itertools import accumulate
from pathlib import Path

import pytest

from fim import Document, SpanPolicy, Syntax, choose_span, make_samples, parse

FULL = bool(os.environ.get("SFIM_FULL"))
NUM_EPOCHS = 20 if FULL else 6
WINDOW_BYTES = 2_000
SHARE_OF_FILES = 1.0 if FULL else 0.16
NUM_DRAWS = 100_000


def standard_library() -> list[Document]:
    folder = Path(sysconfig.get_path("stdlib"))
    documents = []
    for file in sorted(folder.rglob("*.py")):
        path = file.relative_to(folder).as_posix()
        digest = hashlib.sha256(path.encode()).digest()
        if "site-packages" in path or digest[0] >= 256 * SHARE_OF_FILES:
            continue
        text = file.read_bytes()
        try:
            text.decode()
        except UnicodeDecodeError:
            continue
        documents.append(Document(repo="stdlib", path=path, language="python", text=text))
    return documents


def draw_epochs() -> tuple[Counter, list[set]]:
    """Counts of orders and samplers, and the MIDDLEs of each epoch."""
    counts: Counter = Counter()
    spans = []
    documents = standard_library()
    for epoch in range(NUM_EPOCHS):
        samples = [
            sample
            for document in documents
            for sample in make_samples(
                document, SpanPolicy(), window_bytes=WINDOW_BYTES, fim_rate=0.7,
                orders={"psm": 0.6, "spm": 0.4}, seed=0, epoch=epoch,
            )
        ]  # fmt: skip
        counts.update(sample.order for sample in samples)
        counts.update(sample.sampler for sample in samples if sample.order != "ar")
        spans.append(
            {(s.document_id, s.start_byte, s.end_byte) for s in samples if s.order != "ar"}
        )
    return counts, spans


@pytest.mark.slow
def test_shares_of_samples_are_those_configured_and_epochs_differ():
    counts, spans = draw_epochs()

    num_fim = counts["psm"] + counts["spm"]
    assert num_fim + counts["ar"] >= 2_000 * NUM_EPOCHS
    assert num_fim / (num_fim + counts["ar"]) == pytest.approx(0.70, abs=0.01)
    assert counts["psm"] / num_fim == pytest.approx(0.6, abs=0.01)
    assert {name: counts[name] / num_fim for name in counts.keys() - {"psm", "spm", "ar"}} == {
        "node": pytest.approx(0.30, abs=0.01),
        "siblings": pytest.approx(0.30, abs=0.01),
        "construct": pytest.approx(0.15, abs=0.01),
        "cursor": pytest.approx(0.13, abs=0.01),
        "empty": pytest.approx(0.02, abs=0.01),
        "random": pytest.approx(0.10, abs=0.01),
    }
    shared = [
        len(spans[first] & spans[second]) / min(len(spans[first]), len(spans[second]))
        for first in range(NUM_EPOCHS)
        for second in range(first)
    ]
    assert len(shared) == NUM_EPOCHS * (NUM_EPOCHS - 1) / 2
    assert max(shared) < 0.05


def syntax_of(module: str) -> Syntax:
    text = (Path(sysconfig.get_path("stdlib")) / module).read_bytes()
    return parse(text, "python", timeout_seconds=20)


def shares(counts: Counter) -> dict[str, object]:
    return {name: pytest.approx(count, abs=0.01) for name, count in counts.items()}


@pytest.mark.slow
def test_100_000_draws_have_the_shares_of_samplers_and_boundaries():
    syntaxes = [syntax_of(module) for module in ("argparse.py", "typing.py", "inspect.py")]
    policy = SpanPolicy(
        samplers={
            "node": 4, "siblings": 3, "construct": 5, "cursor": 2, "empty": 1, "random": 0,
        },
        boundaries={"exact": 1, "blanks": 2, "line": 5},
    )  # fmt: skip
    rng = random.Random(0)

    spans = [choose_span(syntaxes[n % 3], policy, rng) for n in range(NUM_DRAWS)]

    samplers = Counter(span.sampler for span in spans)
    assert {name: count / NUM_DRAWS for name, count in samplers.items()} == shares(
        Counter(node=4 / 15, siblings=3 / 15, construct=5 / 15, cursor=2 / 15, empty=1 / 15)
    )
    whole = [s.boundary for s in spans if s.sampler in ("node", "siblings", "construct")]
    assert {name: count / len(whole) for name, count in Counter(whole).items()} == shares(
        Counter(exact=1 / 8, blanks=2 / 8, line=5 / 8)
    )


@pytest.mark.slow
def test_100_000_draws_have_the_shares_of_constructs():
    asked = {
        "import_statement": 0.1, "if_statement": 0.3, "for_statement": 0.25,
        "try_statement": 0.05, "while_statement": 0.05, "return_statement": 0.25,
    }  # fmt: skip
    names = ("import", "if", "for", "try", "while", "return")
    weights = dict(zip(names, asked.values(), strict=True))
    policy = SpanPolicy(samplers={"construct": 1}, constructs=weights)
    syntax, rng = syntax_of("argparse.py"), random.Random(0)

    kinds = Counter(choose_span(syntax, policy, rng).kind for _ in range(NUM_DRAWS))

    kinds["import_statement"] += kinds.pop("import_from_statement", 0)
    assert {kind: count / NUM_DRAWS for kind, count in kinds.items()} == shares(Counter(asked))


@pytest.mark.slow
def test_100_000_draws_of_node_are_proportional_to_bytes():
    syntax, rng = syntax_of("textwrap.py"), random.Random(0)
    sizes: Counter = Counter()
    waiting = [syntax.root]
    while waiting:
        for child in waiting.pop().children:
            waiting.append(child)
            size = child.end_byte - child.start_byte
            if child.is_named and 5 < size <= 2_000:
                sizes[child.start_byte, child.end_byte] += size
    policy = SpanPolicy(samplers={"node": 1})

    drawn = (choose_span(syntax, policy, rng) for _ in range(NUM_DRAWS))
    counts = Counter((span.node_start_byte, span.end_byte) for span in drawn)

    assert counts.keys() <= sizes.keys()
    # neighbors share a cell until 200 draws are expected in it
    order = sorted(sizes)
    cells = [int(s) // 200 for s in accumulate(sizes[o] * NUM_DRAWS / sizes.total() for o in order)]
    expected, seen = Counter(), Counter()
    for cell, span in zip(cells, order, strict=True):
        expected[cell] += NUM_DRAWS * sizes[span] / sizes.total()
        seen[cell] += counts[span]
    freedom = len(expected) - 1
    chi_square = sum((seen[cell] - number) ** 2 / number for cell, number in expected.items())
    assert freedom > 100
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations
