"""fastokens encodes only where it gives the ids of the tokenizer, and else says so, once."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fim import content_tokenizer
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.model import Scratch
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train
from finetune.samples import fast_tokenizer
from finetune.samples.fast_tokenizer import awkward_texts, first_difference, speed_up

OWN = [
    f"class Queue{n}:\n    def s(self):\n        return self.items[{n}]\n".encode()
    for n in range(9)
]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """A tokenizer that nothing else uses, and that nothing is known of."""
    from transformers import PreTrainedTokenizerFast

    fast_tokenizer._TRIED.clear()
    fast_tokenizer._warn.cache_clear()
    yield PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer("qwen2.5-coder").backend_tokenizer
    )
    fast_tokenizer._TRIED.clear()
    fast_tokenizer._warn.cache_clear()


@pytest.fixture
def fastokens():
    return pytest.importorskip(
        "fastokens", reason="fastokens is not installed: pip install 'sfim[fast]'"
    )


def plant(monkeypatch, ids_of=None, fault=None):
    """Put something in the place of fastokens."""

    def from_json_str(state):
        if fault:
            raise ValueError(fault)

        def encode_batch_flat(texts):
            ids = np.asarray(ids_of(texts[0]), dtype=np.uint32)
            return ids.tobytes(), None

        return SimpleNamespace(encode_batch_flat=encode_batch_flat)

    module = SimpleNamespace(
        Tokenizer=SimpleNamespace(from_json_str=from_json_str), __spec__=SimpleNamespace()
    )
    monkeypatch.setitem(sys.modules, "fastokens", module)


def test_ids_are_the_same_on_awkward_text_of_every_kind(fastokens, tokenizer):
    reference = content_tokenizer(tokenizer)
    fast = fastokens.Tokenizer.from_json_str(reference.backend.to_str())
    texts = list(awkward_texts(tokenizer))

    difference = first_difference(lambda t: fast.encode(t).ids, reference.ids_of, texts)

    assert difference is None
    assert len(texts) > 400
    assert 250_000 < sum(len(text.encode()) for _, text in texts) < 500_000


def test_it_encodes_where_it_gives_the_same_ids(fastokens, tokenizer, capsys):
    before = content_tokenizer(tokenizer)

    assert speed_up(tokenizer, "auto", OWN)

    after = content_tokenizer(tokenizer)
    text = b"total = sum(s)  # <|fim_prefix|> f\xc3\xbcr\r\n"
    assert after.ids_of is not before.ids_of
    assert after.encode(text) == before.encode(text)
    assert capsys.readouterr().err == ""


def test_a_recipe_may_keep_to_transformers(fastokens, tokenizer):
    before = content_tokenizer(tokenizer)

    assert not speed_up(tokenizer, "transformers", OWN)

    assert content_tokenizer(tokenizer) is before


@pytest.mark.parametrize("family", ["deepseek-coder", "starcoder2", "codellama", "aixcoder"])
def test_whatever_encodes_gives_the_ids_of_the_tokenizer(fastokens, tiny_tokenizer, family):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer(family).backend_tokenizer)
    plain = content_tokenizer(tiny_tokenizer(family))

    speed_up(tokenizer, "auto", OWN)

    content = content_tokenizer(tokenizer)
    for kind, text in awkward_texts(tokenizer):
        assert content.encode(text.encode()) == plain.ids_of(text).tolist(), kind


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ("\r\n", "blanks"), ("\0", "NUL bytes"), ("\u0323", "characters of the first plane"),
        ("<fim_prefix>", "sentinels"), ("Queue7", "your own files"),
    ],
)  # fmt: skip
def test_a_difference_is_found_and_named_and_not_shown(
    tokenizer, monkeypatch, capsys, broken, kind
):
    right = content_tokenizer(tokenizer).ids_of
    plant(monkeypatch, lambda text: [*right(text), *([0] if broken in text else [])])

    assert not speed_up(tokenizer, "auto", OWN)

    said = capsys.readouterr().err
    assert said == (
        f"warning: fastokens gives other ids than the tokenizer for {kind}; transformers encodes, "
        "slower\n"
    )
    assert content_tokenizer(tokenizer).ids_of is right


def test_a_tokenizer_it_cannot_read_is_said_once(tokenizer, monkeypatch, capsys):
    plant(monkeypatch, fault="unsupported pre-tokenizer type: Metaspace\nmore")

    for _ in range(3):
        assert not speed_up(tokenizer, "auto", OWN)

    assert capsys.readouterr().err == (
        "warning: fastokens cannot read this tokenizer (unsupported pre-tokenizer type: "
        "Metaspace); transformers encodes, slower\n"
    )


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("auto", ""),
        (
            "fastokens",
            "warning: model.tokenizer is fastokens, which is not installed: pip install "
            "'sfim[fast]'; transformers encodes, slower\n",
        ),
    ],
)
def test_only_who_asks_for_it_hears_that_it_is_not_installed(
    tokenizer, monkeypatch, capsys, choice, said
):
    monkeypatch.setattr(fast_tokenizer, "find_spec", lambda name: None)

    assert not speed_up(tokenizer, choice)

    assert capsys.readouterr().err == said


def test_a_text_that_it_gives_up_on_goes_to_the_tokenizer(tokenizer, monkeypatch):
    right = content_tokenizer(tokenizer).ids_of

    def gives_up(text):
        if "backtrack" in text:
            raise ValueError("match limit exceeded")
        return right(text)

    plant(monkeypatch, gives_up)

    assert speed_up(tokenizer, "auto", OWN)

    content = content_tokenizer(tokenizer)
    assert content.ids_of is not right
    assert content.encode(b"backtrack") == right("backtrack").tolist()


def test_a_forked_process_is_served_by_the_tokenizer(tokenizer, monkeypatch):
    right = content_tokenizer(tokenizer).ids_of
    asked = []
    plant(monkeypatch, lambda text: asked.append(text) or right(text))
    assert speed_up(tokenizer, "auto", OWN)
    content = content_tokenizer(tokenizer)
    asked.clear()

    here = content.encode(b"size = 1")
    monkeypatch.setattr(fast_tokenizer.os, "getpid", lambda: -1)
    there = content.encode(b"size = 1")

    assert here == there
    assert asked == ["size = 1"]


def recipe(tmp_path, tokenizer, name):
    return Recipe(
        name=name, runs=str(tmp_path),
        model=Model(adapter="full", tokenizer=tokenizer, scratch=Scratch(vocab_size=400)),
        corpus=Corpus(
            sources=(Source(folder=str(tmp_path / "code")),), split=Split(eval_rate=0.0), workers=1
        ),
        fim=Fim(max_length=256), train=Train(epochs=2),
        evaluate=Evaluate(items=0, max_new_tokens=8),
    )  # fmt: skip


def test_packs_are_the_same_with_and_without_it(fastokens, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    for number in range(12):
        body = "".join(f"    s{n} = size(s[{n}], 'ü {number}')\n" for n in range(4 * number))
        (tmp_path / "code" / f"m{number}.py").write_text(f"def f{number}(s):\n{body}    return s\n")
    fast = []
    monkeypatch.setattr(
        "finetune.samples.tokenizer.speed_up", lambda *a: fast.append(speed_up(*a)) or fast[-1]
    )

    counts = [prepare(recipe(tmp_path, name, name)) for name in ("transformers", "fastokens")]

    assert {*fast} == {False, True}
    assert counts[0]["content"] == counts[1]["content"]
    assert counts[0]["samples"]["psm"] > 10


def test_the_choice_may_change_in_a_run_folder(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_bytes(b"".join(OWN))

    first = prepare(recipe(tmp_path, "transformers", "one"))
    second = prepare(recipe(tmp_path, "auto", "one"))

    assert first == second
