"""Recipes: the shipped ones load, and the loader refuses what it does not understand."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.recipe.corpus import Corpus, Source
from finetune.recipe.file import read_recipe, write_recipe
from finetune.recipe.model import ATTENTIONS, Scratch
from finetune.recipe.schema import Model, Recipe, RecipeError
from finetune.training.attention import choose_attention

FOLDER = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
MINIMAL = """\
name: acme
model:
  name: acme/coder
corpus:
  sources:
    - git: .
"""


def recipe_of(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, overrides)


def message_of(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_of(tmp_path, text, *overrides)
    return str(caught.value)


def test_recipes_are_shipped():
    names = {path.stem for path in SHIPPED}

    assert {
        "deepseek-coder-1.3b-lora",
        "qwen2.5-coder-0.5b-lora",
        "qwen2.5-coder-1.5b-full",
        "qwen2.5-coder-1.5b-lora",
        "qwen2.5-coder-7b-lora",
        "starcoder2-3b-lora",
    } <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_loads_under_its_own_name(path):
    assert read_recipe(path).name == path.stem


def test_quickstart_and_its_control_start_from_the_shipped_base():
    quickstart, control = (
        read_recipe(FOLDER / f"{name}.yaml") for name in ("quickstart", "quickstart-control")
    )

    assert control.model == quickstart.model
    assert (FOLDER.parent / quickstart.model.name / "model.safetensors").is_file()
    assert control.fim == quickstart.fim
    assert control.train.max_tokens == quickstart.train.max_tokens
    assert control.train.learning_rate == quickstart.train.learning_rate


def test_base_is_compared_with_one_of_its_own_size():
    base, before = (read_recipe(FOLDER / f"{n}.yaml") for n in ("tiny-base", "quickstart-base"))

    assert base.model == before.model
    assert before.train.max_tokens == 700_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_opens_with_the_command_that_runs_it(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]

    assert first.startswith(("# sfim run ", "# accelerate launch ", "# make ")), first
    assert first.startswith("# make ") or f"recipes/{path.name}" in first, first


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_resolved_recipe_reads_back_equal(path, tmp_path):
    recipe = read_recipe(path)

    assert recipe_of(tmp_path, write_recipe(recipe)) == recipe


def test_minimal_recipe_has_the_defaults(tmp_path):
    recipe = recipe_of(tmp_path, MINIMAL)

    assert recipe.folder == Path("runs/acme")
    assert recipe.model.adapter == "lora"
    assert recipe.fim.fim_rate == 0.7
    assert recipe.corpus.sources[0].ref == "HEAD"


def test_unknown_key_names_file_key_and_the_likely_one(tmp_path):
    message = message_of(tmp_path, MINIMAL + "train: {lerning_rate: 1.0e-4}\n")

    assert message == (
        f"{tmp_path}/recipe.yaml: train.lerning_rate: unknown key; did you mean 'learning_rate'?"
    )


def test_unknown_key_without_a_likely_one_lists_what_is_known(tmp_path):
    message = message_of(tmp_path, MINIMAL + "zzz: 1\n")

    assert message.endswith(
        "zzz: unknown key; known: corpus, evaluate, fim, model, name, runs, train"
    )


def test_unknown_sampler_is_an_unknown_key(tmp_path):
    message = message_of(tmp_path, MINIMAL + "fim: {samplers: {nodes: 1.0}}\n")

    assert message.endswith("fim.samplers.nodes: unknown key; did you mean 'node'?")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("fim.max_length=long", "fim.max_length: expected int, got 'long'"),
        ("fim.max_length=4096.5", "fim.max_length: expected int, got '4096.5'"),
        ("fim.max_length=true", "fim.max_length: expected int, got 'true'"),
        ("train.learning_rate=fast", "train.learning_rate: expected float, got 'fast'"),
        ("train.learning_rate=true", "train.learning_rate: expected float, got 'true'"),
        ("train=1", "train: expected a mapping, got '1'"),
        ("corpus.sources=.", "corpus.sources: expected a list, got '.'"),
        ("train.max_tokens=1e6", "train.max_tokens: expected int, got '1e6'"),
        ("train.max_tokens=\u0663", "train.max_tokens: expected int, got '\u0663'"),
        ("train.weight_decay=nan", "train.weight_decay: expected float, got 'nan'"),
        ("train.weight_decay=-inf", "train.weight_decay: expected float, got '-inf'"),
        ("train.weight_decay=.inf", "train.weight_decay: expected float, got '.inf'"),
        ("fim.samplers={node: nan}", "fim.samplers.node: expected float, got 'nan'"),
        ("fim.samplers={node: }", "fim.samplers.node: expected float, got nothing"),
        ("fim.samplers={node", "fim.samplers: expected a mapping, got '{node'"),
        ("fim.samplers=node", "fim.samplers: expected a mapping, got 'node'"),
    ],
)
def test_wrong_type_is_refused(tmp_path, override, fault):
    assert message_of(tmp_path, MINIMAL, override).endswith(fault)


def test_exponents_without_a_point_are_numbers(tmp_path):
    recipe = recipe_of(tmp_path, MINIMAL + "train: {learning_rate: 2e-5}\n")  # PyYAML: a string

    assert recipe.train.learning_rate == 0.00002


@pytest.mark.parametrize("value", ["0", "1", "no", "on", "nein"])
def test_only_booleans_are_booleans(tmp_path, value):
    message = message_of(tmp_path, MINIMAL, f"train.gradient_checkpointing={value}")

    assert "train.gradient_checkpointing: expected bool, got " in message


def test_booleans_are_read(tmp_path):
    recipe = recipe_of(
        tmp_path,
        MINIMAL + "train: {gradient_checkpointing: True}\n",
        "corpus.filters.vendored=FALSE",
    )

    assert recipe.train.gradient_checkpointing is True
    assert recipe.corpus.filters.vendored is False


def test_overrides_reach_sections_and_list_items_and_the_last_wins(tmp_path):
    recipe = recipe_of(
        tmp_path,
        MINIMAL,
        "corpus.sources.0.git=../payments",
        "train.epochs=3",
        "train.epochs=4",
        "fim.samplers={random: 1.0}",
        "name=payments",
    )

    assert recipe.corpus.sources[0].git == "../payments"
    assert recipe.train.epochs == 4
    assert recipe.fim.samplers == {"random": 1.0}
    assert recipe.name == "payments"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("train.epochs", "'train.epochs': expected section.key=value"),
        ("=3", "'=3': expected section.key=value"),
        (
            "corpus.sources.\u00b2=x",
            "corpus.sources.\u00b2: expected a number below 1, got '\u00b2'",
        ),
        ("name.first.letter=x", "name.first.letter: name is a value and has no keys"),
        ("corpus.sources.1.git=x", "corpus.sources.1.git: expected a number below 1, got '1'"),
        ("corpus.sources.a.git=x", "corpus.sources.a.git: expected a number below 1, got 'a'"),
        ("name.first=x", "name.first: name is a value and has no keys"),
    ],
)
def test_override_that_leads_nowhere_is_refused(tmp_path, override, fault):
    assert message_of(tmp_path, MINIMAL, override) == f"{tmp_path}/recipe.yaml: {fault}"


def test_all_faults_are_in_one_message(tmp_path):
    message = message_of(
        tmp_path,
        "name: acme\n"
        "model: {nme: acme/coder, lora_r: many}\n"
        "corpus: {sources: [{git: ., reff: main}]}\n"
        "train: {epochs: two}\n",
    )

    assert message.splitlines() == [
        f"{tmp_path}/recipe.yaml: model.nme: unknown key; did you mean 'name'?",
        f"{tmp_path}/recipe.yaml: model.lora_r: expected int, got 'many'",
        f"{tmp_path}/recipe.yaml: corpus.sources[0].reff: unknown key; did you mean 'ref'?",
        f"{tmp_path}/recipe.yaml: train.epochs: expected int, got 'two'",
    ]


def test_all_values_out_of_range_are_in_one_message(tmp_path):
    message = message_of(
        tmp_path, MINIMAL, "fim.fim_rate=1.5", "train.epochs=0", "model.adapter=loar"
    )

    assert message.splitlines() == [
        f"{tmp_path}/recipe.yaml: fim.fim_rate: expected 0 to 1, got 1.5",
        f"{tmp_path}/recipe.yaml: train.epochs: expected 1 or more, got 0",
        f"{tmp_path}/recipe.yaml: model.adapter: expected one of "
        "lora, rslora, dora, pissa, qlora, full, got 'loar'",
    ]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model.lora_r=0", "model.lora_r: expected 1 or more, got 0"),
        ("model.lora_alpha=0", "model.lora_alpha: expected 1 or more, got 0"),
        ("model.lora_dropout=1.1", "model.lora_dropout: expected 0 to 1, got 1.1"),
        ("model.lora_targets=''", "model.lora_targets: expected all-linear or names"),
        ("model.attention=fast", "model.attention: expected one of auto, blocks, flash"),
        ("model.dtype=float16", "model.dtype: expected one of auto, float32, bfloat16, float64"),
        ("model.format=qwen", "model.format: expected one of auto, qwen2.5-coder"),
        ("corpus.filters.min_bytes=-1", "corpus.filters.min_bytes: expected 0 or more, got -1"),
        ("corpus.filters.max_bytes=0", "corpus.filters.max_bytes: expected 1 or more, got 0"),
        ("corpus.filters.min_bytes=2000000", "corpus.filters.min_bytes: 2000000 is above max_byt"),
        ("corpus.filters.max_error_rate=2", "corpus.filters.max_error_rate: expected 0 to 1"),
        ("corpus.split.eval_rate=0.6", "corpus.split.eval_rate: expected 0 to 0.5, got 0.6"),
        ("corpus.max_documents=-1", "corpus.max_documents: expected 0 or more, got -1"),
        ("corpus.workers=-1", "corpus.workers: expected 0 or more, got -1"),
        ("corpus.sources.0.weight=2", "corpus.sources[0].weight: expected above 0 to 1"),
        ("corpus.sources.0.language=go", "corpus.sources[0].language: leave it out; the paths of"),
        ("corpus.sources.0.language=gi", "corpus.sources[0].language: unknown language; known: "),
        ("fim.max_middle_bytes=5", "fim.max_middle_bytes: expected 6 or more, got 5"),
        ("fim.max_length=63", "fim.max_length: expected 64 or more, got 63"),
        ("fim.samplers={node: -1, random: 1}", "fim.samplers.node: expected 0 or more, got -1"),
        ("fim.samplers={node: 0}", "fim.samplers: every weight is 0"),
        ("fim.orders={psn: 1}", "fim.orders.psn: unknown key; did you mean 'psm'?"),
        ("fim.context=repos", "fim.context: expected one of none, repo, got 'repos'"),
        ("fim.profile=continu", "fim.profile: expected one of none, continue, llama.cpp"),
        ("fim.seed=-1", "fim.seed: expected 0 to 4294967295, got -1"),
        ("train.learning_rate=0", "train.learning_rate: expected above 0, got 0"),
        ("train.scheduler=cosin", "train.scheduler: expected one of linear, cosine, "),
        ("train.warmup_rate=1", "train.warmup_rate: expected 0 to below 1, got 1.0"),
        ("train.weight_decay=-0.1", "train.weight_decay: expected 0 or more, got -0.1"),
        ("train.packs_per_step=0", "train.packs_per_step: expected 1 or more, got 0"),
        ("train.gradient_accumulation=0", "train.gradient_accumulation: expected 1 or more"),
        ("train.end_token_weight=0", "train.end_token_weight: expected above 0, got 0"),
        ("train.save_steps=-1", "train.save_steps: expected 0 or more, got -1"),
        ("train.eval_steps=-1", "train.eval_steps: expected 0 or more, got -1"),
        ("train.max_tokens=-1", "train.max_tokens: expected 0 or more, got -1"),
        ("evaluate.items=-1", "evaluate.items: expected 0 or more, got -1"),
        ("evaluate.max_new_tokens=7", "evaluate.max_new_tokens: expected 8 or more, got 7"),
        ("evaluate.max_new_tokens=8192", "evaluate.max_new_tokens: expected below fim.max_length"),
        ("fim.samplers={}", "fim.samplers: expected a weight at least, got an empty table"),
        ("fim.boundaries={}", "fim.boundaries: expected a weight at least, got an empty table"),
        ("fim.epochs=2", "fim.epochs: unknown key; known: "),
        ("evaluate.batch_size=0", "evaluate.batch_size: expected 1 or more, got 0"),
        ("evaluate.bootstrap=0", "evaluate.bootstrap: expected 1 or more, got 0"),
    ],
)
def test_value_out_of_range_is_refused(tmp_path, override, fault):
    message = message_of(tmp_path, MINIMAL, override)

    assert message.startswith(f"{tmp_path}/recipe.yaml: {fault}")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("vocab_size=299", "vocab_size: expected 300 or more, got 299"),
        ("hidden_size=100", "hidden_size: expected a multiple of twice num_heads, 8, got 100"),
        ("num_layers=0", "num_layers: expected 1 or more, got 0"),
        ("num_heads=0", "num_heads: expected 1 or more, got 0"),
        ("num_heads=5", "num_heads: expected 1 or an even number, got 5"),
        ("intermediate_size=0", "intermediate_size: expected 1 or more, got 0"),
    ],
)
def test_model_from_scratch_that_cannot_be_built_is_refused(tmp_path, override, fault):
    text = MINIMAL.replace("name: acme/coder", "{adapter: full, scratch: {}}").replace("  {", " {")
    text = text.replace("model:\n {", "model: {")
    assert recipe_of(tmp_path, text).model.scratch == Scratch()

    message = message_of(tmp_path, text, f"model.scratch.{override}")

    assert message.startswith(f"{tmp_path}/recipe.yaml: model.scratch.{fault}")


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_attention_is_accepted(tmp_path, attention):
    recipe = recipe_of(tmp_path, MINIMAL, f"model.attention={attention}")

    assert choose_attention(recipe.model.attention, torch.device("cuda"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("0123456", "0123456"),  # YAML: the octal number 42798
        ("1e5", "1e5"),
        ("2024-01-01", "2024-01-01"),
        ("on", "on"),
        ("'0123'", "0123"),
        ('"a b"', "a b"),
        ("feature #2", "feature #2"),
        ("[a, b]", "[a, b]"),
        ("{stdlib}", "{stdlib}"),
        ("a: b", "a: b"),
        (" a ", "a"),
        ("'a", "'a"),
    ],
)
def test_text_of_an_override_is_taken_as_it_stands(tmp_path, override, expected):
    recipe = recipe_of(tmp_path, MINIMAL, f"corpus.sources.0.ref={override}")

    assert recipe.corpus.sources[0].ref == expected


@pytest.mark.parametrize("text", ["0123456", "2024-01-01", "1_000", "0x10", "1:30", "no", "3.10"])
def test_text_in_a_recipe_is_taken_as_it_stands(tmp_path, text):
    recipe = recipe_of(tmp_path, MINIMAL + f"      ref: {text}\n")

    assert recipe.corpus.sources[0].ref == text


def test_braces_in_a_recipe_want_quotes(tmp_path):
    text = MINIMAL.replace("git: .", "folder: {stdlib}")

    message = message_of(tmp_path, text)

    assert message.endswith("folder: expected str, got {'stdlib': None}; quote it")


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_nothing_means_the_default(tmp_path, nothing):
    recipe = recipe_of(
        tmp_path, MINIMAL + f"train: {nothing}\nfim: {nothing}\n", f"model.revision={nothing}",
        f"train.epochs={nothing}", f"evaluate={nothing}", f"model.scratch={nothing}",
        f"corpus.sources.0.ref={nothing}",
    )  # fmt: skip

    assert recipe == recipe_of(tmp_path, MINIMAL)
    assert recipe.model.revision == ""
    assert recipe.corpus.sources[0].ref == "HEAD"


def test_quotes_give_the_empty_text(tmp_path):
    assert recipe_of(tmp_path, MINIMAL, "corpus.sources.0.ref=''").corpus.sources[0].ref == ""


def test_override_goes_into_what_an_earlier_one_set(tmp_path):
    recipe = recipe_of(
        tmp_path, MINIMAL, "fim.samplers={random: 1.0}", "fim.samplers.node=0.5",
        "corpus.sources.0.include=['*.py', '*.go']", "corpus.sources.0.include.1=*.rs",
    )  # fmt: skip

    assert recipe.fim.samplers == {"random": 1.0, "node": 0.5}
    assert recipe.corpus.sources[0].include == ("*.py", "*.rs")


def test_a_key_given_twice_is_refused_with_its_line(tmp_path):
    message = message_of(tmp_path, MINIMAL + "train:\n  epochs: 1\n  epochs: 2\n")

    assert message == f"{tmp_path}/recipe.yaml: line 9: 'epochs' is given twice; keep one"


@given(text=st.text())
def test_any_text_survives_writing_and_reading(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe = Recipe(
        name="acme", model=Model(name="acme/coder", revision=text),
        corpus=Corpus(sources=(Source(git=".", include=(text,)),)),
    )  # fmt: skip

    path.write_text(write_recipe(recipe), encoding="utf-8")

    assert read_recipe(path) == recipe


def test_required_sections_are_required(tmp_path):
    message = message_of(tmp_path, "train: {epochs: 1}\n")

    for key in ("name", "model", "corpus"):
        assert f"{key}: required" in message


def test_source_has_exactly_one_kind(tmp_path):
    message = message_of(tmp_path, MINIMAL, "corpus.sources.0.folder=src")

    assert message.endswith(
        "corpus.sources[0]: set exactly one of git, folder, jsonl, parquet, dataset"
    )


@pytest.mark.parametrize("name", ["../escape", "", ".hidden"])
def test_run_name_stays_inside_the_runs_folder(tmp_path, name):
    assert "name: expected a plain folder name" in message_of(tmp_path, MINIMAL, f"name='{name}'")


def test_missing_file_is_an_error_with_the_way_out(tmp_path):
    with pytest.raises(RecipeError, match="No such file or directory; give the path of a recipe"):
        read_recipe(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: [", "not a YAML file"),
        ("- name: acme\n", "expected a mapping of sections, got [{'name': 'acme'}]"),
        ("acme", "expected a mapping of sections, got 'acme'"),
        ("a: b: c", "not a YAML file (line 1: mapping values are not allowed here)"),
        ("? [a]\n: b", "not a YAML file (line 1: found unhashable key)"),
        ("a: !!int 5", "not a YAML file (line 1: "),
        ("a: 1\n---\nb: 2", "not a YAML file (line 2: "),
        ('a: "\\UFFFFFFFF"', "not a YAML file ("),
        ("a: \x07", "not a YAML file (unacceptable character"),
        ("[" * 5000, "not a YAML file ("),
        ("", "name: required"),
    ],
)
def test_other_files_are_refused(tmp_path, text, fault):
    assert message_of(tmp_path, text).startswith(f"{tmp_path}/recipe.yaml: {fault}")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00name")

    with pytest.raises(RecipeError, match="not a YAML file"):
        read_recipe(path)


def test_yaml_cannot_build_python_objects(tmp_path):
    message = message_of(tmp_path, "name: !!python/object/apply:os.getcwd []\n")

    assert "not a YAML file" in message


def test_recipe_made_in_python_is_checked_too():
    with pytest.raises(RecipeError) as caught:
        Recipe(name="a/b", model=Model(name="acme/coder"), corpus=Corpus())

    assert str(caught.value).splitlines() == [
        "name: expected a plain folder name, got 'a/b'",
        "corpus.sources: at least one source is needed",
    ]
