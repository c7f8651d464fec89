"""The study of files in tasks of datatrove's executors: the same corpus as on one machine."""

import json
from pathlib import Path

import pytest
from made_code import make_code

from finetune.cli import main
from finetune.cluster import study_on_cluster
from finetune.corpus.cache import SLICES, open_cache
from finetune.corpus.collect import study_slice
from finetune.corpus.study import StudySettings
from finetune.recipe.corpus import Corpus, Source
from finetune.recipe.file import read_recipe
from finetune.samples.tokenizer import save_tokenizer, train_tokenizer

RECIPE = """
name: {name}
runs: {here}/runs
model: {{name: {here}/base}}
corpus: {{sources: [{{git: {here}/code}}], workers: 1}}
fim: {{max_length: 256, orders: {{psm: 0.5, spm: 0.5}}}}
train: {{epochs: 1}}
evaluate: {{items: 0}}
"""


@pytest.fixture
def here(tmp_path, make_repo) -> Path:
    files = {f"{number}.py": make_code(number) for number in range(40)}
    make_repo(tmp_path / "code", files | {"copy.py": make_code(3), "big.bin": b"\0" * 9})
    save_tokenizer(train_tokenizer([make_code(1), make_code(2)], 400), tmp_path / "base")
    for name in ("alone", "together"):
        text = RECIPE.format(name=name, here=tmp_path)
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def digests(here: Path, name: str) -> dict[str, str]:
    manifest = here / "runs" / name / "corpus" / "manifest.json"
    return json.loads(manifest.read_text())["files"]


def test_slices_take_every_file_once(here):
    corpus = Corpus(sources=(Source(git=str(here / "code")),), workers=1)
    made_with = StudySettings.of(corpus, 0).digits({})
    numbers = []
    for rank in range(3):
        with open_cache(here / "cache" / SLICES / str(rank), made_with) as cache:
            numbers.append(study_slice(corpus, 0, cache, rank, 3))
            assert study_slice(corpus, 0, cache, rank, 3) == 0

    assert sum(numbers) == 42
    assert min(numbers) > 0
    with open_cache(here / "cache", made_with) as cache:
        facts = list(cache.facts())
        kept = [(place, study) for place, study, _ in facts if not study.reason]
        assert len(facts) == 42
        assert len(list(cache.texts(place for place, _ in kept))) == len(kept) == 41
        assert study_slice(corpus, 0, cache, 0, 1) == 0
    assert not (here / "cache" / SLICES).exists()


def prepare_both(here: Path, *options: str) -> None:
    assert main(["prepare", str(here / "alone.yaml")]) == 0
    assert main(["prepare", str(here / "together.yaml"), *options]) == 0
    assert digests(here, "together") == digests(here, "alone")
    assert not (here / "runs" / "together" / "cache" / "logs").exists()


@pytest.mark.slow
def test_two_local_tasks_give_the_same_corpus(here, monkeypatch):
    pytest.importorskip("datatrove", reason="needs the extra `scale`")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    from finetune.corpus import collect

    prepare_both(here, "--executor", "local", "--tasks", "2")

    # all is known: no shard is left to study
    monkeypatch.setattr(collect, "run_shards", lambda _, shards, *__: iter(list(shards)))
    (here / "runs" / "together" / "corpus" / "documents.parquet").unlink()
    assert main(["prepare", str(here / "together.yaml")]) == 0


@pytest.mark.slow
def test_tasks_study_only_what_is_new(here, make_repo, monkeypatch):
    pytest.importorskip("datatrove", reason="needs the extra `scale`")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    recipe = read_recipe(here / "alone.yaml")
    assert main(["prepare", str(here / "alone.yaml")]) == 0
    make_repo(here / "code", {"new.py": make_code(50)})

    assert study_on_cluster(recipe, "local", 2)

    (found,) = (recipe.folder / "cache" / SLICES).glob("*/studies.sqlite")
    with open_cache(found.parent, "") as cache:
        assert len(cache.keys()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # datatrove waits forever for a thread that raises one
def test_two_ray_workers_give_the_same_corpus(here, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra `scale`")
    pytest.importorskip("datatrove", reason="needs the extra `scale`")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        options = ["--option", "mem_per_cpu_gb=1"]
        prepare_both(here, "--executor", "ray", "--tasks", "2", *options)
    finally:
        ray.shutdown()


@pytest.mark.parametrize("options", [["nonsense=1"], ["partition=cpu"]])
def test_a_wrong_option_is_one_line(here, capsys, options):
    pytest.importorskip("datatrove", reason="needs the extra `scale`")
    arguments = [word for option in options for word in ("--option", option)]

    assert main(["prepare", str(here / "alone.yaml"), "--executor", "local", *arguments]) == 1

    error = capsys.readouterr().err.strip()
    assert error.endswith("correct --option")
    assert len(error.splitlines()) == 1
    assert not (here / "runs").exists()


def test_tasks_are_handed_to_slurm(here, monkeypatch, capsys):
    slurm = pytest.importorskip("datatrove.executor.slurm", reason="needs the extra `scale`")
    made = []
    monkeypatch.setattr(slurm.SlurmPipelineExecutor, "run", lambda self: made.append(self))
    options = ["--option", "partition=cpu", "--option", "time=04:00:00"]
    arguments = ["--executor", "slurm", "--tasks", "7", *options]

    assert main(["prepare", str(here / "together.yaml"), *arguments]) == 0

    (executor,) = made
    assert (executor.tasks, executor.partition, executor.time) == (7, "cpu", "04:00:00")
    assert executor.pipeline[0].corpus.sources[0].git == str(here / "code")
    assert "handed over" in capsys.readouterr().out
    assert main(["prepare", str(here / "together.yaml"), *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"handed_over": 7}


def test_what_an_executor_raises_is_one_line(here, capsys, monkeypatch):
    local = pytest.importorskip("datatrove.executor.local", reason="needs the extra `scale`")

    def run(self):
        raise TypeError("'str' object is no number\nand more")

    monkeypatch.setattr(local.LocalPipelineExecutor, "run", run)

    assert main(["prepare", str(here / "alone.yaml"), "--executor", "local"]) == 1

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: --executor local: TypeError: 'str' object is no number;")
