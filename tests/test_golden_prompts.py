"""Each family's prompt is written down token by token, and by id where ids are published."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from fim import FORMATS, Sample, encode, encode_prompt, resolve_format

SAMPLE = {
    "document_id": "d", "path": "a.py", "language": "python", "prefix": b"x", "middle": b"q",
    "suffix": b"z", "sampler": "node", "kind": "call", "context_split": 0.5,
}  # fmt: skip
# Every prompt, token by token. P has SentencePiece's leading blank, S and M have not.
GOLDEN = {
    "qwen2.5-coder": {
        "psm": "<|fim_prefix|> x <|fim_suffix|> z <|fim_middle|> q <|endoftext|>",
        "spm": "<|fim_suffix|> z <|fim_prefix|> x <|fim_middle|> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "qwen3-coder": {
        "psm": "<|fim_prefix|> x <|fim_suffix|> z <|fim_middle|> q <|endoftext|>",
        "spm": "<|fim_suffix|> z <|fim_prefix|> x <|fim_middle|> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "codeqwen1.5": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_suffix> z <fim_prefix> x <fim_middle> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "starcoder2": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_prefix> <fim_suffix> z <fim_middle> x q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "starcoder": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_prefix> <fim_suffix> z <fim_middle> x q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "santacoder": {
        "psm": "<fim-prefix> x <fim-suffix> z <fim-middle> q <|endoftext|>",
        "spm": "<fim-prefix> <fim-suffix> z <fim-middle> x q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "granite-code": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_prefix> <fim_suffix> z <fim_middle> x q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "granite-3.3": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|end_of_text|>",
        "spm": "<fim_prefix> <fim_suffix> z <fim_middle> x q <|end_of_text|>",
        "ar": "q <|end_of_text|>",
    },
    "granite-4": {
        "psm": "<|fim_prefix|> x <|fim_suffix|> z <|fim_middle|> q <|end_of_text|>",
        "spm": "<|fim_suffix|> z <|fim_prefix|> x <|fim_middle|> q <|end_of_text|>",
        "ar": "q <|end_of_text|>",
    },
    "stable-code": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_prefix> <fim_suffix> z <fim_middle> x q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "refact": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_suffix> z <fim_prefix> x <fim_middle> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "mellum": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_suffix> z <fim_prefix> x <fim_middle> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "deepseek-coder": {
        "psm": "<｜begin▁of▁sentence｜> <｜fim▁begin｜> x <｜fim▁hole｜> z <｜fim▁end｜> q"
        " <｜end▁of▁sentence｜>",
        "spm": "<｜begin▁of▁sentence｜> <｜fim▁hole｜> z <｜fim▁begin｜> x <｜fim▁end｜> q"
        " <｜end▁of▁sentence｜>",
        "ar": "<｜begin▁of▁sentence｜> q <｜end▁of▁sentence｜>",
    },
    "deepseek-coder-v2": {
        "psm": "<｜begin▁of▁sentence｜> <｜fim▁begin｜> x <｜fim▁hole｜> z <｜fim▁end｜> q"
        " <｜end▁of▁sentence｜>",
        "spm": "<｜begin▁of▁sentence｜> <｜fim▁hole｜> z <｜fim▁begin｜> x <｜fim▁end｜> q"
        " <｜end▁of▁sentence｜>",
        "ar": "<｜begin▁of▁sentence｜> q <｜end▁of▁sentence｜>",
    },
    "codellama": {
        "psm": "<s> ▁<PRE> ▁ x ▁<SUF> z ▁<MID> <0x71> ▁<EOT>",
        "spm": "<s> ▁<PRE> ▁<SUF> z ▁<MID> ▁ x <0x71> ▁<EOT>",
        "ar": "<s> ▁ <0x71> </s>",
    },
    "aixcoder": {
        "psm": "<s> ▁<AIX-SPAN-PRE> ▁ x ▁<AIX-SPAN-POST> z ▁<AIX-SPAN-MIDDLE> <0x71> </s>",
        "spm": "<s> ▁<AIX-SPAN-PRE> ▁<AIX-SPAN-POST> z ▁<AIX-SPAN-MIDDLE> ▁ x <0x71> </s>",
        "ar": "<s> ▁ <0x71> </s>",
    },
    "codegemma": {
        "psm": "<bos> <|fim_prefix|> x <|fim_suffix|> z <|fim_middle|> <0x71> <|file_separator|>",
        "spm": "<bos> <|fim_suffix|> z <|fim_prefix|> x <|fim_middle|> <0x71> <|file_separator|>",
        "ar": "<bos> <0x71> <eos>",
    },
    "codestral": {
        "spm": "<s> [SUFFIX] z [PREFIX] ▁ x <0x71> </s>",
        "ar": "<s> ▁ <0x71> </s>",
    },
    "seed-coder": {
        "psm": "<[begin▁of▁sentence]> <[fim-prefix]> x <[fim-suffix]> z <[fim-middle]> q"
        " <[end▁of▁sentence]>",
        "spm": "<[begin▁of▁sentence]> <[fim-suffix]> z <[fim-prefix]> x <[fim-middle]> q"
        " <[end▁of▁sentence]>",
        "ar": "<[begin▁of▁sentence]> q <[end▁of▁sentence]>",
    },
    "glm-4.5": {
        "psm": "<|code_prefix|> x <|code_suffix|> z <|code_middle|> q <|endoftext|>",
        "spm": "<|code_suffix|> z <|code_prefix|> x <|code_middle|> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "codegeex4": {
        "spm": "[gMASK] <sop> <|user|> Ċ # # # P A T H : a . py Ċ # # # L A N G U A G E : P y th o"
        " n Ċ # # # M O D E : B L O C K Ċ <|code_suffix|> z <|code_prefix|> x <|code_middle|>"
        " <|assistant|> Ċ q <|user|>",
        "ar": "[gMASK] <sop> q <|endoftext|>",
    },
    "incoder": {
        "psm": "<|endoftext|> x <|mask:0|> z <|mask:1|> <|mask:0|> q <|endofmask|>",
        "ar": "<|endoftext|> q <|endoftext|>",
    },
    "codegen2.5": {
        "psm": "x <mask_1> z <|endoftext|> <sep> <mask_1> q <eom>",
        "ar": "q <|endoftext|>",
    },
    "opencoder": {
        "psm": "<fim_prefix> x <fim_suffix> z <fim_middle> q <|endoftext|>",
        "spm": "<fim_prefix> <fim_suffix> z <fim_middle> x q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "phi-4": {
        "psm": "<|fim_prefix|> x <|fim_suffix|> z <|fim_middle|> q <|endoftext|>",
        "spm": "<|fim_suffix|> z <|fim_prefix|> x <|fim_middle|> q <|endoftext|>",
        "ar": "q <|endoftext|>",
    },
    "mistral-v3": {
        "spm": "<s> [SUFFIX] z [PREFIX] ▁ x <0x71> </s>",
        "ar": "<s> ▁ <0x71> </s>",
    },
}
CASES = [(family, order) for family, orders in GOLDEN.items() for order in orders]
# Ids as published, for the tokens of a PSM prompt (SPM where there is no other).
PUBLISHED = {
    "starcoder": ({"<|endoftext|>": 0, "<fim_prefix>": 1, "<fim_middle>": 2, "<fim_suffix>": 3,
                   "<fim_pad>": 4, "<filename>": 5}, [1, "x", 3, "z", 2, "q", 0]),
    "starcoder2": ({"<|endoftext|>": 0, "<fim_prefix>": 1, "<fim_middle>": 2, "<fim_suffix>": 3,
                    "<fim_pad>": 4, "<repo_name>": 5, "<file_sep>": 6},
                   [1, "x", 3, "z", 2, "q", 0]),
    "santacoder": ({"<|endoftext|>": 49152, "<fim-prefix>": 49153, "<fim-middle>": 49154,
                    "<fim-suffix>": 49155, "<fim-pad>": 49156},
                   [49153, "x", 49155, "z", 49154, "q", 49152]),
    "codellama": ({"<s>": 1, "</s>": 2, "▁<PRE>": 32007, "▁<SUF>": 32008, "▁<MID>": 32009,
                   "▁<EOT>": 32010}, [1, 32007, "▁", "x", 32008, "z", 32009, "<0x71>", 32010]),
    "deepseek-coder": ({"<｜begin▁of▁sentence｜>": 32013, "<｜end▁of▁sentence｜>": 32014,
                        "<｜fim▁hole｜>": 32015, "<｜fim▁begin｜>": 32016, "<｜fim▁end｜>": 32017,
                        "<|EOT|>": 32021}, [32013, 32016, "x", 32015, "z", 32017, "q", 32014]),
    "qwen2.5-coder": ({"<|endoftext|>": 151643, "<|fim_prefix|>": 151659, "<|fim_middle|>": 151660,
                       "<|fim_suffix|>": 151661, "<|fim_pad|>": 151662, "<|repo_name|>": 151663,
                       "<|file_sep|>": 151664}, [151659, "x", 151661, "z", 151660, "q", 151643]),
    "codegemma": ({"<eos>": 1, "<bos>": 2, "<|fim_prefix|>": 67, "<|fim_middle|>": 68,
                   "<|fim_suffix|>": 69, "<|file_separator|>": 70},
                  [2, 67, "x", 69, "z", 68, "<0x71>", 70]),
    "codestral": ({"<s>": 1, "</s>": 2, "[PREFIX]": 11, "[MIDDLE]": 12, "[SUFFIX]": 13},
                  [1, 13, "z", 11, "▁", "x", "<0x71>", 2]),
}  # fmt: skip


# Prompts as the model cards print them; blanks and newlines around sentinels count.
CARDS = {
    "starcoder": (
        "def print_hello_world():\n    ", "\n    print('Hello world!')",
        "<fim_prefix>def print_hello_world():\n    <fim_suffix>\n    print('Hello world!')"
        "<fim_middle>",
    ),
    "santacoder": (
        "def print_hello_world():\n    ", "\n    print('Hello world!')",
        "<fim-prefix>def print_hello_world():\n    <fim-suffix>\n    print('Hello world!')"
        "<fim-middle>",
    ),
    "stable-code": (
        "def fib(n):", "    else:\n        return fib(n - 2) + fib(n - 1)",
        "<fim_prefix>def fib(n):<fim_suffix>    else:\n        return fib(n - 2) + fib(n - 1)"
        "<fim_middle>",
    ),
    "refact": (
        'def print_hello_world():\n    """', '\n    print("Hello world!")',
        '<fim_prefix>def print_hello_world():\n    """<fim_suffix>\n    print("Hello world!")'
        "<fim_middle>",
    ),
    "codegemma": (
        "import ", "\nif __name__ == '__main__':\n   sys.exit(0)",
        "<bos><|fim_prefix|>import <|fim_suffix|>\nif __name__ == '__main__':\n   sys.exit(0)"
        "<|fim_middle|>",
    ),
    "qwen2.5-coder": (
        "    pivot = arr[len(arr) // 2]\n    ",
        "\n    middle = [x for x in arr if x == pivot]\n",
        "<|fim_prefix|>    pivot = arr[len(arr) // 2]\n    <|fim_suffix|>\n    middle = "
        "[x for x in arr if x == pivot]\n<|fim_middle|>",
    ),
    "deepseek-coder": (
        "    left = []\n    right = []\n", "\n        if arr[i] < pivot:\n",
        "<｜begin▁of▁sentence｜><｜fim▁begin｜>    left = []\n    right = []\n<｜fim▁hole｜>\n"
        "        if arr[i] < pivot:\n<｜fim▁end｜>",
    ),
    "codegen2.5": (
        "def hello_world():\n    ", "    return name",
        "def hello_world():\n    <mask_1>    return name<|endoftext|><sep><mask_1>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", CARDS)
def test_a_prompt_is_the_one_on_the_card_to_the_blank(tiny_tokenizer, family):
    prefix, suffix, expected = CARDS[family]
    tokenizer = tiny_tokenizer(family)
    sample = Sample(order="psm", **SAMPLE | {"prefix": prefix.encode(), "suffix": suffix.encode()})

    ids = encode_prompt(
        sample, resolve_format(tokenizer, family), tokenizer, max_length=512, max_new_tokens=9
    )

    assert tokenizer.decode(ids) == expected


def test_every_format_has_a_golden_prompt_for_each_order():
    assert GOLDEN.keys() == FORMATS.keys()
    assert all(GOLDEN[name].keys() == {*row.orders, "ar"} for name, row in FORMATS.items())


@pytest.mark.parametrize(("family", "order"), CASES)
def test_a_sample_is_rendered_as_the_family_was_trained(tiny_tokenizer, family, order):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    ids = encode(Sample(order=order, **SAMPLE), form, tokenizer, max_length=96).input_ids.tolist()

    assert form.name == family
    assert tokenizer.convert_ids_to_tokens(ids) == GOLDEN[family][order].split()


def test_golden_is_what_is_held_to_published_ids():
    assert {name for name, row in FORMATS.items() if row.verified == "golden"} == PUBLISHED.keys()


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_prompt_has_the_published_ids(tiny_tokenizer, family):
    published, expected = PUBLISHED[family]
    tokenizer = with_ids(tiny_tokenizer(family), published)
    form = resolve_format(tokenizer, family)
    order = "psm" if "psm" in form.row.orders else "spm"

    ids = encode(Sample(order=order, **SAMPLE), form, tokenizer, max_length=96).input_ids.tolist()

    known = form.ids.keys() & published.keys()
    assert len(known) >= 4
    assert {token: form.ids[token] for token in known} == {t: published[t] for t in known}
    assert ids == [
        tokenizer.convert_tokens_to_ids(part) if isinstance(part, str) else part
        for part in expected
    ]


def with_ids(tokenizer, published: dict[str, int]):
    """A copy of a tokenizer whose tokens have the ids asked for, and no others have them."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    free = (n for n in range(100_000) if n not in published.values())
    vocabulary = [token for token in state["model"]["vocab"] if token not in published]
    state["model"]["vocab"] = {token: next(free) for token in vocabulary} | published
    for token in state["added_tokens"]:
        name = token["content"]
        token["id"] = state["model"]["vocab"].setdefault(name, next(free))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
