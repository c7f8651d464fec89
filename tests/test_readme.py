"""The README says what the code does: tables, paths, commands and examples."""

import argparse
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from fim import SAMPLERS, SpanPolicy
from finetune.cli import make_parser
from finetune.recipe.file import read_recipe
from finetune.reference import field_docstrings, fill, generated_parts, main
from finetune.samples.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
LINES = [line for _, block in BLOCKS for line in block.splitlines()]
CODE = LINES + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S))


def verbs() -> set[str]:
    (choices,) = (
        action.choices
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return set(choices)


def commands(start: str) -> list[list[str]]:
    return [shlex.split(line) for line in LINES if line.startswith(start)]


def test_generated_parts_are_up_to_date():
    assert fill(TEXT) == TEXT, "run: python -m finetune.reference"


def test_the_command_rewrites_the_page_it_is_given(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(TEXT.replace("`lora_alpha`", "`lora_beta`"), encoding="utf-8")

    assert main([str(page)]) == 0

    assert page.read_text(encoding="utf-8") == TEXT


def test_every_field_of_a_recipe_is_in_the_reference():
    texts = field_docstrings()

    assert len(texts) > 60
    assert texts["Train", "max_tokens"] == "Stop after so many tokens; 0 for no limit."
    rows = generated_parts()["recipe"].count("\n| `")
    assert rows == len(texts)


def test_sampler_table_has_the_default_weights():
    rows = re.findall(r"^\| `(\w+)` \| (0\.\d\d) \|", TEXT, flags=re.MULTILINE)

    assert {name: float(weight) for name, weight in rows} == SpanPolicy().samplers
    assert [name for name, _ in rows] == list(SAMPLERS)


def test_every_path_exists():
    named = set(
        re.findall(r"(?<![\w/.-])(?:recipes|accelerate_configs|bench|examples)/[\w./-]*", TEXT)
    )
    named |= {link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link}

    assert len(named) > 8
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_verb_is_named_and_every_named_verb_exists():
    named = {match[1] for code in CODE if (match := re.match(r"sfim ([a-z]+)", code))}

    assert named == verbs()


def test_every_command_line_parses():
    shown = [words[1:] for words in commands("sfim ")]

    assert len(shown) >= 4
    for words in shown:
        assert make_parser().parse_args(words).verb


@pytest.mark.parametrize("words", commands("sfim ") + commands("accelerate "), ids=" ".join)
def test_every_recipe_command_reads(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = [word for word in words if word.endswith(".yaml") and word.startswith("recipes/")]
    overrides = [word for before, word in pairwise(words) if "=" in word and before != "--option"]

    assert arguments or words[1] in ("report", "scan")
    for path in arguments:
        assert read_recipe(path, overrides).folder.parent == Path("runs")


def test_the_recipe_shown_is_a_recipe(tmp_path):
    (block,) = (block for language, block in BLOCKS if language == "yaml")
    path = tmp_path / "payments.yaml"
    path.write_text(block, encoding="utf-8")

    assert read_recipe(path).corpus.sources[0].exclude == ("**/migrations/**",)


def test_the_python_shown_runs():
    (block,) = (block for language, block in BLOCKS if language == "python")
    kept = [line for line in block.splitlines() if "AutoTokenizer" not in line]
    names = {"tokenizer": train_tokenizer([b"def area(): pass\n"], 300)}

    exec("\n".join(kept), names)

    assert len(kept) == len(block.splitlines()) - 2
    assert names["packs"] == [[0]]
    assert names["samples"][0].order == "psm"


def test_the_funnel_shown_adds_up():
    (block,) = (block for _, block in BLOCKS if "files left" in block)
    _, found, *steps = [re.split(r"\s{2,}", line) for line in block.replace(",", "").splitlines()]
    left_files, left_bytes = int(found[1]), float(found[2])

    assert len(steps) > 5
    for _, files, num_bytes, *left in steps:
        assert left_files - int(files) == int(left[0])
        assert left_bytes - float(num_bytes) == pytest.approx(float(left[1]), abs=0.011)
        left_files, left_bytes = int(left[0]), float(left[1])


def test_no_absolute_path_is_named():
    assert str(ROOT) not in TEXT
    assert not re.findall(r"(?<![\w./~:])/(?:home|root|tmp|mnt|Users|opt)/\S+", TEXT)
