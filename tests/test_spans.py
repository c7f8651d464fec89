"""Each sampler takes what its row of the design says, from whole and from broken files."""

import random
import time
from collections import Counter

import pytest

from fim import (
    BOUNDARIES,
    SAMPLERS,
    Document,
    FimError,
    SpanPolicy,
    candidate_spans,
    choose_span,
    make_samples,
    parse,
)
from fim.search import best_run
from fim.spans import random_range

TEXT = b"""\
import os


def first(values):
    total = 0
    for value in values:
        if value > 10:
            total += value
    return total


class Second:
    name = "second"

    def third(self, path):
        with open(path) as file:
            return os.path.join(self.name, file.read())
"""
ONE_SAMPLER = {name: SpanPolicy(samplers={name: 1.0}, boundaries={"exact": 1}) for name in SAMPLERS}


def draw(text: bytes, sampler: str, number: int, language: str = "python", **fields) -> list:
    """Spans of one sampler; the boundary is exact unless told."""
    policy = SpanPolicy(**{"samplers": {sampler: 1.0}, "boundaries": {"exact": 1.0}} | fields)
    syntax = parse(text, language)
    rng = random.Random(0)
    return [choose_span(syntax, policy, rng) for _ in range(number)]


def nodes_of(text: bytes, language: str = "python") -> list:
    """Every node but the root, by plain recursion."""

    def below(node):
        for child in node.children:
            yield child
            yield from below(child)

    return list(below(parse(text, language).root))


def runs_of(parent) -> list[tuple[int, int]]:
    named = parent.named_children
    return [
        (first.start_byte, last.end_byte)
        for place, first in enumerate(named)
        for last in named[place:]
    ]


def overlap(run: tuple[int, int], start: int, end: int) -> float:
    shared = max(0, min(run[1], end) - max(run[0], start))
    return shared / (max(run[1], end) - min(run[0], start))


def test_node_takes_nodes_in_proportion_to_their_bytes():
    num_draws = 20_000
    nodes = [n for n in nodes_of(TEXT) if n.is_named and n.end_byte - n.start_byte > 5]
    sizes = Counter()
    for n in nodes:
        sizes[n.start_byte, n.end_byte] += n.end_byte - n.start_byte

    counts = Counter((s.start_byte, s.end_byte) for s in draw(TEXT, "node", num_draws))

    expected = {span: num_draws * size / sizes.total() for span, size in sizes.items()}
    chi_square = sum((counts[span] - e) ** 2 / e for span, e in expected.items())
    assert counts.keys() <= sizes.keys()
    assert len(sizes) == 32
    assert chi_square < 61.1  # exceeded once in a thousand with 31 degrees of freedom


def test_node_takes_nodes_in_proportion_where_only_looking_through_the_file_finds_them():
    text = b'"' + b"x" * 30_000 + b'"\nabcdef\nabcdefabcdef\n'

    counts = Counter(s.end_byte - s.start_byte for s in draw(text, "node", 600))

    # an expression statement and its identifier for each of the two words
    assert counts.keys() == {6, 12}
    assert counts[12] / 600 == pytest.approx(2 / 3, abs=0.06)


def test_siblings_take_the_run_with_the_best_overlap():
    syntax = parse(TEXT, "python")
    nodes = [syntax.root, *nodes_of(TEXT)]
    rng = random.Random(0)
    found, best = [], []

    for _ in range(2_000):
        start, end = sorted(rng.sample(range(len(TEXT) + 1), 2))
        holding = [n for n in nodes if n.start_byte <= start and n.end_byte >= end]
        parent = min(holding or nodes[:1], key=lambda n: n.end_byte - n.start_byte)
        span = best_run(syntax, parent, start, end, 2_000)
        if span is not None:
            assert span[:2] in runs_of(parent)
            found.append(overlap(span[:2], start, end))
            best.append(max(overlap(run, start, end) for run in runs_of(parent)))

    assert found == best
    assert len(found) > 1_000


def test_siblings_take_whole_runs_below_the_deepest_node_and_never_the_whole_file():
    runs = {run for n in [parse(TEXT, "python").root, *nodes_of(TEXT)] for run in runs_of(n)}

    spans = draw(TEXT, "siblings", 2_000)

    taken = {(s.start_byte, s.end_byte) for s in spans}
    assert taken <= runs
    assert (0, len(TEXT) - 1) not in taken
    assert {s.kind for s in spans} > {"module", "block"}  # runs have their parent's type


def test_construct_takes_each_construct_of_the_file_equally_often():
    text = b"import os\nimport sys\n\n\ndef name(value):\n    return value + value\n"
    found = candidate_spans(parse(text, "python"), SpanPolicy())

    spans = draw(text, "construct", 6_000)

    counts = Counter(text[s.start_byte : s.end_byte] for s in spans)
    # four lines: two imports, the signature, the body; seven kinds are drawn equally often
    shares = {
        b"import os": 1 / 2 + 1 / 4, b"import sys": 1 / 2 + 1 / 4, b"def name(value):": 1 + 1 / 4,
        b"return value + value": 1 + 1 + 1 / 4, b"value + value": 1,
        b"def name(value):\n    return value + value": 1,
    }  # fmt: skip
    assert list(found) == [
        "function", "import", "return", "expression", "signature", "body", "line", "empty",
    ]  # fmt: skip
    assert {middle: count / 6_000 for middle, count in counts.items()} == {
        middle: pytest.approx(share / 7, abs=0.02) for middle, share in shares.items()
    }


def test_construct_weights_are_renormalized_over_what_the_file_has():
    text = b"import os\n\n\ndef name(value):\n    return value + value\n"

    spans = draw(text, "construct", 4_000, constructs={"import": 3, "return": 1, "while": 5})

    counts = Counter(text[s.start_byte : s.end_byte] for s in spans)
    assert counts.keys() == {b"import os", b"return value + value"}
    assert counts[b"import os"] / 4_000 == pytest.approx(0.75, abs=0.02)


def test_construct_weights_of_what_the_file_has_not_give_none():
    assert draw(TEXT, "construct", 3, constructs={"while": 1, "switch": 1}) == [None] * 3


def test_cursor_starts_at_a_token_inside_a_node_and_ends_where_the_node_ends():
    nodes = nodes_of(TEXT)
    token_starts = {n.start_byte for n in nodes if not n.children}

    spans = draw(TEXT, "cursor", 2_000)

    assert {s.start_byte for s in spans} <= token_starts
    assert all(
        any(n.start_byte < s.start_byte and n.end_byte == s.end_byte and n.type == s.kind
            for n in nodes)
        for s in spans
    )  # fmt: skip
    assert min(s.end_byte - s.start_byte for s in spans) == 6
    assert len({(s.start_byte, s.end_byte) for s in spans}) > 80


def test_empty_takes_nothing_at_the_edge_of_a_token():
    edges = {edge for n in nodes_of(TEXT) for edge in (n.start_byte, n.end_byte)}

    spans = draw(TEXT, "empty", 500)

    assert all(s.start_byte == s.end_byte for s in spans)
    assert {s.start_byte for s in spans} <= edges
    assert len({s.start_byte for s in spans}) > 50


def test_random_cuts_between_characters_no_further_apart_than_the_limit():
    text = "é日😀\r\n".encode() * 200
    starts = {len(text.decode()[:place].encode()) for place in range(len(text.decode()) + 1)}

    spans = draw(text, "random", 8_000, max_middle_bytes=100)

    assert {edge for s in spans for edge in (s.start_byte, s.end_byte)} <= starts
    # rounding up to the next character may add three bytes
    assert 90 < max(s.end_byte - s.start_byte for s in spans) <= 103
    assert {0, len(text)} < {s.start_byte for s in spans} | {s.end_byte for s in spans} | {0}


@pytest.mark.parametrize("text", [b"", b"x", "é".encode()])
def test_random_cuts_a_text_of_one_character_or_none(text):
    start, end, _ = random_range(text, SpanPolicy(), random.Random(0))

    assert 0 <= start <= end <= len(text)


@pytest.mark.parametrize("text", [b"", b"\n\n", b" ", b"# a\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("sampler", ["node", "siblings", "construct", "cursor"])
def test_a_file_with_nothing_to_take_gives_none(text, sampler):
    assert draw(text, sampler, 3) == [None, None, None]


def test_a_sampler_without_a_span_leaves_its_turn_to_the_others():
    policy = SpanPolicy(samplers={"construct": 1.0, "random": 0.001})
    syntax = parse(b"x = 1\n", "python")

    span = choose_span(syntax, policy, random.Random(0))

    assert span.sampler == "random"


def test_a_sampler_whose_span_is_not_accepted_draws_again_and_keeps_its_turn():
    policy = SpanPolicy(samplers={"node": 1.0, "empty": 1_000.0})
    syntax = parse(TEXT, "python")
    rng = random.Random(0)

    spans = [choose_span(syntax, policy, rng, lambda s: s.start_byte > 150) for _ in range(200)]

    assert Counter(span.sampler for span in spans) == {"empty": 200}
    assert min(span.start_byte for span in spans) > 150
    assert choose_span(syntax, policy, rng, lambda s: False) is None


BOUNDARY_TEXT = b"if ready:\n\n    call(one)\nx = call(two)\n"


@pytest.mark.parametrize(
    ("boundary", "node", "middle"),
    [
        ("exact", b"call(one)", b"call(one)"),
        ("blanks", b"call(one)", b"\n\n    call(one)"),
        ("line", b"call(one)", b"    call(one)"),
        ("exact", b"call(two)", b"call(two)"),
        ("blanks", b"call(two)", b" call(two)"),
        ("line", b"call(two)", b"call(two)"),  # something stands before it on its line
    ],
)
def test_a_boundary_moves_blanks_before_the_node_into_the_middle(boundary, node, middle):
    spans = draw(BOUNDARY_TEXT, "node", 200, boundaries={boundary: 1.0})

    middles = {
        BOUNDARY_TEXT[s.start_byte : s.end_byte]
        for s in spans
        if BOUNDARY_TEXT[s.node_start_byte : s.end_byte] == node
    }
    assert middles == {middle}
    assert {s.boundary for s in spans} == {boundary}


def test_every_boundary_has_its_share():
    spans = draw(TEXT, "node", 4_000, boundaries={"exact": 0.5, "blanks": 0.3, "line": 0.2})

    counts = Counter(s.boundary for s in spans)
    assert {name: counts[name] / 4_000 for name in BOUNDARIES} == {
        "exact": pytest.approx(0.5, abs=0.03),
        "blanks": pytest.approx(0.3, abs=0.03),
        "line": pytest.approx(0.2, abs=0.03),
    }


BROKEN = b"""\
def good(value):
    return value + len(value)

def bad(value:
    return (value + len(value)

print(good([1, 2, 3]), "text")
"""


@pytest.mark.parametrize("sampler", ["node", "siblings", "construct", "cursor", "empty"])
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", BROKEN),
        ("javascript", b"f(alpha, beta);\nif (x) { g(gamma, delta;\n}}} ) h(epsilon, zeta);\n"),
        ("c", b"int main() { return call(1, 2); }\nint broken( { call(3, 4) + ;\nint y = 123;\n"),
    ],
)
def test_no_span_lies_in_an_error_or_holds_one(language, text, sampler):
    wrong = [n for n in nodes_of(text, language) if n.is_error or n.is_missing]

    spans = [span for span in draw(text, sampler, 300, language) if span]

    assert wrong
    assert spans
    for span in spans:
        for n in wrong:
            before = span.end_byte <= n.start_byte
            after = n.end_byte <= span.start_byte
            # an empty MIDDLE, or a missing node, may lie at an edge
            assert before or after, (text[span.start_byte : span.end_byte], n)


@pytest.mark.parametrize("sampler", ["node", "siblings", "construct", "cursor"])
def test_the_limit_leaves_larger_nodes_out(sampler):
    spans = draw(TEXT, sampler, 500, max_middle_bytes=40)

    assert 6 <= min(s.end_byte - s.start_byte for s in spans)
    assert max(s.end_byte - s.start_byte for s in spans) <= 40


@pytest.mark.parametrize("sampler", ["node", "siblings", "cursor", "empty"])
def test_among_20_000_siblings_no_step_is_taken_for_each(sampler, monkeypatch):
    syntax = parse(b"value = compute(1)\n" * 20_000, "python")
    policy = ONE_SAMPLER[sampler]
    import fim.spans
    import fim.syntax

    steps = Counter()

    class CountingCursor:
        def __init__(self, cursor):
            self.cursor = cursor

        def __getattr__(self, name):
            steps[name] += 1
            return getattr(self.cursor, name)

    class CountingNode:
        def __init__(self, node):
            self.node = node

        def walk(self):
            return CountingCursor(self.node.walk())

        def __getattr__(self, name):
            assert name not in ("children", "named_children", "parent")
            return getattr(self.node, name)

    root = property(lambda self: CountingNode(self.tree.root_node))
    monkeypatch.setattr(fim.syntax.Syntax, "root", root)
    rng = random.Random(0)
    for _ in range(100):
        assert choose_span(syntax, policy, rng).sampler == sampler

    assert steps.total() / 100 < 1_000


def test_a_file_nested_20_000_deep_gives_spans():
    text = b"f(" * 20_000 + b"one, two, three" + b")" * 20_000

    spans = [draw(text, name, 1, "javascript")[0] for name in ("node", "cursor")]

    assert [0 < s.end_byte - s.start_byte <= 2_000 for s in spans] == [True, True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samplers": {"nodes": 1.0}}, "unknown sampler 'nodes'; known: node, siblings, construct"),
        ({"boundaries": {"word": 1.0}}, "unknown boundary 'word'; known: exact, blanks, line"),
        ({"samplers": {"node": 0.0}}, "every sampler has weight 0"),
        ({"boundaries": {}}, "every boundary has weight 0"),
        ({"constructs": {"loop": 1.0}}, "unknown construct 'loop'; known: function, class"),
        ({"constructs": {"empty": 1.0}}, "unknown construct 'empty'"),
        ({"constructs": {"if": 0.0}}, "every construct has weight 0"),
        ({"samplers": {"node": -1.0, "empty": 2.0}}, "sampler 'node' has weight -1.0"),
    ],
)
def test_a_policy_without_sense_is_refused(fields, message):
    with pytest.raises(FimError, match=message):
        SpanPolicy(**fields)


def test_a_limit_no_node_can_keep_is_refused():
    with pytest.raises(FimError, match="max_middle_bytes is 5; give 6 or more"):
        SpanPolicy(max_middle_bytes=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window_bytes": 0}, "window_bytes is 0; give 1 or more"),
        ({"orders": {}}, "no order has a weight above 0"),
        ({"orders": {"psm": 0.0}}, "no order has a weight above 0"),
    ],
)
def test_windows_and_orders_of_nothing_are_refused(options, said):
    document = Document(repo="r", path="a.py", language="python", text=b"x = 1\n")
    usual = {"window_bytes": 100, "fim_rate": 0.7, "orders": {"psm": 1.0}, "seed": 0, "epoch": 0}

    with pytest.raises(FimError, match=said):
        next(make_samples(document, SpanPolicy(), **(usual | options)))
    (sample,) = make_samples(document, SpanPolicy(), **(usual | {"fim_rate": 0.0, "orders": {}}))

    assert sample.order == "ar"


@pytest.mark.parametrize("text", [b"[" * 100_000, b"# a line of words\n" * 20_000, b"\0" * 300_000])
def test_a_file_without_structure_takes_no_longer_than_a_few_times_its_parse(text):
    document = Document(repo="r", path="a.py", language="python", text=text)
    started = time.process_time()
    parse(text, "python", timeout_seconds=20)
    parsing = time.process_time() - started

    samples = list(
        make_samples(
            document, SpanPolicy(), window_bytes=12_000, fim_rate=1.0, orders={"psm": 1.0},
            seed=0, epoch=0,
        )
    )  # fmt: skip

    assert len(text) // 12_000 <= len(samples) <= len(text) // 12_000 + 1
    assert time.process_time() - started < 1 + 40 * parsing
