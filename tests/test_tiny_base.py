"""The base that is shipped: small, whole, of code it may be made of, and it completes a line."""

import csv
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from fim import Sample, encode_prompt, resolve_format
from finetune.complete import complete
from finetune.metrics import parses
from finetune.model import load_base
from finetune.recipe.file import read_recipe
from finetune.samples.tokenizer import load_tokenizer, model_hint
from finetune.store import read_json, sha256_file

RECIPES = Path(__file__).parents[1] / "recipes"
FOLDER = RECIPES / "tiny-base"
PERMISSIVE = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "0BSD"}


@pytest.fixture(scope="module")
def packages() -> list[dict[str, str]]:
    with (FOLDER / "packages.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tiny_base():
    tokenizer = load_tokenizer(str(FOLDER))
    form = resolve_format(tokenizer, hint=model_hint(str(FOLDER)))
    return load_base(str(FOLDER)).eval(), tokenizer, form


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16_000_000

    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]
    parameters = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sizes)
    assert 2_000_000 <= parameters <= 8_000_000


def test_every_file_is_the_one_that_training_wrote():
    manifest = read_json(FOLDER / "manifest.json")

    assert manifest["base"].startswith("tiny-base@sha256:")
    assert "model.safetensors" in manifest["files"]
    for name, digest in manifest["files"].items():
        assert sha256_file(FOLDER / name) == digest, name


def test_its_shape_is_that_of_its_recipe():
    recipe, config = read_recipe(RECIPES / "tiny-base.yaml"), read_json(FOLDER / "config.json")

    for name, key in (("num_layers", "num_hidden_layers"), ("num_heads", "num_attention_heads")):
        assert config[key] == getattr(recipe.model.scratch, name)
    for name in ("vocab_size", "hidden_size", "intermediate_size"):
        assert config[name] == getattr(recipe.model.scratch, name)
    assert config["max_position_embeddings"] == recipe.fim.max_length
    assert recipe.train.max_tokens >= 10_000_000


def test_its_second_recipe_goes_on_from_the_first():
    first, second = (read_recipe(RECIPES / f"{n}.yaml") for n in ("tiny-base", "tiny-base-infill"))

    assert second.model.name == f"runs/{first.name}/model"
    assert second.corpus == first.corpus
    steps = read_json(FOLDER / "manifest.json")["steps"]
    assert 0.95 <= steps * second.fim.max_length / second.train.max_tokens <= 1.05


def test_every_package_may_be_used_and_is_pinned(packages):
    for row in packages:
        assert set(re.split(" (?:AND|OR) ", row["licence"])) <= PERMISSIVE, row
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"]), row
        assert re.fullmatch(r"\d[\w.+]*", row["version"]), row


def test_six_languages_and_more_are_trained_and_held_out_by_whole_packages(packages):
    by_use = {use: [row for row in packages if row["use"] == use] for use in ("train", "held-out")}

    assert sum(map(len, by_use.values())) == len(packages)
    languages = [{row["language"] for row in rows} for rows in by_use.values()]
    assert len(languages[0]) >= 6
    assert languages[0] == languages[1]
    assert not set.intersection(*({row["package"] for row in rows} for rows in by_use.values()))


def test_the_recipe_keeps_no_other_licence():
    filters = read_recipe(RECIPES / "tiny-base.yaml").corpus.filters

    assert filters.unknown_licences
    assert set(filters.licences_allowed) <= PERMISSIVE | {"BSD-*", "Zlib", "BSL-1.0"}


def test_the_card_lists_every_package(packages):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")

    for row in packages:
        cells = [row[key] for key in ("use", "language", "package", "version", "registry")]
        assert f"| {' | '.join([*cells, row['licence']])} |" in card


def test_its_format_is_proved(tiny_base):
    _, _, form = tiny_base

    assert form.name == "qwen2.5-coder"


COUNTER = """\
import logging
from collections import defaultdict


class Counter:
    def __init__(self, name, limit=None):
        self.name = name
        self.limit = limit
        self.values = defaultdict(int)

    def add(self, key, value):
        self.values[key] = value
        return self.values[key]

"""


@pytest.mark.parametrize(
    "cut",
    [
        "    def total(self):\n        return ",
        "    def clear(self):\n        self.values = ",
        "    def get(self, key):\n        return self.",
    ],
)
def test_it_completes_a_line_and_stops(tiny_base, cut):
    model, tokenizer, form = tiny_base
    sample = Sample(
        document_id="", path="", language="python", prefix=(COUNTER + cut).encode(), middle=b"",
        suffix=b"\n", order="spm", sampler="construct", kind="line", context_split=0.75,
    )  # fmt: skip
    prompt = encode_prompt(sample, form, tokenizer, max_length=256, max_new_tokens=32)

    (completion,) = complete(model, tokenizer, form, [prompt], 32)

    assert completion.stopped
    assert completion.text.strip()
    assert "\n" not in completion.text
    assert parses(sample.prefix, completion.text.encode(), sample.suffix, b"key", "python")
