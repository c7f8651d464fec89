"""Files far from the loss of their language are listed, on either side, and no others.

PYTHONPATH=. python -m pytest tests/test_outliers.py
"""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from fim import Document, FimError
from finetune.cli import main
from finetune.outliers import FileLoss, file_losses, find_outliers, mark_outliers, outliers_summary
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Dedup, Source, Split
from finetune.recipe.filters import Filters
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe
from finetune.samples.tokenizer import save_tokenizer, train_tokenizer

NAMES = ("width", "height", "total", "count", "index", "price", "order", "limit")


def ordinary(number: int) -> bytes:
    rng = random.Random(number)
    names = [rng.choice(NAMES) for _ in range(24)]
    lines = [
        f"def {a}_{number}({b}):\n    if {b} < {rng.randint(0, 99)}:\n        return {c}\n"
        for a, b, c in zip(names[::3], names[1::3], names[2::3], strict=True)
    ]
    return "\n".join(lines).encode()


def loss(path: str, value: float, language: str = "python") -> FileLoss:
    return FileLoss(repo="r", path=path, language=language, loss=value, tokens=100)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model) -> Recipe:
    """A run over 40 ordinary files and one of a single repeated word, and a base with opinions."""
    folder = tmp_path_factory.mktemp("outliers")
    for number in range(40):
        path = folder / "code" / f"{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(ordinary(number))
    (folder / "code" / "same.py").write_bytes(b"f(width, width, width)\n" * 60)
    (folder / "code" / "short.py").write_bytes(b"import width\n")
    tokenizer = train_tokenizer((ordinary(number) for number in range(40)), 400)
    model = tiny_model("qwen2", len(tokenizer))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder / "base")
    save_tokenizer(tokenizer, folder / "base")
    return Recipe(
        name="r",
        runs=str(folder / "runs"),
        model=Model(name=str(folder / "base"), dtype="float64"),
        corpus=Corpus(
            sources=(Source(folder=str(folder / "code"), name="code"),),
            filters=Filters(max_repeated_lines=1.0, max_repeated_ngrams=1.0),
            dedup=Dedup(exact=False, near=False),
            split=Split(eval_rate=0.0, min_files=0),
            workers=1,
        ),
        fim=Fim(max_length=128, orders={"psm": 1.0}),
        evaluate=Evaluate(items=0),
    )


@pytest.fixture(scope="module")
def prepared(recipe) -> Recipe:
    prepare(recipe)
    return recipe


def test_files_far_from_their_language_are_listed_by_side():
    usual = [loss(f"{n}.py", 1.0 + n / 100) for n in range(40)]

    found = mark_outliers([*usual, loss("noise.py", 6.0), loss("same.py", 0.05)])

    assert [(o.path, o.side, o.reason) for o in found] == [
        ("same.py", "low", "loss-low"),
        ("noise.py", "high", "loss-high"),
    ]
    assert found[0].score < -3.5
    assert found[1].score > 3.5


def test_a_language_is_compared_with_itself():
    python = [loss(f"{n}.py", 1.0 + n / 100) for n in range(40)]
    java = [loss(f"{n}.java", 6.0 + n / 100, "java") for n in range(20)]

    assert mark_outliers([*python, *java]) == []
    assert [o.path for o in mark_outliers([*python, loss("a.java", 6.0, "java")])] == ["a.java"]


def test_scores_are_iglewicz_and_hoaglins():
    """0.6745 (x - median) / MAD, on logs: here the median is 0 and the MAD 1."""
    logs = [-1.0] * 10 + [0.0] + [1.0] * 10

    found = mark_outliers(
        [loss(f"{n}", 2.718281828459045**x) for n, x in enumerate([*logs, 8.0, -9.0])]
    )

    assert [(o.side, o.score) for o in found] == [("low", -6.07), ("high", 5.4)]


def test_few_files_are_judged_by_the_limit_only():
    files = [loss("a.py", 1.0), loss("b.py", 1.01), loss("c.py", 9.0)]

    assert mark_outliers(files) == []
    assert [o.path for o in mark_outliers(files, max_loss=3.0)] == ["c.py"]


def test_files_that_are_mostly_alike_still_show_the_one_that_is_not():
    same = [loss(f"{n}.py", 2.0) for n in range(30)]

    assert mark_outliers(same) == []
    assert [o.path for o in mark_outliers([*same, loss("odd.py", 2.5)])] == ["odd.py"]


def test_a_loss_of_zero_is_an_outlier_and_no_error():
    files = [*(loss(f"{n}.py", 1.0 + n / 100) for n in range(20)), loss("known.py", 0.0)]

    assert [(o.path, o.side) for o in mark_outliers(files)] == [("known.py", "low")]


def test_loss_of_a_file_is_that_of_a_plain_forward(recipe):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(recipe.model.name, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.name)
    documents = [
        Document(repo="r", path=f"{n}.py", language="python", text=ordinary(n)) for n in range(3)
    ]

    found = list(file_losses(recipe, documents))

    assert [file.path for file in found] == ["0.py", "1.py", "2.py"]
    for file, document in zip(found, documents, strict=True):
        ids = tokenizer(document.text.decode(), return_tensors="pt").input_ids[:, : file.tokens]
        with torch.no_grad():
            expected = model(input_ids=ids, labels=ids).loss.item()
        assert 100 < file.tokens <= 128
        assert file.loss == pytest.approx(expected, abs=1e-4)


def test_run_lists_the_odd_file_and_writes_a_drop_list(prepared):
    result = find_outliers(prepared)

    assert (result["files"], result["judged"]) == (42, 41)  # one is too short to judge
    assert [row["path"] for row in result["outliers"]] == ["same.py"]
    rows = parquet.read_table(result["file"]).to_pylist()
    assert rows == result["outliers"]
    assert rows[0].items() >= {"repo": "code", "path": "same.py", "language": "python"}.items()
    assert rows[0]["reason"] == f"loss-{rows[0]['side']}"
    content = Path(result["file"]).read_bytes()
    assert find_outliers(prepared) == result
    assert Path(result["file"]).read_bytes() == content


def test_what_is_listed_can_be_dropped(prepared):
    listed = find_outliers(prepared)["file"]

    stats = prepare(
        replace(prepared, name="rest", corpus=replace(prepared.corpus, drop_list=listed))
    )

    assert stats["documents"] == {"kept": 41, "skipped": {"drop-list": 1}}
    skipped = parquet.read_table(f"{prepared.runs}/rest/corpus/skipped.parquet").to_pylist()
    assert [row["path"] for row in skipped] == ["same.py"]
    assert skipped[0]["detail"].startswith("loss-")


def test_table_names_files_without_control_characters():
    outliers = mark_outliers([loss(f"{n}.py", 1.0 + n / 100) for n in range(20)] + [
        loss("\x1b[31m.py", 9.0), loss("b.py", 8.0)
    ])  # fmt: skip
    rows = [{name: getattr(o, name) for name in o.__dataclass_fields__} for o in outliers]
    result = {
        "files": 22, "judged": 22, "languages": {"python": {"files": 22, "median": 1.1}},
        "outliers": rows, "file": "runs/r/outliers.parquet",
    }  # fmt: skip

    shown = outliers_summary(result, worst=1)

    assert "r/\\x1b[31m.py" in shown
    assert "b.py" not in shown
    assert "0 far below the loss of their language, 2 far above" in shown
    assert shown.endswith("corpus.drop_list=runs/r/outliers.parquet")


def test_verb_prints_one_object_or_a_table(prepared, tmp_path, capsys):
    from finetune.recipe.file import write_recipe

    path = tmp_path / "r.yaml"
    path.write_text(write_recipe(prepared))
    capsys.readouterr()

    assert main(["outliers", str(path), "--json", "--threshold", "99"]) == 0
    assert json.loads(capsys.readouterr().out)["outliers"] == []
    assert main(["outliers", str(path), "--max-loss", "0.01", "--worst", "2"]) == 0
    assert "41 far above" in capsys.readouterr().out


def test_run_that_is_not_prepared_is_refused(recipe, tmp_path):
    with pytest.raises(FimError, match="not made yet; run: sfim prepare RECIPE"):
        find_outliers(replace(recipe, runs=str(tmp_path)))


def test_corpus_of_another_recipe_is_refused(prepared):
    other = replace(prepared, corpus=replace(prepared.corpus, max_documents=7))

    with pytest.raises(FimError, match="the run of another recipe"):
        find_outliers(other)


@pytest.mark.parametrize("words", ["--threshold 0", "--threshold nan", "--max-loss x"])
def test_limits_are_above_0(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["outliers", "r.yaml", *words.split()])

    assert stopped.value.code == 2
    assert "expected a number above 0" in capsys.readouterr().err
