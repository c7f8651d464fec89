"""Text to ids in pieces, bytes of tokens from a table, and a faster encoder in the same place."""

import random

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from fim import FimError, content_tokenizer
from fim.content import use_encoder
from fim.pieces import Pieces, can_join, split

CODE = (
    "def size(self):\n    return self.stack if so else 'sum'  # für s\n\n\n"
    "\tfor (int s = 0; s < str.length(); s++) { x = 's s' }\r\n    日本 s = 😀 sé\n"
) * 3


@pytest.fixture
def star(tiny_tokenizer):
    return content_tokenizer(tiny_tokenizer("starcoder2"))


def by_offsets(content, text, guarded, tokens, from_end):
    """Bytes of tokens as the tokenizer's own offsets tell; a split character counts as a whole."""
    guard = "☺" if guarded else ""
    encoding = content.backend.encode(guard + text, add_special_tokens=False)
    own = [offset for offset in encoding.offsets if offset[1] > len(guard)]
    chosen = own[-tokens:] if from_end else own[:tokens]
    start, end = max(chosen[0][0], len(guard)), chosen[-1][1]
    return len((guard + text)[start:end].encode())


@pytest.mark.parametrize("from_end", [False, True])
@pytest.mark.parametrize(
    ("family", "guarded"),
    [("starcoder2", False), ("deepseek-coder", False), ("codellama", True), ("aixcoder", True)],
)
def test_the_bytes_of_tokens_are_those_of_the_offsets(tiny_tokenizer, family, guarded, from_end):
    content = content_tokenizer(tiny_tokenizer(family))
    text = "def für(x):\n    return sum(x)\r\n\ty = 'é'\n"

    seen = content.encoded(text.encode(), guarded)

    assert len(seen.ids) > 20
    places = range(1, len(seen.ids) + 1)
    found = [seen.bytes_of(n, from_end) for n in places]
    whole = [n for n in places if "\ufffd" not in content.decode(
        seen.ids[-n:] if from_end else seen.ids[:n], guarded)]  # fmt: skip
    assert len(whole) > 15
    assert [found[n - 1] for n in whole] == [
        by_offsets(content, text, guarded, n, from_end) for n in whole
    ]
    assert found == sorted(found)
    assert found[-1] == len(text.encode())
    assert seen.bytes_of(0, from_end) == 0


def test_tokens_of_half_a_character_count_their_own_bytes(star):
    seen = star.encoded("日".encode())

    assert [seen.bytes_of(n) for n in range(4)] == [0, 1, 2, 3]
    assert [seen.bytes_of(n, from_end=True) for n in range(4)] == [0, 1, 2, 3]


def test_only_vocabularies_of_bytes_have_a_table(tiny_tokenizer):
    tables = {
        family: content_tokenizer(tiny_tokenizer(family)).sizes is not None
        for family in ("starcoder2", "deepseek-coder", "codellama", "aixcoder")
    }

    assert tables == {
        "starcoder2": True, "deepseek-coder": True, "codellama": False, "aixcoder": False,
    }  # fmt: skip


def test_text_that_the_tokenizer_rewrites_is_measured_by_its_offsets(tiny_tokenizer):
    from tokenizers import Tokenizer, normalizers

    backend = Tokenizer.from_str(tiny_tokenizer("qwen2.5-coder").backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    content = content_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    decomposed = "e\u0301 = 1\n"

    seen = content.encoded(decomposed.encode())

    assert content.decode(seen.ids) == "é = 1\n"
    assert seen.bytes_of(len(seen.ids)) == len(decomposed.encode())


def test_a_text_is_cut_at_joints_and_nothing_is_lost():
    assert list(split("a s  sb; sc\n sd ss s")) == ["a", " s  sb;", " sc\n sd", " ss", " s"]
    assert list(split(" s")) == [" s"]
    assert list(split("")) == [""]
    assert "".join(split(CODE)) == CODE
    assert len(list(split(CODE))) > 20


@pytest.mark.parametrize("family", ["starcoder2", "deepseek-coder", "qwen2.5-coder"])
def test_ids_of_pieces_are_the_ids_of_the_whole(tiny_tokenizer, family):
    content = content_tokenizer(tiny_tokenizer(family))
    rng = random.Random(0)
    words = (
        " s",
        " so",
        "s",
        " ",
        "\n",
        "\r\n",
        "\t",
        "x",
        ";",
        "1",
        "'s",
        "é",
        "\u0301",
        "日",
        "S",
    )

    assert isinstance(content.pieces, Pieces)  # or nothing would be compared below
    for _ in range(200):
        text = "".join(rng.choices(words, k=60))
        assert content.encode(text.encode()) == content.ids_of(text).tolist()
    for _ in range(50):
        start, end = sorted(rng.randrange(len(CODE)) for _ in "ab")
        assert content.encode(CODE[start:end].encode()) == content.ids_of(CODE[start:end]).tolist()


def test_a_piece_is_encoded_once(star):
    asked = []

    def ids_of(text):
        asked.append(text)
        return star.ids_of(text)

    pieces = Pieces(star.sizes)
    first = pieces.encode("int size = 1; set(size); stop();", ids_of)
    again = pieces.encode("{ size = 1; set(size); }", ids_of)

    assert first.tolist() == star.ids_of("int size = 1; set(size); stop();").tolist()
    assert again.tolist() == star.ids_of("{ size = 1; set(size); }").tolist()
    assert asked == ["int size = 1; set(size); stop();", "{", " set(size); }"]


def test_what_was_seen_is_forgotten_in_the_end(star, monkeypatch):
    monkeypatch.setattr("fim.pieces._FORGET", 100)
    pieces = Pieces(star.sizes)

    for number in range(200):
        text = f"x = {number}; size = {number};"
        assert pieces.encode(text, star.ids_of).tolist() == star.ids_of(text).tolist()

    assert len(pieces._known) < 20


def test_a_tokenizer_that_joins_words_encodes_whole_texts(tiny_tokenizer):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["x s; x s; x s;"], trainer)

    def ids_of(text):
        return np.array(backend.encode(text).ids, dtype=np.int32)

    assert not can_join(ids_of)
    assert ids_of("x s;").tolist() != [*ids_of("x"), *ids_of(" s;")]


def test_one_token_over_a_joint_is_enough_to_encode_whole_texts():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    merges = [("o", "n"), ("Ġ", "s"), ("on", "Ġs")]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *("".join(merge) for merge in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    content = content_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))

    ids = content.encode(b"return on self")

    assert content.sizes is not None  # only the token stands in the way
    assert can_join(content.ids_of)  # as far as words without it tell
    assert content.pieces is None
    assert vocabulary["onĠs"] in ids


def test_another_encoder_is_asked_for_ids_and_only_for_these(tiny_tokenizer):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer("starcoder2").backend_tokenizer
    )
    plain = content_tokenizer(tokenizer)
    asked = []

    def ids_of(text):
        asked.append(text)
        return plain.ids_of(text)

    use_encoder(tokenizer, ids_of)
    fast = content_tokenizer(tokenizer)

    assert fast.encode(CODE.encode()) == plain.encode(CODE.encode())
    assert asked == [CODE]
    assert fast.decode(fast.encode(b"size s")) == "size s"
    assert fast.encoded(b"size s").bytes_of(1) == plain.encoded(b"size s").bytes_of(1)
    with pytest.raises(FimError, match="not UTF-8 at byte 1"):
        fast.encode(b"a\xff")
