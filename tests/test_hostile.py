"""Files from hell: none stops a run, each is kept or skipped with a reason, all in good time."""

import os
import time
from pathlib import Path

import hostile_files
import pytest

from finetune.audit.samples import RULES, audit
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Source
from finetune.recipe.filters import Filters
from finetune.recipe.presets import FILTER_PRESETS
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train
from finetune.samples.tokenizer import save_tokenizer

SCALE = 2_000
LOOSE = Filters(**FILTER_PRESETS["off"])

CONTENTS = hostile_files.hostile_contents(SCALE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "repository"
    hostile_files.write_hostile(folder, CONTENTS)
    hostile_files.add_links(folder)
    hostile_files.commit_hostile(folder)
    return folder


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "folder"
    hostile_files.write_hostile(folder, CONTENTS)
    hostile_files.add_links(folder)
    hostile_files.add_devices(folder)
    yield folder
    os.chmod(folder / "locked", 0o700)


@pytest.fixture
def make_recipe(tmp_path, tiny_tokenizer):
    """A factory `(source, family="qwen2.5-coder", filters=...) -> Recipe`."""

    def make(source: Source, family: str = "qwen2.5-coder", filters: Filters = LOOSE) -> Recipe:
        save_tokenizer(tiny_tokenizer(family), tmp_path / family)
        return Recipe(
            name=f"run-{family}",
            runs=str(tmp_path),
            model=Model(name=str(tmp_path / family), format=family),
            corpus=Corpus(sources=(source,), filters=filters, workers=1),
            fim=Fim(max_length=2_048, path_header="comment"),
            train=Train(epochs=1),
            evaluate=Evaluate(items=0),
        )

    return make


def accounted(stats) -> int:
    return stats["documents"]["kept"] + sum(stats["documents"]["skipped"].values())


def test_there_are_sixty_kinds_and_more():
    assert len(CONTENTS) + len(hostile_files.BYTE_NAMES) > 200
    assert len(set(CONTENTS.values())) > 150


@pytest.mark.slow
@pytest.mark.parametrize("filters", [Filters(), LOOSE], ids=["default", "loose"])
def test_a_hostile_repository_is_accounted_for(repository, make_recipe, filters):
    recipe = make_recipe(Source(git=str(repository)), filters=filters)

    stats = prepare(recipe)

    assert accounted(stats) == hostile_files.count_committed(repository)
    assert stats["documents"]["kept"] > (80 if filters == LOOSE else 40)
    assert {"symlink", "submodule", "binary", "not-utf-8", "empty"} <= set(
        stats["documents"]["skipped"]
    )
    assert audit(recipe.folder)["violations"] == dict.fromkeys(RULES, 0)


@pytest.mark.slow
def test_a_hostile_folder_is_accounted_for(plain_folder, make_recipe):
    recipe = make_recipe(Source(folder=str(plain_folder)), "codellama", Filters())

    stats = prepare(recipe)

    assert accounted(stats) == hostile_files.count_files(plain_folder)
    assert {"symlink", "not-a-file"} <= set(stats["documents"]["skipped"])
    assert audit(recipe.folder)["violations"] == dict.fromkeys(RULES, 0)


@pytest.mark.slow
def test_mutated_files_are_accounted_for(tmp_path, make_recipe):
    root = Path(__file__).parents[1]
    originals = [("py", path.read_bytes()[:6_000]) for path in sorted(root.glob("fim/*.py"))]
    originals += [("js", hostile_files.SCRIPT * 9), ("c", b"int f(int a) { return a; }\n" * 20)]
    files = dict(hostile_files.mutated_files(originals, 400, seed=0))
    hostile_files.write_hostile(tmp_path / "code", files)
    recipe = make_recipe(Source(folder=str(tmp_path / "code")), "deepseek-coder")

    stats = prepare(recipe)

    assert accounted(stats) == 400 + len(hostile_files.BYTE_NAMES)
    assert stats["documents"]["kept"] > 150
    assert audit(recipe.folder)["violations"] == dict.fromkeys(RULES, 0)


@pytest.mark.parametrize("name", ["words.js", "bytes.py", "deep_lines.py", "deep_sum.py"])
def test_a_file_costs_no_more_than_its_budget(name, make_recipe):
    """Four seconds of this process's time for what a whole file may cost, at this size one."""
    from fim import Document
    from finetune.samples.sampling import Encoder

    recipe = make_recipe(Source(folder="."))
    fim = Fim(max_length=2_048, window_bytes=2_000, orders={"psm": 1.0})
    encoder = Encoder(Recipe(**{**vars_of(recipe), "fim": fim}), epochs=1)
    language = {"js": "javascript", "py": "python"}[name.rpartition(".")[2]]
    text = CONTENTS[name].decode(errors="replace").encode()
    document = Document(repo="r", path=name, language=language, text=text)

    started = time.process_time()
    encoded, _ = encoder([document])

    assert time.process_time() - started < 4
    assert encoded


def vars_of(recipe: Recipe) -> dict:
    return {name: getattr(recipe, name) for name in ("name", "model", "corpus", "train", "runs")}
