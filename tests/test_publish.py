"""What is pushed is what was meant, to a private repository, and it names nobody.

A hub on the loopback records every byte. The pushes run in a process of their own, because
huggingface_hub reads HF_ENDPOINT when it is imported.

PYTHONPATH=. python -m pytest tests/test_publish.py
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback_hub as helper
import pytest
import yaml

from finetune.model import load_tuned, read_run

ROOT = Path(__file__).parents[1]
USER = "sfimplanteduser"
PUSH = """
import json, os, sys
from pathlib import Path
from finetune.publish import push
from fim import FimError
for line in sys.stdin:
    run, to, public, token = json.loads(line)
    os.environ["HF_TOKEN"] = token
    try:
        answer = {"url": push(Path(run), to, public=public)}
    except FimError as error:
        answer = {"error": str(error)}
    print("answer " + json.dumps(answer), flush=True)
"""
PULL = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, prompt = sys.argv[1], torch.tensor([json.loads(sys.argv[2])])
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "acme/pulled")
ids = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                     max_new_tokens=16)
source = sys.stdin.read()
scope = {}
exec(source, scope)
print(json.dumps([ids[0].tolist(), scope["output"][0].tolist(), scope["prompt"]]))
"""
ADAPTER = [
    "README.md", "adapter_config.json", "adapter_model.safetensors", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip
JUNK = ("training_args.bin", "optimizer.pt", "notes.txt", ".env", "adapter_model.bin", "x.py")


def environment(folder: Path, endpoint: str) -> dict[str, str]:
    """Return all that a process of ours gets to see."""
    home = folder / "home" / USER
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "HOME": str(home), "USER": USER, "LOGNAME": USER, "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": helper.TOKEN,
    }  # fmt: skip


def _answer(line: str) -> dict[str, str]:
    assert line.startswith("answer "), line
    return json.loads(line.removeprefix("answer "))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where base, runs and the pushing user's home are."""
    return tmp_path_factory.mktemp("publish")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    """Return the folder of a tiny base model."""
    return helper.make_base(folder / "models" / "tiny-base")


@pytest.fixture(scope="module")
def run(base: Path, folder: Path) -> Path:
    """Return a trained run folder, with things in it that nobody should see."""
    run = helper.make_run(folder / "runs" / "payments", base)
    for name in JUNK:
        (run / "adapter" / name).write_text(f"{helper.TOKEN} {folder} {USER}")
    return run


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """Return a run folder to spoil."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "copy"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    """Serve the loopback hub."""
    with helper.LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def push(hub: Any, folder: Path) -> Iterator[Callable[..., dict[str, str]]]:
    """Return a function that pushes, in one process for the whole module."""
    command = [sys.executable, "-c", PUSH]
    with subprocess.Popen(
        command, env=environment(folder, hub.url), cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip

        def ask(
            run: Path, to: str, public: bool = False, token: str = helper.TOKEN
        ) -> dict[str, str]:
            process.stdin.write(json.dumps([str(run), to, public, token]) + "\n")
            process.stdin.flush()
            return _answer(process.stdout.readline())

        yield ask
        process.stdin.close()
        process.wait(30)


def test_push_is_private_by_default(push, hub, run):
    assert push(run, "acme/private") == {"url": f"{hub.url}/acme/private"}
    assert hub.repositories["acme/private"].private is True


def test_push_is_one_commit_of_exactly_the_allowed_files(push, hub, run):
    push(run, "acme/exact")

    (commit,) = hub.repositories["acme/exact"].commits
    assert commit == ["header"] + [
        f"{'lfsFile' if name.endswith('.safetensors') else 'file'} {name}" for name in ADAPTER
    ]
    assert all((run / "adapter" / name).exists() for name in JUNK)
    for name in ADAPTER[1:]:
        sent = hub.repositories["acme/exact"].files[name]
        assert sent == (run / "adapter" / name).read_bytes()


def test_push_of_full_weights_sends_the_model(push, hub, base, tmp_path):
    full = helper.make_run(tmp_path / "runs" / "whole", base, adapter="full")
    (full / "model" / "model_old.safetensors").write_bytes(b"mine")

    assert "url" in push(full, "acme/whole")
    assert sorted(hub.repositories["acme/whole"].files) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_no_token_path_or_user_name_is_sent(push, hub, run, folder):
    before = len(hub.requests)
    push(run, "acme/clean")
    sent = hub.sent()

    assert len(hub.requests) - before > 5
    assert b'"lora_alpha": 8' in sent  # a guard: the files are in there
    assert helper.TOKEN in hub.requests[-1].headers["authorization"]
    for secret in (helper.TOKEN, str(folder), USER, "secret-payments-repo", socket.gethostname()):
        found = re.search(rb"(?<!\w)" + re.escape(secret.encode()) + rb"(?!\w)", sent)
        assert found is None, secret


def test_push_tells_the_hub_nothing_of_the_machine(push, hub, run):
    push(run, "acme/quiet")

    agents = {request.headers.get("user-agent", "") for request in hub.requests}
    assert any("hf_hub" in agent for agent in agents)
    for agent in agents:  # the last one uploads to the storage
        assert re.fullmatch(
            r"unknown/None; hf_hub/[\w.]+; python/[\w.]+|python-httpx2?/[\w.]+", agent
        )


@pytest.mark.parametrize(
    ("name", "planted", "kind"),
    [
        ("tokenizer_config.json", "{run}", "an absolute path of this machine"),
        ("adapter_config.json", "{home}/x", "an absolute path of this machine"),
        ("generation_config.json", "{cwd}", "an absolute path of this machine"),
        ("tokenizer.json", "{cwd}", "an absolute path of this machine"),
        ("adapter_config.json", f"by {USER.upper()}.", "your user name"),
        ("tokenizer_config.json", helper.TOKEN, "a token of the hub"),
        ("tokenizer.json", "hf_" + "Another0" * 5, "a token of the hub"),
    ],
)
def test_push_refuses_a_file_that_names_the_machine(push, hub, copy, folder, name, planted, kind):
    planted = planted.format(run=copy, home=folder / "home" / USER, cwd=folder)
    path = copy / "adapter" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": planted}))
    before = len(hub.requests)

    answer = push(copy, "acme/refused")

    assert answer == {
        "error": f"{name}: holds {kind}; nothing was sent; take it out and push again"
    }
    assert len(hub.requests) == before
    assert "acme/refused" not in hub.repositories


@pytest.mark.parametrize("key", ["base", "source"])
def test_push_refuses_the_places_of_the_recipe(push, hub, copy, tmp_path, key):
    place = f"/srv/{key}/payments"
    path = copy / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    if key == "base":
        recipe["model"]["name"] = place
    else:
        recipe["corpus"]["sources"].append({"folder": place})
    path.write_text(json.dumps(recipe))
    path = copy / "adapter" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": f"of {place}"}))

    assert push(copy, "acme/refused")["error"].startswith("generation_config.json: holds an absol")
    assert "acme/refused" not in hub.repositories


def test_push_refuses_a_result_that_was_changed(push, hub, copy):
    path = copy / "adapter" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "harmless"}))

    assert push(copy, "acme/refused")["error"].endswith(
        "adapter: damaged or changed since training; run: sfim train RECIPE"
    )
    assert "acme/refused" not in hub.repositories


def test_push_refuses_a_path_in_the_metadata_of_the_weights(push, hub, copy):
    from safetensors.torch import load_file, save_file

    path = copy / "adapter" / "adapter_model.safetensors"
    save_file(load_file(path), path, metadata={"from": str(copy / "corpus")})

    assert push(copy, "acme/refused")["error"].startswith("adapter_model.safetensors: holds an abs")
    assert "acme/refused" not in hub.repositories


def test_a_user_named_in_the_address_may_push_there(push, hub, run):
    assert push(run, f"{USER}/mine") == {"url": f"{hub.url}/{USER}/mine"}
    hub.requests.clear()  # the name was sent, as asked


@pytest.mark.parametrize("content", [b"\x80\x04\x95pickle", b"\x02" + bytes(7) + b"[]", b""])
def test_push_refuses_weights_that_are_no_safetensors(push, hub, copy, content):
    (copy / "adapter" / "adapter_model.safetensors").write_bytes(content)

    assert push(copy, "acme/refused")["error"].endswith(
        "no safetensors file; only safetensors are pushed"
    )
    assert "acme/refused" not in hub.repositories


def test_push_refuses_a_link(push, hub, copy):
    path = copy / "adapter" / "tokenizer.json"
    path.rename(copy / "elsewhere.json")
    path.symlink_to(copy / "elsewhere.json")

    assert push(copy, "acme/refused")["error"].endswith("a link; only plain files are pushed")


def test_push_refuses_a_public_repository_that_exists(push, hub, run):
    hub.repositories["acme/open"] = helper.Repository(private=False)

    refused = push(run, "acme/open")["error"]
    assert refused.startswith("acme/open: is public")
    assert refused.endswith("choose another name, make it private, or say --public")
    assert hub.repositories["acme/open"].commits == []

    assert "url" in push(run, "acme/open", public=True)
    assert len(hub.repositories["acme/open"].commits) == 1


def test_push_creates_a_public_repository_when_asked(push, hub, run):
    assert "url" in push(run, "acme/asked", public=True)
    assert hub.repositories["acme/asked"].private is False


def test_push_again_updates_the_private_repository(push, hub, run):
    assert push(run, "acme/again") == push(run, "acme/again")
    assert len(hub.repositories["acme/again"].commits) == 2
    assert hub.repositories["acme/again"].private is True


@pytest.mark.parametrize("to", ["payments", "acme/", "/x", "a/b/c", "../x", "acme/pay ments"])
def test_push_refuses_what_is_no_repository(push, run, to):
    assert push(run, to) == {"error": f"--to {to!r}: expected ORG/NAME"}


def test_push_of_an_untrained_run_says_what_to_do(push, copy):
    (copy / "adapter" / "manifest.json").unlink()

    assert push(copy, "acme/x")["error"].endswith("not trained yet; run: sfim train RECIPE")


def test_push_without_a_token_is_one_line(push, hub, run):
    before = len(hub.requests)

    assert push(run, "acme/none", token="") == {
        "error": "no token of the hub; set HF_TOKEN or run: hf auth login"
    }
    assert len(hub.requests) == before


def test_push_with_a_wrong_token_is_one_line_without_it(push, hub, run):
    assert push(run, "acme/wrong", token="hf_wrongTokenOfTheTest") == {
        "error": "acme/wrong: the hub does not accept the token; "
        "renew HF_TOKEN or run: hf auth login"
    }
    assert "acme/wrong" not in hub.repositories


def test_push_without_the_right_to_write_is_one_line(push, run):
    assert push(run, "others/payments") == {
        "error": "others/payments: the token may not write there; "
        "it needs the write right on others/payments"
    }


def test_push_to_a_hub_that_is_down_is_one_line(folder, run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"

        done = subprocess.run(
            [sys.executable, "-c", PUSH], cwd=folder, env=environment(folder, endpoint),
            input=json.dumps([str(run), "acme/down", False, helper.TOKEN]),
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    assert _answer(done.stdout.splitlines()[-1]) == {
        "error": "acme/down: cannot reach the hub at 127.0.0.1 (ConnectError); "
        "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    }


def test_adapter_and_card_work_when_pulled_back_with_plain_peft(push, hub, run, base, folder):
    import torch

    push(run, "acme/pulled")
    card = hub.repositories["acme/pulled"].files["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.S)
    prompt = [1, 40, 41, 42, 3, 50, 51, 2]

    done = subprocess.run(
        [sys.executable, "-c", PULL, str(base), json.dumps(prompt)],
        input=snippet.replace("BASE_FOLDER", str(base)), cwd=folder,
        env=environment(folder, hub.url), capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    pulled, shown, shown_prompt = json.loads(done.stdout.splitlines()[-1])
    tuned = load_tuned(read_run(run)).eval()

    def complete(ids: list[int], **options: Any) -> list[int]:
        inputs = torch.tensor([ids])
        mask = torch.ones_like(inputs)
        return tuned.generate(input_ids=inputs, attention_mask=mask, **options)[0].tolist()

    assert pulled == complete(prompt, do_sample=False, max_new_tokens=16)
    stops = {"eos_token_id": list(range(7)), "pad_token_id": 4}
    local = complete(shown_prompt, do_sample=False, max_new_tokens=64, **stops)
    same = next((i for i, token in enumerate(local[len(shown_prompt) :]) if token < 7), 64)
    assert len(shown) > len(shown_prompt)
    assert shown[: len(shown_prompt) + same] == local[: len(shown_prompt) + same]
    assert [shown_prompt[0], shown_prompt[-1]] == [1, 2]  # <|fim_prefix|>, <|fim_middle|>
