"""A check says what a tokenizer proves, what is trained, and where clients send something else.

PYTHONPATH=. python -m pytest tests/test_check.py
"""

import json

import pytest
from transformers import AutoConfig

from fim import FORMATS, FimError
from finetune.check import check, check_summary
from finetune.cli import main
from finetune.clients import CLIENTS


@pytest.fixture(scope="module")
def checked(tiny_tokenizer, tmp_path_factory):
    """A factory `(family, name, format) -> result` for a folder of that name."""

    def make(family: str, name: str = "", format_name: str = "auto") -> dict:
        folder = tmp_path_factory.mktemp("models") / (name or family)
        tiny_tokenizer(family).save_pretrained(folder)
        return check(str(folder), format_name)

    return make


@pytest.mark.parametrize("family", FORMATS)
def test_every_family_is_checked_to_the_end(checked, family):
    result = checked(family)

    row = FORMATS[family]
    assert result["format"] == family
    assert json.loads(json.dumps(result, ensure_ascii=False)) == result
    assert result["orders"].keys() == row.orders.keys()
    assert result["clients"].keys() == CLIENTS.keys()
    assert result["proof"].keys() >= {row.suffix, row.end}
    assert row.end in result["stop"]
    assert all(order["text"].endswith(row.end) for order in result["orders"].values())
    for client in result["clients"].values():
        assert client["same"] != bool(client["remedy"])
        assert client["sends"] or client["reason"]
    text = check_summary(result)
    assert all(f"\n{name}: " in text for name in CLIENTS)
    assert f"ends     {row.end}" in text


def test_qwen_is_shown_token_by_token(checked):
    result = checked("qwen2.5-coder", "Qwen2.5-Coder-1.5B")

    assert result["orders"]["psm"]["text"] == (
        "<|fim_prefix|>def area(width, height):\n    return <|fim_suffix|>\n\n\nprint(area(2, 3))\n"
        "<|fim_middle|>width * height<|endoftext|>"
    )
    assert (result["orders"]["psm"]["weight"], result["orders"]["spm"]["weight"]) == (1.0, 0.0)
    assert list(result["proof"]) == [
        "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"
    ]  # fmt: skip
    assert result["warnings"] == []


def test_what_each_client_sends_qwen_is_compared(checked):
    clients = checked("qwen2.5-coder", "Qwen2.5-Coder-1.5B")["clients"]

    for name in ("continue", "ollama", "vllm"):
        assert clients[name]["same"]
        assert clients[name]["nearest"] == {"order": "psm", "path_header": "none"}
    assert clients["llama.cpp"]["sends"].startswith(
        "<|repo_name|>myproject\n<|file_sep|>filename\n<|fim_prefix|>def area("
    )
    assert "fim.path_header=family" in clients["llama.cpp"]["remedy"]
    assert clients["llama.cpp --spm-infill"]["remedy"] == "start llama-server without --spm-infill"


def test_a_name_that_says_nothing_gets_continues_default(checked):
    client = checked("qwen2.5-coder", "acme-coder-7b")["clients"]["continue"]

    assert client["sends"].startswith("<fim_prefix>\n# src/shapes.py\ndef area(")
    assert not client["same"]
    assert client["remedy"].startswith(
        "autocompleteOptions.template: "
        "'<|fim_prefix|>{{{prefix}}}<|fim_suffix|>{{{suffix}}}<|fim_middle|>'"
    )


def test_a_family_without_a_known_name_is_warned_of(checked):
    assert any(
        "neither name nor config says qwen2.5-coder" in text
        for text in checked("qwen2.5-coder", "acme-coder-7b")["warnings"]
    )


def test_ollamas_template_for_starcoder2_is_not_what_was_trained(checked):
    client = checked("starcoder2", "starcoder2-3b")["clients"]["ollama"]

    assert client["sends"].startswith("<file_sep><fim_prefix>\ndef area(")
    assert client["sends"].endswith("<fim_middle><|end_of_text|>")
    assert {"sent": "<|end_of_text|>", "trained": ""} in client["differences"]
    assert client["remedy"] == (
        'TEMPLATE """{{- if .Suffix }}<fim_prefix>{{ .Prompt }}<fim_suffix>{{ .Suffix }}'
        '<fim_middle>{{- else }}{{ .Prompt }}{{- end }}"""'
    )


def test_codestral_has_no_infill_and_a_blank_too_many_in_ollama(checked):
    clients = checked("codestral", "Codestral-22B-v0.1")["clients"]

    assert "501" in clients["llama.cpp"]["reason"]
    assert clients["ollama"]["sends"].startswith("<s>[SUFFIX]")
    assert not clients["ollama"]["same"]


def test_code_llama_is_what_ollama_sends_and_has_a_blank_in_llama_cpp(checked):
    clients = checked("codellama", "CodeLlama-7b-hf")["clients"]

    assert clients["ollama"]["same"]  # <PRE> {prefix} <SUF>{suffix} <MID>
    assert clients["continue"]["differences"] == [{"sent": "\n#", "trained": "#"}]
    assert clients["llama.cpp"]["differences"] == [{"sent": "▁", "trained": ""}]
    assert clients["llama.cpp"]["remedy"] == "send the prompt as token ids to /completion"
    assert "autocompleteOptions" not in clients["continue"]["remedy"]


@pytest.mark.parametrize(
    ("family", "name", "start"),
    [
        ("granite-4", "granite-4.0-micro-base", "<|fim_prefix|>\n# src/shapes.py\ndef area("),
        ("granite-code", "granite-8b-code-base-4k", "<|fim_prefix|>\n# src/shapes.py\ndef area("),
        ("starcoder2", "starcoder2-3b", "<fim_prefix>\n# src/shapes.py\ndef area("),
        ("codestral", "Codestral-22B-v0.1", "<s>[SUFFIX]"),
        (
            "seed-coder", "Seed-Coder-8B-Base",
            "<[begin▁of▁sentence]><[fim-prefix]>\n# src/shapes.py\ndef area(",
        ),
    ],
)  # fmt: skip
def test_continue_goes_by_the_words_of_a_name(checked, family, name, start):
    assert checked(family, name)["clients"]["continue"]["sends"].startswith(start)


def test_seed_coder_in_continue_needs_its_own_order(checked):
    clients = checked("seed-coder", "Seed-Coder-8B-Base")["clients"]

    assert not clients["continue"]["same"]
    assert (
        "'<[fim-suffix]>{{{suffix}}}<[fim-prefix]>{{{prefix}}}<[fim-middle]>'"
        in clients["continue"]["remedy"]
    )
    assert "501" in clients["llama.cpp"]["reason"]


def test_chat_models_are_asked_by_continue_to_fill_a_hole(checked):
    client = checked("granite-3.3", "granite-3.3-8b-base")["clients"]["continue"]

    assert client["sends"] is None
    assert client["reason"].startswith("asks a chat model")


def test_mellum_in_continue_needs_its_own_order(checked):
    clients = checked("mellum", "Mellum-4b-base")["clients"]

    assert clients["continue"]["sends"].startswith("<fim_prefix>")
    assert (
        "'<fim_suffix>{{{suffix}}}<fim_prefix>{{{prefix}}}<fim_middle>'"
        in clients["continue"]["remedy"]
    )
    assert clients["llama.cpp"]["remedy"] == "start llama-server with --spm-infill"
    sent = clients["llama.cpp --spm-infill"]["sends"]
    assert sent.startswith("<reponame>myproject\n<fim_suffix>\n\n\nprint(area(2, 3))\n<fim_prefix>")
    assert sent.endswith("return <fim_middle>")
    assert clients["ollama"]["sends"] is None
    assert "does not support insert" in clients["ollama"]["reason"]


def test_a_tokenizer_that_begins_otherwise_is_warned_of(checked):
    result = checked("deepseek-coder")

    assert any(
        "begins a text with nothing, training with <｜begin" in w for w in result["warnings"]
    )
    assert result["bos"] == ["<｜begin▁of▁sentence｜>"]
    assert {"sent": "", "trained": "<｜begin▁of▁sentence｜>"} in (
        result["clients"]["vllm"]["differences"]
    )


def test_an_end_that_is_not_the_tokenizers_eos_is_warned_of(checked):
    warnings = checked("codellama")["warnings"]

    assert any(
        text.startswith(
            "the tokenizer's eos is '</s>', a MIDDLE ends with '▁<EOT>': stop at ids 50"
        )
        for text in warnings
    )


def test_a_row_from_memory_is_warned_of(checked):
    assert any(
        text.startswith("not everything in the row could be looked up: ")
        for text in checked("glm-4.5")["warnings"]
    )


def test_a_folder_without_a_tokenizer_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(FimError, match=r"no tokenizer\.json in it; copy the base model's there"):
        check(str(tmp_path))


def test_a_refused_family_is_checked_and_warned_of(checked):
    result = checked("opencoder", "OpenCoder-8B-Base")

    assert not result["fim_trained"]
    assert any("refused without model.allow_untrained_fim" in text for text in result["warnings"])


def test_no_proof_is_one_line(checked, tmp_path):
    with pytest.raises(FimError, match=r"whose prompts differ; set model\.format to the family"):
        checked("starcoder", "acme")

    assert checked("starcoder", "acme", "granite-code")["format"] == "granite-code"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "{"), ("tokenizer.json", '{"version": "1.0"}'),
        ("tokenizer_config.json", "[1]"), ("config.json", "[1]"), ("config.json", "{"),
    ],
)  # fmt: skip
def test_a_folder_with_a_broken_file_is_one_line(tiny_tokenizer, tmp_path, capsys, name, text):
    folder = tmp_path / "Qwen2.5-Coder-1.5B"
    tiny_tokenizer("qwen2.5-coder").save_pretrained(folder)
    assert main(["check", str(folder)]) == 0
    capsys.readouterr()
    (folder / name).write_text(text)

    assert main(["check", str(folder)]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: model '{folder}': ")


def test_the_verb_prints_one_object_or_one_line(tiny_tokenizer, tmp_path, capsys):
    tiny_tokenizer("starcoder").save_pretrained(tmp_path / "acme")
    folder = str(tmp_path / "acme")

    assert main(["check", folder]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: {folder}: tokenizer has the FIM sentinels of granite-code, ")

    assert main(["check", folder, "--format", "mellum", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["format"] == "mellum"
    assert main(["check", folder, "--format", "mellum"]) == 0
    assert "spm (trained, weight 1)" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none")]) == 1


def test_the_table_of_formats_is_one_object_by_name(capsys):
    assert main(["formats", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)

    assert rows.keys() == FORMATS.keys()
    assert rows["codellama"] == {
        "orders": ["psm", "spm"],
        "trained": {"psm": 0.5, "spm": 0.5},
        "sentinels": {"prefix": "▁<PRE>", "suffix": "▁<SUF>", "middle": "▁<MID>"},
        "bos": "<s>",
        "end": "▁<EOT>",
        "stop": ["▁<EOT>", "</s>"],
        "fim_trained": True,
        "untrained": "",
        "verified": "golden",
        "source": "meta-llama/codellama generation.py, tokenizer.py; arXiv 2308.12950",
    }
    assert not rows["opencoder"]["fim_trained"]

    assert main(["formats"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == len(FORMATS)
    assert next(line for line in table if line.startswith("mellum ")).split()[1:3] == ["spm", "doc"]
    assert next(line for line in table if line.startswith("phi-4 ")).split()[1] == "refused"


@pytest.mark.parametrize(
    ("model_type", "attention", "said"),
    [
        ("mamba", "auto", "mamba cannot be trained on packs: its layers carry state"),
        ("lfm2", "auto", "lfm2 cannot be trained on packs: its layers carry state"),
        ("opt", "sdpa", "opt cannot be trained on packs with attention 'sdpa'"),
        ("opt", "auto", ""),
        ("qwen2", "auto", ""),
    ],
)
def test_a_base_that_mixes_samples_is_refused_before_anything_is_prepared(
    model_type, attention, said, tmp_path, tiny_tokenizer, capsys
):
    base = tmp_path / "base"
    tiny_tokenizer("qwen2.5-coder").save_pretrained(base)
    AutoConfig.for_model(model_type).save_pretrained(base)
    (tmp_path / "no-code").mkdir()
    (tmp_path / "recipe.yaml").write_text(
        f"name: x\nruns: {tmp_path}/runs\nmodel: {{name: {base}, attention: {attention}}}\n"
        f"corpus: {{sources: [{{folder: {tmp_path}/no-code}}]}}\n"
    )

    assert main(["run", str(tmp_path / "recipe.yaml")]) == 1

    assert (said or "they hold no file") in capsys.readouterr().err
    assert main(["check", str(base)]) == int(model_type in ("mamba", "lfm2"))
