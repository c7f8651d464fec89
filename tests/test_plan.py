"""What a plan predicts is what tensors take, and what it advises fits."""

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from peft import LoraConfig
from transformers import Qwen2Config

from finetune import cli
from finetune import train as train_module
from finetune.plan import estimate as plan
from finetune.plan.data import count_data
from finetune.plan.estimate import explain_memory, is_out_of_memory, make_plan, plan_summary
from finetune.prepare import corpus_stage, prepare_fingerprint, sources_fingerprint
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.run_sources import expand_corpus
from finetune.store import stage_folder, write_manifest
from finetune.train import train

SIZES = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def make_recipe(folder: Path, *overrides: str) -> Recipe:
    """Write a base without weights, a source and a recipe."""
    Qwen2Config(**{**SIZES, "num_hidden_layers": 1}).save_pretrained(folder / "base")
    if not (folder / "source").exists():  # packs of before know the time of its files
        (folder / "source").mkdir()
        (folder / "source" / "a.py").write_text("x = 1\n" * 4_000)
        (folder / "source" / "notes.bin").write_text("x" * 90_000)
    values = {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "model": {"name": str(folder / "base")},
        "corpus": {"sources": [{"folder": str(folder / "source")}]},
        "fim": {"max_length": 512},
        "train": {"packs_per_step": 2, "gradient_accumulation": 2},
        "evaluate": {"max_new_tokens": 96},
    }
    (folder / "recipe.yaml").write_text(json.dumps(values))  # JSON is YAML
    return read_recipe(folder / "recipe.yaml", overrides)


def test_a_plan_needs_neither_weights_nor_packs(tmp_path):
    recipe = make_recipe(tmp_path)

    made = make_plan(recipe, gpus=0, memory=4)

    data = made["data"]
    assert (data["exact"], data["tokens"]) == (False, int(24_000 / 3.2 * 2))
    assert data["packs"] == -(-data["tokens"] // 512)
    assert data["steps"] == -(-data["packs"] // 4)
    assert made["fits"]
    assert made["advice"] == "fits as it is: sfim train RECIPE"
    assert made["hours"] == {}
    assert not (tmp_path / "runs").exists()
    assert "about 15,000" in plan_summary(made)


def write_packs(recipe: Recipe, lengths: list[list[int]]) -> None:
    """Write packs as if `recipe` had made them."""
    with stage_folder(recipe.folder / "packs") as folder:
        labels = [[-100] * sum(pack[1:]) + [7] * pack[0] for pack in lengths]
        columns = {"seq_lengths": lengths, "labels": labels}
        datasets.Dataset.from_dict(columns).save_to_disk(str(folder / "train"))
        write_manifest(folder, prepare_fingerprint(recipe))


def test_packs_count_where_this_recipe_made_them(tmp_path):
    write_packs(make_recipe(tmp_path), [[100, 200], [300], [50]])
    expected = {"packs": 3, "tokens": 650, "squares": 50_000 + 90_000 + 2_500, "disk": 0}

    assert count_data(make_recipe(tmp_path)) == {**expected, "labels": 512, "exact": True}
    assert not count_data(make_recipe(tmp_path, "fim.max_length=256"))["exact"]
    (tmp_path / "source" / "b.py").write_text("y = 1\n")
    assert not count_data(make_recipe(tmp_path))["exact"]


def test_a_loss_on_middles_takes_what_their_labels_take(tmp_path):
    recipe = make_recipe(tmp_path, "fim.loss=middle", "model.adapter=full")
    before = make_plan(recipe, gpus=0, memory=4)
    write_packs(recipe, [[20, 200], [40, 90], [30, 400], [300, 9]])
    assert count_data(recipe)["labels"] == 300

    recipe = make_recipe(  # the last is not read
        tmp_path, "fim.loss=middle", "model.adapter=full", "train.max_tokens=1000"
    )
    made = make_plan(recipe, gpus=0, memory=4)

    assert (before["data"]["labels"], made["data"]["labels"]) == (512, 40)
    less = before["asked"]["activations"] - made["asked"]["activations"]
    assert less > 2 * (512 - 40) * 512 * 4  # logits of two packs


@pytest.mark.parametrize(("limit", "packs", "tokens"), [(1, 1, 300), (649, 2, 600), (650, 3, 650)])
def test_packs_are_cut_as_training_cuts_them(tmp_path, limit, packs, tokens):
    lengths = [[100, 200], [300], [50]]
    write_packs(make_recipe(tmp_path), lengths)
    columns = {"sample_ids": [[0]] * 3, "epoch": [0] * 3, "seq_lengths": lengths}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "rows"))

    data = count_data(make_recipe(tmp_path, f"train.max_tokens={limit}"))

    assert (data["packs"], data["tokens"]) == (packs, tokens)
    assert len(train_module._read_packs(tmp_path / "rows", limit)) == packs


def test_a_corpus_counts_where_this_recipe_made_it(tmp_path):
    recipe = make_recipe(tmp_path)
    sources = sources_fingerprint(recipe, expand_corpus(recipe))
    with stage_folder(recipe.folder / "corpus") as folder:
        (folder / "counts.json").write_text('{"bytes": 3200}')
        write_manifest(folder, corpus_stage(recipe, sources))

    assert count_data(recipe)["tokens"] == 2 * 1_000
    other = make_recipe(tmp_path, "corpus.filters.max_bytes=90000")
    assert count_data(other)["tokens"] == 2 * 7_500


def test_a_repository_that_cannot_be_read_is_an_error_and_a_url_is_unknown(tmp_path):
    gone = make_recipe(tmp_path, f"corpus.sources=[{{git: {tmp_path / 'gone'}}}]")
    with pytest.raises(plan.FimError, match="gone: no such folder"):
        make_plan(gone, gpus=0)

    url = make_recipe(tmp_path, "corpus.sources=[{git: 'https://localhost/a.git'}]")
    made = make_plan(url, gpus=1)
    assert (made["data"]["tokens"], made["hours"]) == (0, {})
    assert "hours        unknown: run sfim prepare" in plan_summary(made)


def test_hours_name_the_gpu_that_was_found(tmp_path, monkeypatch):
    recipe = make_recipe(tmp_path)
    properties = SimpleNamespace(total_memory=48 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40S")

    assert make_plan(recipe)["hours"].keys() == {"NVIDIA L40S"}
    assert make_plan(recipe, memory=80)["hours"].keys() == {"A100", "H100"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert "unknown: the speed of Tesla T4 is not known" in plan_summary(make_plan(recipe))


def test_float32_on_a_gpu_is_launched_in_bfloat16(tmp_path):
    made = make_plan(make_recipe(tmp_path, "model.dtype=float32"), gpus=1)

    assert made["advice"] == (
        "fits as it is: accelerate launch --config_file accelerate_configs/single_gpu.yaml "
        "-m finetune.train RECIPE"
    )


def test_the_disk_holds_every_checkpoint_that_can_be_there(tmp_path):
    def kept(*overrides):
        made = make_plan(make_recipe(tmp_path, *overrides), gpus=0, memory=4)
        return made["asked"]["disk"], made["asked"]["checkpoint"]

    disk, checkpoint = kept()
    rest = disk - checkpoint  # a signal writes one
    saved, best = "train.save_steps=5", "train.keep_best=true"
    assert kept(saved) == (rest + 3 * checkpoint, checkpoint)
    assert kept(best) == kept(saved, best) == (rest + 4 * checkpoint, checkpoint)


def test_a_continued_adapter_has_its_own_rank_and_targets(tmp_path):
    adapter = tmp_path / "adapter"
    LoraConfig(r=3, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(adapter)

    made = make_plan(make_recipe(tmp_path, f"model.adapter_from={adapter}"), gpus=0)

    assert made["parameters"]["trained"] == 3 * (64 + 64)
    with pytest.raises(plan.FimError, match="me/it is no folder"):
        make_plan(make_recipe(tmp_path, "model.adapter_from=me/it"), gpus=0)


def test_hours_are_those_of_the_proposed_setup(tmp_path):
    recipe = make_recipe(tmp_path, "train.packs_per_step=1")
    all_of_it = make_plan(recipe, gpus=1, memory=4)
    need = all_of_it["asked"]["total"] / 2**30

    made = make_plan(recipe, gpus=1, memory=(need + 1) / 0.92 - 0.0001)

    assert made["proposed"]["gradient_checkpointing"]
    assert made["hours"]["A100"] == pytest.approx(1.5 * all_of_it["hours"]["A100"])


def test_hours_come_from_the_table_for_gpus_and_from_the_log_for_a_cpu(tmp_path):
    recipe = make_recipe(tmp_path)
    one, four = (make_plan(recipe, gpus=n, memory=80)["hours"] for n in (1, 4))
    recipe.folder.mkdir(parents=True)
    line = {"step": 1, "tokens": 1_500, "loss": 1.0, "seconds": 360.0}
    (recipe.folder / "log.jsonl").write_text(json.dumps(line) + "\n")

    assert one.keys() == {"A100", "H100"}
    assert one["A100"] == pytest.approx(4 * four["A100"])
    assert one["A100"] / one["H100"] == pytest.approx(989 / 312)
    shown = plan_summary(make_plan(recipe, gpus=1, memory=80))
    assert "hours        unknown: steps this short depend on more than the GPU" in shown
    assert make_plan(recipe, gpus=0)["hours"] == {"this CPU": pytest.approx(1.0)}


def test_what_does_not_fit_is_made_to_fit_with_the_same_batches(tmp_path):
    recipe = make_recipe(tmp_path)
    need = make_plan(recipe, gpus=0, memory=4)["asked"]["total"]

    made = make_plan(recipe, gpus=0, memory=need / 2**30)

    assert not made["fits"]
    proposed = made["proposed"]
    assert proposed["packs_per_step"] == 1
    assert not proposed["gradient_checkpointing"]
    assert made["advice"] == (
        "fits so: sfim train RECIPE train.packs_per_step=1 train.gradient_accumulation=4"
    )
    least = make_plan(recipe, gpus=0, memory=0.0001)
    assert least["proposed"] is None
    small = ["train.packs_per_step=1", "train.gradient_checkpointing=true"]
    smallest = make_plan(make_recipe(tmp_path, *small), gpus=0, memory=4)["asked"]["total"]
    needed = f"at least {smallest / 2**20:.1f} MiB are needed of 0.1 MiB usable "
    assert least["advice"].startswith(f"nothing fits: {needed}")
    assert "; lower fim.max_length" in least["advice"]
    full = make_plan(make_recipe(tmp_path, "model.adapter=full"), gpus=0, memory=0.0001)
    assert "; train an adapter, lower fim.max_length" in full["advice"]


def test_full_weights_on_several_gpus_are_spread(tmp_path):
    recipe = make_recipe(tmp_path, "model.adapter=full")
    one, made = (make_plan(recipe, gpus=n, memory=80) for n in (1, 8))

    asked = made["asked"]
    assert asked["strategy"] == "fsdp2"
    result = asked["disk"] - asked["checkpoint"] - made["data"]["disk"]
    assert result == 4 * made["parameters"]["trained"]
    assert asked["checkpoint"] == made["proposed"]["checkpoint"] > 2 * one["asked"]["checkpoint"]
    assert " as proposed" not in plan_summary(made)
    assert plan_summary({**made, "proposed": one["asked"]}).count(" as proposed\n") == 2
    assert "accelerate_configs/fsdp2.yaml --num_processes 8" in made["advice"]


def test_the_verb_prints_one_object(tmp_path, capsys):
    make_recipe(tmp_path)

    assert cli.main(["plan", str(tmp_path / "recipe.yaml"), "--gpus", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["hardware"] == {"gpus": 1, "name": "", "memory": 80 * 2**30}

    assert cli.main(["plan", str(tmp_path / "recipe.yaml"), "--memory", "8"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("fits as it is: sfim train RECIPE")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 7 bytes"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_out_of_memory_ends_with_what_to_change(tmp_path, monkeypatch):
    recipe = make_recipe(tmp_path)
    line = explain_memory(recipe)

    assert line.startswith(
        "out of memory with fim.max_length=512 train.packs_per_step=2 "
        "train.gradient_checkpointing=false; fits so: sfim train RECIPE train.packs_per_step=1 "
    )
    assert "\n" not in line
    least = ("packs_per_step=1", "gradient_accumulation=1", "gradient_checkpointing=true")
    line = explain_memory(make_recipe(tmp_path, *(f"train.{value}" for value in least)))
    assert "; nothing that needs less is known: at least " in line

    def fail(recipe):
        torch.empty(2**60)

    recipe.folder.mkdir(parents=True)
    monkeypatch.setattr(train_module, "is_done", lambda folder, made_from: folder.name == "packs")
    monkeypatch.setattr(train_module, "prepare_fingerprint", lambda recipe: "")
    monkeypatch.setattr(train_module, "make_trainer", fail)
    with pytest.raises(plan.FimError, match=r"out of memory with .*; fits so: "):
        train(recipe)
