"""Parsing is bounded in time and never recurses, whatever the file."""

import pytest

from fim import FimError, error_rate, parse
from fim.constructs import node_range
from fim.syntax import node_chain


def test_parsing_stops_when_its_time_is_over():
    with pytest.raises(FimError, match=r"parsing took longer than 0\.01 s"):
        parse(b"x = [" * 1_000_000, "python", timeout_seconds=0.01)


def test_a_file_nested_100_000_deep_is_parsed_and_walked():
    text = b"(" * 100_000 + b"x" + b")" * 100_000

    syntax = parse(text, "javascript", timeout_seconds=20)

    assert len(node_chain(syntax, 100_000)) > 100_000
    assert error_rate(syntax) == 0.0


def test_a_broken_file_nested_100_000_deep_has_an_error_rate():
    assert error_rate(parse(b"[" * 100_000, "python", timeout_seconds=20)) > 0.9


def test_one_of_20_000_siblings_is_reached():
    syntax = parse(b"x = 1\n" * 20_000, "python")

    chain = node_chain(syntax, 60_000)

    assert [node.type for node in chain] == ["expression_statement", "assignment", "identifier"]
    assert [node.start_byte for node in chain] == [60_000, 60_000, 60_000]


@pytest.mark.parametrize(
    ("text", "rate"),
    [(b"", 0.0), (b"x = 1\n", 0.0), (b"x = 1\n)))))\n", 5 / 12)],
)
def test_the_error_rate_is_the_share_of_bytes_in_error_nodes(text, rate):
    assert error_rate(parse(text, "python")) == rate


def test_offsets_count_bytes_past_a_byte_order_mark_accents_and_crlf():
    text = "\ufeffé = 1\r\nprint(é)\r\n".encode()

    syntax = parse(text, "python")

    first, second = syntax.root.named_children
    assert text[first.start_byte : first.end_byte] == "é = 1".encode()
    assert text[second.start_byte : second.end_byte] == "print(é)".encode()
    assert not syntax.root.has_error


def test_a_character_across_two_chunks_is_read_whole():
    text = b"#" * 65_534 + "日\nx = 1\n".encode()

    syntax = parse(text, "python")

    assert [node.type for node in syntax.root.named_children] == ["comment", "expression_statement"]
    assert syntax.root.named_children[0].end_byte == 65_537


def test_a_chain_holds_the_byte_and_ends_above_an_error():
    syntax = parse(b"x = f(1)\ny = ) + 2\n", "python")

    assert [node.type for node in node_chain(syntax, 6)] == [
        "expression_statement", "assignment", "call", "argument_list", "integer",
    ]  # fmt: skip
    assert all(not node.is_error for node in node_chain(syntax, 13))
    assert node_chain(syntax, 1_000) == []


def test_a_node_with_an_error_or_a_missing_part_is_not_whole():
    syntax = parse(b"good(1, 2)\nif (x) { y(3, 4)\n", "javascript")
    good, bad = syntax.root.named_children

    assert node_range(good, 2_000) == (0, 10, "expression_statement")
    assert bad.has_error
    assert node_range(bad, 2_000) is None
    assert node_range(good, 9) is None
