"""Packs become one flat row with boundaries; each labeled token gets the loss it has alone."""

import numpy as np
import pytest
import torch
from packed_unpacked import FAMILIES, float64_throughout
from packed_unpacked import make_model as make_family
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from fim import FimError
from finetune.training import losses as losses_module
from finetune.training.attention import BLOCKS
from finetune.training.losses import add_loss, check_logits, collate, token_losses

PACKS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, 6, 7, -100, 9], "seq_lengths": [3, 2]},
    {"input_ids": [3, 4], "labels": [-100, 4], "seq_lengths": [2]},
]


def make_model(dtype: torch.dtype = torch.float64, attention: str = BLOCKS) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval().to(dtype)
    model.set_attn_implementation(attention)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain_losses(model: Qwen2ForCausalLM, ids: list[int], labels: list[int]) -> list[float]:
    """Loss of each labeled token of one sample, from a forward of that sample only."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    log_probs = logits.log_softmax(-1)
    return [
        -log_probs[i - 1, label].item() for i, label in enumerate(labels) if label != -100
    ]  # fmt: skip


def test_collate_draws_its_docstring():
    batch = collate(PACKS)

    assert {k: v.tolist() if torch.is_tensor(v) else v for k, v in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 3, 4]],
        "labels": [[-100, 6, 7, -100, 9, -100, 4]],
        "position_ids": [[0, 1, 2, 0, 1, 0, 1]],
        "cu_seq_lens_q": [0, 3, 5, 7],
        "cu_seq_lens_k": [0, 3, 5, 7],
        "max_length_q": 3,
        "max_length_k": 3,
    }


def test_collate_gives_the_dtypes_the_kernels_take():
    batch = collate(PACKS)

    assert batch["cu_seq_lens_q"].dtype == batch["cu_seq_lens_k"].dtype == torch.int32
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["position_ids"].dtype == torch.int64


def test_collate_makes_no_attention_mask():
    assert "attention_mask" not in collate(PACKS)


def test_collate_takes_arrays_as_well_as_lists():
    arrays = [{k: np.asarray(v, dtype=np.int32) for k, v in row.items()} for row in PACKS]

    assert collate(arrays)["labels"].tolist() == collate(PACKS)["labels"].tolist()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
@pytest.mark.parametrize("attention", [BLOCKS, "sdpa"])
def test_token_losses_equal_a_forward_of_each_sample(dtype, tolerance, attention):
    model = make_model(dtype, attention)

    losses = token_losses(model, PACKS[0])

    alone = make_model(dtype, "sdpa")
    assert [len(of_sample) for of_sample in losses] == [2, 1]
    expected = [
        plain_losses(alone, [5, 6, 7], [-100, 6, 7]),
        plain_losses(alone, [8, 9], [-100, 9]),
    ]
    for of_sample, wanted in zip(losses, expected, strict=True):
        assert of_sample.dtype == np.float64
        assert of_sample == pytest.approx(wanted, rel=tolerance)


def test_transformers_shifts_the_labels_and_we_do_not():
    model = make_model()
    batch = collate(PACKS[:1])

    with torch.no_grad():
        loss = model(**batch, use_cache=False).loss

    assert loss.item() == pytest.approx(np.concatenate(token_losses(model, PACKS[0])).mean())


def test_the_last_token_of_a_sample_never_predicts_the_next_samples_first():
    model = make_model()
    batch = collate(PACKS[:1])
    labels = batch.pop("labels")[0]

    logits = model(**batch, use_cache=False).logits
    logits.retain_grad()
    torch.nn.functional.cross_entropy(logits[0, :-1], labels[1:], ignore_index=-100).backward()

    # positions 2 and 4 end a sample, so nothing is learned there
    assert logits.grad[0].abs().sum(-1).gt(0).tolist() == [True, True, False, True, False]


def test_a_labeled_first_token_is_our_own_mistake():
    pack = {"input_ids": [1, 2], "labels": [1, 2], "seq_lengths": [2]}

    with pytest.raises(AssertionError, match="first label"):
        token_losses(make_model(), pack)


def test_a_sample_without_labels_has_no_losses():
    pack = {"input_ids": [1, 2, 3, 4], "labels": [-100] * 4, "seq_lengths": [1, 3]}

    assert [losses.tolist() for losses in token_losses(make_model(), pack)] == [[], []]


IDS = torch.arange(40)[None] * 7 % 97
LABELS = torch.where(torch.arange(40) % 3 == 1, IDS, -100)  # 13 of them, in parts of 4
WEIGHTS = torch.linspace(0.5, 3, 39, dtype=torch.float64)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(losses_module, "_CHUNK_LOGITS", 4 * 97)


def plain_loss(model: torch.nn.Module) -> torch.Tensor:
    """What any trainer would do with all of the logits."""
    logits = model(input_ids=IDS, use_cache=False).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, LABELS[0, 1:], reduction="none")
    return (losses * WEIGHTS).sum()


def our_loss(model: torch.nn.Module) -> torch.Tensor:
    arguments = {"input_ids": IDS, "labels": LABELS, "token_weights": WEIGHTS}
    return model(**arguments, use_cache=False).loss


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    (3 * loss).backward()  # as a trainer scales it
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_training(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    plain = plain_loss(model)
    expected = gradients(model, plain)
    add_loss(model.get_base_model() if hasattr(model, "get_base_model") else model)
    ours = our_loss(model)
    found = gradients(model, ours)

    assert abs(ours.item() - plain.item()) <= 1e-12 * plain.item()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-12 * max(1, gradient.abs().max()), name
    return found


def make_eager(family: str, **changes) -> torch.nn.Module:
    config = type(FAMILIES[family])(**{**FAMILIES[family].to_dict(), **changes})
    return make_family(config, "eager", torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_plain_logits(family):
    changes = {"final_logit_softcapping": 1.0} if family == "gemma2" else {}
    with float64_throughout():
        model = make_eager(family, **changes)
        check_logits(model)

        assert len(assert_equal_training(model)) > 10


@pytest.mark.parametrize(
    ("family", "key", "value", "without"),
    [("gemma2", "final_logit_softcapping", 1.0, None), ("granite", "logits_scaling", 1.5, 1.0)],
)
def test_these_tests_feel_how_logits_are_scaled(family, key, value, without):
    models = [make_eager(family, **{key: scale}) for scale in (value, without)]

    first, second = (plain_loss(model).item() for model in models)

    assert abs(first - second) > 1e-3 * first


def make_lora(tie: bool, **arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    config = Qwen2Config(**{**FAMILIES["qwen2"].to_dict(), "tie_word_embeddings": tie})
    model = Qwen2ForCausalLM(config).double()
    tuned = get_peft_model(model, LoraConfig(**{"target_modules": ["q_proj"], **arguments}))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return tuned


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    ("tie", "arguments", "trained"),
    [
        (True, {}, "q_proj.lora_A"),
        (False, {"target_modules": ["lm_head"]}, "lm_head.lora_A"),
        (True, {"trainable_token_indices": [7, 14, 21]}, "embed_tokens"),
        (
            False,
            {"trainable_token_indices": {"embed_tokens": [7, 14], "lm_head": [7, 14]}},
            "lm_head.token_adapter",
        ),
    ],
    ids=["adapter", "output-layer", "tied-rows", "untied-rows"],
)
def test_adapters_get_the_gradients_of_plain_logits(tie, arguments, trained):
    found = assert_equal_training(make_lora(tie, **arguments))

    assert any(trained in name and gradient.abs().max() > 0 for name, gradient in found.items())


def test_only_labeled_positions_are_projected_a_chunk_at_a_time(monkeypatch):
    model = make_family(FAMILIES["qwen2"], "sdpa", torch.float32)
    add_loss(model)
    plain, rows = model.lm_head.forward, []

    def forward(hidden):
        rows.append(len(hidden))
        return plain(hidden)

    monkeypatch.setattr(model.lm_head, "forward", forward)
    our_loss(model).backward()

    assert rows == [4, 4, 4, 1]


def test_a_pack_without_labels_gives_zeros():
    model = make_family(FAMILIES["qwen2"], "sdpa", torch.float32)
    add_loss(model)

    loss = model(input_ids=IDS, labels=torch.full_like(IDS, -100), token_weights=WEIGHTS).loss
    found = gradients(model, loss)

    assert loss.item() == 0
    assert len(found) > 10
    assert all(gradient.abs().max() == 0 for gradient in found.values())


def test_without_weights_the_model_is_what_it_was():
    model = make_family(FAMILIES["qwen2"], "sdpa", torch.float32)
    before = model(input_ids=IDS, labels=LABELS)
    add_loss(model)
    after = model(input_ids=IDS, labels=LABELS)

    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.loss, after.loss)
    with torch.no_grad():
        assert not our_loss(model).requires_grad


def test_logits_that_nobody_told_us_of_are_refused():
    class Louder(Qwen2ForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.5
            return output

    with pytest.raises(FimError, match="qwen2: its logits are not its output layer's"):
        check_logits(Louder(FAMILIES["qwen2"]))
