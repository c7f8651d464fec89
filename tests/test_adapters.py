"""Each adapter trains, and what is saved gives plain PEFT and a merge the model that was trained.

The base is a random tiny Qwen2. Most tests train three steps of AdamW by hand; the last ones go
through `train` and its checkpoints.
"""

import json
import shutil
from pathlib import Path

import loopback_hub as helper
import pytest
import torch
from made_code import make_code
from packed_unpacked import FAMILIES, float64_throughout
from packed_unpacked import make_model as make_family
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from fim import FimError
from finetune.card.page import model_card
from finetune.card.servers import servers
from finetune.model import (
    base_identity,
    load_adapter,
    load_base,
    load_tuned,
    model_identity,
    read_run,
    start_adapter,
)
from finetune.prepare import prepare
from finetune.publish import merge
from finetune.recipe.file import read_recipe
from finetune.recipe.model import ADAPTERS as NAMES
from finetune.recipe.schema import Model, Recipe
from finetune.samples.tokenizer import load_format, load_tokenizer
from finetune.train import train, train_fingerprint
from finetune.training.adapters import (
    ADAPTERS,
    add_adapter,
    continue_adapter,
    quantization,
    save_adapter,
)
from finetune.training.losses import add_loss
from finetune.training.positions import set_positions

IDS = torch.arange(48)[None] * 7 % 89
SENTINELS = (3, 14, 21)
FRESH = [name for name, row in ADAPTERS.items() if not row.is_quantized]


def make_base(folder: Path, tie: bool = True, width: int = 32, **arguments) -> str:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=97, hidden_size=width, intermediate_size=width * 3 // 2, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=tie, initializer_range=0.2, **arguments,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return make_base(tmp_path / "base")


def recipe_model(base: str, adapter: str = "lora", **arguments) -> Model:
    return Model(name=base, adapter=adapter, **{"lora_r": 4, "lora_alpha": 8} | arguments)


def trained(tuned: PeftModel, steps: int = 3) -> PeftModel:
    add_loss(tuned.get_base_model())
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        arguments = {"input_ids": IDS, "labels": IDS, "token_weights": torch.ones(47)}
        tuned(**arguments, use_cache=False).loss.backward()
        optimizer.step()
    return tuned.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def load(base: str, dtype: torch.dtype) -> Qwen2ForCausalLM:
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype)


def saved(tuned: PeftModel, base: str, folder: Path) -> Path:
    folder.mkdir()
    save_adapter(tuned, None, folder, base_identity(Model(name=base)))
    return folder


def train_and_save(base, folder, dtype, sentinel_ids=(), **arguments) -> tuple[PeftModel, Path]:
    torch.manual_seed(1)
    tuned = trained(add_adapter(load(base, dtype), recipe_model(base, **arguments), sentinel_ids))
    return tuned, saved(tuned, base, folder)


def assert_is_what_was_trained(
    tuned: PeftModel, base: str, folder: Path, dtype: torch.dtype
) -> None:
    """On the base as it was, by PEFT as it is, loaded and merged."""
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    expected = logits(tuned)
    scale = expected.abs().max()
    plain = logits(load(base, dtype))
    reloaded = PeftModel.from_pretrained(load(base, dtype), folder)

    assert (expected - plain).abs().max() > 0.05 * scale
    assert (logits(reloaded) - expected).abs().max() <= tolerance * scale
    merged = reloaded.merge_and_unload(safe_merge=True)
    assert (logits(merged) - expected).abs().max() <= tolerance * scale
    merged.save_pretrained(folder / "merged")
    again = load(str(folder / "merged"), dtype)
    assert (logits(again) - expected).abs().max() <= tolerance * scale


def test_every_adapter_of_the_recipe_has_a_row():
    assert [*ADAPTERS, "full"] == list(NAMES)


@pytest.mark.parametrize("adapter", FRESH)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_what_is_saved_is_what_was_trained(base, tmp_path, adapter, dtype):
    if (adapter, dtype) == ("pissa", torch.float64):
        pytest.skip("PEFT decomposes in float32 only")

    tuned, folder = train_and_save(base, tmp_path / "adapter", dtype, adapter=adapter)

    assert_is_what_was_trained(tuned, base, folder, dtype)


@pytest.mark.parametrize("adapter", FRESH)
def test_what_is_saved_is_plain_lora_without_a_path(base, tmp_path, adapter):
    _, folder = train_and_save(base, tmp_path / "adapter", torch.float32, adapter=adapter)

    text = (folder / "adapter_config.json").read_text()
    config = json.loads(text)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert str(tmp_path) not in text
    assert config["base_model_name_or_path"] == model_identity(base)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"], config["use_rslora"], config["use_dora"]) == {
        "lora": (4, 8, False, False),
        "rslora": (4, 16, False, False),  # 8 / sqrt(4) is 16 / 4
        "dora": (4, 8, False, True),
        "pissa": (8, 16, False, False),
    }[adapter]
    assert config["init_lora_weights"] is True
    names = load_file(folder / "adapter_model.safetensors")
    kinds = {name.split(".")[-1 if "magnitude" in name else -2] for name in names}
    expected = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if adapter == "dora" else set())
    assert kinds == expected
    assert all("lora_" in name for name in names)


def test_pissa_begins_as_the_base_and_with_its_principal_directions(base):
    torch.manual_seed(0)
    tuned = add_adapter(load(base, torch.float32), recipe_model(base, "pissa"))

    expected = logits(load(base, torch.float32))
    assert (logits(tuned) - expected).abs().max() <= 1e-4 * expected.abs().max()
    weight = load(base, torch.float32).model.layers[0].mlp.up_proj.weight.detach()
    layer = tuned.get_base_model().model.layers[0].mlp.up_proj
    values = torch.linalg.svdvals(weight)
    left = torch.linalg.svdvals(layer.base_layer.weight.detach())
    assert left[0] < values[2]  # the four largest are in the adapter
    assert torch.allclose(left[0], values[4], rtol=0.05)  # as far as a randomized SVD finds them


def test_pissa_says_that_it_has_no_float64(base):
    with pytest.raises(FimError, match=r"model\.adapter: .*float32"):
        add_adapter(load(base, torch.float64), recipe_model(base, "pissa"))


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning")
def test_sentinel_rows_are_trained_and_no_other(tmp_path, tie):
    base = make_base(tmp_path / "base", tie)

    tuned, folder = train_and_save(
        base, tmp_path / "adapter", torch.float64, SENTINELS, lora_targets="q_proj"
    )

    merged = PeftModel.from_pretrained(load(base, torch.float64), folder).merge_and_unload()
    before = load(base, torch.float64)
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        change = getattr(merged, layer)().weight - getattr(before, layer)().weight
        assert tuple(change.abs().sum(-1).nonzero().flatten().tolist()) == SENTINELS
    assert_is_what_was_trained(tuned, base, folder, torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning")
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # of experts
def test_every_family_takes_an_adapter_on_its_linear_layers(family):
    with float64_throughout():
        base = make_family(FAMILIES[family], "eager", torch.float64)
        before = logits(base)
        tuned = add_adapter(base, recipe_model("base"))
        kinds = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in tuned.named_parameters()
                 if ".lora_A" in name}  # fmt: skip

        after = logits(trained(tuned))

    assert len(kinds) >= 3, kinds
    assert not kinds & {"lm_head", "embed_out", "embed_tokens", "wte"}
    assert (after - before).abs().max() > 1e-3 * before.abs().max()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("q_proj,lm_head", r"model\.lora_targets: lm_head: servers refuse"),
        ("embed_tokens", r"model\.lora_targets: embed_tokens: servers refuse"),
        ("qq_proj", r"model\.lora_targets: Target modules"),
    ],
)
def test_targets_that_no_server_takes_are_refused(base, targets, message):
    with pytest.raises(FimError, match=message):
        add_adapter(load(base, torch.float32), recipe_model(base, lora_targets=targets))


@pytest.mark.parametrize("adapter", ["lora", "dora", "pissa"])
def test_an_adapter_is_continued_from_where_it_was(base, tmp_path, adapter):
    tuned, folder = train_and_save(base, tmp_path / "first", torch.float32, adapter=adapter)
    model = recipe_model(base, adapter_from=str(folder), lora_r=64)

    continued = start_adapter(load(base, torch.float32), model, None)

    assert (logits(continued) - logits(tuned)).abs().max() <= 1e-5 * logits(tuned).abs().max()
    assert continued.peft_config["default"].r == (8 if adapter == "pissa" else 4)
    second = saved(trained(continued.train()), base, tmp_path / "second")
    assert (logits(continued) - logits(tuned)).abs().max() > 0.01
    assert_is_what_was_trained(continued, base, second, torch.float32)


def test_an_adapter_of_another_base_is_refused(base, tmp_path):
    _, folder = train_and_save(base, tmp_path / "adapter", torch.float32)
    other = make_base(tmp_path / "other", tie=False)
    model = recipe_model(other, adapter_from=str(folder))

    with pytest.raises(FimError, match=r"trained on base@sha256:.*name is other@sha256:") as raised:
        start_adapter(load(other, torch.float32), model, None)

    assert "\n" not in str(raised.value)


def test_an_adapter_with_rows_of_tokens_is_not_continued(base, tmp_path):
    _, folder = train_and_save(base, tmp_path / "adapter", torch.float32, SENTINELS)

    with pytest.raises(FimError, match="has trainable_token_indices, and only plain LoRA"):
        continue_adapter(load(base, torch.float32), str(folder))


def test_a_folder_without_an_adapter_is_one_line(base):
    with pytest.raises(FimError, match=r"no adapter \(adapter_config.json is missing\)"):
        start_adapter(load(base, torch.float32), recipe_model(base, adapter_from=base), None)


def test_qlora_without_bitsandbytes_says_what_to_install(monkeypatch):
    monkeypatch.setattr("finetune.training.adapters.find_spec", lambda name: None)

    with pytest.raises(FimError, match=r"pip install 'sfim\[qlora\]'"):
        quantization(Model(adapter="qlora"), torch.float32)
    assert quantization(Model(adapter="dora"), torch.float32) is None
    assert quantization(Model(adapter="full"), torch.float32) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_qlora_trains_on_four_bits_and_is_saved_as_lora(tmp_path):
    pytest.importorskip("bitsandbytes")
    base = make_base(tmp_path / "base", width=128)  # bitsandbytes has blocks of 64, on CPUs too
    model = recipe_model(base, "qlora")

    quantized = load_base(
        base, quantized=quantization(model, torch.float32), device=torch.device("cpu"),
        dtype=torch.float32,
    )  # fmt: skip
    state = quantized.model.layers[0].mlp.up_proj.weight.quant_state
    assert (state.quant_type, state.nested, state.dtype) == ("nf4", True, torch.float32)
    tuned = add_adapter(quantized, model)
    before = logits(tuned)
    trained(tuned.train())

    assert {p.dtype for p in tuned.parameters() if p.requires_grad} == {torch.float32}
    assert (logits(tuned) - before).abs().max() > 0.05
    folder = saved(tuned, base, tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(load(base, torch.float32), folder)
    full = logits(load(base, torch.float32))
    # the adapter is nearer to what was trained than the base is, for all that the bits are coarse
    assert (logits(reloaded) - logits(tuned)).norm() < (full - logits(tuned)).norm()


def test_positions_are_set_before_the_weights_are_loaded(base, capsys):
    plain, other = load_base(base), load_base(base, rope_theta=1e6, max_length=256)

    assert (plain.config.rope_parameters["rope_theta"], plain.config.max_position_embeddings) == (
        10_000.0, 64,
    )  # fmt: skip
    assert (other.config.rope_parameters["rope_theta"], other.config.max_position_embeddings) == (
        1e6, 256,
    )  # fmt: skip
    assert capsys.readouterr().err == (
        "rope_theta: 10000 in the base, 1e+06 now\n"
        "max_position_embeddings: 64 in the base, 256 now\n"
    )
    rope = {"rope_type": "default", "rope_theta": 1e6}
    by_hand = load(make_base(Path(base), rope_parameters=rope), torch.float32)
    assert torch.equal(logits(other), logits(by_hand))
    assert not torch.equal(logits(other), logits(plain))


def test_shorter_samples_and_the_same_base_change_nothing(base, capsys):
    model = load_base(base, rope_theta=10_000.0, max_length=32)

    assert model.config.max_position_embeddings == 64
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("family", "theta", "max_length", "message"),
    [
        ("gpt_bigcode", 1e6, 8, r"model\.rope_theta: gpt_bigcode has no rotary positions; set 0"),
        ("gpt_bigcode", 0, 4096, r"fim\.max_length: gpt_bigcode has 128 positions; lower it"),
    ],
)
def test_learned_positions_cannot_be_stretched(family, theta, max_length, message):
    with pytest.raises(FimError, match=message):
        list(set_positions(FAMILIES[family], theta, max_length))


@pytest.mark.parametrize("adapter", ["lora", "rslora", "dora", "pissa"])
def test_a_run_is_loaded_and_merged_as_it_was_saved(tmp_path, adapter):
    base = helper.make_base(tmp_path / "models" / "tiny-base")
    run = helper.make_run(tmp_path / "runs" / "payments", base, adapter=adapter)
    tuned = logits(load_tuned(read_run(run)))

    merged = logits(load_base(str(merge(run, tmp_path / "merged"))))

    assert (merged - tuned).abs().max() < 1e-4
    assert (logits(load_base(str(base))) - tuned).abs().max() > 0.05


def test_sentinels_of_the_format_are_the_rows(tmp_path):
    base = helper.make_base(tmp_path / "base")
    model = recipe_model(str(base), train_sentinels=True)
    tokenizer = load_tokenizer(str(base))
    form = load_format(tokenizer, model)

    tuned = start_adapter(load_base(str(base)), model, form)

    rows = tuned.peft_config["default"].trainable_token_indices
    assert list(rows) == ["embed_tokens"]  # tied, so the output layer follows
    tokens = set(tokenizer.convert_ids_to_tokens(rows["embed_tokens"]))
    assert tokens >= {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"}


@pytest.fixture(scope="module")
def code_base(tmp_path_factory) -> Path:
    return helper.make_base(tmp_path_factory.mktemp("models") / "tiny-base")


@pytest.fixture
def make_run(code_base, tmp_path):
    """A factory `(name, **model) -> Recipe` of prepared runs, four steps each."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"m{number}.py").write_bytes(make_code(number))

    def make(name: str, **model) -> Recipe:
        values = {
            "name": name,
            "runs": str(tmp_path / "runs"),
            "model": {"name": str(code_base), "lora_r": 4, "lora_alpha": 8, **model},
            "corpus": {"sources": [{"folder": str(source)}], "split": {"eval_rate": 0.0}},
            "fim": {"max_length": 256},
            "train": {"epochs": 1, "learning_rate": 0.02, "max_tokens": 1200, "save_steps": 1},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(values))  # JSON is YAML
        recipe = read_recipe(path)
        prepare(recipe)
        return recipe

    return make


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["dora", "pissa"])
def test_a_run_that_was_killed_ends_with_the_same_bytes(make_run, adapter):
    recipe = make_run("killed", adapter=adapter)
    folder = train(recipe)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    checkpoints = sorted((recipe.folder / "checkpoints").glob("checkpoint-*"))
    assert len(checkpoints) == 2
    for gone in (folder, max(checkpoints, key=lambda path: int(path.name.split("-")[1]))):
        shutil.rmtree(gone)

    assert train(recipe) == folder

    assert (folder / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_runs_continue_each_other_and_are_merged(make_run, tmp_path, capsys):
    first = make_run("first", adapter="rslora")
    adapter = train(first)
    before = train_fingerprint(second := make_run("second", adapter_from=str(adapter), lora_r=64))

    train(second)

    assert "continuing" in capsys.readouterr().err
    config = json.loads((second.folder / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 16)
    merged = logits(load_base(str(merge(second.folder, tmp_path / "merged"))))
    assert (merged - logits(load_tuned(second))).abs().max() < 1e-4
    assert "| continues | a local adapter |" in model_card(second.folder)
    (adapter / "adapter_model.safetensors").write_bytes(b"other")
    assert train_fingerprint(second) != before


@pytest.mark.slow
def test_a_run_with_other_positions_and_sentinels_says_how_it_is_served(
    make_run, code_base, tmp_path, capsys
):
    recipe = make_run("long", rope_theta=1e6, train_sentinels=True, lora_targets="q_proj")

    folder = train(recipe)

    said = capsys.readouterr().err
    assert "rope_theta: 10000 in the base, 1e+06 now" in said
    assert "vLLM and llama.cpp refuse adapters with trained sentinels" in said
    assert "must be served with a rotary base of 1e+06" in said
    weights = load_file(folder / "adapter_model.safetensors")
    assert sum("trainable_tokens" in name for name in weights) == 1
    merged = load_base(str(merge(recipe.folder, tmp_path / "merged")))
    tuned = load_tuned(recipe)
    assert (logits(merged) - logits(tuned)).abs().max() < 1e-4
    assert merged.config.rope_parameters["rope_theta"] == 1e6
    on_plain = load_adapter(load_base(str(code_base)), folder, recipe.model)
    assert torch.equal(logits(on_plain), logits(tuned))  # its base was loaded anew
    card = model_card(recipe.folder)
    assert "Merge it (`sfim merge RUN OUT`)" in card
    assert "| rotary base | 1e+06 |" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("positions", "adapter", "parts"),
    [
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            {"r": 20},
            ["--max-lora-rank 32", '--hf-overrides \'{"rope_parameters": {"rope_type": "default", '
             '"rope_theta": 1000000.0}}\'', "--rope-freq-base 1e+06"],
        ),
        ({}, {"r": 1}, ["--max-lora-rank 1 "]),
        ({}, {"r": 512}, ["--max-lora-rank 512 "]),
        ({}, {"r": 514}, ["up to rank 512, this one has 514; merge it", "-m base.gguf --lora"]),
        ({}, {"r": 16, "use_dora": True}, ["refuse adapters with DoRA", "`vllm serve OUT`"]),
        ({}, {}, ["vllm serve acme/tuned`"]),
    ],
    ids=["rope", "rank 1", "rank 512", "above", "dora", "full"],
)  # fmt: skip
def test_the_card_says_how_it_is_served(positions, adapter, parts):
    text = servers("acme/tuned", "acme/base", adapter, positions)

    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("adapter: lorra", "model.adapter: expected one of"),
        ("adapter: dora, adapter_from: a/b", "set model.adapter to lora or qlora"),
        ("adapter: full, train_sentinels: true", "model.train_sentinels: only a fresh adapter"),
        ("rope_theta: -1", "model.rope_theta: expected 0 or more"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(tmp_path, model, fault):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\nmodel: {{name: a/b, {model}}}\ncorpus: {{sources: [{{git: .}}]}}\n")

    with pytest.raises(FimError, match=fault):
        read_recipe(path)
