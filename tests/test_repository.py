"""Other files in each family's own template, paths in its own way, budgets of clients."""

import pytest

from fim import (
    FORMATS,
    PROFILES,
    Document,
    FimError,
    Sample,
    content_tokenizer,
    encode,
    encode_prompt,
    resolve_format,
)
from fim.content import ContentTokenizer
from fim.repository import COMMENT_HEADER, named

LINES = [b"line %03d = first(second, third)\n" % number for number in range(400)]
FILES = [
    Document(repo="acme", path=f"{name}.py", language="python", text=f"{name} = 1\n".encode())
    for name in ("far", "near")
]
ORDERS = [(family, order) for family, row in FORMATS.items() for order in (*row.orders, "ar")]


def short(**fields) -> Sample:
    values = {
        "document_id": "d", "repo": "acme", "path": "src/a.py", "language": "python",
        "prefix": b"a = ", "middle": b"f(b)", "suffix": b"\n", "order": "psm", "sampler": "node",
        "kind": "call", "context_split": 0.5,
    }  # fmt: skip
    if fields.get("order") == "ar":
        values |= {"prefix": b"", "suffix": b"", "middle": b"a = f(b)\n", "sampler": ""}
    return Sample(**values | fields)


def long(**fields) -> Sample:
    prefix, suffix = b"".join(LINES[:200]) + b"    x = ", b" + 1\n" + b"".join(LINES[200:])
    return short(prefix=prefix, suffix=suffix, **fields)


def written(tokenizer, ids) -> str:
    """The text of ids, control tokens as they are spelled."""
    content = content_tokenizer(tokenizer)
    text, run = "", []
    for token in [*ids, None]:
        if token is not None and token not in content.control_ids:
            run.append(token)
            continue
        text += content.decode(run, guarded=True) if run else ""
        run = []
        text += tokenizer.convert_ids_to_tokens(int(token)) if token is not None else ""
    return text


# the prompt with two other files and the family's path header, up to the MIDDLE
TEMPLATES = {
    ("qwen2.5-coder", "psm"):
        "<|repo_name|>acme\n<|file_sep|>far.py\nfar = 1\n<|file_sep|>near.py\nnear = 1\n"
        "<|file_sep|>src/a.py\n<|fim_prefix|>a = <|fim_suffix|>\n<|fim_middle|>",
    ("codeqwen1.5", "psm"):
        "<reponame>acme\n<file_sep>far.py\nfar = 1\n<file_sep>near.py\nnear = 1\n"
        "<file_sep>src/a.py\n<fim_prefix>a = <fim_suffix>\n<fim_middle>",
    ("starcoder2", "psm"):
        "<repo_name>acme<file_sep>far.py\nfar = 1\n<file_sep>near.py\nnear = 1\n"
        "<file_sep><fim_prefix>src/a.py\na = <fim_suffix>\n<fim_middle>",
    ("starcoder2", "spm"):
        "<repo_name>acme<file_sep>far.py\nfar = 1\n<file_sep>near.py\nnear = 1\n"
        "<file_sep><fim_prefix><fim_suffix>\n<fim_middle>src/a.py\na = ",
    ("granite-3.3", "psm"):
        "<reponame>acme<filename>far.py\nfar = 1\n<filename>near.py\nnear = 1\n"
        "<fim_prefix><filename>src/a.py\na = <fim_suffix>\n<fim_middle>",
    ("mellum", "spm"):
        "<filename>far.py\nfar = 1\n<filename>near.py\nnear = 1\n"
        "<filename>src/a.py\n<fim_suffix>\n<fim_prefix>a = <fim_middle>",
    ("deepseek-coder", "psm"):
        "<｜begin▁of▁sentence｜>#far.py\nfar = 1\n#near.py\nnear = 1\n"
        "<｜fim▁begin｜>#src/a.py\na = <｜fim▁hole｜>\n<｜fim▁end｜>",
    ("santacoder", "psm"):
        "# far.py\nfar = 1\n# near.py\nnear = 1\n"
        "<fim-prefix># src/a.py\na = <fim-suffix>\n<fim-middle>",
    ("codegemma", "psm"):
        "<bos># far.py\nfar = 1\n<|file_separator|># near.py\nnear = 1\n<|file_separator|>"
        "<|fim_prefix|># src/a.py\na = <|fim_suffix|>\n<|fim_middle|>",
    ("codestral", "spm"):
        "<s>[SUFFIX]\n[PREFIX] +++++ far.py\nfar = 1\n\n\n+++++ near.py\nnear = 1\n\n\n"
        "+++++ src/a.py\na = ",
    ("codegeex4", "spm"):
        "[gMASK]<sop><|user|>\n###REFERENCE:\n###PATH:far.py\nfar = 1\n"
        "###REFERENCE:\n###PATH:near.py\nnear = 1\n"
        "###PATH:src/a.py\n###LANGUAGE:Python\n###MODE:BLOCK\n"
        "<|code_suffix|>\n<|code_prefix|>a = <|code_middle|><|assistant|>\n",
    ("aixcoder", "psm"):
        "<s> # the file path is: far.py\n# the code file is written by Python\nfar = 1\n"
        "# the file path is: near.py\n# the code file is written by Python\nnear = 1\n"
        "▁<AIX-SPAN-PRE> # the file path is: src/a.py\n# the code file is written by Python\na = "
        "▁<AIX-SPAN-POST>\n▁<AIX-SPAN-MIDDLE>",
    ("codellama", "ar"): "<s> # far.py\nfar = 1\n# near.py\nnear = 1\n# src/a.py\na = ",
    ("incoder", "psm"):
        "<|endoftext|><| file ext=.py |>\nfar = 1\n<| file ext=.py |>\nnear = 1\n"
        "<| file ext=.py |>\na = <|mask:0|>\n<|mask:1|><|mask:0|>",
}  # fmt: skip


@pytest.mark.parametrize(("family", "order"), TEMPLATES)
def test_other_files_stand_in_the_familys_own_template(tiny_tokenizer, family, order):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    tokens = encode(
        short(order=order), form, tokenizer, max_length=1_024, context=iter(FILES),
        path_header="family",
    )  # fmt: skip

    end = form.row.document_end if order == "ar" else form.row.end
    expected = f"{TEMPLATES[family, order]}f(b)" + ("\n" if order == "ar" else "") + end
    assert written(tokenizer, tokens.input_ids) == expected


@pytest.mark.parametrize("path_header", ["none", "comment", "family"])
@pytest.mark.parametrize(("family", "order"), [c for c in ORDERS if FORMATS[c[0]].guarded])
def test_no_stray_blank_stands_after_other_files(tiny_tokenizer, family, order, path_header):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)
    text = {"middle": b"import x\n"} if order == "ar" else {"prefix": b"import x\n"}

    tokens = encode(
        short(order=order, **text), form, tokenizer, max_length=1_024, context=FILES,
        path_header=path_header,
    )  # fmt: skip

    lines = written(tokenizer, tokens.input_ids).splitlines()
    # only what starts the sample or follows a sentinel that the family spells a blank after
    assert not [line for line in lines if line.startswith(" ")]
    assert any(line.endswith("import x") for line in lines)
    assert sum("= 1" in line for line in lines) == 2


@pytest.mark.parametrize(("family", "order"), ORDERS)
@pytest.mark.parametrize("less", [0, 1, 12, 10_000])
def test_files_fill_what_is_left_and_middle_and_end_stay_whole(tiny_tokenizer, family, order, less):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)
    options = {"path_header": "family"}
    alone = encode(short(order=order), form, tokenizer, max_length=1_024, **options)
    whole = encode(short(order=order), form, tokenizer, max_length=1_024, context=FILES, **options)

    max_length = max(len(alone.input_ids), len(whole.input_ids) - less)
    tokens = encode(
        short(order=order), form, tokenizer, max_length=max_length, context=FILES, **options
    )

    text = written(tokenizer, tokens.input_ids)
    assert len(alone.input_ids) <= len(tokens.input_ids) <= max_length
    assert ("far = 1" in text) == (less == 0)
    assert ("near = 1" in text) == (less < 100)
    assert tokens.input_ids[-1] == alone.input_ids[-1]
    assert text.removesuffix(tokenizer.convert_ids_to_tokens(int(tokens.input_ids[-1]))).endswith(
        "a = f(b)\n" if order == "ar" else "f(b)"
    )
    context = tokens.labels[: len(tokens.input_ids) - len(alone.input_ids)]
    assert less == 10_000 or (context == -100).any()


def test_a_file_that_does_not_fit_makes_room_for_one_that_does(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    form = resolve_format(tokenizer)
    huge = Document(repo="acme", path="huge.py", language="python", text=b"x = 1\n" * 1_000)

    tokens = encode(short(), form, tokenizer, max_length=256, context=[*FILES, huge])

    assert "near = 1" in written(tokenizer, tokens.input_ids)
    assert "huge.py" not in written(tokenizer, tokens.input_ids)


def test_a_neighbor_that_cannot_fit_is_not_tokenized(tiny_tokenizer, monkeypatch):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    form = resolve_format(tokenizer)
    huge = Document(repo="acme", path="huge.py", language="python", text=b"x = 2\n" * 1_000)
    seen = []
    encoded = ContentTokenizer.encoded
    monkeypatch.setattr(
        ContentTokenizer, "encoded", lambda *args: seen.append(args[1]) or encoded(*args)
    )

    encode(short(), form, tokenizer, max_length=256, context=[*FILES, huge])

    assert short().prefix in seen
    assert huge.text not in seen


def test_a_neighbor_is_remembered_for_one_family(tiny_tokenizer):
    tokenizer = tiny_tokenizer("starcoder")
    neighbor = Document(repo="acme", path="end.py", language="python", text=b"no_newline = 1")

    starcoder, refact = (
        written(tokenizer, encode(
            short(), resolve_format(tokenizer, family), tokenizer, max_length=256,
            context=[neighbor],
        ).input_ids)
        for family in ("starcoder", "refact")
    )  # fmt: skip

    assert "<filename>end.py\nno_newline = 1<fim_prefix>" in starcoder
    assert "# end.py\nno_newline = 1\n<fim_prefix>" in refact


def test_a_neighbor_is_tokenized_once(tiny_tokenizer, monkeypatch):
    tokenizer = tiny_tokenizer("starcoder2")
    form = resolve_format(tokenizer)
    neighbor = Document(repo="acme", path="once.py", language="python", text=b"once = 1\n")
    seen = []
    encoded = ContentTokenizer.encoded

    def counting(self, text, guarded=False):
        seen.append(text)
        return encoded(self, text, guarded)

    monkeypatch.setattr(ContentTokenizer, "encoded", counting)
    first, second = (
        encode(short(), form, tokenizer, max_length=256, context=[neighbor]) for _ in range(2)
    )

    assert first.input_ids.tolist() == second.input_ids.tolist()
    assert seen.count(neighbor.text) == 1


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("family", "order"), [c for c in ORDERS if c[1] != "ar"])
def test_a_prompt_with_files_and_a_budget_is_the_start_of_the_sample(
    tiny_tokenizer, family, order, profile
):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)
    options = {
        "max_length": 3_000, "path_header": "family", "profile": profile, "context": FILES
    }  # fmt: skip
    tokens = encode(long(order=order), form, tokenizer, **options)

    prompt = encode_prompt(
        long(order=order, middle=b""), form, tokenizer, max_new_tokens=tokens.middle_tokens,
        **options,
    )  # fmt: skip

    assert prompt == tokens.input_ids[: len(prompt)].tolist()
    assert len(prompt) + tokens.middle_tokens + 1 == len(tokens.input_ids)


# budgets


@pytest.mark.parametrize(
    ("profile", "prefix", "suffix"),
    [("continue", (270, 307), (160, 204)), ("llama.cpp", (1_500, 1_536), (470, 510))],
)
def test_a_client_with_token_limits_sends_whole_lines_up_to_them(
    tiny_tokenizer, profile, prefix, suffix
):
    tokenizer = tiny_tokenizer("qwen2.5-coder")

    tokens = encode(
        long(), resolve_format(tokenizer), tokenizer, max_length=100_000, profile=profile
    )

    assert prefix[0] < tokens.prefix_tokens <= prefix[1]
    assert suffix[0] < tokens.suffix_tokens <= suffix[1]


@pytest.mark.parametrize(
    ("profile", "before", "after"), [("llama.vim", 256, 64), ("tabby", 20, 20)]
)
def test_a_client_with_line_limits_counts_them_from_the_cursor(
    tiny_tokenizer, profile, before, after
):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    prefix, suffix = b"".join(b"%d\n" % n for n in range(300)) + b"x = ", b"\n" + b"y\n" * 300

    tokens = encode(
        short(prefix=prefix, suffix=suffix), resolve_format(tokenizer), tokenizer,
        max_length=100_000, profile=profile,
    )  # fmt: skip

    text = written(tokenizer, tokens.input_ids)
    prefix, suffix = text.removeprefix("<|fim_prefix|>").split("<|fim_suffix|>")
    assert prefix.splitlines() == [*(str(n) for n in range(300 - before, 300)), "x = "]
    assert suffix.split("<|fim_middle|>")[0] == "\n" + "y\n" * after


def test_tabbys_characters_cost_the_prefix_its_start(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    prefix, suffix = ("é" * 200 + "\n") * 9 + "x = ", "\n" + "ü" * 100 + "\n"

    tokens = encode(
        short(prefix=prefix.encode(), suffix=suffix.encode()), resolve_format(tokenizer), tokenizer,
        max_length=100_000, profile="tabby",
    )  # fmt: skip

    text = written(tokenizer, tokens.input_ids).removeprefix("<|fim_prefix|>")
    kept, rest = text.split("<|fim_suffix|>")
    assert rest.startswith(suffix)
    assert len(kept) == 1_536 - len(suffix)
    assert prefix.endswith(kept)


def test_continues_limit_is_on_other_files_too(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    form = resolve_format(tokenizer)
    files = [
        Document(repo="acme", path=f"{n}.py", language="python", text=b"y = first(second)\n" * 8)
        for n in range(40)
    ]

    tokens = encode(long(), form, tokenizer, max_length=100_000, context=files, profile="continue")

    assert 900 < len(tokens.input_ids) - tokens.middle_tokens - 1 <= 1_024
    assert len(tokens.input_ids) < 1_100


def test_a_budget_never_exceeds_the_window(tiny_tokenizer):
    tokenizer = tiny_tokenizer("codellama")
    form = resolve_format(tokenizer)

    for profile in PROFILES:
        for max_length in (48, 200, 700):
            tokens = encode(long(), form, tokenizer, max_length=max_length, profile=profile)
            assert len(tokens.input_ids) <= max_length


def test_an_unknown_profile_is_refused(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")

    with pytest.raises(FimError, match="unknown profile 'vim'; known: none, continue, llama"):
        encode(short(), resolve_format(tokenizer), tokenizer, max_length=64, profile="vim")


@pytest.mark.parametrize(
    ("language", "path", "expected"),
    [
        ("python", "a.py", b"# a.py\n"),
        ("go", "a.go", b"// a.go\n"),
        ("html", "a.html", b"<!-- a.html -->\n"),
        ("css", "a.css", b"/* a.css */\n"),
    ],
)
def test_a_comment_that_names_the_path_is_closed(language, path, expected):
    assert named(COMMENT_HEADER, path, language) == expected
