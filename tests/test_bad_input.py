"""Bad input ends in one line that says where, what and the way out; nothing is half-written."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from finetune.cli import main

RECIPE = """
name: bad
model: {name: MODEL}
corpus: {sources: [{git: REPO}]}
"""


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.replace("MODEL", str(tmp_path / "model")).replace("REPO", str(tmp_path / "repo"))
    )
    return tmp_path


def commit(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    environment = os.environ | dict.fromkeys(names, "a@b.c") | {"GIT_CONFIG_GLOBAL": os.devnull}
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env=environment)


def save_tokenizer(folder: Path, added: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(added)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))


def refused(place, capsys, *overrides, verb="prepare") -> str:
    """Run a verb that must fail, and return its one line."""
    before = sorted(place.rglob("*"))

    code = main([verb, str(place / "recipe.yaml"), f"runs={place / 'runs'}", *overrides])

    out, error = capsys.readouterr()
    assert code == 1
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert sorted(place.rglob("*")) == before
    return error


def test_no_such_repository(place, capsys):
    assert "no such folder" in refused(place, capsys)


def test_folder_that_is_no_repository(place, capsys):
    (place / "repo").mkdir()

    error = refused(place, capsys)

    assert "not a git repository" in error
    assert "folder:" in error


def test_repository_without_a_supported_file(place, capsys):
    commit(place / "repo", {"notes.unknown": "hello\n"})
    save_tokenizer(
        place / "model",
        [
            "<|endoftext|>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|fim_pad|>",
        ],
    )

    assert "unsupported-language" in refused(place, capsys)


def test_tokenizer_without_sentinels(place, capsys):
    commit(place / "repo", {"a.py": "x = 1\n" * 50})
    save_tokenizer(place / "model", ["<|endoftext|>"])

    error = refused(place, capsys)

    assert "'<|fim_prefix|>' is not in its vocabulary" in error


def test_model_folder_without_a_tokenizer(place, capsys):
    commit(place / "repo", {"a.py": "x = 1\n" * 50})
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text('{"model_type": "qwen2"}')

    assert f"{place / 'model'}: no tokenizer.json in it" in refused(place, capsys)


def test_code_in_a_model_folder_is_not_run(place, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is asked says yes
    commit(place / "repo", {"a.py": "x = 1\n" * 50})
    save_tokenizer(place / "model", ["<|endoftext|>"])
    canary = place / "canary"
    (place / "model" / "canary.py").write_text(f"open({str(canary)!r}, 'w')\nclass Mine: pass\n")
    (place / "model" / "config.json").write_text('{"model_type": "mine"}')
    path = place / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {
        "tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["canary.Mine", "canary.Mine"]},
    }  # fmt: skip
    path.write_text(json.dumps(config))

    code = main(["prepare", str(place / "recipe.yaml"), f"runs={place / 'runs'}"])

    assert code == 1
    assert "give a hub id you can reach or a folder" in capsys.readouterr().err
    assert not canary.exists()


def test_model_that_is_not_there(place, capsys):
    commit(place / "repo", {"a.py": "x = 1\n" * 50})

    assert "give a hub id you can reach or a folder" in refused(place, capsys)


def test_unknown_key(place, capsys):
    error = refused(place, capsys, "train.lerning_rate=1")

    assert "did you mean 'learning_rate'?" in error


def test_wrong_type(place, capsys):
    assert "fim.max_length: expected int, got 'long'" in refused(
        place, capsys, "fim.max_length=long"
    )


def test_training_before_preparing(place, capsys):
    commit(place / "repo", {"a.py": "x = 1\n" * 50})

    assert "sfim prepare" in refused(place, capsys, verb="train")


def test_evaluating_before_training(place, capsys):
    assert "sfim train" in refused(place, capsys, verb="evaluate")


@pytest.mark.parametrize(
    ("spot", "said"),
    [
        ("a.py", "expected FILE:LINE:COLUMN"),
        ("a.py:x:1", "expected FILE:LINE:COLUMN"),
        ("none.py:1:1", "No such file"),
        ("a.py:9:1", "the file has 3 lines"),
        ("a.py:1:9", "columns 1 to 4"),
        ("a.py:0:1", "the file has 3 lines"),
    ],
)
def test_place_that_is_not_there(tmp_path, monkeypatch, spot, said):
    from fim import FimError
    from finetune.complete import read_place

    (tmp_path / "a.py").write_text("abc\nd\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FimError, match=said):
        read_place(spot)


def test_place_splits_a_file_by_characters(tmp_path):
    from finetune.complete import read_place

    (tmp_path / "a.py").write_text("é = 1\nüb = 2\n")

    assert read_place(f"{tmp_path}/a.py:2:2")[:2] == ("é = 1\nü".encode(), b"b = 2\n")


def test_run_folder_that_is_none(tmp_path, capsys):
    assert main(["push", str(tmp_path), "--to", "a/b"]) == 1
    assert "no run folder" in capsys.readouterr().err


def test_usage_is_exit_code_2():
    with pytest.raises(SystemExit) as stopped:
        main(["prepare"])

    assert stopped.value.code == 2
