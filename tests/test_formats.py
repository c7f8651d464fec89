"""A tokenizer must prove a family's tokens, and no family is taken for another."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from fim import FORMATS, FimError, content_tokenizer, resolve_format
from fim.formats import control_tokens, families_named
from fim.layouts import VERIFIED
from finetune.recipe.schema import Model
from finetune.samples.tokenizer import load_format, model_hint


@pytest.mark.parametrize("family", FORMATS)
def test_a_row_trains_on_orders_it_has_and_ends_at_a_stop(family):
    row = FORMATS[family]

    assert row.trained.keys() <= row.orders.keys() <= {"psm", "spm"}
    assert sum(row.trained.values()) == 1.0
    assert row.end in row.stop
    assert row.source
    assert row.verified in VERIFIED
    for order, layout in row.orders.items():
        segments = [part for part in layout if part in ("P", "S", "M")]
        assert segments[-1] == layout[-1] == "M"
        # SPM_V2 has its suffix first too, after an empty prefix
        assert segments == (["P", "S", "M"] if order == "psm" else ["S", "P", "M"])
        assert sum(part in control_tokens(row) or part in NAMES for part in layout) >= 2


NAMES = ("PRE", "SUF", "MID")


# which family


VOCABULARIES = {  # told apart by their tokens alone
    "qwen2.5-coder", "qwen3-coder", "codeqwen1.5", "starcoder2", "santacoder", "granite-3.3",
    "granite-4", "deepseek-coder", "deepseek-coder-v2", "codellama", "aixcoder", "codegemma",
    "codestral", "seed-coder", "glm-4.5", "codegeex4", "incoder", "codegen2.5", "phi-4",
}  # fmt: skip
STARCODERS = ("granite-code", "mellum", "refact", "stable-code", "starcoder")


@pytest.mark.parametrize("family", sorted(VOCABULARIES))
def test_a_vocabulary_of_its_own_is_recognized(tiny_tokenizer, family):
    assert resolve_format(tiny_tokenizer(family), "auto").name == family


@pytest.mark.parametrize("family", STARCODERS)
def test_families_that_share_a_vocabulary_are_never_guessed(tiny_tokenizer, family):
    with pytest.raises(FimError, match=", ".join(STARCODERS) + ", whose prompts differ; set model"):
        resolve_format(tiny_tokenizer(family))
    with pytest.raises(FimError, match="whose prompts differ"):
        resolve_format(tiny_tokenizer(family), hint="acme/code-7b llama LlamaForCausalLM")


@pytest.mark.parametrize(
    ("hint", "family"),
    [
        ("bigcode/starcoderbase-1b", "starcoder"),
        ("bigcode/tiny_starcoder_py gpt_bigcode GPTBigCodeForCausalLM", "starcoder"),
        ("ibm-granite/granite-8b-code-base-4k", "granite-code"),
        ("stabilityai/stable-code-3b stablelm", "stable-code"),
        ("smallcloudai/Refact-1_6B-fim gpt_refact", "refact"),
        ("JetBrains/Mellum-4b-base llama", "mellum"),
    ],
)
def test_the_name_of_a_model_tells_what_its_vocabulary_does_not(tiny_tokenizer, hint, family):
    assert resolve_format(tiny_tokenizer("starcoder"), hint=hint).name == family


@pytest.mark.parametrize(
    ("tokenizer", "hint", "family"),
    [
        ("starcoder2", "bigcode/starcoder2-3b", "starcoder2"),  # no starcoder
        ("starcoder2", "acme/starcoder-helper-starcoder2", "starcoder2"),
        ("starcoder2", "infly/OpenCoder-8B-Base", "opencoder"),
        ("deepseek-coder", "deepseek-ai/DeepSeek-Coder-V2-Lite-Base", "deepseek-coder-v2"),
        ("deepseek-coder", "deepseek-ai/deepseek-coder-1.3b-base", "deepseek-coder"),
        ("qwen2.5-coder", "Qwen/Qwen2.5-Coder-1.5B qwen2", "qwen2.5-coder"),
        ("codestral", "mistralai/Codestral-22B-v0.1 mistral", "codestral"),
        ("codestral", "mistralai/Mamba-Codestral-7B-v0.1 mamba2", "mistral-v3"),
        ("codestral", "mistralai/Mistral-7B-v0.3", "mistral-v3"),
        ("codestral", "mistralai/Mistral-Small-24B-Base-2501 mistral", "mistral-v3"),
        ("codestral", "mistralai/Ministral-8B-Instruct-2410 mistral", "mistral-v3"),
        ("codestral", "mistralai/Devstral-Small-2505 MistralForCausalLM", "mistral-v3"),
        ("phi-4", "microsoft/phi-4", "phi-4"),
    ],
)
def test_a_hint_is_taken_where_the_tokenizer_bears_it_out(tiny_tokenizer, tokenizer, hint, family):
    assert resolve_format(tiny_tokenizer(tokenizer), hint=hint).name == family


@pytest.mark.parametrize(
    ("hint", "named"),
    [
        ("granite-3.3-8b-base granite", {"granite-3.3"}),
        ("granite-3.1-8b-base granite", set()),  # no FIM on its card
        ("granite-34b-code-base-8k", {"granite-code"}),
        ("DeepSeek-Coder-V2-Lite-Base deepseek_v2", {"deepseek-coder-v2"}),
        ("DeepSeek-V2-Lite deepseek_v2", set()),
        ("Qwen2.5-Coder-1.5B-Instruct qwen2", {"qwen2.5-coder"}),
        ("Qwen2.5-7B qwen2", set()),
        ("my-model mistral MistralForCausalLM", set()),
    ],
)
def test_a_name_means_a_family_only_where_its_makers_trained_fim(hint, named):
    assert families_named(hint) == named


def test_a_name_that_the_vocabulary_contradicts_is_not_trusted(tiny_tokenizer):
    with pytest.raises(FimError, match="sentinels of refact, starcoder2, whose prompts differ"):
        resolve_format(tiny_tokenizer("starcoder2"), hint="acme/refactor-helper")


@pytest.mark.parametrize(
    ("base", "row", "reason"),
    [
        ("infly/OpenCoder-1.5B-Base", "opencoder", "its authors say"),
        ("mistralai/Mamba-Codestral-7B-v0.1", "mistral-v3", "only Codestral was"),
        ("microsoft/phi-4", "phi-4", "cl100k_base"),
    ],
)
def test_a_family_without_fim_training_is_refused_unless_allowed(tiny_tokenizer, base, row, reason):
    tokenizer = tiny_tokenizer(row)

    for form in ("auto", row):  # naming the row is not enough
        with pytest.raises(FimError, match=f"{row} was not trained on FIM: .*{reason}.*; tune a"):
            load_format(tokenizer, Model(name=base, format=form))
        allowed = Model(name=base, format=form, allow_untrained_fim=True)
        assert load_format(tokenizer, allowed).name == row


def test_the_config_of_a_folder_tells_its_family(tiny_tokenizer, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "_name_or_path": "/models/JetBrains/Mellum-4b-base"})
    )

    model = Model(name=str(tmp_path))

    assert model_hint(str(tmp_path)) == f"{tmp_path.name} Mellum-4b-base llama"
    assert load_format(tiny_tokenizer("mellum"), model).name == "mellum"


def test_a_folders_parents_tell_nothing(tmp_path):
    assert model_hint(str(tmp_path / "starcoder" / "base")).split() == ["base"]
    assert model_hint("bigcode/starcoder").split() == ["starcoder"]
    assert model_hint("").split() == []


# the proof


def without(tokenizer, *removed: str, renamed: dict[str, str] | None = None, in_vocabulary=()):
    """A copy of a tokenizer with added tokens removed, renamed or only in the vocabulary."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if in_vocabulary:
        state["model"]["vocab"] |= {t["content"]: t["id"] for t in state["added_tokens"]}
    removed = {*removed, *in_vocabulary}
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in removed]
    for token in state["added_tokens"]:
        token["content"] = (renamed or {}).get(token["content"], token["content"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def test_a_missing_sentinel_is_no_proof(tiny_tokenizer):
    tokenizer = without(tiny_tokenizer("qwen2.5-coder"), "<|file_sep|>", "<|fim_middle|>")

    with pytest.raises(FimError, match=r"'<\|fim_middle\|>' is not in its vocabulary"):
        resolve_format(tokenizer, "qwen2.5-coder")
    with pytest.raises(FimError, match="has the FIM sentinels of no known model family"):
        resolve_format(tokenizer)


def test_ascii_look_alikes_of_fullwidth_sentinels_are_no_proof(tiny_tokenizer):
    names = ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"]
    ascii_names = {name: name.replace("｜", "|").replace("▁", "_") for name in names}
    tokenizer = without(tiny_tokenizer("deepseek-coder"), renamed=ascii_names)

    with pytest.raises(FimError, match="'<｜fim▁begin｜>' is not in its vocabulary"):
        resolve_format(tokenizer, "deepseek-coder")


def test_a_sentinel_that_is_only_in_the_vocabulary_is_no_proof(tiny_tokenizer):
    tokenizer = without(tiny_tokenizer("starcoder2"), in_vocabulary=["<fim_suffix>"])

    with pytest.raises(FimError, match=r"'<fim_suffix>' encodes to \[\d+, .*, not to one id"):
        resolve_format(tokenizer, "starcoder2")


def test_a_proof_does_not_depend_on_what_the_tokenizer_was_called_with_before(tiny_tokenizer):
    tokenizer = tiny_tokenizer("starcoder2")
    before = tokenizer("<fim_prefix>", split_special_tokens=True).input_ids

    assert len(before) > 1
    assert resolve_format(tokenizer).name == "starcoder2"


def test_a_proof_leaves_the_callers_tokenizer_as_it_is(tiny_tokenizer):
    tokenizer = without(tiny_tokenizer("starcoder2"))
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.enable_truncation(7)
    backend.enable_padding(length=7)

    assert resolve_format(tokenizer).name == "starcoder2"
    assert backend.encode_special_tokens
    assert backend.truncation["max_length"] == backend.padding["length"] == 7


def test_an_unknown_name_is_refused_with_the_known_ones(tiny_tokenizer):
    with pytest.raises(FimError, match="unknown FIM format 'qwen'; known: aixcoder, codegeex4"):
        resolve_format(tiny_tokenizer("aixcoder"), "qwen")


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(FimError, match="a fast tokenizer is needed"):
        resolve_format(object())


@pytest.mark.parametrize("family", FORMATS)
def test_a_tokenizer_proves_the_rows_that_its_tokens_allow(tiny_tokenizer, family):
    names = {"qwen": ("qwen2.5-coder", "qwen3-coder", "phi-4"), "star": (*STARCODERS, "starcoder2",
             "codeqwen1.5", "opencoder"), "deep": ("deepseek-coder", "deepseek-coder-v2"),
             "mist": ("codestral", "mistral-v3"), "glm": ("glm-4.5", "codegeex4")}  # fmt: skip
    own = next((names[group] for group in names if family in names[group]), (family,))

    for name in FORMATS.keys() - set(own):
        with pytest.raises(FimError, match="tokenizer does not have the format"):
            resolve_format(tiny_tokenizer(family), name)
    assert resolve_format(tiny_tokenizer(family), family).name == family


def test_the_end_after_a_middle_is_not_the_end_of_a_document_in_code_llama(tiny_tokenizer):
    form = resolve_format(tiny_tokenizer("codellama"))

    assert (form.end_id, form.ids["</s>"]) == (503, 2)
    assert form.stop_ids == (503, 2)


@pytest.mark.parametrize("family", ["codellama", "aixcoder"])
@pytest.mark.parametrize("prefix", ["def f(", "x", "for (int index = "])
@pytest.mark.parametrize("middle", ["x):", " first", "  return 1\n", "é☺", "\tindex"])
def test_a_guarded_middle_continues_its_prefix_exactly(tiny_tokenizer, family, prefix, middle):
    content = content_tokenizer(tiny_tokenizer(family))

    ids = content.encode(prefix.encode()) + content.encode(middle.encode(), guarded=True)

    assert content.decode(ids) == prefix + middle


@pytest.mark.parametrize("family", ["codellama", "aixcoder"])
def test_an_unguarded_middle_would_gain_a_blank(tiny_tokenizer, family):
    content = content_tokenizer(tiny_tokenizer(family))

    assert content.decode(content.encode(b"def f(") + content.encode(b"x):")) == "def f( x):"
