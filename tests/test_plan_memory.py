"""What a planned step holds is what a real one holds, and a checkpoint what is written."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Starcoder2Config

from fim import FimError
from finetune.plan import memory as plan_memory
from finetune.plan.memory import Shape, model_shape, spread, step_bytes
from finetune.recipe.model import Model
from finetune.training.adapters import add_adapter
from finetune.training.attention import BLOCKS
from finetune.training.checkpoint import checkpoint_bytes
from finetune.training.losses import add_loss, collate

SIZES = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES),
    "starcoder2": Starcoder2Config(**SIZES, bos_token_id=0, eos_token_id=0),
}
LORA = Model(name="base", adapter="lora", lora_r=4)
FULL = Model(name="base", adapter="full")
ON_CPU = {"dtype": torch.float32, "device": "cpu"}


@pytest.mark.parametrize(
    ("model", "checkpointing", "accumulates"),
    [(LORA, False, False), (LORA, True, False), (FULL, False, True), (FULL, True, False)],
)
def test_what_a_layer_adds_is_counted_with_few_of_them(
    model, checkpointing, accumulates, monkeypatch
):
    how = {"tokens": 96, "checkpointing": checkpointing, "accumulates": accumulates, **ON_CPU}
    few = step_bytes(CONFIGS["qwen2"], model, **how)
    monkeypatch.setattr(plan_memory, "_DEPTHS", (6, 99))

    assert step_bytes(CONFIGS["qwen2"], model, **how) == few


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_planned_step_holds_what_a_real_one_holds(family, model, checkpointing):
    base = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation=BLOCKS)
    tuned = base if model is FULL else add_adapter(base, model)
    add_loss(base)
    tuned.train()
    if checkpointing:
        plan_memory.recompute_activations(base)
    ids = list(range(256))
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": [100, 156]}])
    with plan_memory._LiveBytes() as memory:
        for tensor in (*tuned.parameters(), *tuned.buffers()):
            memory._add(tensor)
        weights = memory.live
        loss = tuned(**batch, token_weights=torch.ones(255), use_cache=False).loss
        loss.backward()

    planned = step_bytes(
        CONFIGS[family], model, tokens=256, checkpointing=checkpointing, accumulates=False, **ON_CPU
    )

    assert max(planned) == pytest.approx(memory.peak - weights, rel=0.03), memory.peak - weights


def test_a_shape_counts_weights_and_the_checkpoint():
    base = AutoModelForCausalLM.from_config(CONFIGS["qwen2"])
    tuned = add_adapter(base, LORA)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)

    shape = model_shape(CONFIGS["qwen2"], LORA, torch.float32, steps=10)

    assert shape.trained == trained
    assert shape.weights == 4 * sum(p.numel() for p in tuned.parameters())
    assert shape.gradients == 4 * trained
    assert shape.checkpoint >= 3 * 4 * trained
    assert shape.result == 4 * trained


@pytest.mark.parametrize(
    ("strategy", "name", "trains_in", "bytes_each"),
    [
        ("ddp", "MULTI_GPU", torch.bfloat16, 2 + 4),
        ("fsdp2", "FSDP", torch.float32, 4 + 4 + 8),  # plain, and in a file of its own
        ("deepspeed_zero3", "DEEPSPEED", torch.bfloat16, 2 + 12),
    ],
)
def test_a_planned_checkpoint_is_the_one_that_is_written(strategy, name, trains_in, bytes_each):
    base = AutoModelForCausalLM.from_config(CONFIGS["qwen2"], dtype=trains_in)
    optimizer = torch.optim.AdamW(base.parameters())
    base(input_ids=torch.zeros(1, 2, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    number = sum(p.numel() for p in base.parameters())

    shape = model_shape(CONFIGS["qwen2"], FULL, torch.bfloat16, 10, strategy)

    assert shape.checkpoint == checkpoint_bytes(base, optimizer, 10, name)
    assert 0 < shape.checkpoint - bytes_each * number < 250_000
    assert shape.result == trains_in.itemsize * number
    assert shape.gradients == 2 * number


def test_four_bits_shrink_the_layers_to_about_a_quarter():
    wide = Qwen2Config(**{**SIZES, "hidden_size": 512, "intermediate_size": 1024})
    plain, small = (
        model_shape(wide, Model(name="base", adapter=adapter), torch.bfloat16, steps=1)
        for adapter in ("lora", "qlora")
    )

    linear = 6 * 2 * (512 * (512 + 256 + 256 + 512) + 3 * 512 * 1024)
    assert plain.weights - small.weights == pytest.approx(linear * (1 - 0.516 / 2), rel=0.01)
    assert plain.trained == small.trained


def test_weights_are_divided_where_the_strategy_divides_them():
    shape = Shape(
        weights=2_000, gradients=2_000, trained=1_000, largest=100, ends=200, checkpoint=0,
        result=0, cost=None,
    )  # fmt: skip

    alone, ddp, fsdp, zero = (
        spread(strategy, shape, step=(400, 2_500), gpus=4, dtype=torch.bfloat16)
        for strategy in ("single", "ddp", "fsdp2", "deepspeed_zero3")
    )

    assert (alone.weights, alone.gradients, alone.optimizer) == (2_000, 2_000, 4_000)
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (2_000, 4_000, 4_000)
    assert (fsdp.weights, fsdp.optimizer) == (4_000 // 4 + 400, 8_000 // 4)
    assert (zero.weights, zero.optimizer) == (2_000 // 4 + 400, 12_000 // 4)
    assert {need.activations for need in (alone, ddp, fsdp, zero)} == {500}
    assert alone.total == 8_500
    early, late = (
        spread("fsdp2", shape, step=step, gpus=4, dtype=torch.bfloat16).activations
        for step in ((2_500, 2_100), (0, 2_500))
    )
    assert (early, late) == (2_500, 500)  # early, the gradients are not there yet


def test_float32_weights_are_computed_with_in_bfloat16_on_a_gpu():
    how = {"tokens": 256, "checkpointing": False, "accumulates": False, "dtype": torch.float32}

    on_cpu, on_gpu = (
        step_bytes(CONFIGS["qwen2"], LORA, device=device, **how) for device in ("cpu", "cuda")
    )

    assert max(on_gpu) < 0.9 * max(on_cpu)


def test_a_mixture_of_experts_is_refused_in_one_line():
    from transformers import Qwen3MoeConfig

    sizes = {**SIZES, "num_hidden_layers": 2, "num_experts": 4, "moe_intermediate_size": 32}

    with pytest.raises(FimError, match="qwen3_moe: what it computes depends on its tokens"):
        step_bytes(
            Qwen3MoeConfig(**sizes), FULL, tokens=64, checkpointing=False, accumulates=False,
            **ON_CPU,
        )  # fmt: skip
