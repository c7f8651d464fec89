"""No control token from content, MIDDLE and end whole, labels where they belong."""

import re

import numpy as np
import pytest

from fim import (
    FORMATS,
    Document,
    FimError,
    Sample,
    TooLong,
    content_tokenizer,
    encode,
    encode_prompt,
    resolve_format,
)
from fim.content import ContentTokenizer
from fim.formats import Text

FIM_ORDERS = [(family, order) for family, row in FORMATS.items() for order in row.orders]
LINES = [b"line %03d = first(second, third)\n" % number for number in range(200)]


def sample(**fields) -> Sample:
    values = {
        "document_id": "d", "repo": "acme", "path": "src/a.py", "language": "python",
        "prefix": b"".join(LINES[:100]) + b"    x = ", "middle": b"call(first)",
        "suffix": b"\n" + b"".join(LINES[100:]), "order": "psm", "sampler": "node", "kind": "call",
        "context_split": 0.5,
    }  # fmt: skip
    return Sample(**values | fields)


def short(**fields) -> Sample:
    return sample(**{"prefix": b"a = ", "middle": b"f(b)", "suffix": b"\n"} | fields)


@pytest.fixture
def qwen(tiny_tokenizer):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    return resolve_format(tokenizer), tokenizer


def text_of(tokenizer, ids) -> str:
    return content_tokenizer(tokenizer).decode(np.asarray(ids).tolist())


def segments(form, tokenizer, tokens) -> dict[str, str]:
    """The text between the sentinels of a PSM sample with no BOS."""
    written = tokenizer.decode(tokens.input_ids.tolist(), skip_special_tokens=False)
    row = form.row
    pattern = "(.*)".join(map(re.escape, ("", row.prefix, row.suffix, row.middle, row.end)))
    header, prefix, suffix, middle = re.fullmatch(pattern, written, re.DOTALL).groups()
    return {"header": header, "P": prefix, "S": suffix, "M": middle}


# content that looks like control tokens


@pytest.mark.parametrize("family", FORMATS)
def test_every_sentinel_of_every_family_stays_text(tiny_tokenizer, sentinels, family):
    content = content_tokenizer(tiny_tokenizer(family))
    text = "x = '" + "', '".join(sentinels) + "'"

    ids = content.encode(text.encode())

    assert len(sentinels) == 59
    assert len(content.control_ids) >= 5
    assert content.control_ids.isdisjoint(ids)
    # SentencePiece has one letter for a blank and for U+2581
    sentencepiece = content.backend.token_to_id("<0x0A>") is not None
    expected = text.replace("▁", " ") if sentencepiece else text
    assert content.decode(ids) == expected


@pytest.mark.parametrize(("family", "order"), FIM_ORDERS)
def test_a_sample_has_its_own_control_tokens_and_no_others(
    tiny_tokenizer, sentinels, family, order
):
    tokenizer = tiny_tokenizer(family)
    form, control = resolve_format(tokenizer, family), content_tokenizer(tokenizer).control_ids
    text = " ".join(sentinels).encode()
    hostile = sample(prefix=text, middle=text, suffix=text, path="<s>.py", order=order)
    harmless = sample(prefix=b"a", middle=b"b", suffix=b"c", order=order)

    counts = [
        sum(token in control for token in encode(s, form, tokenizer, max_length=4_096).input_ids)
        for s in (hostile, harmless)
    ]

    own = sum(isinstance(part, int) for part in form.layouts[order])
    assert counts[0] == counts[1] == len(form.bos_ids) + own + 1
    assert own >= 2


def test_plain_text_that_is_an_added_token_stays_one_and_is_read_back(tiny_tokenizer):
    tokenizer = tiny_tokenizer("deepseek-coder")
    content = content_tokenizer(tokenizer)
    added = tokenizer.convert_tokens_to_ids("ü")

    ids = content.encode("für üü".encode())

    assert ids.count(added) == 3
    assert added not in content.control_ids
    # the byte-level decoder takes this token for the byte 0xFC
    assert content.decode(ids) == "für üü"


def test_the_copy_of_a_tokenizer_is_made_once_and_leaves_it_alone(tiny_tokenizer):
    tokenizer = tiny_tokenizer("starcoder2")

    assert content_tokenizer(tokenizer) is content_tokenizer(tokenizer)
    assert tokenizer.encode("<fim_prefix>", add_special_tokens=False) == [401]


def test_text_that_is_no_utf_8_is_refused(qwen):
    form, tokenizer = qwen

    with pytest.raises(FimError, match="not UTF-8 at byte 2"):
        encode(short(middle=b"ab\xff"), form, tokenizer, max_length=64)


# fitting


@pytest.mark.parametrize(("family", "order"), FIM_ORDERS)
@pytest.mark.parametrize("room", [2, 40, 200, 1_000, 100_000])
def test_a_sample_fits_with_its_middle_and_end_whole(tiny_tokenizer, family, order, room):
    tokenizer = tiny_tokenizer(family)
    form, content = resolve_format(tokenizer, family), content_tokenizer(tokenizer)
    middle = content.encode(b"call(first)", guarded="M" in form.row.guarded)

    least = encode(sample(order=order, prefix=b"", suffix=b""), form, tokenizer, max_length=256)
    max_length = len(least.input_ids) + room

    tokens = encode(sample(order=order), form, tokenizer, max_length=max_length)

    assert len(tokens.input_ids) == len(tokens.labels) <= max_length
    assert tokens.input_ids[-len(middle) - 1 :].tolist() == [*middle, form.end_id]
    assert tokens.middle_tokens == len(middle)


def test_context_is_cut_at_line_ends_and_the_nearest_lines_stay(qwen):
    form, tokenizer = qwen

    parts = segments(form, tokenizer, encode(sample(), form, tokenizer, max_length=300))

    prefix, suffix = b"".join(LINES[:100]).decode() + "    x = ", sample().suffix.decode()
    assert 0 < len(parts["P"]) < len(prefix)
    assert 0 < len(parts["S"]) < len(suffix)
    assert prefix.endswith("\n" + parts["P"])
    assert suffix.startswith(parts["S"])
    assert parts["S"].endswith("\n")
    assert parts["M"] == "call(first)"


@pytest.mark.parametrize("split", [0.25, 0.5, 0.75])
def test_the_split_divides_the_window_when_both_sides_are_too_long(qwen, split):
    form, tokenizer = qwen

    tokens = encode(sample(context_split=split), form, tokenizer, max_length=1_000)

    context = tokens.prefix_tokens + tokens.suffix_tokens
    assert tokens.prefix_tokens / context == pytest.approx(split, abs=0.05)
    assert len(tokens.input_ids) > 950


@pytest.mark.parametrize(
    ("fields", "whole"), [({"suffix": b"\nend\n"}, "S"), ({"prefix": b"start = "}, "P")]
)
def test_what_one_side_does_not_need_goes_to_the_other(qwen, fields, whole):
    form, tokenizer = qwen

    tokens = encode(sample(**fields), form, tokenizer, max_length=600)

    parts = segments(form, tokenizer, tokens)
    assert parts[whole] == next(iter(fields.values())).decode()
    assert len(tokens.input_ids) > 570


@pytest.mark.parametrize(
    ("prefix", "suffix"), [(b"\n" * 30 + b"a" * 3, b"z%!~" * 20), (b"z%!~" * 20, b"c\n")]
)
@pytest.mark.parametrize("split", [0.01, 0.5, 0.99])
def test_nothing_is_cut_where_everything_fits_to_the_token(qwen, prefix, suffix, split):
    form, tokenizer = qwen
    everything = short(prefix=prefix, suffix=suffix, context_split=split)
    size = len(encode(everything, form, tokenizer, max_length=10_000).input_ids)

    exact = encode(everything, form, tokenizer, max_length=size)
    smaller = encode(everything, form, tokenizer, max_length=size - 1)

    assert segments(form, tokenizer, exact) == {
        "header": "", "P": prefix.decode(), "S": suffix.decode(), "M": "f(b)",
    }  # fmt: skip
    assert len(smaller.input_ids) < size


@pytest.mark.parametrize(("family", "order"), FIM_ORDERS)
def test_text_that_fits_is_tokenized_once(tiny_tokenizer, monkeypatch, family, order):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)
    seen = []
    encoded = ContentTokenizer.encoded

    def counting(self, text, guarded=False):
        seen.append(text)
        return encoded(self, text, guarded)

    monkeypatch.setattr(ContentTokenizer, "encoded", counting)
    encode(sample(order=order), form, tokenizer, max_length=100_000)

    texts = sum(isinstance(part, Text) for part in form.layouts[order])
    assert {sample().prefix, sample().middle, sample().suffix} <= set(seen)
    assert len(seen) == 3 + texts


def test_long_text_is_tokenized_twice_at_most(qwen, monkeypatch):
    form, tokenizer = qwen
    seen = []
    encoded = ContentTokenizer.encoded

    def counting(self, text, guarded=False):
        seen.append(len(text))
        return encoded(self, text, guarded)

    monkeypatch.setattr(ContentTokenizer, "encoded", counting)
    long = sample(prefix=b"".join(LINES * 50), suffix=b"".join(LINES * 50))
    encode(long, form, tokenizer, max_length=1_000)

    assert len(seen) == 5  # the middle, each side to find its cut, each side from its cut
    assert sum(seen) < 10 * 1_000


def test_a_line_longer_than_the_window_is_cut_between_characters(qwen):
    form, tokenizer = qwen
    long = sample(prefix="é日".encode() * 500, suffix="😀".encode() * 500)

    parts = segments(form, tokenizer, encode(long, form, tokenizer, max_length=200))

    assert parts["P"]
    assert parts["S"]
    assert set(parts["P"]) == {"é", "日"}
    assert set(parts["S"]) == {"😀"}


def test_a_middle_that_does_not_fit_is_too_long(qwen):
    form, tokenizer = qwen
    size = len(encode(short(prefix=b"", suffix=b""), form, tokenizer, max_length=64).input_ids)

    assert len(encode(short(), form, tokenizer, max_length=size).input_ids) == size
    with pytest.raises(TooLong, match=r"a MIDDLE of \d+ tokens does not fit"):
        encode(short(), form, tokenizer, max_length=size - 1)


def test_an_autoregressive_piece_is_cut_at_a_line_and_then_has_no_end(qwen):
    form, tokenizer = qwen
    piece = sample(order="ar", prefix=b"", suffix=b"", middle=b"".join(LINES))

    ids = encode(piece, form, tokenizer, max_length=100).input_ids.tolist()

    assert form.end_id not in ids
    assert b"".join(LINES).decode().startswith(text_of(tokenizer, ids))
    assert text_of(tokenizer, ids).endswith("\n")
    with pytest.raises(TooLong, match=r"not one line of src/a\.py fits 1 tokens"):
        encode(piece, form, tokenizer, max_length=1)


@pytest.mark.parametrize(("ends", "last"), [(True, "<|endoftext|>"), (False, "x")])
def test_only_what_ends_a_document_has_its_end(qwen, ends, last):
    form, tokenizer = qwen
    piece = sample(order="ar", prefix=b"", suffix=b"", middle=b"x", ends_document=ends)

    ids = encode(piece, form, tokenizer, max_length=100).input_ids.tolist()

    assert tokenizer.convert_ids_to_tokens(ids)[-1] == last


# labels


@pytest.mark.parametrize(("family", "order"), [*FIM_ORDERS, *((name, "ar") for name in FORMATS)])
@pytest.mark.parametrize("loss", ["all", "middle"])
def test_the_first_label_is_ignored_and_others_are_their_tokens(
    tiny_tokenizer, family, order, loss
):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    tokens = encode(sample(order=order), form, tokenizer, max_length=300, loss=loss)

    trained = tokens.labels != -100
    assert tokens.labels[0] == -100
    assert (tokens.labels[trained] == tokens.input_ids[trained]).all()
    assert tokens.labels.dtype == tokens.input_ids.dtype == np.int32
    assert trained[-1]


def test_loss_on_the_middle_is_taken_on_it_and_its_end_only(qwen):
    form, tokenizer = qwen

    tokens = encode(short(), form, tokenizer, max_length=64, loss="middle")

    trained = tokens.labels[tokens.labels != -100].tolist()
    assert "".join(tokenizer.convert_ids_to_tokens(trained)) == "f(b)<|endoftext|>"
    assert tokens.labels[-len(trained) :].tolist() == trained


def test_loss_on_all_is_taken_on_all_but_the_first_token(qwen):
    form, tokenizer = qwen

    tokens = encode(short(), form, tokenizer, max_length=64)

    assert tokens.labels[1:].tolist() == tokens.input_ids[1:].tolist()


def test_a_bos_of_two_tokens_and_the_text_of_a_layout_take_no_loss(tiny_tokenizer):
    tokenizer = tiny_tokenizer("codegeex4")

    tokens = encode(short(order="spm"), resolve_format(tokenizer), tokenizer, max_length=256)

    trained = tokens.labels[tokens.labels != -100].tolist()
    assert "".join(tokenizer.convert_ids_to_tokens(trained)) == (
        "<|user|><|code_suffix|>Ċ<|code_prefix|>aĠ=Ġ<|code_middle|><|assistant|>f(b)<|user|>"
    )


@pytest.mark.parametrize(("family", "order"), FIM_ORDERS)
def test_headers_context_and_the_first_token_take_no_loss(tiny_tokenizer, family, order):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)
    other = Document(repo="acme", path="b.py", language="python", text=b"y = 1\n")

    with_more = encode(
        short(order=order), form, tokenizer, max_length=256, path_header="family", context=[other]
    )
    plain = encode(short(order=order), form, tokenizer, max_length=256)

    assert len(with_more.input_ids) > len(plain.input_ids) + 10
    trained, expected = (t.labels[t.labels != -100].tolist() for t in (with_more, plain))
    # after a header, SentencePiece puts no blank before the prefix
    texts = [tokenizer.decode(ids).replace(" ", "") for ids in (trained, expected)]
    assert texts[0].endswith(texts[1])
    assert len(trained) - len(expected) <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "suffix"}, "unknown loss 'suffix'; known: all, middle"),
        ({"path_header": "url"}, "unknown path header 'url'; known: none, comment, family"),
    ],
)
def test_an_unknown_choice_is_refused(qwen, fields, message):
    form, tokenizer = qwen

    with pytest.raises(FimError, match=message):
        encode(short(), form, tokenizer, max_length=64, **fields)


def test_an_order_without_a_layout_is_refused(qwen):
    form, tokenizer = qwen

    with pytest.raises(FimError, match=r"qwen2\.5-coder has no order 'mps'; it has: psm, spm"):
        encode(short(order="mps"), form, tokenizer, max_length=64)


# paths and context


@pytest.mark.parametrize(
    ("family", "style", "written"),
    [
        ("qwen2.5-coder", "none", "<|fim_prefix|>a = <|fim_suffix|>"),
        ("qwen2.5-coder", "comment", "<|fim_prefix|># src/a.py\na = <|fim_suffix|>"),
        ("qwen2.5-coder", "family", "<|file_sep|>src/a.py\n<|fim_prefix|>a = <|fim_suffix|>"),
        ("starcoder2", "family", "<file_sep><fim_prefix>src/a.py\na = <fim_suffix>"),
        ("deepseek-coder", "family", "<｜begin▁of▁sentence｜><｜fim▁begin｜>#src/a.py\na = <"),
    ],
)
def test_a_path_is_written_as_the_style_says(tiny_tokenizer, family, style, written):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)

    tokens = encode(short(), form, tokenizer, max_length=256, path_header=style)

    assert tokenizer.decode(tokens.input_ids.tolist()).startswith(written)


def test_aixcoder_is_told_path_and_language(tiny_tokenizer):
    tokenizer = tiny_tokenizer("aixcoder")
    go = short(language="go", path="a.go")

    tokens = encode(go, resolve_format(tokenizer), tokenizer, max_length=256, path_header="family")

    header = "// the file path is: a.go\n// the code file is written by Go\n"
    assert header in tokenizer.decode(tokens.input_ids.tolist())


@pytest.mark.parametrize("order", ["psm", "spm", "ar"])
@pytest.mark.parametrize("family", ["codellama", "aixcoder"])
def test_no_stray_blank_stands_after_a_path_header(tiny_tokenizer, family, order):
    tokenizer = tiny_tokenizer(family)
    text = {"prefix": b"import x\n"} if order != "ar" else {"prefix": b"", "suffix": b""}
    text |= {"middle": b"import x\n"}

    tokens = encode(
        short(order=order, **text), resolve_format(tokenizer, family), tokenizer, max_length=256,
        path_header="comment",
    )  # fmt: skip

    assert "# src/a.py\nimport x\n" in tokenizer.decode(tokens.input_ids.tolist())


@pytest.mark.parametrize("text", ["  x = 1\n", " x", "x", "", "\n y", "é"])
@pytest.mark.parametrize("family", ["codellama", "aixcoder"])
def test_a_guarded_text_is_read_back_with_its_first_blank(tiny_tokenizer, family, text):
    content = content_tokenizer(tiny_tokenizer(family))

    assert content.decode(content.encode(text.encode(), guarded=True), guarded=True) == text


def test_half_a_character_at_the_start_leaves_nothing_of_the_guard(tiny_tokenizer):
    tokenizer = tiny_tokenizer("codellama")
    content = content_tokenizer(tokenizer)

    half = tokenizer.convert_tokens_to_ids(["<0xE2>"])

    assert content.decode(half, guarded=True) == "\ufffd"


def test_a_path_header_without_room_for_text_is_too_long(qwen):
    form, tokenizer = qwen
    piece = short(order="ar", prefix=b"", suffix=b"", path="a/" * 80)

    with pytest.raises(TooLong, match="not one line"):
        encode(piece, form, tokenizer, max_length=64, path_header="comment")


def test_a_path_that_is_no_utf_8_is_written_with_question_marks(qwen):
    form, tokenizer = qwen
    odd = short(path=b"\xff.py".decode(errors="surrogateescape"))

    tokens = encode(odd, form, tokenizer, max_length=256, path_header="comment")

    assert "# ?.py\n" in tokenizer.decode(tokens.input_ids.tolist())


# prompts


@pytest.mark.parametrize("style", ["none", "comment", "family"])
@pytest.mark.parametrize("max_length", [128, 4_096])
@pytest.mark.parametrize(("family", "order"), FIM_ORDERS)
def test_a_prompt_is_the_start_of_the_training_sample(
    tiny_tokenizer, family, order, max_length, style
):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer, family)
    tokens = encode(sample(order=order), form, tokenizer, max_length=max_length, path_header=style)

    prompt = encode_prompt(
        sample(order=order, middle=b""), form, tokenizer, max_length=max_length,
        max_new_tokens=tokens.middle_tokens, path_header=style,
    )  # fmt: skip

    assert prompt == tokens.input_ids[: len(prompt)].tolist()
    assert len(prompt) + tokens.middle_tokens + 1 == len(tokens.input_ids)


def test_a_prompt_leaves_room_for_the_completion(qwen):
    form, tokenizer = qwen

    prompt = encode_prompt(sample(), form, tokenizer, max_length=300, max_new_tokens=100)

    assert 150 < len(prompt) <= 199
    with pytest.raises(TooLong, match="a MIDDLE of 297 tokens does not fit 300"):
        encode_prompt(sample(), form, tokenizer, max_length=300, max_new_tokens=297)


def test_there_is_no_prompt_for_an_autoregressive_sample(qwen):
    form, tokenizer = qwen

    with pytest.raises(FimError, match="has no order 'ar'"):
        encode_prompt(short(order="ar"), form, tokenizer, max_length=64, max_new_tokens=8)
