"""On the real tokenizers: the ids that the families publish, and content that cannot be control.

Needs `SFIM_TEST_DATA`, the folder with `tok-deepseek-coder`, `tok-qwen2` and `tok-mistral`.
"""

import itertools

import pytest
from transformers import PreTrainedTokenizerFast

from fim import FimError, Sample, content_tokenizer, encode, resolve_format

FILES = {
    "deepseek-coder": "tok-deepseek-coder/tokenizer.json",
    "qwen2.5-coder": "tok-qwen2/tokenizer.json",
    "codestral": "tok-mistral/mistral_instruct_tokenizer_240323.model.v3",
}
IDS = {
    "deepseek-coder": {
        "<｜fim▁begin｜>": 32016, "<｜fim▁hole｜>": 32015, "<｜fim▁end｜>": 32017,
        "<｜begin▁of▁sentence｜>": 32013, "<｜end▁of▁sentence｜>": 32014, "<|EOT|>": 32021,
    },
    "qwen2.5-coder": {
        "<|fim_prefix|>": 151659, "<|fim_suffix|>": 151661, "<|fim_middle|>": 151660,
        "<|fim_pad|>": 151662, "<|repo_name|>": 151663, "<|file_sep|>": 151664,
        "<|endoftext|>": 151643, "<|im_end|>": 151645,
    },
    "codestral": {"<s>": 1, "</s>": 2, "[PREFIX]": 11, "[SUFFIX]": 13},
}  # fmt: skip


def sentencepiece(file):
    """A SentencePiece model as a fast tokenizer, in the legacy form: every text gets a blank."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers.convert_slow_tokenizer import import_protobuf
    from transformers.tokenization_utils_base import generate_merges

    proto = import_protobuf().ModelProto.FromString(file.read_bytes())
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    merges = generate_merges(vocabulary)
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(content=" ", left=1)]
    )  # fmt: skip
    control = [piece.piece for piece in proto.pieces if piece.type in (2, 3)]
    backend.add_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="module", params=FILES)
def real(request, test_data):
    file = test_data / FILES[request.param]
    if file.suffix == ".json":
        return request.param, PreTrainedTokenizerFast(tokenizer_file=str(file))
    return request.param, sentencepiece(file)


def readable(content, text: str) -> str:
    """Text as it comes back: SentencePiece has one letter for a blank and for U+2581."""
    return text.replace("▁", " ") if content.backend.token_to_id("<0x0A>") else text


def test_the_right_row_is_proved_with_the_published_ids(real):
    name, tokenizer = real

    form = resolve_format(tokenizer)

    assert form.name == name
    assert form.ids == IDS[name]


def test_every_sentinel_of_every_family_stays_text(real, sentinels):
    _, tokenizer = real
    content = content_tokenizer(tokenizer)
    pairs = [first + second for first, second in itertools.product(sentinels, repeat=2)]
    text = "x = '" + "', '".join(sentinels + pairs) + "'\r\n\tdef f():\n    return 'é日😀'\n"

    ids = content.encode(text.encode())

    assert len(sentinels) == 59
    assert len(content.control_ids) >= 9
    assert content.control_ids.isdisjoint(ids)
    assert content.decode(ids) == readable(content, text)


@pytest.mark.parametrize("part", ["prefix", "middle", "suffix"])
def test_no_sentinel_in_any_part_of_a_sample_is_one(real, sentinels, part):
    name, tokenizer = real
    form, content = resolve_format(tokenizer), content_tokenizer(tokenizer)
    (order,) = form.row.trained
    text = "\n".join(f"a {token}{token} b" for token in sentinels)
    parts = {"prefix": b"x = ", "middle": b"f(", "suffix": b")\n"} | {part: text.encode()}

    ids = encode(
        Sample(document_id="d", path="<s>.py", language="python", order=order, sampler="node",
               kind="call", context_split=0.5, **parts),
        form, tokenizer, max_length=8_192, path_header="family",
    ).input_ids.tolist()  # fmt: skip

    layout = [token for token in form.layouts[order] if isinstance(token, int)]
    files = [form.ids["<|file_sep|>"]] if name == "qwen2.5-coder" else []
    own = [token for token in ids if token in content.control_ids]
    assert own == [*form.bos_ids, *files, *layout, form.end_id]
    runs = [list(run) for is_own, run in
            itertools.groupby(ids, content.control_ids.__contains__) if not is_own]  # fmt: skip
    assert any(readable(content, text) in content.decode(run, guarded=True) for run in runs)


def test_the_tokenizer_itself_would_have_let_them_through(real):
    name, tokenizer = real
    form = resolve_format(tokenizer)

    ids = tokenizer.encode(form.row.prefix, add_special_tokens=False, split_special_tokens=True)

    # Mistral marks its tokens as special, the others do not
    assert (ids == [form.sentinel_id("PRE")]) == (name != "codestral")
    assert tokenizer.encode(form.row.prefix, add_special_tokens=False) == [form.sentinel_id("PRE")]


def test_ordinary_text_has_the_ids_that_a_server_gives_it(real):
    _, tokenizer = real
    text = "def für(x):\n\treturn x ** 2  # ü ÿ é\r\n\n\n    日本 😀\n"

    ids = content_tokenizer(tokenizer).encode(text.encode())

    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert content_tokenizer(tokenizer).decode(ids) == text


def test_a_sample_is_fitted_and_reads_back(real):
    _, tokenizer = real
    form = resolve_format(tokenizer)
    (order,) = form.row.trained
    line = "total = für(x) + 1\n"
    sample = Sample(
        document_id="d", path="a.py", language="python", prefix=(line * 500).encode(),
        middle=b"return total", suffix=("\n" + line * 500).encode(), order=order, sampler="node",
        kind="return_statement", context_split=0.5,
    )  # fmt: skip

    tokens = encode(sample, form, tokenizer, max_length=512)

    ids = tokens.input_ids.tolist()
    start = ids.index(form.sentinel_id("PRE")) + 1
    prefix = content_tokenizer(tokenizer).decode(ids[start : start + tokens.prefix_tokens])
    assert 480 < len(ids) <= 512
    assert prefix == line * (len(prefix) // len(line))
    assert len(prefix) > 300


def test_codestrals_prompt_is_the_golden_one_of_mistral_common(test_data):
    tokenizer = sentencepiece(test_data / FILES["codestral"])
    form = resolve_format(tokenizer)
    sample = Sample(
        document_id="d", path="a.py", language="python", prefix=b"def f(", middle=b"a, b):",
        suffix=b"return a + b", order="spm", sampler="node", kind="parameters", context_split=0.5,
    )  # fmt: skip

    tokens = tokenizer.convert_ids_to_tokens(
        encode(sample, form, tokenizer, max_length=64).input_ids.tolist()
    )

    assert "".join(tokens) == "<s>[SUFFIX]return▁a▁+▁b[PREFIX]▁def▁f(a,▁b):</s>"


@pytest.mark.parametrize(
    "name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240216.model.v2"]
)
def test_older_vocabularies_of_mistral_have_no_sentinels(test_data, name):
    tokenizer = sentencepiece(test_data / "tok-mistral" / name)

    with pytest.raises(FimError, match=r"'\[PREFIX\]' is not in its vocabulary"):
        resolve_format(tokenizer, "codestral")
    with pytest.raises(FimError, match="of no known model family"):
        resolve_format(tokenizer)


def test_deepseeks_instruct_tokenizer_calls_another_token_eos(test_data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(test_data / "tok-deepseek-coder")

    form = resolve_format(tokenizer, hint="deepseek-ai/deepseek-coder-1.3b-instruct")

    assert (tokenizer.eos_token_id, form.end_id, form.stop_ids) == (32021, 32014, (32014, 32021))
    assert form.bos_ids == (32013,)
