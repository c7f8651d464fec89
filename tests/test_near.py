"""Signatures stay when a file is reformatted or its names change, and differ when its code does."""

import hashlib
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from fim import LANGUAGES
from fim.languages import has_grammar
from finetune.corpus.copies.near import SIGNATURE_BYTES, SLOTS, make_signature, make_signatures

CODE = b'''\
"""Carts, and what they cost."""

import json
from decimal import Decimal


class Cart:
    """Items and their amounts."""

    def __init__(self, owner, items=None, limit=100):
        self.owner = owner
        self.items = {name: amount for name, amount in (items or {}).items() if amount > 0}
        self.limit = limit

    def add(self, name, amount=1):
        if len(self.items) >= self.limit and name not in self.items:
            raise ValueError("the cart of this owner is full already")
        self.items[name] = self.items.get(name, 0) + amount
        return self

    def total(self, prices, currency="euro"):
        result = Decimal(0)
        for name, amount in sorted(self.items.items()):
            price = prices[name]
            if price is None:
                continue
            result += price * amount if amount < 10 else price * amount * Decimal("0.9")
        return json.dumps({"total": str(result), "currency": currency, "owner": f"by {self.owner}"})
'''
REFORMATTED = b'''\
# Copyright 2026 The Authors.
#
# Licensed under the Apache License, Version 2.0.

"""Carts, and what they cost."""
import json
from decimal import Decimal
class Cart:
  \'\'\'Items and their amounts.\'\'\'
  def __init__(
      self,
      owner,
      items=None,
      limit=100,
  ):
    self.owner=owner  # who pays
    self.items={
        name: amount
        for name, amount in (items or {}).items()
        if amount > 0
    }
    self.limit=limit
  def add(self, name, amount=1):
    if len(self.items) >= self.limit and name not in self.items: raise ValueError(\\
        'the cart of this owner is full already')
    self.items[name] = self.items.get(name,0)+amount
    return self
  def total(self, prices, currency='euro'):
    result = Decimal(0)
    for name, amount in sorted(self.items.items()):
        price = prices[name]
        if price is None:
            continue
        result += price*amount if amount<10 else price*amount*Decimal('0.9')
    return json.dumps({
        'total': str(result),
        'currency': currency,
        'owner': f'by {self.owner}',
    })
'''


def halves(text: bytes, language: str = "python") -> np.ndarray:
    signature = make_signature(text, language)
    assert len(signature) == SIGNATURE_BYTES
    return np.frombuffer(signature, "<u2").reshape(2, SLOTS)


def similarities(left: bytes, right: bytes, language: str = "python") -> list[float]:
    return (halves(left, language) == halves(right, language)).mean(axis=1).tolist()


def rename(text: bytes) -> bytes:
    names = (rb"\bCart\b", rb"\bitems\b", rb"\blimit\b", rb"\bname\b",
             rb"\bamount\b", rb"\bprices\b", rb"\bprice\b", rb"\bresult\b", rb"\badd\b",
             rb"\bsorted\b", rb"\bself\b", rb"\bDecimal\b", rb"\bdumps\b")  # fmt: skip
    for number, name in enumerate(names):
        text = re.sub(name, b"other%d" % number, text)
    return text


def test_the_signature_of_a_text_is_the_same_everywhere():
    digest = hashlib.sha256(make_signature(CODE, "python")).hexdigest()

    assert digest == "694e732e3f57440947866e5de777b8e3948e9b29478d4f67cbe7fe54f5c5e0f7"


def test_another_process_makes_the_same_signature():
    code = (
        "import sys; from finetune.corpus.copies.near import make_signature;"
        "sys.stdout.buffer.write(make_signature(sys.stdin.buffer.read(), 'python'))"
    )

    done = subprocess.run([sys.executable, "-c", code], input=CODE, capture_output=True, check=True)

    assert done.stdout == make_signature(CODE, "python")


def test_form_and_comments_do_not_count_for_the_words():
    words, _ = similarities(CODE, REFORMATTED)

    assert words == 1.0


def test_names_do_not_count_for_the_structure():
    other = rename(CODE)
    assert b'f"by {other10.owner}"' in other  # names are names inside strings, too

    words, structure = similarities(CODE, other)

    assert structure == 1.0
    assert words < 0.2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"price * amount", b"price + amount"),  # an operator
        (b"0.9", b"0.8"),  # a literal
        (b"is full already", b"is empty already"),  # a string
        (b"continue", b"break"),  # a keyword
        (b"prices[name]", b"prices[amount]"),  # which name it is
    ],
)
def test_all_but_names_counts_for_the_structure(old, new):
    _, structure = similarities(CODE, CODE.replace(old, new))

    assert structure < 0.97


def test_a_name_after_a_dot_may_look_like_a_keyword():
    text = b"".join(b"hook%d.for(tag => { run(tag, %d); });\n" % (n, n) for n in range(40))

    _, structure = similarities(text, text.replace(b".for(", b".tap("), "javascript")

    assert structure == 1.0


def test_a_word_that_only_other_languages_reserve_is_a_name():
    text = b"class A {\n%s}\n" % b"".join(
        b"int f%d(int end) { return end + begin * %d; }\n" % (n, n) for n in range(40)
    )
    renamed = text.replace(b"end ", b"last ").replace(b"end)", b"last)").replace(b"begin", b"first")

    assert similarities(text, renamed, "java")[1] == 1.0


def test_a_sigil_does_not_count_for_the_words():
    text = b"\n".join(b"$name%d = $($other%d)(key%d);" % (n, n, n) for n in range(40))

    assert similarities(text, text.replace(b"$", b""), "javascript")[0] == 1.0


def test_long_words_differ_in_any_part():
    for pattern in (
        b"word_%03d_with_a_long_end",
        b"long_wor_%03d_end",
        b"a_long_way_to_its_end_%03d",
    ):
        left = b" ".join(pattern % n for n in range(100))
        right = b" ".join(pattern % (n + 500) for n in range(100))

        assert similarities(left, right)[0] < 0.05


def test_a_list_of_imports_has_no_structure():
    text = b"".join(b"from package.part_%d import (\n    name_%d,\n)\n" % (n, n) for n in range(60))

    assert not halves(text)[1].any()


def test_comments_count_where_there_is_little_code():
    head = b"/* Licence of %s. */\npackage a.b;\n\n"
    body = b"/** %s */\npublic interface Shape extends Serializable { double area(); }\n"
    first = b"What has an area in square metres, seen from above and without the margins around it."
    other = (
        b"Whatever somebody drew on a sheet of paper once and nobody has thrown away since then."
    )

    same = similarities(head % b"one" + body % first, head % b"two" + body % first, "java")
    different = similarities(head % b"one" + body % first, head % b"one" + body % other, "java")

    assert same[0] == 1.0
    assert different[0] < 0.7


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"x = 1\n", b"# " + b"only a comment " * 50, b"{}" * 90]
)
def test_too_little_has_no_signature(text):
    assert make_signature(text, "python") == b""


def test_many_texts_have_the_signatures_of_each():
    texts = [
        (CODE, "python"), (b"", "python"), (b"x = 1\n", "ruby"), (CODE, "markdown"),
        (b"$total = $price * $amount;\n" * 40, "php"), (CODE[:400] + b'"""', "python"),
        (CODE[:150], "python"), (rename(CODE), "python"), (b"def f(a, b): return a\n", "python"),
    ]  # fmt: skip

    together = make_signatures(texts)

    assert together == [make_signature(*text) for text in texts]
    assert together[0][: SIGNATURE_BYTES // 2] == together[3][: SIGNATURE_BYTES // 2] != b""
    assert make_signatures([]) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_comments_that_do_not_count(language):
    row = LANGUAGES[language]
    lines = [b"alpha%d beta%d { gamma%d }" % (n, n, n) for n in range(30)]
    note = f"{row.comment} a note {row.comment_end}".encode()

    words, _ = similarities(b"\n".join(lines), note + b"\n" + b"\n".join([*lines, note]), language)

    assert words == 1.0
    assert has_grammar(language) == bool(row.distribution)


def test_the_estimate_is_as_exact_as_its_size_allows():
    rng = random.Random(0)
    errors = []
    for share in (0.5, 0.7, 0.9):
        for _ in range(10):
            lines = [b"%x %x %x %x %x" % tuple(rng.randbytes(5)) for _ in range(400)]
            other = [line if rng.random() < share else b"-".join([line] * 2) for line in lines]
            exact = jaccard(b"\n".join(lines), b"\n".join(other))
            estimate = similarities(b"\n".join(lines), b"\n".join(other))[0]
            errors.append((estimate - exact) / (exact * (1 - exact) / SLOTS) ** 0.5)

    assert abs(np.mean(errors)) < 0.6
    assert 0.5 < np.std(errors) < 1.5


def jaccard(left: bytes, right: bytes) -> float:
    sets = []
    for text in (left, right):
        words = re.findall(rb"\w+", text)
        sets.append(set(zip(*(words[start:] for start in range(5)), strict=False)))
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize(
    "piece",
    [b'"""\\', b"`\\", b"'''\\", b"/*", b"\nuse(", b"\nimport {", b"{a", b"'", b'"', b"(*", b"<!--",
     b"a.", b"\\", b"\xf0\x9f\x98\x80 "],
)  # fmt: skip
@pytest.mark.parametrize("language", ["python", "javascript", "ocaml"])
def test_hostile_texts_take_linear_time(piece, language):
    started = time.process_time()

    make_signature(piece * (200_000 // len(piece)), language)

    assert time.process_time() - started < 2
