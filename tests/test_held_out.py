"""Held-out losses by kind: each the mean over its own tokens, the same for any processes."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from test_distributed import launch, make_run
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune.training.attention import BLOCKS
from finetune.training.held_out import MAX_KINDS, HeldOut, construct_of, measure, read_held_out
from finetune.training.losses import add_loss, token_losses
from finetune.training.step_log import read_log

PACKS = [
    {  # psm: 2 + MIDDLE 1 2 + end; ar
        "input_ids": [3, 4, 1, 2, 9, 5, 6, 7], "labels": [-100, 4, 1, 2, 9, -100, 6, 7],
        "seq_lengths": [5, 3], "sample_ids": ["a", "b"],
    },
    {"input_ids": [7, 8, 9], "labels": [-100, 8, 9], "seq_lengths": [3], "sample_ids": ["c"]},
    {  # an empty MIDDLE; spm
        "input_ids": [2, 9, 6, 5, 9], "labels": [-100, 9, -100, 5, 9],
        "seq_lengths": [2, 3], "sample_ids": ["d", "e"],
    },
]  # fmt: skip
SAMPLES = [
    ("a", "python", "psm", "node", "block", 2),
    ("b", "python", "ar", "", "", 0),
    ("c", "go", "psm", "random", "", 1),
    ("d", "go", "psm", "empty", "call_expression", 0),
    ("e", "python", "spm", "node", "call", 1),
]


def write(folder: Path, packs: list[dict], samples: list[tuple]) -> Path:
    datasets.Dataset.from_list(packs).save_to_disk(folder)
    names = ("sample_id", "language", "order", "sampler", "kind", "middle_tokens")
    rows = [dict(zip(names, sample, strict=True)) for sample in samples]
    pq.write_table(pa.Table.from_pylist(rows), folder / "samples.parquet")
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    return read_held_out(write(tmp_path_factory.mktemp("run") / "eval", PACKS, SAMPLES), 32)


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    made = Qwen2ForCausalLM(config).eval().double()
    made.set_attn_implementation(BLOCKS)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_only_the_middle_and_its_end_are_labeled(held_out):
    assert [row["labels"] for row in held_out.packs] == [
        [-100, -100, 1, 2, 9, -100, 6, 7],
        [-100, 8, 9],
        [-100, 9, -100, 5, 9],
    ]


def test_every_sample_counts_for_its_kinds(held_out):
    counted = dict(zip(held_out.names, held_out.tokens.tolist(), strict=True))

    assert counted == {
        "loss_middle": 8, "loss_ar": 2, "order/psm": 6, "order/spm": 2, "sampler/empty": 1,
        "sampler/node": 5, "sampler/random": 2, "construct/call": 2, "kind/block": 3,
        "kind/call": 2, "kind/call_expression": 1,
    }  # fmt: skip
    assert list(counted)[:2] == ["loss_middle", "loss_ar"]


@pytest.mark.parametrize(
    ("language", "kind", "construct"),
    [
        ("python", "call", "call"),
        ("go", "call_expression", "call"),
        ("java", "if_statement", "if"),
        ("c", "struct_specifier", "class"),
        ("python", "argument_list", "arguments"),
        ("python", "identifier", ""),
        ("python", "", ""),
        ("markdown", "paragraph", ""),
        ("unknown", "call", ""),
    ],
)
def test_a_node_type_is_of_one_construct_in_every_language(language, kind, construct):
    assert construct_of(language, kind) == construct


def test_losses_are_means_over_the_tokens_of_a_kind(held_out, model):
    losses = measure(held_out, model)

    a, b = token_losses(model, held_out.packs[0])
    (c,) = token_losses(model, held_out.packs[1])
    d, e = token_losses(model, held_out.packs[2])
    by_hand = {
        "loss_middle": [*a, *c, *d, *e], "loss_ar": b, "order/psm": [*a, *c, *d], "order/spm": e,
        "sampler/empty": d, "sampler/node": [*a, *e], "sampler/random": c,
        "construct/call": e, "kind/block": a, "kind/call": e, "kind/call_expression": d,
    }  # fmt: skip
    assert losses == {name: pytest.approx(np.mean(of), rel=1e-14) for name, of in by_hand.items()}


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_any_number_of_processes_gives_the_same_figure(held_out, model, world_size):
    alone = measure(held_out, model)
    parts, forwards = [], []
    model.register_forward_pre_hook(lambda *_: forwards.append(1))

    for rank in range(world_size):
        measure(held_out, model, rank, world_size, lambda sums: parts.append(sums) or sums)
    together = measure(held_out, model, 0, world_size, lambda _: sum(parts))

    assert {k: v.hex() for k, v in together.items()} == {k: v.hex() for k, v in alone.items()}


@pytest.mark.parametrize(("world_size", "expected"), [(1, 3), (2, 2), (3, 1), (4, 1)])
def test_every_process_runs_as_many_forwards(held_out, monkeypatch, world_size, expected):
    calls = []
    monkeypatch.setattr(
        "finetune.training.held_out.token_losses",
        lambda _, pack: calls.append(1) or [np.zeros(1) for _ in pack["seq_lengths"]],
    )

    for rank in range(world_size):
        calls.clear()
        measure(held_out, None, rank, world_size)

        assert len(calls) == expected


def test_nothing_random_is_drawn(held_out, model):
    before = torch.random.get_rng_state()

    measure(held_out, model)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_that_trains_gives_the_same_losses(held_out, model):
    plain = measure(held_out, model)

    add_loss(model)

    assert measure(held_out, model) == plain


def test_only_so_many_packs_and_kinds_are_read(tmp_path):
    samples = [(f"{n}", "c", "psm", "node", f"kind_{n % (MAX_KINDS + 3):02}", 1) for n in range(40)]
    packs = [PACKS[1] | {"sample_ids": [key]} for key, *_ in samples]

    held_out = read_held_out(write(tmp_path / "eval", packs, samples), 40)
    few = read_held_out(tmp_path / "eval", 2)

    kinds = [name for name in held_out.names if name.startswith("kind/")]
    assert kinds == [f"kind/kind_{n:02}" for n in range(MAX_KINDS)]
    assert len(few.packs) == 2
    assert few.tokens.tolist()[0] == 4


def test_packs_without_fim_have_one_loss(tmp_path, model):
    packs = [PACKS[1] | {"sample_ids": ["c"]}]

    held_out = read_held_out(write(tmp_path / "eval", packs, [("c", "c", "ar", "", "", 0)]), 32)

    assert list(measure(held_out, model)) == ["loss_ar"]


@pytest.mark.slow
def test_losses_and_best_weights_under_fsdp2_are_those_of_one_process(tmp_path):
    from finetune.train import train

    common = [
        "corpus.split.eval_rate=0.3", "train.epochs=1", "train.max_tokens=1300",
        "train.eval_steps=2", "train.keep_best=true",
        "train.learning_rate=0.1", "train.scheduler=constant",  # too much: the loss rises again
    ]  # fmt: skip
    one = make_run(tmp_path, *common, "train.packs_per_step=2")
    train(one)
    overrides = [*common, "name=two", "train.num_processes=2"]
    two = make_run(tmp_path, *overrides)

    done = launch(
        "--config_file", "accelerate_configs/fsdp2.yaml", "--num_processes", "2",
        "--mixed_precision", "no",
        "-m", "several_processes", str(tmp_path / "recipe.yaml"), *overrides,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    alone, together = (
        [line for line in read_log(run.folder / "log.jsonl") if "loss_middle" in line]
        for run in (one, two)
    )
    assert [line["step"] for line in together] == [2, 4]
    assert together == [pytest.approx(line, rel=1e-9) for line in alone]
    assert alone[0]["loss_middle"] < alone[1]["loss_middle"]
    weights, spread = (load_file(run.folder / "model/model.safetensors") for run in (one, two))
    assert all(torch.allclose(weights[name], spread[name], atol=1e-9) for name in weights)
    manifest = json.loads((two.folder / "model" / "manifest.json").read_text())
    assert manifest["steps"] == 2
