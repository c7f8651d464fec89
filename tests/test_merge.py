"""A merged model is the adapter's model, and either loads where none of our code is.

PYTHONPATH=. python -m pytest tests/test_merge.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import loopback_hub as helper
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fim import FimError
from finetune.model import load_base, load_tuned, read_run
from finetune.publish import merge
from finetune.samples.tokenizer import load_tokenizer

PROMPT = [1, 40, 41, 42, 3, 50, 51, 2]
GENERATE = """
import json, sys, torch
from transformers import AutoModelForCausalLM
base, adapter, prompt = sys.argv[1], sys.argv[2], torch.tensor([json.loads(sys.argv[3])])
model = AutoModelForCausalLM.from_pretrained(base)
if adapter:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, adapter)
ids = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                     max_new_tokens=16)
ours = [name for name in sys.modules if name.split(".")[0] in ("fim", "finetune")]
print(json.dumps([ids[0].tolist(), ours]))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny base model."""
    return helper.make_base(tmp_path_factory.mktemp("models") / "tiny-base")


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trained run folder."""
    return helper.make_run(tmp_path_factory.mktemp("runs") / "payments", base)


@pytest.fixture(scope="module")
def merged(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the merged model."""
    return merge(run, tmp_path_factory.mktemp("merged") / "model")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([PROMPT])).logits


def greedy(model: torch.nn.Module) -> list[int]:
    ids = torch.tensor([PROMPT])
    mask = torch.ones_like(ids)
    model.eval()
    return model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=16
    )[0].tolist()  # fmt: skip


def generate_elsewhere(base: Path, adapter: str, folder: Path) -> list[int]:
    """Complete in a new process, without a line of ours."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GENERATE, str(base), adapter, json.dumps(PROMPT)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids, ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == []
    return ids


def test_merged_logits_are_the_adapters(run, merged, base):
    tuned = logits(load_tuned(read_run(run)))

    assert (logits(load_base(str(merged))) - tuned).abs().max() < 1e-4
    assert (logits(load_base(str(base))) - tuned).abs().max() > 0.1  # the adapter does something


def test_merged_folder_loads_with_plain_transformers(run, merged, tmp_path):
    expected = greedy(load_tuned(read_run(run)))

    assert generate_elsewhere(merged, "", tmp_path) == expected


def test_adapter_folder_loads_with_plain_peft(run, base, tmp_path):
    tuned = load_tuned(read_run(run))

    assert generate_elsewhere(base, str(run / "adapter"), tmp_path) == greedy(tuned)
    assert greedy(tuned) != greedy(load_base(str(base)))


def test_merged_folder_has_tokenizer_and_stops(merged, base):
    text = "def add(first, second):"
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = AutoModelForCausalLM.from_pretrained(merged)

    assert tokenizer(text)["input_ids"] == load_tokenizer(str(base))(text)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") in model.generation_config.eos_token_id
    assert model.generation_config.do_sample is False
    assert {path.name for path in merged.iterdir()} == {
        "config.json", "generation_config.json", "manifest.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_merged_folder_names_no_folder(merged, run, base):
    texts = {path.name: path.read_bytes() for path in merged.iterdir()}

    assert len(texts) == 6
    for private in (run.parent, base.parent, merged.parent, Path.home() / "x"):
        assert [name for name, text in texts.items() if str(private).encode() in text] == []
    assert "_name_or_path" not in json.loads(texts["config.json"])


def test_merge_refuses_a_folder_with_something_in_it(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FimError, match="exists and is not empty; give a new folder"):
        merge(run, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_merge_takes_an_empty_folder(run, tmp_path):
    assert merge(run, tmp_path / "a" / "..") == tmp_path
    assert (tmp_path / "model.safetensors").is_file()


def test_merge_of_full_weights_says_where_the_model_is(base, tmp_path):
    full = helper.make_run(tmp_path / "runs" / "whole", base, adapter="full")

    with pytest.raises(FimError, match=r"nothing to merge; the model is .*runs/whole/model$"):
        merge(full, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_merge_refuses_weights_that_are_no_numbers(base, tmp_path):
    from safetensors.torch import load_file, save_file

    run = helper.make_run(tmp_path / "runs" / "broken", base)
    path = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, path)

    with pytest.raises(FimError, match="train again"):
        merge(run, tmp_path / "out")

    assert not (tmp_path / "out").exists()
