"""Every script of `examples/` runs as its first lines say."""

import subprocess
import sys
from pathlib import Path

from finetune.samples.tokenizer import save_tokenizer, train_tokenizer

ROOT = Path(__file__).parents[1]


def run_example(name: str, *arguments: str) -> str:
    command = [sys.executable, f"examples/{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_every_example_is_tested():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        "pack_a_folder.py",
        "show_samples.py",
    }


def test_samples_of_a_file_are_shown():
    shown = run_example("show_samples.py", "fim/spans.py")

    assert shown.count("--- epoch 2") >= 3
    assert shown.count("<<<") >= 6


def test_folder_is_packed(tmp_path):
    texts = [path.read_bytes() for path in (ROOT / "fim").glob("*.py")]
    save_tokenizer(train_tokenizer(texts, 1000), tmp_path)

    said = run_example("pack_a_folder.py", "fim", str(tmp_path))

    assert said.startswith("qwen2.5-coder: ")
    assert "<|fim_prefix|> in code becomes" in said
