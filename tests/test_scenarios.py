"""Held-out spans spread over files and scenarios, and depend on nothing but files and seed."""

from collections import Counter

import pytest

from fim import IGNORE_INDEX, Document, encode, resolve_format
from finetune.scenarios import DRAWN, make_items, whole_pieces

SOURCE = b'''import os
from json import dumps


class Basket:
    """Things to buy."""

    def total(self, prices):
        result = 0
        for name in self.names:
            if name in prices:
                result += prices[name]
        return result

    def show(self, number):
        # printed for the %d-th time
        print(dumps({"basket": %d, "total": self.total({})}))
        while number > 3:
            number = os.cpu_count() or 1
        return number
'''


def documents(number):
    return [
        Document(repo="r", path=f"{i}.py", language="python", text=SOURCE % (i, i))
        for i in range(number)
    ]


def items_of(files, number=40, **options):
    options = {"order": "psm", "max_middle_bytes": 200, "seed": 0} | options
    return make_items(files, number=number, **options)


def test_items_take_turns_over_files():
    counts = Counter(item.sample.path for item in items_of(documents(5)))

    assert sorted(counts.values()) == [8, 8, 8, 8, 8]


def test_items_spread_over_scenarios():
    counts = Counter(item.scenario for item in items_of(documents(12), number=60))

    assert {"call", "if", "for", "while", "return", "import", "comment", *DRAWN} <= counts.keys()
    assert max(counts.values()) - min(counts.values()) <= 2


def test_items_are_the_documents_cut_in_three():
    items = items_of(documents(3))

    assert len(items) == 40
    for item in items:
        sample = item.sample
        assert sample.prefix + sample.middle + sample.suffix in [d.text for d in documents(3)]
        assert (len(sample.middle) == 0) is (item.scenario == "empty")
        assert len(sample.middle) <= 200


def test_no_span_is_asked_twice_in_a_scenario():
    asked = [
        (i.scenario, i.sample.path, i.sample.start_byte, i.sample.end_byte)
        for i in items_of(documents(2), number=500)
    ]

    assert len(asked) == len(set(asked)) > 20


def test_order_of_the_documents_does_not_matter():
    files = documents(6)

    assert items_of(files) == items_of(files[::-1])


def test_span_that_is_not_accepted_is_left_out():
    items = items_of(documents(3), number=20, accept=lambda sample: b"self" not in sample.middle)

    assert len(items) == 20
    assert not any(b"self" in item.sample.middle for item in items)


def test_files_without_spans_give_none():
    assert items_of([Document(repo="r", path="a.py", language="python", text=b"")]) == []


@pytest.mark.parametrize("language", ["markdown", "restructuredtext"])
def test_prose_is_not_measured_on_spans_it_is_not_trained_on(language):
    text = b"# Baskets\n\nA basket holds things to buy.\n\n- apples\n- pears\n" * 5
    document = Document(repo="r", path="a", language=language, text=text)

    assert items_of([document]) == []


def test_an_empty_middle_is_measured_on_its_end_token(tiny_tokenizer):
    items = [item for item in items_of(documents(12), number=60) if item.scenario == "empty"]
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    form = resolve_format(tokenizer)

    assert items
    for item in items:
        tokens = encode(item.sample, form, tokenizer, max_length=512, loss="middle")
        assert item.sample.middle == b""
        assert tokens.labels[tokens.labels != IGNORE_INDEX].tolist() == [form.end_id]


DENSE = SOURCE.replace(b"%d", b"7") + b"# " + b"1 + ([{}]) " * 60 + b"\n" + "# äöü€\n".encode() * 40


@pytest.mark.parametrize("window", [1, 200, 5_000])
@pytest.mark.parametrize("family", ["qwen2.5-coder", "codellama"])
def test_pieces_join_to_the_file_and_none_is_cut(tiny_tokenizer, family, window):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer)
    document = Document(repo="r", path="a.py", language="python", text=DENSE[: 40 * window])
    document_end = form.ids[form.row.document_end]
    tried = []

    def encode_piece(sample):
        tried.append(sample)
        return encode(sample, form, tokenizer, max_length=64, path_header="comment")

    pieces = list(whole_pieces(document, window, encode_piece, document_end))

    assert b"".join(sample.middle for sample, _ in pieces) == document.text
    assert len(pieces) > 2
    assert len(tried) > len(pieces) or window == 1  # some were too long at first
    for sample, tokens in pieces:
        whole = encode(sample, form, tokenizer, max_length=10_000, path_header="comment")
        assert tokens.input_ids.tolist() == whole.input_ids.tolist()
        assert tokens.labels.tolist() == whole.labels.tolist()
    assert [sample.ends_document for sample, _ in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1][1].input_ids[-1] == document_end
