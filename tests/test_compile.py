"""Compiled layers compute what plain ones do."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from fim import FimError
from finetune.plan.memory import recompute_activations
from finetune.recipe.model import Model
from finetune.training import arguments
from finetune.training.adapters import add_adapter
from finetune.training.arguments import compile_layers
from finetune.training.attention import BLOCKS
from finetune.training.losses import add_loss, collate

CONFIG = Qwen2Config(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1,
)  # fmt: skip


def make_model() -> torch.nn.Module:
    """Make a model with an adapter whose activations are computed again."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(CONFIG, attn_implementation=BLOCKS)
    tuned = add_adapter(base, Model(name="base", adapter="lora", lora_r=2)).train()
    add_loss(base)
    recompute_activations(base)
    return tuned


def step(model: torch.nn.Module, seq_lengths: list[int]) -> tuple[float, list[torch.Tensor]]:
    """Return the loss of a pack, and the gradients of what is trained."""
    ids = [token % 64 for token in range(sum(seq_lengths))]
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": seq_lengths}])
    model.zero_grad()
    loss = model(**batch, token_weights=torch.ones(len(ids) - 1), use_cache=False).loss
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, of torch itself
@pytest.mark.skipif(not arguments._has_compiler(), reason="needs a C++ compiler")
def test_compiled_layers_give_the_same_losses_and_gradients():
    plain = make_model()
    names = list(plain.state_dict())
    compiled = copy.deepcopy(plain)

    compile_layers(compiled)

    assert list(compiled.state_dict()) == names
    for seq_lengths in ([5, 9], [20], [3, 4, 17]):
        expected, found = (step(model, seq_lengths) for model in (plain, compiled))
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert any(gradient.abs().max() > 0 for gradient in expected[1])
        torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setattr(arguments, "_has_compiler", lambda: False)

    with pytest.raises(FimError, match=r"train\.compile: needs a C\+\+ compiler"):
        compile_layers(torch.nn.Linear(2, 2))
