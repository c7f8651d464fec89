"""A run whose samples could see each other is refused before a weight moves, whatever the cause."""

import copy

import pytest
import torch
import transformers
from packed_unpacked import FAMILIES, HYBRID, SIZES, make_model
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteMoeHybridConfig,
    Lfm2Config,
    MambaConfig,
    MixtralConfig,
    OlmoeConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
    XGLMConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fim import FimError
from finetune.training import isolation
from finetune.training.attention import BLOCKS, block_attention
from finetune.training.isolation import check_isolation, make_stand_in, refuse_leaking
from finetune.training.losses import collate


def with_a_mask(rows):
    batch = collate(rows)
    return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}


def without_positions(rows):
    batch = collate(rows)
    del batch["position_ids"]
    return batch


def with_positions_through_the_row(rows):
    batch = collate(rows)
    return {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None]}


def without_any_boundary(rows):
    batch = collate(rows)
    return {key: batch[key] for key in ("input_ids", "labels")}


def with_a_cache(rows):
    return {**collate(rows), "use_cache": True}


def packed_by_trl(rows):
    """What `SFTTrainer(packing=True)` does with packs: each is one long sample to it."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    packs = Dataset.from_list(rows).select_columns(["input_ids", "labels"])
    packs = pack_dataset(packs, seq_length=64, strategy="bfd")
    return DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(packs))


LEAKS = "lets the samples of a pack see each other"


@pytest.mark.parametrize(
    ("wrong", "family", "attention", "message"),
    [
        (with_a_mask, "llama", "sdpa", LEAKS),
        (without_positions, "llama", "sdpa", LEAKS),  # cu_seq_lens alone
        (without_positions, "gpt_bigcode", BLOCKS, LEAKS),  # its positions are learned
        (with_positions_through_the_row, "llama", "sdpa", LEAKS),
        (without_any_boundary, "llama", "sdpa", LEAKS),
        (without_any_boundary, "llama", BLOCKS, LEAKS),
        (with_a_cache, "llama", "sdpa", "cannot run a pack .*a cache"),
        pytest.param(packed_by_trl, "llama", "sdpa", LEAKS, marks=pytest.mark.slow),
        pytest.param(packed_by_trl, "llama", BLOCKS, LEAKS, marks=pytest.mark.slow),
    ],
)
def test_a_collator_is_refused(wrong, family, attention, message):
    model = make_model(FAMILIES[family], attention)

    with pytest.raises(FimError, match=rf"^{family} with attention '{attention}' {message}"):
        check_isolation(model, wrong)


def test_a_mask_is_nothing_to_blocks():
    check_isolation(make_model(FAMILIES["llama"], BLOCKS), with_a_mask)


def test_a_model_that_insists_on_its_cache_is_refused():
    class Caching(transformers.LlamaForCausalLM):
        def forward(self, **kwargs):
            return super().forward(**{**kwargs, "use_cache": True})

    model = Caching(FAMILIES["llama"])
    model.set_attn_implementation("sdpa")

    with pytest.raises(FimError, match=f"llama with attention 'sdpa' {LEAKS}"):
        check_isolation(model, collate)


def plain_causal(module, query, key, value, attention_mask, scaling=None, **kwargs):
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2), None


def half_as_sharp(*states, scaling=None, **kwargs):
    return block_attention(*states, scaling=0.5 * scaling, **kwargs)


def blind_to_windows(*states, sliding_window=None, **kwargs):
    return block_attention(*states, **kwargs)


@pytest.mark.parametrize(
    ("function", "family", "message"),
    [
        (plain_causal, "qwen2", LEAKS),
        (half_as_sharp, "llama", "computes something else than the model's own attention"),
        (blind_to_windows, "mistral", "computes something else than the model's own attention"),
    ],
)
def test_an_attention_is_refused(function, family, message):
    AttentionInterface.register(function.__name__, function)
    model = make_model(FAMILIES[family], function.__name__)

    with pytest.raises(FimError, match=rf"'{function.__name__}' {message}.*set model\.attention="):
        check_isolation(model, collate)


LEAKING = {
    "gpt_oss": GptOssConfig(
        **{**SIZES, "intermediate_size": 32}, head_dim=8, num_local_experts=2,
        num_experts_per_tok=1,
    ),
    "granitemoehybrid": GraniteMoeHybridConfig(
        **SIZES, **HYBRID, layer_types=["mamba", "attention"],
    ),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "mamba": MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4),
    "opt": OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=32, max_position_embeddings=128,
    ),
    "xglm": XGLMConfig(
        vocab_size=97, d_model=32, ffn_dim=48, num_layers=2, attention_heads=4,
        max_position_embeddings=128,
    ),
}  # fmt: skip
CASES = [
    ("gpt_oss", "sdpa", "eager"),
    ("granitemoehybrid", BLOCKS, BLOCKS),
    ("lfm2", BLOCKS, BLOCKS),
    ("mamba", BLOCKS, BLOCKS),
    ("opt", "sdpa", "sdpa"),
    ("xglm", BLOCKS, BLOCKS),
]


@pytest.mark.parametrize(("family", "attention", "runs"), CASES)
def test_a_family_that_leaks_is_refused_by_name_and_by_the_probe(
    family, attention, runs, monkeypatch
):
    config = LEAKING[family]

    with pytest.raises(FimError, match=rf"^{family} cannot be trained on packs.*: .*; \w+ .*model"):
        refuse_leaking(config, attention)

    monkeypatch.setattr(isolation, "refuse_leaking", lambda *args: None)
    model = make_model(config, runs, torch.float32)
    with pytest.raises(FimError, match=rf"^{family} with attention .*(see each other|run a pack)"):
        check_isolation(model, collate)


def test_a_name_is_refused_before_anything_runs():
    class Unrunnable(transformers.MambaForCausalLM):
        def forward(self, **kwargs):
            raise AssertionError("it ran")

    with pytest.raises(
        FimError, match=r"^mamba cannot be trained on packs: its layers carry state"
    ):
        check_isolation(Unrunnable(LEAKING["mamba"]), collate)


@pytest.mark.parametrize("family", ["gpt_oss", "opt"])
def test_masks_without_positions_do_not_matter_to_blocks(family):
    refuse_leaking(LEAKING[family], BLOCKS)


def test_opt_is_kept_apart_by_blocks():
    check_isolation(make_model(LEAKING["opt"], BLOCKS), collate)


def test_sinks_are_refused():
    with pytest.raises(FimError, match=r"^gpt_oss with attention 'sfim_blocks' .*attention sinks"):
        check_isolation(make_model(LEAKING["gpt_oss"], BLOCKS, torch.float32), collate)


def test_refused_names_are_names_of_transformers():
    names = {*isolation._LEAKING_MODELS, *isolation._LEAKING_WITH_MASKS}

    if "lfm3" not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip("transformers older than 5.23")
    assert names - {"glm5_next_text"} <= MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()


def test_families_of_these_tests_are_not_refused():
    for config in FAMILIES.values():
        refuse_leaking(config, BLOCKS)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_a_models_own_refusal_becomes_one_line(kind):
    class Refusing(transformers.Qwen2ForCausalLM):
        def forward(self, **kwargs):
            raise kind("cannot keep packed sequences apart\nwithout a kernel")

    model = Refusing(FAMILIES["qwen2"])

    with pytest.raises(FimError, match=r"cannot run a pack \(cannot keep packed sequences apart\)"):
        check_isolation(model, collate)


def test_damaged_weights_are_named():
    model = make_model(FAMILIES["qwen2"])
    model.model.norm.weight.data[0] = float("nan")

    with pytest.raises(FimError, match=r"^qwen2 with attention .*: its logits are not"):
        check_isolation(model, collate)


def test_the_probe_leaves_the_model_as_it_was():
    model = make_model(Qwen2Config(**SIZES), BLOCKS).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    check_isolation(model, collate)

    assert model.training
    assert model.config._attn_implementation == BLOCKS
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def without_weights(config: transformers.PretrainedConfig, attention: str = BLOCKS):
    """A model as a process has it that FSDP gives its weights later."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            copy.deepcopy(config), attn_implementation=attention, dtype=torch.bfloat16
        )


WIDE = {
    **SIZES, "vocab_size": 2000, "hidden_size": 512, "intermediate_size": 512,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip
EXPERTS = {
    "qwen3_moe": Qwen3MoeConfig(
        **WIDE, head_dim=32, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=64,
        norm_topk_prob=True,
    ),
    "qwen2_moe": Qwen2MoeConfig(
        **WIDE, num_experts=60, num_experts_per_tok=4, moe_intermediate_size=64,
        shared_expert_intermediate_size=128,
    ),
    "mixtral": MixtralConfig(**WIDE, num_local_experts=8, num_experts_per_tok=2),
    "olmoe": OlmoeConfig(**WIDE, num_experts=64, num_experts_per_tok=8),
    "deepseek_v3": DeepseekV3Config(
        **{**WIDE, "num_key_value_heads": 16}, q_lora_rank=64, kv_lora_rank=32,
        qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, n_routed_experts=64, n_group=8,
        topk_group=4, num_experts_per_tok=8, moe_intermediate_size=64, first_k_dense_replace=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES | EXPERTS)
def test_a_stand_in_is_proved_in_the_place_of_a_model_that_is_spread(family):
    model = without_weights((FAMILIES | EXPERTS)[family])

    stand_in = make_stand_in(model, torch.device("cpu"))

    check_isolation(stand_in, collate)
    assert stand_in.dtype == torch.bfloat16
    assert stand_in.config._attn_implementation == BLOCKS
    for wrong in (plain_causal, half_as_sharp):
        AttentionInterface.register(wrong.__name__, wrong)
        stand_in.set_attn_implementation(wrong.__name__)
        with pytest.raises(FimError, match=r"see each other|than the model's own attention"):
            check_isolation(stand_in, collate)


def test_a_stand_in_has_a_layer_of_each_kind_and_every_width():
    kinds = ["full_attention" if layer % 6 == 4 else "sliding_attention" for layer in range(24)]
    sizes = {**SIZES, "num_hidden_layers": 24}
    config = Gemma3TextConfig(**sizes, head_dim=16, layer_types=kinds, sliding_window=8)
    model = without_weights(config)

    stand_in = make_stand_in(model, torch.device("cpu"))

    assert stand_in.config.layer_types == [
        "sliding_attention", "sliding_attention", "full_attention",
    ]  # fmt: skip
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    assert all(weight.shape == shapes[name] for name, weight in stand_in.named_parameters())
    assert model.config.num_hidden_layers == 24
    AttentionInterface.register("blind_to_windows", blind_to_windows)
    stand_in.set_attn_implementation("blind_to_windows")
    with pytest.raises(FimError, match="computes something else than the model's own attention"):
        check_isolation(stand_in, collate)


@pytest.mark.parametrize("family", EXPERTS)
def test_a_token_goes_to_every_expert_of_a_stand_in(family):
    config = EXPERTS[family]

    stand_in = make_stand_in(without_weights(config), torch.device("cpu"))

    routers = {w.shape for name, w in stand_in.named_parameters() if name.endswith(".gate.weight")}
    assert routers == {(config.num_experts_per_tok, config.hidden_size)}


def test_a_token_that_goes_to_one_expert_goes_to_both_of_a_stand_in():
    config = copy.deepcopy(EXPERTS["deepseek_v3"])
    config.num_experts_per_tok = 1  # groups are ranked by their two best experts

    stand_in = make_stand_in(without_weights(config), torch.device("cpu"))

    check_isolation(stand_in, collate)
    assert stand_in.config.n_routed_experts == stand_in.config.num_experts_per_tok == 2


def test_a_stand_in_is_made_in_the_dtype_of_the_model():
    made = []

    class Noted(transformers.Qwen2ForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            made.append({weight.dtype for weight in self.parameters()})

    model = Noted(FAMILIES["qwen2"]).bfloat16()

    make_stand_in(model, torch.device("cpu"))

    assert made == [{torch.float32}, {torch.bfloat16}]
    assert torch.get_default_dtype() == torch.float32


def test_a_stand_in_of_a_family_that_leaks_is_refused(monkeypatch):
    monkeypatch.setattr(isolation, "refuse_leaking", lambda *args: None)
    config = Qwen2Config(**SIZES)
    model = without_weights(config, "sdpa")

    with pytest.raises(FimError, match=LEAKS):
        check_isolation(make_stand_in(model, torch.device("cpu")), without_any_boundary)


def test_a_stand_in_draws_no_random_number_of_the_run():
    before = torch.get_rng_state()

    make_stand_in(without_weights(FAMILIES["qwen2"]), torch.device("cpu"))

    assert torch.equal(torch.get_rng_state(), before)


def test_layers_of_a_stand_in_have_their_own_keys_and_values():
    config = Gemma3nTextConfig(
        **{**SIZES, "num_hidden_layers": 30, "intermediate_size": [48] * 30}, head_dim=16,
        num_kv_shared_layers=15, vocab_size_per_layer_input=97, hidden_size_per_layer_input=8,
    )  # fmt: skip

    stand_in = make_stand_in(without_weights(config).float(), torch.device("cpu"))

    check_isolation(stand_in, collate)
    assert set(stand_in.config.layer_types) == {"sliding_attention", "full_attention"}


def test_a_model_without_a_stand_in_is_refused_in_one_line():
    class Deep(transformers.Qwen2ForCausalLM):
        def __init__(self, config):
            if config.num_hidden_layers < 4:
                raise ValueError("its last layers share\ntheir weights")
            super().__init__(config)

    model = Deep(Qwen2Config(**{**SIZES, "num_hidden_layers": 4})).bfloat16()

    with pytest.raises(FimError, match=r"^qwen2: has no small model .* \(its last .*ddp\.yaml$"):
        make_stand_in(model, torch.device("cpu"))
    assert torch.get_default_dtype() == torch.float32
