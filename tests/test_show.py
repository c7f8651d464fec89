"""`prepare --show`: samples as they stand in the packs, and nothing a terminal would obey."""

import re
from pathlib import Path

import pytest

from fim import FimError
from finetune.cli import main
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train
from finetune.samples.tokenizer import save_tokenizer
from finetune.show import DIM, MIDDLE, PLAIN, prepare_summary, show_samples, visible

PYTHON = """\
class Queue{0}:
    def push(self, item):
        if item is not None:
            self.items.append(item + {0})
        return len(self.items)
"""
GO = "package main\n\nfunc add{0}(a int, b int) int {{\n\treturn a + b*{0}\n}}\n"
HOSTILE = 'title = "\x1b]0;owned\x07 \x1b[2J \u202e \x9b31m"\nvalue = compute(title, title)\n'


@pytest.fixture(scope="module")
def make_run(tmp_path_factory, tiny_tokenizer):
    """A factory `(files, **fim) -> (recipe file, run folder)`, prepared."""

    def make(files: dict[str, str], family: str = "qwen2.5-coder", **fim) -> tuple[Path, Path]:
        here = tmp_path_factory.mktemp("shown")
        (here / "code").mkdir()
        for name, text in files.items():
            (here / "code" / name).write_text(text, encoding="utf-8")
        save_tokenizer(tiny_tokenizer(family), here / "base")
        recipe = Recipe(
            name="run",
            runs=str(here),
            model=Model(name=str(here / "base")),
            corpus=Corpus(sources=(Source(folder=str(here / "code")),), split=Split(eval_rate=0.0)),
            fim=Fim(**({"max_length": 512} | fim)),
            train=Train(epochs=1),
            evaluate=Evaluate(items=0),
        )
        prepare(recipe)
        return recipe.folder / "recipe.yaml", recipe.folder

    return make


@pytest.fixture(scope="module")
def run(make_run) -> tuple[Path, Path]:
    files = {f"q{n}.py": PYTHON.format(n) for n in range(6)}
    return make_run(files | {f"a{n}.go": GO.format(n) for n in range(6)}, fim_rate=1.0)


STATS = {
    "documents": {"kept": 50, "skipped": {"generated": 40, "loss-\x1b[2J": 10}},
    "languages": {"python": 30, "java": 20}, "held_out": {"documents": 5},
    "samples": {"psm": 75, "ar": 25}, "middle_bytes": {"p10": 9, "p50": 80, "p90": 600},
    "packs": 12, "tokens": 48_000, "utilisation": 0.975,
}  # fmt: skip


def test_summary_has_the_funnel_with_its_steps_in_order():
    funnel = [
        {"reason": "", "files": 1100, "bytes": 2e6, "left_files": 1100, "left_bytes": 2e6},
        {"reason": "old", "files": 1000, "bytes": 1.2e6, "left_files": 100, "left_bytes": 8e5},
        {"reason": "loss-\x1b[2J", "files": 50, "bytes": 3e5, "left_files": 50, "left_bytes": 5e5},
    ]  # fmt: skip

    shown = prepare_summary(STATS | {"funnel": funnel, "secrets": {"aws-key": 3, "e-mail": 12}})

    assert shown.splitlines() == [
        r"              files    MB  files left  MB left",
        r"found                           1,100     2.00",
        r"old           1,000  1.20         100     0.80",
        r"loss-\x1b[2J     50  0.30          50     0.50",
        "",
        "documents  50 kept (30 python, 20 java), 5 of them held out",
        "secrets    3 aws-key, 12 e-mail",
        "samples    100 (75% psm, 25% ar), MIDDLE 9 / 80 / 600 bytes (10, 50, 90 %)",
        "packs      12 of 48,000 tokens, utilisation 97.50%",
    ]


def test_summary_names_the_commonest_languages():
    many = {f"language{n}": 20 - n for n in range(11)}

    shown = prepare_summary(STATS | {"languages": many})

    assert "13 language7, 33 more), 5 of them held out" in shown


def test_summary_of_stats_without_a_funnel_lists_the_reasons():
    shown = prepare_summary(STATS | {"documents": {"kept": 50, "skipped": {"generated": 40}}})

    assert shown.splitlines()[0] == "skipped    40 generated"


def test_a_sample_is_shown_with_its_path_of_nodes_and_its_joints(make_run):
    _, run = make_run({"q.py": PYTHON.format(7)}, fim_rate=1.0, samplers={"construct": 1.0})

    (shown,) = show_samples(run, 5)

    head, path, *_ = shown.split("\n")
    assert re.fullmatch(r"q\.py \[\d+:\d+\] python psm construct \w+ \(\w+\)", head)
    assert path.startswith("module > class_definition Queue7")
    assert path.split(" > ")[-1].split(" ")[0] == head.split(" ")[5]
    assert shown.count("<<<") == shown.count(">>>") == 2  # in the text and among the ids
    middle = re.findall(r"<<<(.*?)>>>", shown, re.DOTALL)
    assert middle[0] in PYTHON.format(7)
    joints = shown.rsplit("\n", 1)[1].split(" | ")
    assert [part.split(" ")[1] for part in joints[0::2]] == [
        "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>",
    ]  # fmt: skip
    assert re.match(r"<<<\d+ '", joints[5])
    texts = re.findall(r"\d+ '((?:[^'\\]|\\.)*)'", joints[5])
    assert middle[0].strip().startswith(texts[0].strip().replace("\\n", "\n"))


@pytest.mark.parametrize("family", ["starcoder2", "codellama"])
def test_prefix_and_middle_without_a_sentinel_between_are_told_apart(make_run, family):
    _, run = make_run(
        {"q.py": PYTHON.format(7)}, family, fim_rate=1.0, orders={"spm": 1.0},
        samplers={"node": 1.0},
    )  # fmt: skip

    (shown,) = show_samples(run, 1)

    assert shown.rsplit("\n", 1)[1].count("<<<") == 1


def test_samples_are_spread_over_documents(run):
    _, folder = run

    paths = [shown.split(" ")[0] for shown in show_samples(folder, 12)]

    assert len(paths) == len(set(paths)) == 12
    assert len(list(show_samples(folder, 4))) == 4


@pytest.mark.parametrize(
    ("kind", "language", "expected"),
    [
        ("", "go", r"\.go .* go "),
        ("node", "python", r"\.py .* python \w+ node "),
        ("return_statement", "", r" return_statement \("),
        ("function", "python", r" function_definition \("),
        ("psm", "", r" psm "),
    ],
)
def test_kind_and_language_choose(make_run, run, kind, language, expected):
    files = {f"q{n}.py": PYTHON.format(n) for n in range(40)}
    files |= {f"a{n}.go": GO.format(n) for n in range(40)}
    _, folder = run if kind in ("", "psm") else make_run(files, fim_rate=1.0)

    heads = [shown.split("\n")[0] for shown in show_samples(folder, 3, kind, language)]

    assert heads
    assert all(re.search(expected, head) for head in heads)


def test_a_construct_is_found_whose_row_says_what_must_be_inside(make_run):
    files = {f"p{n}.c": f"struct point{n} {{\n    int x{n};\n    int y;\n}};\n" for n in range(40)}
    _, folder = make_run(files, fim_rate=1.0, samplers={"node": 1.0})

    heads = [shown.split("\n")[0] for shown in show_samples(folder, 3, "class", "c")]

    assert heads
    assert all(" struct_specifier (" in head for head in heads)


@pytest.mark.parametrize(
    ("kind", "language", "said"),
    [
        ("", "cobol", "--language 'cobol': no sample; there are: go, python"),
        ("while_loop", "", "--kind 'while_loop': no sample; there are: "),
        ("ar", "", "--kind 'ar': no sample; there are: "),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(run, kind, language, said):
    with pytest.raises(FimError, match=re.escape(said)):
        list(show_samples(run[1], 3, kind, language))


def test_the_verb_shows_filters_and_refuses(run, capsys):
    recipe, _ = run

    assert main(["prepare", str(recipe), "--language", "go"]) == 0
    assert capsys.readouterr().out.count(" go psm ") == 5
    assert main(["prepare", str(recipe), "--show", "2", "--kind", "nothing"]) == 1
    assert "no sample; there are" in capsys.readouterr().err
    assert main(["prepare", str(recipe)]) == 0
    assert "<<<" not in capsys.readouterr().out


def test_a_terminal_gets_color_and_a_file_none(run):
    _, folder = run

    (colored,) = show_samples(folder, 1, kind="node", color=True)
    (plain,) = show_samples(folder, 1, kind="node")

    assert colored.startswith(DIM)
    assert colored.count(MIDDLE) == 2
    assert "<<<" not in colored
    assert "\x1b" not in plain


@pytest.mark.parametrize("fim_rate", [0.0, 1.0])
def test_a_hostile_file_writes_nothing_a_terminal_obeys(make_run, fim_rate):
    _, run = make_run({"hostile.py": HOSTILE}, fim_rate=fim_rate)

    for color in (False, True):
        (shown,) = show_samples(run, 1, color=color)
        for code in (MIDDLE, DIM, PLAIN):
            shown = shown.replace(code, "")
        assert not set(shown) & set("\x1b\x07\x9b\u202e\r")
        assert "\\x1b]0;owned\\x07" in shown


def test_visible_keeps_lines_and_tabs_and_letters():
    text = "a\tb\r\nc\rd\x00é日\u2028\ufeff\u200b"

    assert visible(text) == "a\tb\nc\\rd\\x00é日\\u2028\\ufeff\\u200b"
