"""A card says what a model was made from, in numbers, and names nobody.

PYTHONPATH=. python -m pytest tests/test_card.py
"""

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import loopback_hub as helper
import pytest
import torch
import yaml

from fim import FORMATS, Sample, encode_prompt, resolve_format
from finetune.card.page import model_card
from finetune.model import load_adapter, load_base, load_tuned, read_run
from finetune.recipe.schema import Model
from finetune.samples.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where base and runs are."""
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """Return a trained run folder."""
    return helper.make_run(folder / "runs" / "payments", helper.make_base(folder / "tiny-base"))


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """Return a run folder to change."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "copy"))


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_card_of_a_local_base_names_no_path_and_no_repository(run, folder):
    card = model_card(run)

    for private in (str(folder), str(ROOT), str(Path.home()) + "/", "secret-payments-repo"):
        assert private not in card
    assert front_matter(card) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["code", "fill-in-the-middle", "structured-fim", "sfim", "lora"],
    }
    assert "`tiny-base`, a local model whose weights have the SHA-256 `" in card


def test_card_of_a_hub_base_links_it(copy):
    path = copy / "adapter" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": "Qwen/Qwen2.5-Coder-1.5B"}))
    card = model_card(copy, "acme/tuned")

    assert front_matter(card)["base_model"] == "Qwen/Qwen2.5-Coder-1.5B"
    assert 'AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-Coder-1.5B", dtype="auto")' in card
    assert 'PeftModel.from_pretrained(base, "acme/tuned")' in card
    assert (
        "vllm serve Qwen/Qwen2.5-Coder-1.5B --enable-lora --max-lora-rank 8 "
        "--lora-modules tuned=acme/tuned" in card
    )


def test_card_shows_prompt_and_stops_of_the_trained_orders(copy):
    card = model_card(copy)

    assert "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>\n" in card
    assert "stop at any of `<|endoftext|>`, `<|fim_pad|>`, `<|repo_name|>`, `<|file_sep|>`" in card
    assert "SPM" not in card

    (copy / "packs" / "stats.json").write_text(
        json.dumps(helper.STATS | {"samples": {"psm": 10, "spm": 12, "ar": 3}})
    )
    assert "<|fim_suffix|>{suffix}<|fim_prefix|>{prefix}<|fim_middle|>\n" in model_card(copy)


def prompt_of(card: str, tokenizer: Any, **segments: str) -> list[int]:
    """The ids that the code on a card makes."""
    pattern = r"^(def text\(.*?)^token = .*?^prompt = (\[.*?^\])$"
    ((functions, prompt),) = re.findall(pattern, card, re.S | re.M)
    scope = {"tokenizer": tokenizer, "token": tokenizer.convert_tokens_to_ids, **segments}
    exec(functions, scope)
    return eval(prompt, scope)


@pytest.mark.parametrize("form", [name for name, row in FORMATS.items() if row.fim_trained])
def test_card_shows_what_training_and_serving_send(form, tmp_path):
    base = helper.make_base(tmp_path / form, form)  # the folder's name tells families apart
    tokenizer = load_tokenizer(str(base))
    proved = resolve_format(tokenizer, form)

    for path_header, order in product(("none", "comment", "family"), FORMATS[form].orders):
        run = tmp_path / "runs" / path_header
        if not run.exists():
            helper.make_run(run, base, path_header=path_header)
        (run / "packs" / "stats.json").write_text(json.dumps({"samples": {order: 9}}))
        card = model_card(run)
        sample = Sample(
            document_id="0", path="add.py", language="python", prefix=b"def a(", middle=b"",
            suffix=b"):\n", order=order, sampler="node", kind="x", context_split=0.5,
        )  # fmt: skip
        ids = encode_prompt(
            sample, proved, tokenizer, max_length=256, max_new_tokens=9, path_header=path_header
        )
        (layout,) = re.findall(r"```text\n(.*?)\n```", card, re.S)
        names = {
            "comment": "#", "title": "Python", "path": "add.py", "extension": ".py",
            "prefix": "def a(",
        }  # fmt: skip

        assert layout.format(**names, suffix="):\n") == tokenizer.decode(ids)
        assert prompt_of(card, tokenizer, prefix="def a(", suffix="):\n") == ids


@pytest.mark.parametrize("path_header", ["none", "comment"])
@pytest.mark.parametrize("form", ["codellama", "codestral", "aixcoder"])
def test_the_cards_code_guards_what_sentencepiece_would_put_a_blank_before(
    form, path_header, tmp_path, tiny_tokenizer
):
    base = helper.make_base(tmp_path / form, form)
    tokenizer = tiny_tokenizer(form)
    tokenizer.save_pretrained(base)
    run = helper.make_run(tmp_path / "runs" / "one", base, path_header=path_header)
    order = next(iter(FORMATS[form].orders))
    (run / "packs" / "stats.json").write_text(json.dumps({"samples": {order: 9}}))
    sample = Sample(
        document_id="0", path="add.py", language="python", prefix=b"def a(", middle=b"",
        suffix=b"first):\n", order=order, sampler="node", kind="x", context_split=0.5,
    )  # fmt: skip

    card = model_card(run)

    assert prompt_of(card, tokenizer, prefix="def a(", suffix="first):\n") == encode_prompt(
        sample, resolve_format(tokenizer, form), tokenizer, max_length=256, max_new_tokens=9,
        path_header=path_header,
    )  # fmt: skip


@pytest.mark.parametrize("rope_theta", [0.0, 1e6])
def test_the_cards_code_loads_the_model_that_was_trained(rope_theta, tmp_path):
    base = helper.make_base(tmp_path / "tiny-base")
    config = json.loads((base / "config.json").read_text())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    (base / "config.json").write_text(
        json.dumps(config | {"rope_parameters": rope, "max_position_embeddings": 128})
    )
    run = helper.make_run(tmp_path / "runs" / "long", base, rope_theta=rope_theta)
    card = model_card(run)
    (code,) = re.findall(r"```python\n(.*?)\nprefix, suffix = ", card, re.S)
    places = {"BASE_FOLDER": str(base), "ORG/NAME": str(run / "adapter")}
    scope: dict[str, Any] = {}

    exec(re.sub("BASE_FOLDER|ORG/NAME", lambda found: places[found[0]], code), scope)

    ids = torch.arange(8, 200)[None]
    with torch.no_grad():
        of_card = scope["model"](ids).logits
        expected = load_tuned(read_run(run))(ids).logits
        on_plain = load_adapter(load_base(str(base)), run / "adapter", Model(name=str(base)))
        assert torch.equal(of_card, expected)
        assert torch.equal(of_card, on_plain(ids).logits) == (rope_theta == 0)
    overrides = re.findall("--hf-overrides '(.*?)'", card)
    changed = {"rope_parameters": rope | {"rope_theta": 1e6}, "max_position_embeddings": 256}
    assert [json.loads(text) for text in overrides] == [changed] * bool(rope_theta)
    assert card.count("--rope-freq-base 1e+06") == bool(rope_theta)


def test_card_shows_base_adapter_difference_and_interval(run):
    card = model_card(run)

    assert (
        "| Exact match (higher is better) | 31.0 % | 37.2 % | +6.2 % | +2.1 % to +10.4 % |" in card
    )
    assert (
        "| Loss on the MIDDLE (lower is better) | 0.9200 | 0.8100 | -0.1100 | -0.1500 to -0.0700 |"
        in card
    )
    assert "| Stops (higher is better) | 90.0 % | 90.0 % | - | - |" in card
    assert "not evaluated" not in card


def test_the_tokens_of_a_card_are_those_behind_its_weights(copy):
    """`train.keep_best` keeps an earlier step than the last one."""
    steps = json.loads((copy / "adapter" / "manifest.json").read_text())["steps"]
    lines = [{"step": step, "tokens": 1_000 * step} for step in (steps - 1, steps, steps + 1)]
    (copy / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert f"| tokens trained on | {1_000 * steps:,} |" in model_card(copy)


def test_card_shows_numbers_of_data_and_settings(run):
    card = model_card(run)

    for line in (
        "| files kept | 1,843 |",
        "| files by language | python 1,204, java 639 |",
        "| samples prepared | psm 4,102, ar 3,518 |",
        "| tokens prepared | 7,311,204 |",
        "| share of each pack filled | 97.9 % |",
        "| rank | 4 |",
        "| learning rate | 0.0001, cosine |",
        "| optimizer steps | 456 |",
    ):
        assert line in card


def test_card_without_evaluation_and_packs_says_so(copy):
    (copy / "metrics.json").unlink()
    shutil.rmtree(copy / "packs")
    card = model_card(copy)

    assert "This model was not evaluated." in card
    assert "## Training data\n\nNot recorded." in card
    assert "how much was not measured" in card


def test_equal_runs_have_equal_cards(run, copy):
    assert model_card(run) == model_card(copy)


def test_a_run_may_have_a_name_that_yaml_reads_as_no_text(run, tmp_path):
    assert model_card(Path(shutil.copytree(run, tmp_path / "no"))) == model_card(run)
