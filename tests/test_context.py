"""Other files of the repository stand before a file: of its side, fitted, one result for all."""

import re
from dataclasses import replace

import numpy as np
import pytest
from made_code import make_code

from fim import Document, content_tokenizer
from finetune.corpus.build import read_documents
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train
from finetune.samples.neighbors import Neighbors, find_contexts
from finetune.samples.packs import write_packs
from finetune.samples.sampling import SHARD_DOCUMENTS, encode_documents
from finetune.samples.tokenizer import load_run_tokenizer, save_tokenizer, train_tokenizer

FILES = 3 * SHARD_DOCUMENTS


def text_of(number: int) -> bytes:
    function = (
        "def mark_{0:04}_{1}(width):\n    if width:\n        return width + {1}\n    return {1}\n"
    )
    return "\n\n".join(function.format(number, i) for i in range(2)).encode()


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """Two repositories of many small files, in the order of the corpus."""
    return [
        Document(repo=f"r{n // 100}", path=f"m{n:04}.py", language="python", text=text_of(n))
        for n in range(FILES)
    ]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, documents) -> Recipe:
    base = tmp_path_factory.mktemp("base")
    save_tokenizer(train_tokenizer((d.text for d in documents), 500), base)
    return Recipe(
        name="r",
        model=Model(name=str(base)),
        corpus=Corpus(sources=(Source(folder="."),), workers=1),
        fim=Fim(
            max_length=512, window_bytes=1_500, orders={"psm": 0.5, "spm": 0.5}, context="repo",
            path_header="family",
        ),
    )  # fmt: skip


def marks(text: str) -> list[int]:
    """Numbers of the files a text holds a piece of, in order."""
    found = [int(number) for number in re.findall(r"mark_(\d{4})_", text)]
    return list(dict.fromkeys(found))


def decoded(recipe: Recipe, documents: list[Document]) -> dict[str, str]:
    """What is encoded for each sample, by its id."""
    tokenizer, _ = load_run_tokenizer(recipe)
    texts = {}
    for shard in encode_documents(documents, recipe, epochs=1):
        parts = np.split(shard.input_ids, np.cumsum(shard.lengths)[:-1])
        ids = zip(shard.rows["sample_id"], parts, strict=True)
        texts |= {name: tokenizer.decode(part.tolist()) for name, part in ids}
    return texts


def test_the_files_before_one_come_first_the_nearest_last(recipe, documents):
    texts = decoded(recipe, documents)

    alone = 0
    for number, document in enumerate(documents):
        text = texts[f"{document.id}-0-0"]
        seen = marks(text)
        others = [n for n in seen if n != number]
        first_of_repo = number // 100 * 100
        assert others == list(range(number - len(others), number))
        assert all(n >= first_of_repo for n in others)
        if number == first_of_repo:
            assert not others
        else:
            assert len(others) >= min(3, number - first_of_repo)
        alone += not others
    assert alone == 2


def test_without_context_a_sample_holds_its_own_file_only(recipe, documents):
    texts = decoded(replace(recipe, fim=replace(recipe.fim, context="none")), documents[:20])

    assert len(texts) == 20
    for number, document in enumerate(documents[:20]):
        assert marks(texts[f"{document.id}-0-0"]) in ([number], [])


def test_context_changes_no_choice_and_cuts_no_middle(recipe, documents):
    with_context, without = (
        list(encode_documents(documents, replace(recipe, fim=fim), epochs=1))
        for fim in (recipe.fim, replace(recipe.fim, context="none"))
    )

    longer = 0
    for one, other in zip(with_context, without, strict=True):
        assert one.rows == other.rows  # spans, and the tokens of prefix, MIDDLE and suffix
        assert (one.lengths <= 512).all()
        assert (one.lengths >= other.lengths).all()
        longer += int((one.lengths > other.lengths).sum())
    assert longer > FILES / 2


def test_no_loss_is_taken_on_context(recipe, documents):
    tokenizer, _ = load_run_tokenizer(recipe)
    content = content_tokenizer(tokenizer)
    [shard] = encode_documents(documents[:9], recipe, epochs=1)

    parts = np.split(np.arange(len(shard.labels)), np.cumsum(shard.lengths)[:-1])
    assert len(parts) == 9
    for number, part in enumerate(parts):
        trained = shard.labels[part][shard.labels[part] >= 0].tolist()
        text = content.decode([i for i in trained if i not in content.control_ids])
        assert marks(text) in ([number], [])


@pytest.mark.slow
def test_packs_are_one_for_any_number_of_workers(tmp_path, recipe, documents):
    contents = set()
    for workers in (1, 2):
        run = replace(recipe, corpus=replace(recipe.corpus, workers=workers))
        shards = list(encode_documents(documents, run, epochs=2))
        assert len(shards) == 3
        folder = tmp_path / str(workers)
        contents.add(write_packs(folder, shards, run.fim, epochs=2)["content"])

    assert len(contents) == 1


def test_held_out_files_are_no_context_of_training(tmp_path, recipe):
    code = tmp_path / "code"
    code.mkdir()
    for number in range(60):
        marked = f"mark_{number:04}_0 = 1\n".encode()
        (code / f"m{number:04}.py").write_bytes(marked + make_code(number, 3) + marked)
    corpus = Corpus(sources=(Source(folder=str(code)),), split=Split(eval_rate=0.3), workers=1)
    run = replace(
        recipe, runs=str(tmp_path / "runs"), corpus=corpus, train=Train(epochs=1),
        evaluate=Evaluate(max_new_tokens=16),
    )  # fmt: skip

    prepare(run)

    held_out = sides_marks(run, "eval")
    assert len(held_out) == 18
    assert packed_marks(run, "train") == sides_marks(run, "train")
    assert packed_marks(run, "eval") <= held_out


def sides_marks(run: Recipe, side: str) -> set[int]:
    return {int(d.path[1:5]) for d in read_documents(run.folder / "corpus", side)}


def packed_marks(run: Recipe, side: str) -> set[int]:
    from datasets import load_from_disk

    tokenizer, _ = load_run_tokenizer(run)
    rows = load_from_disk(str(run.folder / "packs" / side))
    return {mark for ids in rows["input_ids"] for mark in marks(tokenizer.decode(ids))}


def test_a_stream_that_is_cut_goes_on_with_the_same_context(recipe, documents):
    whole = find_contexts(documents, recipe.fim)

    for cut in (1, 64, 99, 100, 101):
        first = Neighbors(recipe.fim, documents[:cut])
        neighbors = Neighbors(recipe.fim, first.held)
        for document in documents[cut:]:
            assert neighbors.of(document) == whole[document.id]
            neighbors.add(document)


def code(path: str, text: str) -> Document:
    return Document(repo="r", path=path, language="python", text=text.encode())


def test_files_that_a_file_names_come_nearest(recipe):
    files = [code(f"{name}.py", "#" * 500) for name in ("base", "b", "c", "d", "e", "f", "g")]
    package = code("pack/__init__.py", "#" * 500)
    user = code("user.py", "import base\nfrom pack import thing\n")

    contexts = find_contexts([files[0], package, *files[1:], user], recipe.fim)

    before = [document.path for document in contexts[user.id]]
    assert before == ["g.py", "base.py", "pack/__init__.py"]  # a window is 1,500 bytes
    assert [document.path for document in contexts[files[6].id]] == ["d.py", "e.py", "f.py"]


def test_a_file_too_far_back_is_forgotten(recipe):
    files = [code(f"{name}.py", "#" * 500) for name in ("base", *"abcdefghijkl")]
    user = code("user.py", "import base, a\n")

    contexts = find_contexts([*files, user], recipe.fim)

    assert [document.path for document in contexts[user.id]] == ["k.py", "l.py", "a.py"]


def test_a_file_too_long_for_the_window_pushes_none_out(recipe):
    small, large, last = (
        Document(repo="r", path=path, language="python", text=b"#" * size)
        for path, size in (("a.py", 10), ("b.py", 2_000), ("c.py", 10))
    )

    contexts = find_contexts([small, large, last], recipe.fim)

    assert [document.path for document in contexts[last.id]] == ["a.py"]
