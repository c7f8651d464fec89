"""A pack gives each sample the logits, loss and gradients that the model's own attention gives.

python -m pytest tests/test_families.py -rA prints what was measured.
"""

from functools import cache

import pytest
import torch
from packed_unpacked import (
    FAMILIES,
    Results,
    add_lora,
    distance,
    float64_throughout,
    make_model,
    make_rows,
    packed,
    packed_logits,
    recompute_activations,
    unpacked,
)

from finetune.training.attention import BLOCKS
from finetune.training.isolation import check_isolation
from finetune.training.losses import check_logits, collate

WITHOUT_MASKS = ("gemma2", "granitemoehybrid")  # the first caps scores, the second's masks leak
CASES = [(family, BLOCKS) for family in FAMILIES] + [
    (family, "sdpa") for family in FAMILIES if family not in WITHOUT_MASKS
]


def make_tuned(family, adapter, attention, dtype):
    model = make_model(FAMILIES[family], attention, dtype)
    return (add_lora(model) if adapter == "lora" else model).train()


@cache
def expected(family, adapter, dtype):
    return unpacked(make_tuned(family, adapter, "eager", dtype))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # of experts
@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_packed_equals_unpacked(family, attention, recompute, adapter):
    def differences(dtype):
        model = make_tuned(family, adapter, attention, dtype)
        if recompute:
            recompute_activations(model)
        return Results(*map(distance, packed(model), expected(family, adapter, dtype)))

    rounded = differences(torch.float32)  # first: GPT-BigCode is compiled when it is imported
    with float64_throughout():
        exact = differences(torch.float64)

    for name, values in {"float64": exact, "float32": rounded}.items():
        print(name, *(f"{k} {v:.1e}" for k, v in values._asdict().items()))  # noqa: T201
    assert max(exact) <= 1e-9
    assert rounded.logits <= 1e-5


@pytest.mark.parametrize(("family", "attention"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_proved_before_training_holds(family, attention, dtype):
    model = make_model(FAMILIES[family], attention, dtype).train()

    check_isolation(model, collate)
    check_logits(model)

    assert model.config._attn_implementation == attention
    assert model.training


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("mistral", "sliding_window", 64),
        ("starcoder2", "sliding_window", 64),
        ("phi3", "sliding_window", 64),
        ("gemma2", "sliding_window", 64),
        ("gemma2", "attn_logit_softcapping", 50.0),
    ],
)
def test_these_tests_feel(family, key, value):
    config = FAMILIES[family]
    other = type(config)(**{**config.to_dict(), key: value})
    models = make_model(config), make_model(other)

    with torch.no_grad():
        assert distance(*(packed_logits(model, make_rows()) for model in models)) > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_autocast_over_float32_weights_keeps_samples_apart(family):
    model = make_model(FAMILIES[family], BLOCKS, torch.float32)
    rows = make_rows()

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        together = packed_logits(model, rows)
        apart = torch.cat([packed_logits(model, [row]) for row in rows])

    assert distance(together.float(), apart.float()) <= 5e-2
