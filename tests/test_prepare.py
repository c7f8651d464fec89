"""The stage from sources to packs: one result for any number of workers and order of files."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from made_code import make_code
from pyarrow import parquet

from fim import ControlToken, Document, FimError, TooLong, encode
from fim.samples import num_windows
from finetune import prepare as prepare_module
from finetune.corpus import build, collect
from finetune.corpus.build import read_documents, without_refs
from finetune.prepare import prepare, prepare_fingerprint, write_run_recipe
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.file import read_recipe
from finetune.recipe.model import Scratch
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train
from finetune.samples import sampling
from finetune.samples.packs import write_packs
from finetune.samples.sampling import SHARD_DOCUMENTS, Encoder, encode_documents
from finetune.samples.tokenizer import bytes_per_token, save_tokenizer, train_tokenizer
from finetune.store import stage_folder

SOURCE = (
    "def area_{0}(width):\n    if width > {0}:\n        return width * {0}\n    return {0}\n\n\n"
)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [
        Document(
            repo="r",
            path=f"{n}.py",
            language="python",
            text="".join(SOURCE.format(n + i) for i in range(3 + n % 9)).encode(),
        )
        for n in range(2 * SHARD_DOCUMENTS + 20)
    ]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, documents) -> Recipe:
    base = tmp_path_factory.mktemp("base")
    save_tokenizer(train_tokenizer((d.text for d in documents), 400), base)
    return Recipe(
        name="r",
        model=Model(name=str(base)),
        corpus=Corpus(sources=(Source(git="."),)),
        evaluate=Evaluate(max_new_tokens=16),
        fim=Fim(max_length=128, window_bytes=250, orders={"psm": 0.5, "spm": 0.5}),
    )


def content(folder, documents, recipe) -> str:
    shards = list(encode_documents(documents, recipe, epochs=2))
    assert len(shards) == 3  # more shards than workers, or nothing is shown
    return write_packs(folder, shards, recipe.fim, epochs=2)["content"]


def with_workers(recipe: Recipe, workers: int) -> Recipe:
    return replace(recipe, corpus=replace(recipe.corpus, workers=workers))


@pytest.mark.slow
def test_packs_are_one_for_any_number_of_workers_and_any_order_of_files(
    tmp_path, documents, recipe
):
    shuffled = random.Random(0).sample(documents, len(documents))

    contents = {
        workers: content(tmp_path / str(workers), documents, with_workers(recipe, workers))
        for workers in (1, 2, 4)
    }
    contents["shuffled"] = content(tmp_path / "shuffled", shuffled, with_workers(recipe, 2))

    assert len(set(contents.values())) == 1
    other = replace(recipe, fim=replace(recipe.fim, seed=1))
    assert content(tmp_path / "other", documents, with_workers(other, 1)) != contents[1]


def test_epochs_end_where_their_packs_end(tmp_path, documents, recipe):
    from datasets import load_from_disk

    content(tmp_path / "packs", documents, with_workers(recipe, 1))

    rows = load_from_disk(str(tmp_path / "packs"))
    epochs = rows["epoch"]
    assert set(epochs) == {0, 1}
    assert list(epochs) == sorted(epochs)
    for row in rows:
        assert {int(name.split("-")[1]) for name in row["sample_ids"]} == {row["epoch"]}


def test_bytes_per_token_is_measured(documents):
    tokenizer = train_tokenizer([b"aaaa bbbb " * 50], 300)

    assert bytes_per_token([b"aaaa bbbb"], tokenizer) > 2
    assert bytes_per_token([b"zqzqzqzq"], tokenizer) == 1


@pytest.fixture
def run(tmp_path, recipe) -> Recipe:
    """A recipe of its own run folder over eight files."""
    code = tmp_path / "code"
    code.mkdir()
    for number in range(8):
        (code / f"m{number}.py").write_bytes(make_code(number, 3 + number))
    corpus = Corpus(sources=(Source(folder=str(code)),), split=Split(eval_rate=0.2), workers=1)
    return replace(recipe, runs=str(tmp_path / "runs"), corpus=corpus, train=Train(epochs=1))


def stamp(run: Recipe) -> int:
    return (run.folder / "packs" / "manifest.json").stat().st_mtime_ns


def test_the_run_folder_has_the_recipe_accepted_last(run):
    prepare(run)
    before = stamp(run)
    other = replace(run, train=replace(run.train, learning_rate=0.5))

    prepare(other)

    assert stamp(run) == before
    assert read_recipe(run.folder / "recipe.yaml") == other
    write_run_recipe(run)
    assert read_recipe(run.folder / "recipe.yaml") == run


def test_keys_that_change_no_pack_may_change_in_a_run(run):
    prepare(run)
    before = stamp(run)

    prepare(replace(run, model=replace(run.model, attention="blocks", dtype="float32", lora_r=4)))

    assert stamp(run) == before
    with pytest.raises(FimError, match=r"fim\.seed differs"):
        prepare(replace(run, fim=replace(run.fim, seed=5)))


def test_a_failed_prepare_may_be_repeated_with_another_recipe(run, monkeypatch):
    monkeypatch.setattr(prepare_module, "write_packs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(run)
    monkeypatch.undo()

    assert prepare(replace(run, fim=replace(run.fim, seed=5)))["packs"]


def test_what_a_kill_leaves_is_no_reason_to_refuse_the_run_folder(run, monkeypatch):
    (run.folder / ".corpus.new").mkdir(parents=True)
    (run.folder / ".corpus.new" / ".documents").write_bytes(b"half")

    prepare(run)

    made = {path.name for path in run.folder.rglob("*")}
    assert not [name for name in made if name.startswith(".")]
    (run.folder / "recipe.yaml").unlink()
    with pytest.raises(FimError, match="not empty and no run"):
        prepare(run)


def test_a_stage_that_another_process_is_writing_is_refused_and_left_alone(tmp_path):
    with stage_folder(tmp_path / "corpus") as fresh:
        (fresh / "a").write_text("first")
        with (
            pytest.raises(FimError, match="another process is writing there"),
            stage_folder(tmp_path / "corpus"),
        ):
            pass

    assert (tmp_path / "corpus" / "a").read_text() == "first"
    with stage_folder(tmp_path / "corpus") as fresh:
        (fresh / "a").write_text("second")
    assert (tmp_path / "corpus" / "a").read_text() == "second"


OTHER = """
import sys
from pathlib import Path
from fim import FimError
from finetune.store import stage_folder
print("starts", flush=True)
try:
    with stage_folder(Path(sys.argv[1])):
        input("writes")
except FimError as error:
    print(error)
"""


def test_of_two_that_start_at_once_one_is_refused_in_one_line(tmp_path, monkeypatch):
    """The other starts after this one has seen that nobody writes."""
    others = []
    remove = shutil.rmtree

    def start_other(path, **options):
        if not others:
            arguments = [sys.executable, "-c", OTHER, str(tmp_path / "corpus")]
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
            others.append(
                subprocess.Popen(arguments, env=environment, text=True, stdin=-1, stdout=-1)
            )
            assert others[0].stdout.readline() == "starts\n"
            time.sleep(0.3)  # enough to get in, if it can
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", start_other)
    with stage_folder(tmp_path / "corpus") as fresh:
        (fresh / "a").write_text("first")
        said, _ = others[0].communicate(timeout=60)

    assert said.endswith("corpus.new: another process is writing there; wait for it\n")
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "a"]


def test_sources_that_give_nothing_leave_no_run_folder(run):
    for file in Path(run.corpus.sources[0].folder).iterdir():
        file.unlink()

    with pytest.raises(FimError, match="they hold no file"):
        prepare(run)

    assert not Path(run.runs).exists()


def test_no_file_of_tokens_is_left_beside_the_packs(run):
    prepare(run)

    files = {path.name for path in (run.folder / "packs" / "train").iterdir()}
    assert files == {
        "data-00000-of-00001.arrow", "dataset_info.json", "samples.parquet", "state.json",
    }  # fmt: skip


@pytest.mark.parametrize("lost", ["corpus", "tokenizer"])
def test_packs_without_what_they_were_made_from_are_made_again(run, lost):
    import shutil

    model = Model(adapter="full", scratch=Scratch(vocab_size=400))
    run = replace(run, model=model)
    prepare(run)
    content = json.loads((run.folder / "packs" / "manifest.json").read_text())["content"]
    shutil.rmtree(run.folder / lost)

    prepare(run)

    assert any((run.folder / lost).iterdir())
    again = json.loads((run.folder / "packs" / "manifest.json").read_text())["content"]
    assert again == content


def test_packs_that_a_training_reads_are_not_replaced(run, tmp_path, make_repo):
    repo = make_repo(tmp_path / "repo", {"a.py": make_code(1)})
    sources = (Source(git=str(repo)),)
    run = replace(run, corpus=replace(run.corpus, sources=sources))
    prepare(run)
    before = stamp(run)
    (run.folder / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    make_repo(repo, {"b.py": make_code(2)}, "more")

    with pytest.raises(FimError, match=r"changed since its checkpoints; give another name="):
        prepare(run)

    commits = json.loads((run.folder / "corpus" / "manifest.json").read_text())["commits"]
    pinned = (replace(sources[0], ref=commits["corpus.sources.0.ref"]),)
    prepare(replace(run, corpus=replace(run.corpus, sources=pinned)))
    assert stamp(run) == before


def test_an_upgrade_makes_packs_again(run, monkeypatch):
    before = prepare_fingerprint(run)

    versions = prepare_module.library_versions() | {"sfim": "99"}
    monkeypatch.setattr(prepare_module, "library_versions", lambda: versions)

    assert prepare_fingerprint(run) != before


@pytest.mark.parametrize(
    ("library", "is_made_again"),
    [("tree-sitter-python", True), ("tree-sitter-yaml", True), ("tree-sitter-of-others", False)],
)
def test_another_grammar_makes_the_corpus_again(run, monkeypatch, library, is_made_again):
    prepare(run)
    manifest = run.folder / "corpus" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    versions = prepare_module.library_versions() | {library: "99"}
    monkeypatch.setattr(prepare_module, "library_versions", lambda: versions)

    prepare(run)

    assert (manifest.stat().st_mtime_ns != before) == is_made_again


@pytest.mark.parametrize("name", ["documents.parquet", "skipped.parquet"])
def test_a_damaged_corpus_is_made_again(run, name):
    prepare(run)
    path = run.folder / "corpus" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])

    prepare(run)

    assert path.read_bytes() == whole


def test_weights_in_another_order_draw_otherwise_and_make_packs_again(run):
    tables = ({"node": 0.5, "random": 0.5}, {"random": 0.5, "node": 0.5})
    runs = [replace(run, fim=replace(run.fim, samplers=table)) for table in tables]

    prints = [prepare_fingerprint(each) for each in runs]
    samplers = []
    for each in runs:
        prepare(each)
        samplers.append(parquet.read_table(_rows_of(each), columns=["sampler"]))

    assert prints[0] != prints[1]
    assert samplers[0] != samplers[1]


def _rows_of(run: Recipe) -> Path:
    return run.folder / "packs" / "train" / "samples.parquet"


def test_a_run_that_nothing_will_measure_is_warned_of(run, capsys):
    corpus = replace(run.corpus, split=Split(eval_rate=0.0))

    prepare(replace(run, corpus=corpus))

    assert "warning: no file is held out" in capsys.readouterr().err
    prepare(replace(run, corpus=corpus, evaluate=Evaluate(items=0, max_new_tokens=16)))
    assert "held out" not in capsys.readouterr().err


def test_samples_are_kept_without_the_rest_of_their_file(recipe, documents):
    encoded, _ = Encoder(recipe, epochs=1)(documents[:8])

    assert [e for e in encoded if e.sample.order != "ar"]
    assert not any(e.sample.prefix or e.sample.suffix for e in encoded)


def _read(run: Recipe) -> list[Document]:
    return list(read_documents(run.folder / "corpus", "train"))


def test_windows_without_a_sample_are_counted_as_lost(recipe, documents, monkeypatch):
    errors: Iterator[type[FimError]] = iter([])

    def refuse(sample, *_, **__):
        raise next(errors)("no")

    monkeypatch.setattr(sampling, "encode", refuse)
    ar_only = Encoder(replace(recipe, fim=replace(recipe.fim, fim_rate=0.0)), epochs=1)
    errors = iter([TooLong, ControlToken])

    encoded, refused = ar_only([replace_text(documents[0])] * 2)

    assert encoded == []
    assert refused.lost == {"too-long": 1, "control-token": 1}
    assert not refused.redrawn
    errors = iter([FimError])
    with pytest.raises(FimError, match="no"):
        ar_only([replace_text(documents[0])])


def test_windows_that_could_have_no_middle_are_counted_with_the_reason(recipe, monkeypatch):
    prose = Document(repo="r", path="a.md", language="markdown", text=b"# Title\n\nWords.\n")
    code = Document(repo="r", path="b.py", language="python", text=SOURCE.format(1).encode())
    empty = Document(repo="r", path="c.py", language="python", text=b"#\n")
    fim = replace(recipe.fim, fim_rate=1.0, window_bytes=400, samplers={"node": 1.0})
    encoder = Encoder(replace(recipe, fim=fim), epochs=1)

    encoded, refused = encoder([prose, code, empty])

    assert [e.sample.order == "ar" for e in encoded] == [True, False, True]
    assert refused.fallback == {"prose": 1, "no-span": 1}

    def encode_ar_only(sample, *arguments, **options):
        if sample.order != "ar":
            raise TooLong("no")
        return encode(sample, *arguments, **options)

    monkeypatch.setattr(sampling, "encode", encode_ar_only)
    _, refused = encoder([code])
    assert refused.fallback == {"refused": 1}
    assert refused.redrawn["too-long"] > 1


def test_windows_drawn_as_autoregressive_are_no_fallback(recipe, documents):
    encoded, refused = Encoder(recipe, epochs=1)(documents[:64])

    orders = [e.sample.order for e in encoded]
    share = (len(orders) - orders.count("ar") + refused.fallback.total()) / len(orders)
    assert orders.count("ar") > refused.fallback.total()
    assert 0.55 < share < 0.85


def test_every_window_is_a_sample_or_lost(run):
    stats = prepare(run)

    documents = _read(run)
    windows = sum(
        num_windows(document, run.fim.window_bytes, run.fim.seed, epoch)
        for document in documents
        for epoch in range(run.train.epochs)
    )
    assert sum(stats["samples"].values()) + sum(stats["lost"].values()) == windows > 8


def test_languages_without_a_grammar_are_counted_and_warned_of_in_one_line(run, capsys):
    code = Path(run.corpus.sources[0].folder)
    for number in range(3):
        (code / f"plot{number}.R").write_text(f"plot <- function(x) {{ x + {number} }}\n" * 30)

    stats = prepare(run)

    assert stats["without_grammar"] == {"r": 3}
    assert stats["languages"]["r"] == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "no grammar" in line] == [
        "warning: no grammar for r (3 files), so their spans are random"
    ]


def replace_text(document: Document) -> Document:
    return Document(repo="r", path=document.path, language="python", text=b"x = 1\n")


def _die(mark: Path, recipe: Recipe, *rest: object) -> object:
    """Die once, or always if there is no mark to leave."""
    if mark is None or not mark.exists():
        if mark:
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return encode_here(recipe, *rest)


encode_here = sampling._encode_shard


@pytest.mark.slow
def test_what_a_worker_was_at_when_it_died_is_done_again(recipe, documents, monkeypatch, tmp_path):
    two = with_workers(recipe, 2)
    expected = [shard.input_ids.tolist() for shard in encode_documents(documents, two, epochs=1)]
    monkeypatch.setattr(sampling, "_encode_shard", partial(_die, tmp_path / "died"))

    shards = list(encode_documents(documents, two, epochs=1))

    assert (tmp_path / "died").exists()
    assert [shard.input_ids.tolist() for shard in shards] == expected


@pytest.mark.slow
def test_a_worker_that_dies_twice_is_one_line(recipe, documents, monkeypatch):
    monkeypatch.setattr(sampling, "_encode_shard", partial(_die, None))

    with pytest.raises(FimError, match=r"a worker process.*signal 9.*set corpus\.workers=1"):
        list(encode_documents(documents, with_workers(recipe, 2), epochs=1))


@pytest.mark.parametrize(("named", "warned"), [("auto", True), ("qwen2.5-coder", False)])
def test_a_base_that_nothing_but_its_vocabulary_speaks_for_is_warned_of(run, capsys, named, warned):
    prepare(replace(run, model=replace(run.model, format=named)))

    assert ("neither the base's name nor its config" in capsys.readouterr().err) == warned


def from_url(run: Recipe, url: str) -> Recipe:
    return replace(run, corpus=replace(run.corpus, sources=(Source(git=url),)))


def test_a_url_is_cloned_into_the_run_and_followed(run, tmp_path, make_repo, capsys):
    files = {f"{n}.py": make_code(n) for n in range(6)}
    remote = make_repo(tmp_path / "remote", files)
    cloned = from_url(run, f"file://{remote}")
    prepare(cloned)
    assert {document.repo for document in _read(cloned)} == {"remote"}
    before = stamp(cloned)

    assert prepare(cloned)["documents"]["kept"] == 6
    assert stamp(cloned) == before
    make_repo(remote, {"more.py": make_code(9)}, "more")
    assert prepare_fingerprint(cloned) == made_from(cloned)  # only `prepare` asks the remote
    assert prepare(cloned)["documents"]["kept"] == 7
    assert prepare_fingerprint(cloned) == made_from(cloned)

    remote.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert prepare(cloned)["documents"]["kept"] == 7
    assert "its clone from an earlier run is read" in capsys.readouterr().err


def test_a_url_that_cannot_be_cloned_costs_no_other_clone(run, tmp_path, make_repo):
    remote = make_repo(tmp_path / "remote", {"a.py": make_code(1)})
    sources = tuple(Source(git=f"file://{place}") for place in (remote, tmp_path / "gone"))

    with pytest.raises(FimError, match="cannot be cloned"):
        prepare(replace(run, corpus=replace(run.corpus, sources=sources)))

    (clone,) = (run.folder / "cache" / "clones").glob("*/.git")
    assert clone.parent.name.startswith("remote")


def made_from(run: Recipe) -> str:
    return json.loads((run.folder / "packs" / "manifest.json").read_text())["made_from"]


def test_a_url_that_cannot_be_cloned_leaves_no_run_folder(run, tmp_path):
    with pytest.raises(FimError, match="cannot be cloned"):
        prepare(from_url(run, f"file://{tmp_path}/gone"))

    assert not Path(run.runs).exists()


def test_what_a_url_says_of_its_user_is_not_written(run):
    secret, plain = (
        from_url(run, f"https://{user}example.org/team/app.git") for user in ("me:hunter2@", "")
    )

    write_run_recipe(secret)

    text = (run.folder / "recipe.yaml").read_text()
    assert "example.org/team/app.git" in text
    assert "hunter2" not in text
    assert without_refs(secret.corpus) == without_refs(plain.corpus)


def test_a_glob_is_as_many_repositories_each_with_its_commit(run, tmp_path, make_repo):
    for name in ("one", "two"):
        make_repo(tmp_path / "all" / name, {f"{name}.py": make_code(len(name) + ord(name[0]))})

    prepare(from_url(run, str(tmp_path / "all" / "*")))

    commits = json.loads((run.folder / "corpus" / "manifest.json").read_text())["commits"]
    assert commits.keys() == {"corpus.sources.0.ref (one)", "corpus.sources.0.ref (two)"}


def test_one_new_file_is_all_that_is_studied_again(run, monkeypatch):
    prepare(run)
    (Path(run.corpus.sources[0].folder) / "new.py").write_bytes(make_code(50))
    studied = []
    run_shards = collect.run_shards

    def watch(work, shards, *arguments):
        def seen():
            for shard in shards:
                studied.extend(file.path for files in shard for file in files)
                yield shard

        return run_shards(work, seen(), *arguments)

    monkeypatch.setattr(collect, "run_shards", watch)

    assert prepare(run)["documents"]["kept"] == 9
    assert studied == ["new.py"]


def test_an_interrupted_run_leaves_what_it_knows(run, monkeypatch):
    monkeypatch.setattr(build, "write_documents", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(run)
    monkeypatch.undo()
    assert {path.name for path in run.folder.iterdir()} == {"cache"}
    monkeypatch.setattr(collect, "run_shards", lambda _, shards, *__: iter(list(shards)))

    assert prepare(run)["documents"]["kept"] == 8
