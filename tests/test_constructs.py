"""Constructs that are made from others: what each takes, and what it leaves."""

import pytest

from fim import SpanPolicy, candidate_spans, parse

PYTHON = b"""\
import os


# how it is done
# in two lines
@wrap
def first(values):
    total = 0
    for value in values:
        total += value
    # a comment between
    print(total)
    return total

# too far away

def second(): return call(1)


class Third:
    name = 1  # not above, but beside
    def method(self):
        text = '''one
        two words
        '''
        return text
"""


def texts(text: bytes, language: str = "python", **fields) -> dict[str, list[bytes]]:
    found = candidate_spans(parse(text, language), SpanPolicy(**fields))
    return {name: [text[s.start_byte : s.end_byte] for s in spans] for name, spans in found.items()}


def test_signature_and_body_part_a_function_in_two():
    found = texts(PYTHON)

    assert found["signature"] == [b"def first(values):", b"def second():", b"def method(self):"]
    assert found["body"][1] == b"return call(1)"
    assert [body.split(b"\n")[0] for body in found["body"]] == [
        b"total = 0", b"return call(1)", b"text = '''one",
    ]  # fmt: skip


def test_the_thirds_of_a_body_are_runs_of_its_statements():
    found = texts(PYTHON)

    assert found["body_top"] == [b"total = 0"]
    assert found["body_middle"] == [b"for value in values:\n        total += value"]
    # the comment is no statement, but inside a run
    assert found["body_bottom"] == [b"print(total)\n    return total"]


@pytest.mark.parametrize(
    ("number", "top", "middle", "bottom"), [(3, 1, 1, 1), (4, 1, 1, 2), (5, 1, 2, 2), (9, 3, 3, 3)]
)
def test_the_thirds_hold_every_statement_once(number, top, middle, bottom):
    text = b"func f() {\n" + b"\tcall(1)\n" * number + b"}\n"

    found = texts(text, "go")

    assert [
        found[name][0].count(b"call") for name in ("body_top", "body_middle", "body_bottom")
    ] == [top, middle, bottom]


def test_a_body_of_two_statements_has_no_thirds():
    found = texts(b"function f() { first(); second(); }\n", "javascript")

    assert "body" in found
    assert not {"body_top", "body_middle", "body_bottom"} & found.keys()


COMMENTED = {
    "python": (PYTHON, b"# how it is done\n# in two lines\n@wrap\ndef first", b"return total"),
    "javascript": (
        b"let x = 1;\n\n/** says */\nexport function f(a) { return a + 1; }\n",
        b"/** says */\nexport function f", b"}",
    ),
    "rust": (
        b"use a::b;\n\n/// first\n/// second\n#[test]\n#[inline]\nfn f() { call(1); }\n",
        b"/// first\n/// second\n#[test]", b"}",
    ),
    "java": (
        b"class A {\n    int x;\n\n    /** says */\n    @Override int f() { return 1; }\n}\n",
        b"/** says */\n    @Override int f", b"}",
    ),
    "cpp": (
        b"int x;\n// says\ntemplate <typename T> T f(T a) { return a; }\n",
        b"// says\ntemplate <typename T> T f", b"}",
    ),
    "go": (
        b"package p\n\n// F says\nfunc F() int { return 1 }\n", b"// F says\nfunc F()", b"}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", COMMENTED)
def test_a_commented_function_begins_with_the_comment_and_ends_with_the_function(language):
    text, start, end = COMMENTED[language]

    (found,) = texts(text, language)["commented_function"]

    assert found.startswith(start)
    assert found.endswith(end)


@pytest.mark.parametrize(
    "text",
    [
        b"# far\n\ndef f():\n    return call(1)\n",
        b"x = 1  # beside\ndef f():\n    return call(1)\n",
        b"def f():\n    return call(1)\n# below\n",
        b"@wrap\ndef f():\n    return call(1)\n",
    ],
)
def test_a_function_without_a_comment_right_above_is_not_commented(text):
    assert "commented_function" not in texts(text)


def test_a_line_is_a_node_or_run_from_its_first_token_to_its_last():
    text = b"""if (a) {
  call(one,
    two, three,
    'four five');
  x = y + z; /* w */
} else {
}
"""

    found = texts(text, "javascript")["line"]

    # not `if (a) {`, nor `} else {`: no run of siblings ends there
    assert found == [b"two, three,", b"x = y + z; /* w */"]


def test_lines_inside_a_string_are_no_lines_of_code():
    assert not any(b"two words" in line for line in texts(PYTHON)["line"])
    assert b"import os" in texts(PYTHON)["line"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_empty_is_nothing_after_the_last_token_of_a_line(end):
    text = end.join([b"x = '''one  ", b"two'''  ", b"", b"if x:", b"\ty()"])

    spans = candidate_spans(parse(text, "python"), SpanPolicy())["empty"]

    assert [(s.start_byte, s.sampler) for s in spans] == [(s.end_byte, "empty") for s in spans]
    assert [text[: s.start_byte].rsplit(None, 1)[-1] for s in spans] == [
        b"two'''", b"x:", b"y()",
    ]  # fmt: skip


BROKEN = {
    "python": b"def good():\n    return call(1)\n\n# above\ndef bad(:\n    a = (1\n    b = 2222\n",
    "javascript": b"function good() { return call(1); }\nfunction bad( { let abc = ; d(efghi); }\n",
}


@pytest.mark.parametrize("language", BROKEN)
def test_no_construct_of_a_broken_file_touches_what_is_broken(language):
    text = BROKEN[language]
    syntax = parse(text, language)
    wrong, waiting = [], [syntax.root]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if (node.is_error or node.is_missing) and node != syntax.root:
            wrong.append((node.start_byte, node.end_byte))

    found = candidate_spans(syntax, SpanPolicy())

    assert wrong
    assert {"function", "signature", "line"} <= found.keys()
    for spans in found.values():
        for span in spans:
            assert all(span.end_byte <= low or high <= span.start_byte for low, high in wrong)


def test_the_limit_holds_for_what_is_made_from_others():
    found = texts(PYTHON, max_middle_bytes=30)

    sizes = {len(each) for name, spans in found.items() for each in spans if name != "empty"}
    assert min(sizes) >= 6
    assert max(sizes) <= 30


def test_prose_has_no_constructs():
    assert candidate_spans(parse(b"# Title\n\nwords here\n", "markdown"), SpanPolicy()) == {}


def test_a_body_of_20_000_statements_is_not_listed_again_and_again():
    text = b"def f():\n" + b"    value = call(1)\n" * 20_000
    syntax = parse(text, "python", timeout_seconds=20)

    found = candidate_spans(syntax, SpanPolicy())

    assert not {"body", "body_top", "body_middle", "body_bottom"} & found.keys()
    assert len(found["line"]) == 20_001
