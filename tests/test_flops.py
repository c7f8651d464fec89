"""The operations of a step are those of its matrices and its attention, counted by hand."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from finetune.training.flops import PEAK_FLOPS, Cost, peak_flops, training_cost

SIZES = {
    "vocab_size": 50, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6,
}  # fmt: skip
LAYER = 8 * 12 + 2 * 8 * 6 + 12 * 8 + 3 * 8 * 12  # q, k and v, o, and three of the MLP
WEIGHTS = 3 * LAYER + 8 * 50


def qwen3(tie: bool) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=tie))


@pytest.mark.parametrize("tie", [True, False])
def test_full_training_costs_6_per_weight_and_the_head_counts(tie):
    assert training_cost(qwen3(tie)) == Cost(6 * WEIGHTS, 3.5 * 2 * 3 * 2 * 6)


def test_frozen_weights_cost_4_and_lora_6():
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")

    cost = training_cost(get_peft_model(qwen3(True), lora))

    assert cost.per_token == 4 * WEIGHTS + 6 * 3 * (4 * 8 + 12 * 4)


def test_the_weights_cost_what_torch_counts():
    model, ids = qwen3(False), torch.randint(0, 50, (1, 10))
    counter = FlopCounterMode(display=False)

    with counter:
        model(ids, labels=ids, use_cache=False).loss.backward()

    counted = sum(counter.get_flop_counts()["Global"].values())
    cost = training_cost(model)
    first = 2 * 10 * (8 * 12 + 2 * 8 * 6)  # the embedding's rows are trained through a look-up
    assert counted >= cost.per_token * 10 - first
    assert counted <= cost.of([10]) * 1.25


def test_gpt2_has_linear_layers_of_its_own():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2))

    assert training_cost(model).per_token == 6 * (8 * 24 + 8 * 8 + 2 * 8 * 32 + 8 * 50)


def test_a_mixture_of_experts_is_not_counted():
    config = MixtralConfig(**SIZES, num_local_experts=2)

    assert training_cost(MixtralForCausalLM(config)) is None


def test_a_pack_costs_its_tokens_and_the_squares_of_its_samples():
    assert Cost(10.0, 2.0).of([3, 4]) == 10 * 7 + 2 * (9 + 16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA A40", 149.7e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA RTX A4000", None),
        ("Tesla T4", None),
    ],
)
def test_a_gpu_is_found_by_its_name(monkeypatch, name, expected):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)

    assert peak_flops(torch.device("cuda"), torch.bfloat16) == expected


def test_no_figure_is_given_for_a_cpu_or_float32():
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
    assert peak_flops(torch.device("cuda"), torch.float32) is None
    assert len(PEAK_FLOPS) > 10
