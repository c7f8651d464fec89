"""The decay phase's mix: in the last packs, in the shares asked for, and nowhere else."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from fim import FimError
from finetune.audit.samples import audit
from finetune.prepare import prepare
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import RecipeError
from finetune.recipe.train import Train
from finetune.samples import anneal
from finetune.samples.anneal import Decay, plan_decay
from finetune.show import prepare_summary

FACTS = [
    {"repo": repo, "language": language, "num_bytes": 1_000}
    for repo, language in (("code", "python"), ("code", "go"), ("docs", "markdown"))
    for _ in range(400)
]
IDS = [f"{number:032x}" for number in range(len(FACTS))]


@pytest.fixture
def facts(monkeypatch):
    monkeypatch.setattr(anneal, "_read_facts", lambda corpus: FACTS)


def draws(decay: Decay) -> dict[str, int]:
    """Return how often each language is drawn from."""
    found = dict.fromkeys(("python", "go", "markdown"), 0)
    for document_id, fact in zip(IDS, FACTS, strict=True):
        epochs = decay.epochs_of(document_id, fact["repo"], fact["language"])
        assert set(epochs) <= set(decay.epochs)
        found[fact["language"]] += len(epochs)
    return found


@pytest.mark.usefixtures("facts")
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_decay_phase_is_its_share_of_all_that_is_drawn_from(rate):
    train = Train(epochs=2, decay_rate=rate, anneal_languages={"python": 3.0})

    total = sum(draws(plan_decay(train, Path(), 0)).values())

    passes = 2 * len(FACTS)
    assert total / (total + passes) == pytest.approx(rate, rel=0.1)


@pytest.mark.usefixtures("facts")
@pytest.mark.parametrize(
    ("train", "shares"),
    [
        ({"anneal_languages": {"python": 6.0}}, (6, 1, 1)),
        ({"anneal_sources": {"docs": 0.0}}, (1, 1, 0)),
        ({"anneal_sources": {"co*": 2.0, "code": 9.0}}, (2, 2, 1)),
        ({"anneal_sources": {"code": 2.0}, "anneal_languages": {"go": 3.0}}, (2, 6, 1)),
    ],
)
def test_weights_are_shares_of_the_decay_phase(train, shares):
    found = draws(plan_decay(Train(epochs=3, decay_rate=0.4, **train), Path(), 0))

    wanted = [sum(found.values()) * share / sum(shares) for share in shares]
    assert list(found.values()) == pytest.approx(wanted, rel=0.12)


@pytest.mark.usefixtures("facts")
def test_a_draw_depends_on_seed_and_document_alone():
    train = Train(anneal_languages={"python": 3.0})
    one, other = plan_decay(train, Path(), 0), plan_decay(train, Path(), 1)

    drawn = [one.epochs_of(key, "code", "python") for key in IDS]

    assert drawn == [one.epochs_of(key, "code", "python") for key in reversed(IDS)][::-1]
    assert drawn != [other.epochs_of(key, "code", "python") for key in IDS]


@pytest.mark.usefixtures("facts")
@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"anneal_sources": {"cod": 1.0}}, "no source is called 'cod'; there are code, docs"),
        ({"anneal_sources": {"*": 0.0}}, "every document has weight 0"),
        (
            {"anneal_sources": {"*": 0.0}, "anneal_languages": {"go": 1e-9}},
            "every document has weight 0",
        ),
    ],
)
def test_a_mix_that_cannot_be_drawn_is_refused(train, message):
    with pytest.raises(FimError, match=message):
        plan_decay(Train(**train), Path(), 0)


def test_a_few_documents_are_not_drawn_from_for_ever(monkeypatch):
    rare = [{"repo": "a", "language": "go", "num_bytes": 1}, *FACTS]
    monkeypatch.setattr(anneal, "_read_facts", lambda corpus: rare)

    with pytest.raises(FimError, match=r"would be drawn from \d+ times"):
        plan_decay(Train(anneal_sources={"code": 0.0, "docs": 0.0}), Path(), 0)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("anneal_languages: {pyton: 2}", "train.anneal_languages: unknown language; did you mean"),
        ("anneal_sources: {x: -1}", "train.anneal_sources.x: expected 0 or more, got -1"),
        ("{anneal_sources: {x: 1}, decay_rate: 0}", "train.decay_rate: expected above 0 for"),
        ("{anneal_sources: {x: 1}, max_tokens: 9}", "train.max_tokens: expected 0 with a decay"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(tmp_path, train, message):
    path = tmp_path / "recipe.yaml"
    train = train if train.startswith("{") else f"{{{train}}}"
    path.write_text(
        f"name: x\nmodel: {{name: m}}\ncorpus: {{sources: [{{folder: f}}]}}\ntrain: {train}"
    )

    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


def make_recipe(tmp_path: Path, train: dict) -> Path:
    """Write two sources of eight Python files each, and a recipe."""
    for name in ("code", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        for number in range(8):
            functions = (
                f"def {name}_{number}_{i}(value):\n    if value > {i}:\n"
                f"        return value * {number} + {len(name)}\n    return [value, {i}]\n\n\n"
                for i in range(12)
            )
            (tmp_path / name / f"module_{number}.py").write_text("".join(functions))
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 16}
    recipe = {
        "name": "decays" if train else "plain",
        "runs": str(tmp_path / "runs"),
        "model": {"adapter": "full", "scratch": {"vocab_size": 400, **sizes}},
        "corpus": {
            "sources": [{"folder": str(tmp_path / name)} for name in ("code", "other")],
            "split": {"eval_rate": 0.1}, "dedup": {"near": False}, "workers": 1,
        },
        "fim": {"max_length": 256},
        "train": train,
    }  # fmt: skip
    path = tmp_path / f"{recipe['name']}.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_the_last_packs_hold_the_mix_and_the_others_are_what_they_were(tmp_path):
    train = {"anneal_sources": {"other": 0.0}, "decay_rate": 0.3}
    decays = read_recipe(make_recipe(tmp_path, train))

    stats = prepare(decays)
    plain = prepare(read_recipe(make_recipe(tmp_path, {})))

    packs, before = (
        load_from_disk(str(tmp_path / "runs" / name / "packs" / "train"))
        for name in ("decays", "plain")
    )
    assert packs.select(range(len(before))).to_list() == before.to_list()
    late = packs.select(range(len(before), len(packs)))
    assert {epoch >= 2 for epoch in late["epoch"]} == {True}
    samples = pq.read_table(decays.folder / "packs" / "train" / "samples.parquet").to_pylist()
    of_late = {key for keys in late["sample_ids"] for key in keys}
    assert {row["repo"] for row in samples if row["sample_id"] in of_late} == {"code"}
    assert stats["decay"] == {
        "packs": len(late), "tokens": sum(map(sum, late["seq_lengths"])), "samples": len(of_late),
        "sources": {"code": len(of_late)}, "languages": {"python": len(of_late)},
    }  # fmt: skip
    assert stats["decay"]["tokens"] / stats["tokens"] == pytest.approx(0.3, abs=0.1)
    assert "decay" not in plain
    assert f"the last {len(late)} packs" in prepare_summary(stats)
    assert "decay" not in prepare_summary(plain)
    assert not any(audit(decays.folder)["violations"].values())
