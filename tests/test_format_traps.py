"""What goes wrong between a family's model card and its tokenizer, one test for each.

PYTHONPATH=. python -m pytest tests/test_format_traps.py
"""

import json
from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from fim import (
    FORMATS,
    ControlToken,
    FimError,
    Sample,
    content_tokenizer,
    encode,
    resolve_format,
)

CASES = [(family, order) for family, row in FORMATS.items() for order in row.orders]


def sample(**fields) -> Sample:
    values = {
        "document_id": "d", "path": "a.py", "language": "python", "prefix": b"def f(",
        "middle": b"x):", "suffix": b"\n", "order": "psm", "sampler": "node", "kind": "call",
        "context_split": 0.5,
    }  # fmt: skip
    return Sample(**values | fields)


def renamed(tokenizer, names: dict[str, str]):
    """A copy of a tokenizer with other spellings of its added tokens."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


SPELLINGS = {
    "hyphens": ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    "underscores": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    "pipes": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    "brackets": ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
}


@pytest.mark.parametrize(
    ("family", "own"),
    [("santacoder", "hyphens"), ("starcoder", "underscores"), ("mellum", "underscores"),
     ("granite-3.3", "underscores"), ("qwen2.5-coder", "pipes"), ("granite-4", "pipes"),
     ("codegemma", "pipes"), ("seed-coder", "brackets")],
)  # fmt: skip
def test_one_sign_in_a_sentinel_decides(tiny_tokenizer, family, own):
    row = FORMATS[family]

    assert (row.prefix, row.suffix, row.middle) == SPELLINGS[own]
    for other in SPELLINGS.keys() - {own}:
        names = dict(zip(SPELLINGS[own], SPELLINGS[other], strict=True))
        with pytest.raises(FimError, match="is not in its vocabulary"):
            resolve_format(renamed(tiny_tokenizer(family), names), family)


def test_aixcoders_sentinels_begin_with_u_2581(tiny_tokenizer):
    names = {token: token.removeprefix("▁") for token in
             ("▁<AIX-SPAN-PRE>", "▁<AIX-SPAN-POST>", "▁<AIX-SPAN-MIDDLE>")}  # fmt: skip

    with pytest.raises(FimError, match="'▁<AIX-SPAN-PRE>' is not in its vocabulary"):
        resolve_format(renamed(tiny_tokenizer("aixcoder"), names), "aixcoder")


def test_a_blank_before_every_text_is_no_proof_where_the_row_knows_of_none(tiny_tokenizer):
    state = json.loads(tiny_tokenizer("codegemma").backend_tokenizer.to_str())
    state["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, state["normalizer"]],
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))

    with pytest.raises(FimError, match="puts a blank before every text"):
        resolve_format(tokenizer, "codegemma")


def test_two_sentinels_of_one_id_are_no_proof(tiny_tokenizer, monkeypatch):
    row = FORMATS["santacoder"]
    monkeypatch.setitem(FORMATS, "santacoder", replace(row, middle=row.suffix))

    with pytest.raises(FimError, match="sentinels share an id"):
        resolve_format(tiny_tokenizer("santacoder"), "santacoder")


@pytest.mark.parametrize(("family", "order"), CASES)
def test_bos_is_there_once_and_nothing_is_added_at_the_end(tiny_tokenizer, family, order):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    ids = encode(sample(order=order), form, tokenizer, max_length=256).input_ids.tolist()

    assert tuple(ids[: len(form.bos_ids)]) == form.bos_ids
    assert all(ids.count(token) == 1 for token in form.bos_ids)
    assert ids.index(form.end_id, len(form.bos_ids) + 2) == len(ids) - 1
    assert ids[-1] == form.end_id


@pytest.mark.parametrize("family", ["incoder", "seed-coder", "codegeex4"])
def test_a_bos_that_is_the_tokenizers_own_is_what_it_adds_itself(tiny_tokenizer, family):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    assert len(form.bos_ids) == (2 if family == "codegeex4" else 1)
    assert tokenizer("x").input_ids == [*form.bos_ids, *content_tokenizer(tokenizer).encode(b"x")]


@pytest.mark.parametrize(("family", "order"), CASES)
@pytest.mark.parametrize("loss", ["all", "middle"])
def test_the_end_is_learned_although_it_is_the_padding_token(tiny_tokenizer, family, order, loss):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    labels = encode(sample(order=order), form, tokenizer, max_length=256, loss=loss).labels

    assert labels[-1] == form.end_id
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("family", "eos"),
    [("deepseek-coder", "<|EOT|>"), ("qwen2.5-coder", "<|im_end|>"), ("codellama", "</s>"),
     ("codegemma", "<eos>")],
)  # fmt: skip
def test_the_end_is_the_rows_whatever_the_tokenizer_calls_eos(tiny_tokenizer, family, eos):
    backend = tiny_tokenizer(family).backend_tokenizer
    instruct = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)

    form = resolve_format(instruct, family)
    ids = encode(sample(), form, instruct, max_length=256).input_ids.tolist()

    assert ids[-1] == form.end_id != instruct.eos_token_id
    assert instruct.eos_token_id in form.stop_ids  # a server stops at both


@pytest.mark.parametrize(("family", "order"), CASES)
def test_line_ends_of_windows_after_a_sentinel_leave_it_one(tiny_tokenizer, family, order):
    tokenizer = tiny_tokenizer(family)
    form, content = resolve_format(tokenizer, family), content_tokenizer(tokenizer)
    text = {"prefix": b"\r\nx = ", "suffix": b"\r\ny\r\n", "middle": b"\r\n  f()"}

    ids = encode(sample(order=order, **text), form, tokenizer, max_length=256).input_ids.tolist()

    own = [token for token in ids if token in content.control_ids]
    layout = [part for part in form.layouts[order] if isinstance(part, int)]
    assert own == [*form.bos_ids, *layout, form.end_id]
    suffix = content.encode(text["suffix"], "S" in form.row.guarded)
    assert any(ids[n : n + len(suffix)] == suffix for n in range(len(ids)))


@pytest.mark.parametrize(
    "family", ["qwen2.5-coder", "deepseek-coder", "codegemma", "starcoder", "codestral"]
)
def test_a_sentinel_that_eats_blanks_as_text_eats_none_as_an_id(tiny_tokenizer, family):
    backend = Tokenizer.from_str(tiny_tokenizer(family).backend_tokenizer.to_str())
    row = FORMATS[family]
    sentinels = [row.prefix, row.suffix, *([row.middle] if row.middle else [])]
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token |= {"lstrip": token["content"] in sentinels, "rstrip": token["content"] in sentinels}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    form, content = resolve_format(tokenizer, family), content_tokenizer(tokenizer)
    order = next(iter(row.orders))
    text = {"prefix": b"  if x:\n    ", "middle": b"  y", "suffix": b"   \n"}

    ids = encode(sample(order=order, **text), form, tokenizer, max_length=256).input_ids.tolist()

    for part, name in (("prefix", "P"), ("middle", "M"), ("suffix", "S")):
        expected = content.encode(text[part], name in row.guarded)
        assert any(ids[n : n + len(expected)] == expected for n in range(len(ids)))


@pytest.mark.parametrize("family", FORMATS)
def test_no_token_is_added_to_a_vocabulary(tiny_tokenizer, family):
    tokenizer = tiny_tokenizer(family)
    before = len(tokenizer)

    form = resolve_format(tokenizer, family)
    encode(sample(order=next(iter(form.row.orders))), form, tokenizer, max_length=256)

    assert len(tokenizer) == before
    assert all(token_id < before for token_id in form.ids.values())


def test_a_chat_template_is_never_applied(tiny_tokenizer):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer("qwen2.5-coder").backend_tokenizer
    )
    tokenizer.chat_template = "<|im_start|>{{ messages[0]['content'] }}<|im_end|>"

    ids = encode(sample(), resolve_format(tokenizer), tokenizer, max_length=256).input_ids

    assert not {"<|im_start|>", "<|im_end|>"} & set(tokenizer.convert_ids_to_tokens(ids.tolist()))


def test_a_sentinel_only_decoding_skips_is_still_a_control_token(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")  # marked "special": false, as published
    content = content_tokenizer(tokenizer)

    assert tokenizer.decode([401, 403], skip_special_tokens=True) != ""
    assert {tokenizer.convert_tokens_to_ids(t) for t in SPELLINGS["pipes"]} <= content.control_ids


def test_blanks_that_a_vocabulary_adds_as_a_token_are_text(tiny_tokenizer):
    state = json.loads(tiny_tokenizer("codegemma").backend_tokenizer.to_str())
    state["model"]["vocab"]["▁▁"] = added = 900  # Gemma's symbols are pieces that merges make, too
    state["model"]["merges"].insert(0, ["▁", "▁"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    state["added_tokens"].append({"id": added, "content": "▁▁"} | flags)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    content = content_tokenizer(tokenizer)

    ids = content.encode(b"if x:\n  y")

    assert ids == tokenizer.encode("if x:\n  y", add_special_tokens=False)
    assert added in ids
    assert added not in content.control_ids
    assert content.decode(ids) == "if x:\n  y"


@pytest.mark.parametrize("guarded", [False, True])
def test_text_that_merges_make_a_control_token_is_refused(tiny_tokenizer, guarded):
    state = json.loads(tiny_tokenizer("qwen2.5-coder").backend_tokenizer.to_str())
    state["model"]["vocab"]["<|"] = state["added_tokens"][-1]["id"]
    state["added_tokens"][-1]["content"] = "<|"
    state["model"]["merges"].insert(0, ["<", "|"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    content = content_tokenizer(tokenizer)

    assert content.encode(b"a < | b", guarded)
    with pytest.raises(ControlToken, match="the text encodes to a control token of the tokenizer"):
        content.encode(b"a <| b", guarded)


def test_a_lone_added_word_that_is_no_sentinel_is_no_family(tiny_tokenizer):
    backend = Tokenizer.from_str(tiny_tokenizer("granite-4").backend_tokenizer.to_str())
    state = json.loads(backend.to_str())
    state["added_tokens"] = []
    plain = Tokenizer.from_str(json.dumps(state))
    plain.add_tokens([AddedToken("<|fim_prefix|>", special=True)])

    with pytest.raises(FimError, match="FIM sentinels of no known model family"):
        resolve_format(PreTrainedTokenizerFast(tokenizer_object=plain))


@pytest.mark.parametrize("family", FORMATS)
def test_a_middle_holds_nothing_that_llama_cpp_ends_at(tiny_tokenizer, family):
    tokenizer = tiny_tokenizer(family)
    row, content = resolve_format(tokenizer, family).row, content_tokenizer(tokenizer)
    there = [t for t in (row.pad, row.repo, row.file, row.end) if tokenizer.get_vocab().get(t)]

    ids = content.encode("".join(there).encode(), guarded=True)

    assert content.control_ids.isdisjoint(ids)
    assert {tokenizer.convert_tokens_to_ids(token) for token in there} <= content.control_ids
    assert there
