"""Samples are a stateless function of seed, epoch, document and window."""

import itertools
import random
from collections import Counter

import pytest

from fim import Document, SpanPolicy, make_rng, make_samples
from fim.samples import num_windows

STATEMENT = b"total = compute(first, second) + %04d\n"


def document(number: int = 0, num_lines: int = 300, language: str = "python") -> Document:
    text = b"".join(STATEMENT % line for line in range(num_lines))
    return Document(repo="r", path=f"{number}.py", language=language, text=text)


def samples_of(document: Document, **fields) -> list:
    values = {
        "window_bytes": 950, "fim_rate": 0.7, "orders": {"psm": 0.5, "spm": 0.5},
        "seed": 0, "epoch": 0,
    }  # fmt: skip
    policy = fields.pop("policy", SpanPolicy(max_middle_bytes=500))
    return list(make_samples(document, policy, **values | fields))


def spans_of(samples: list) -> set:
    return {(s.start_byte, s.end_byte) for s in samples if s.order != "ar"}


def test_samples_do_not_depend_on_the_order_of_documents_or_what_was_drawn_before():
    documents = [document(number) for number in range(20)]
    in_order = {d.id: samples_of(d) for d in documents}
    random.seed(1)

    shuffled = {d.id: samples_of(d) for d in random.sample(documents, 20)}

    assert shuffled == in_order
    assert len({tuple(spans_of(samples)) for samples in in_order.values()}) == 20


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 1}])
def test_another_epoch_or_seed_draws_other_samples(change):
    before, after = samples_of(document()), samples_of(document(), **change)

    assert len(before) == len(after)
    assert len(spans_of(before) & spans_of(after)) <= 1
    assert [s.order for s in before] != [s.order for s in after]


def test_a_window_is_drawn_for_each_so_many_bytes():
    long = document(num_lines=100)

    assert len(long.text) == 3_800
    assert len(samples_of(long, window_bytes=3_800)) == 1
    assert len(samples_of(long, window_bytes=100_000)) == 1
    assert len(samples_of(long, window_bytes=1_900)) == 2
    assert samples_of(document(num_lines=0)) == []


def test_what_is_left_beyond_whole_windows_is_one_more_by_lot():
    long = document(num_lines=100)  # 3.8 windows
    numbers = [num_windows(long, 1_000, seed=0, epoch=epoch) for epoch in range(4_000)]

    assert set(numbers) == {3, 4}
    assert sum(numbers) / len(numbers) == pytest.approx(3.8, abs=0.03)  # five standard errors
    assert len(samples_of(long, window_bytes=1_000, epoch=7)) == numbers[7]


def test_samples_are_numbered_by_window_and_epoch():
    samples = samples_of(document(num_lines=100), epoch=3, window_bytes=950)

    assert [(s.window, s.epoch) for s in samples] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert len({s.sample_id for s in samples}) == 4


def test_a_fim_sample_is_the_document_byte_for_byte():
    text = document().text

    samples = samples_of(document(), fim_rate=1.0)

    assert len(samples) == 12
    assert {s.prefix + s.middle + s.suffix for s in samples} == {text}
    assert all(text[s.start_byte : s.end_byte] == s.middle for s in samples)
    assert all(s.start_byte <= s.node_start_byte <= s.end_byte for s in samples)


def test_no_byte_is_in_more_than_two_middles_of_an_epoch():
    policy = SpanPolicy(max_middle_bytes=2_000)
    most = 0

    for number in range(30):
        middles = samples_of(document(number), policy=policy, fim_rate=1.0, window_bytes=300)
        counts = Counter(
            byte for s in middles if s.order != "ar" for byte in range(s.start_byte, s.end_byte)
        )
        most = max(most, *counts.values())

    assert most == 2


def test_rates_of_fim_and_of_orders_are_kept():
    samples = [
        s
        for number in range(150)
        for s in samples_of(document(number), orders={"psm": 0.8, "spm": 0.2})
    ]

    orders = Counter(s.order for s in samples)
    assert len(samples) == 1_800
    assert orders["ar"] / 1_800 == pytest.approx(0.3, abs=0.03)
    assert orders["psm"] / (orders["psm"] + orders["spm"]) == pytest.approx(0.8, abs=0.03)


def test_a_rate_of_one_or_none_is_exact():
    assert {s.order for s in samples_of(document(), fim_rate=0.0)} == {"ar"}
    assert {s.order for s in samples_of(document(), fim_rate=1.0)} == {"psm", "spm"}


def test_autoregressive_pieces_start_and_end_at_lines_and_fit_the_window():
    text = document().text
    pieces = [s for epoch in range(20) for s in samples_of(document(), fim_rate=0.0, epoch=epoch)]

    assert len(pieces) == 240
    assert all(s.prefix == s.suffix == b"" for s in pieces)
    assert all(s.start_byte == 0 or text[s.start_byte - 1] == 10 for s in pieces)
    assert all(s.middle.endswith(b"\n") for s in pieces)
    assert all(400 < len(s.middle) <= 1_000 for s in pieces)
    assert {s.start_byte == 0 for s in pieces} == {True, False}


def test_autoregressive_pieces_start_at_top_level_nodes_where_they_can():
    functions = b"".join(
        b"def name_%02d(value):\n" % n + b"    value += 1\n" * 5 + b"\n" for n in range(60)
    )
    file = Document(repo="r", path="a.py", language="python", text=functions)

    pieces = [s for epoch in range(10) for s in samples_of(file, fim_rate=0.0, epoch=epoch)]

    starts = Counter(s.middle.lstrip().startswith(b"def ") for s in pieces)
    assert starts.total() >= 55
    assert starts[False] <= 2  # the newline after a function is no part of the next one


def test_only_a_piece_that_reaches_the_end_ends_the_document():
    text = document().text
    pieces = [s for epoch in range(20) for s in samples_of(document(), fim_rate=0.0, epoch=epoch)]

    assert {s.ends_document for s in pieces} == {True, False}
    assert all(s.ends_document == (s.end_byte == len(text)) for s in pieces)


def test_a_piece_of_one_line_is_cut_between_characters():
    text = ("x = '" + "é日" * 2_000).encode()
    file = Document(repo="r", path="a.py", language="python", text=text)

    pieces = samples_of(file, fim_rate=0.0)

    assert len(pieces) in (10, 11)
    assert all(s.middle.decode() for s in pieces)
    assert all(0 < len(s.middle) <= 1_000 for s in pieces)


def test_a_short_document_is_one_piece_that_ends_it():
    [piece] = samples_of(document(num_lines=5), fim_rate=0.0)

    assert piece.middle == document(num_lines=5).text
    assert piece.ends_document


def test_what_is_not_accepted_is_drawn_again_and_then_autoregressive():
    long = samples_of(document(), fim_rate=1.0, accept=lambda s: len(s.middle) > 60)
    none = samples_of(document(), fim_rate=1.0, accept=lambda s: False)

    assert Counter(s.order == "ar" for s in long)[False] >= 10
    assert all(len(s.middle) > 60 for s in long)
    assert {s.order for s in none} == {"ar"}


def test_a_sample_given_out_is_one_that_was_accepted():
    accepted = []

    samples = samples_of(document(), fim_rate=1.0, accept=lambda s: accepted.append(s) or True)

    assert samples == accepted


@pytest.mark.parametrize("language", ["cobol", ""])
def test_a_language_without_a_grammar_gives_random_and_autoregressive_samples(language):
    samples = samples_of(document(language=language))

    assert {s.sampler for s in samples} == {"random", ""}


def test_the_split_of_the_context_is_in_the_range_clients_use():
    splits = [s.context_split for s in samples_of(document(num_lines=3_000)) if s.order != "ar"]

    assert len(splits) > 50
    assert 0.4 <= min(splits) < 0.5
    assert 0.8 < max(splits) <= 0.9


def test_a_generator_depends_on_its_arguments_only():
    draws = [make_rng(*where).random() for where in itertools.product((0, 1), (0, 1), ("a", "b"))]

    assert make_rng(0, 0, "a").random() == draws[0]
    assert len(set(draws)) == 8
    assert make_rng(0, "ab").random() != make_rng(0, "a", "b").random()
