"""The whole way on tiny models: base from nothing, adapter, evaluation, report, completion."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_code import make_code

from finetune.cli import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BASE = """
name: base
model:
  adapter: full
  scratch: {vocab_size: 420, hidden_size: 32, num_layers: 1, num_heads: 2, intermediate_size: 32}
corpus: {sources: [{folder: CODE}], split: {eval_rate: 0.1}}
fim: {max_length: 256, orders: {psm: 0.5, spm: 0.5}}
train: {epochs: 1, learning_rate: 1.0e-3}
evaluate: {items: 0}
"""
TUNED = """
name: tuned
model: {name: RUNS/base/model, lora_r: 4, lora_alpha: 8}
corpus: {sources: [{git: REPO}], split: {eval_rate: 0.4}}
fim: {max_length: 256, orders: {psm: 0.5, spm: 0.5}}
train: {epochs: 2, learning_rate: 1.0e-2}
evaluate: {items: 60, max_new_tokens: 16, bootstrap: 100}
"""
STATS = {
    "documents", "languages", "samples", "samplers", "kinds", "packs", "tokens", "utilisation",
    "seconds", "bytes",
}  # fmt: skip
MEASURES = {"n", "exact_match", "edit_similarity", "stop_rate", "parse_rate", "loss_middle"}
PLAIN = """
import json, sys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

adapter, base, prompt, limit = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
config = GenerationConfig.from_pretrained(adapter)
ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
out = model.generate(input_ids=ids, generation_config=config, max_new_tokens=int(limit))[0]
text = out[ids.shape[1]:].tolist()
stops = config.eos_token_id
text = text[: next((i for i, t in enumerate(text) if t in stops), None)]
print(json.dumps(tokenizer.decode(text)))
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """Recipes, a folder of code and a git repository, and both runs made."""
    here = tmp_path_factory.mktemp("workplace")
    for name in ("code", "repo"):
        (here / name).mkdir()
        for number in range(12):
            text = make_code(number, 6, names=len(name))
            (here / name / f"{name}_{number}.py").write_bytes(text)
    environment = {
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": os.devnull,
    }  # fmt: skip
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(
            ["git", *command], cwd=here / "repo", check=True, env=os.environ | environment
        )
    for name, text in (("base", BASE), ("tuned", TUNED)):
        for mark, place in (("CODE", "code"), ("REPO", "repo"), ("RUNS", "runs")):
            text = text.replace(mark, str(here / place))
        (here / f"{name}.yaml").write_text(text)
        assert main(["run", str(here / f"{name}.yaml"), f"runs={here / 'runs'}"]) == 0
    return here


@pytest.fixture
def run(workplace) -> Path:
    return workplace / "runs" / "tuned"


def recipe(workplace, *overrides) -> list[str]:
    return [str(workplace / "tuned.yaml"), f"runs={workplace / 'runs'}", *overrides]


def test_prepare_prints_one_json_object(workplace, capsys):
    assert main(["prepare", *recipe(workplace), "--json"]) == 0

    stats = json.loads(capsys.readouterr().out)
    assert STATS <= stats.keys()
    assert stats["documents"]["kept"] == 12
    assert stats["languages"] == {"python": 12}
    assert stats["samples"].keys() == {"psm", "spm", "ar"}


def test_show_marks_the_middle(workplace, capsys):
    assert main(["prepare", *recipe(workplace), "--show", "3"]) == 0

    assert capsys.readouterr().out.count("<<<") == 3 * 2  # in the text and in its tokens


def test_metrics_have_base_adapter_and_paired_intervals(run):
    metrics = json.loads((run / "metrics.json").read_text())

    for name in ("base", "adapter", "paired"):
        assert MEASURES <= metrics[name].keys()
        assert metrics[name]["by_language"].keys() == {"python"}
        assert all(group["n"] > 0 for group in metrics[name]["by_scenario"].values())
    assert metrics["base"]["n"] == metrics["adapter"]["n"] == 60
    paired = metrics["paired"]["loss_middle"]
    assert paired["low"] <= paired["difference"] <= paired["high"]
    gained = metrics["adapter"]["loss_middle"] - metrics["base"]["loss_middle"]
    assert paired["difference"] == pytest.approx(gained)


def test_adapter_learned_the_repository(run):
    assert json.loads((run / "metrics.json").read_text())["paired"]["loss_middle"]["high"] < 0


def test_held_out_files_are_in_no_pack(run):
    import pyarrow.parquet as pq

    documents = pq.read_table(run / "corpus" / "documents.parquet").to_pylist()
    held_out = {row["id"] for row in documents if row["split"] == "eval"}
    trained = set(
        pq.read_table(run / "packs" / "train" / "samples.parquet")["document_id"].to_pylist()
    )

    assert len(held_out) == 5
    assert trained
    assert not held_out & trained


def test_packs_open_as_a_dataset(run):
    from datasets import load_from_disk

    packs = load_from_disk(str(run / "packs" / "train"))

    assert set(packs.column_names) == {"input_ids", "labels", "seq_lengths", "sample_ids", "epoch"}
    for row in packs:
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) <= 256
        assert len(row["seq_lengths"]) == len(row["sample_ids"])


def test_second_run_does_nothing_again(workplace, run):
    made = (run / "adapter", run / "packs", run / "metrics.json")
    before = {path: path.stat().st_mtime_ns for path in made}

    assert main(["run", *recipe(workplace)]) == 0

    assert {path: path.stat().st_mtime_ns for path in made} == before


def test_number_of_workers_does_not_change_the_packs(workplace):
    contents = set()
    for workers in (1, 2, 4):
        name = f"workers-{workers}"
        overrides = [f"name={name}", f"corpus.workers={workers}", "fim.window_bytes=300"]
        assert main(["prepare", *recipe(workplace, *overrides)]) == 0
        manifest = json.loads((workplace / "runs" / name / "packs" / "manifest.json").read_text())
        contents.add(manifest["content"])

    assert len(contents) == 1


def test_report_stands_alone(run):
    page = (run / "report.html").read_text()

    assert "loss" in page
    assert "http" + "s://" not in page.replace("https://huggingface.co", "")
    assert str(run) not in page


def test_run_folder_is_private(run):
    assert run.stat().st_mode & 0o777 == 0o700


def test_nothing_to_be_shared_names_this_machine(run, workplace):
    files = [path for path in (run / "adapter").rglob("*") if path.is_file()]

    assert len(files) >= 5
    for path in files:
        if path.name in ("tokenizer.json",):
            continue
        content = path.read_bytes()
        assert str(workplace).encode() not in content, path
        if len(getpass.getuser()) > 4:
            assert getpass.getuser().encode() not in content, path


def test_plain_peft_completes_the_same(workplace, run, capsys):
    prefix, suffix = "import json\n\n\ndef area(width):\n    ", "\n    return json.dumps(width)\n"
    file = workplace / "open.py"
    file.write_text(prefix + suffix)
    assert main(["complete", str(run), f"{file}:5:5"]) == 0
    ours = capsys.readouterr().out

    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    done = subprocess.run(
        [
            sys.executable, "-c", PLAIN, str(run / "adapter"), str(workplace / "runs/base/model"),
            f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>", "16",
        ],
        capture_output=True, text=True, cwd=workplace, check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip

    assert config["base_model_name_or_path"].startswith("base@sha256:")
    assert json.loads(done.stdout) == ours


def test_run_of_another_recipe_is_refused(workplace, capsys):
    assert main(["prepare", *recipe(workplace, "fim.seed=7")]) == 1

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "fim.seed differs" in error


def test_control_is_measured_on_the_same_spans(workplace, capsys):
    overrides = ["evaluate.control=" + str(workplace / "runs" / "tuned"), "evaluate.items=8"]

    assert main(["evaluate", *recipe(workplace, *overrides), "--json"]) == 0

    metrics = json.loads(capsys.readouterr().out)
    assert metrics["control"]["loss_middle"] == metrics["adapter"]["loss_middle"]
    assert metrics["adapter_against_control"]["loss_middle"]["difference"] == 0


def test_result_of_another_recipe_is_not_measured(workplace, capsys):
    assert main(["evaluate", *recipe(workplace, "train.learning_rate=1.0e-3")]) == 1

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "trained from another recipe or other files; run: sfim train" in error


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluate.items=0"], "evaluate.items is 0; set it above 0"),
        (["evaluate.control=RUNS/none"], "no run folder"),
        (["evaluate.control=RUNS/base"], "only adapters of one base are compared"),
    ],
)
def test_evaluation_that_cannot_be_is_refused_before_any_model_is_loaded(
    workplace, capsys, monkeypatch, overrides, said
):
    monkeypatch.setattr("finetune.evaluate.load_base", None)
    overrides = [word.replace("RUNS", str(workplace / "runs")) for word in overrides]

    assert main(["evaluate", *recipe(workplace, *overrides)]) == 1

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_too_little_memory_names_the_way_out(workplace, capsys, monkeypatch):
    import torch

    def fail(*arguments, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("finetune.evaluate.complete", fail)

    assert main(["evaluate", *recipe(workplace, "evaluate.items=4")]) == 1
    assert "error: out of memory: lower evaluate.batch_size\n" in capsys.readouterr().err


def test_few_held_out_files_are_warned_of(workplace, capsys, monkeypatch):
    monkeypatch.setattr("finetune.evaluate.FEW_FILES", 6)

    assert main(["evaluate", *recipe(workplace, "evaluate.items=5")]) == 0

    assert "warning: 5 held-out file(s): too few for intervals" in capsys.readouterr().err
