"""10,000 documents, broken ones too: what a MIDDLE is, and that content is never control.

The oracle walks trees of plain tree_sitter; it shares nothing with `fim.spans`.
"""

import bisect
import random

import pytest
import tree_sitter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fim import (
    Document,
    SpanPolicy,
    TooLong,
    candidate_spans,
    content_tokenizer,
    encode,
    make_samples,
    parse,
    resolve_format,
)
from fim.languages import grammar

SNIPPETS = {
    "python": (
        "import os\nfrom typing import Any\n",
        "def add(first, second=1):\n    # sum of two\n    return first + second\n",
        "class Größe:\n    name = 'é日😀'\n\n    @property\n    def wide(self):\n"
        "        if self.name:\n            return [x for x in self.name]\n"
        "        return f'{self}'\n",
        "try:\n\twith open('a') as file:\n\t\tprint(file.read())\nexcept OSError:\n\tpass\n",
        "match value:\n    case {'a': 1}:\n        call(value, key=2)\n",
    ),
    "javascript": (
        "import fs from 'fs';\nconst total = items.map((x) => x.price).reduce((a, b) => a + b);\n",
        "class Cart extends Base {\n  #items = [];\n  add(item) { this.#items.push(item); }\n}\n",
        "async function load(url) {\n  try { return await fetch(url); }\n"
        "  catch (e) { log(`${e}`); }\n}\n",
        "switch (kind) {\n  case 'é': case '😀': break;\n"
        "  default: for (const x of xs) f(x);\n}\n",
    ),
    "typescript": (
        "interface Shape { area(): number; name?: string }\n",
        "export function id<T>(value: T): T { return value as T; }\n",
        "enum Color { Red = 'r', Blue }\ntype Pair = [number, string];\nlet x: Pair = [1, '日'];\n",
    ),
    "tsx": (
        "const View = ({ name }: Props) => <div className=\"a\">{name}<br /></div>;\n",
        "function App() {\n  const [n, setN] = useState<number>(0);\n  return <B n={n} />;\n}\n",
    ),
    "java": (
        "import java.util.List;\n",
        "class Queue<T> {\n  private final List<T> items = new ArrayList<>();\n"
        "  /* add */ void add(T item) { if (item != null) { items.add(item); } }\n}\n",
        "enum Kind { A, B; int size() { return switch (this) { case A -> 1; default -> 2; }; } }\n",
    ),
    "go": (
        "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n",
        "func read(path string) (int, error) {\n\tif err := open(path); err != nil {\n"
        "\t\treturn 0, fmt.Errorf(\"%s: %w\", path, err)\n\t}\n\treturn 1, nil\n}\n",
        "type Point struct {\n\tX, Y int `json:\"x\"`\n}\n\nfor i := range 10 { go run(i) }\n",
    ),
    "rust": (
        "use std::{fs, io};\n",
        "impl<'a> Queue<'a> {\n    pub fn push(&mut self, x: u8) -> Option<u8> {\n"
        "        match x { 0 => None, n if n > 3 => Some(n), _ => self.items.pop() }\n    }\n}\n",
        "fn main() { let s = r#\"é\"#; println!(\"{s}\"); loop { break; } }\n",
    ),
    "c": (
        "#include <stdio.h>\n#define MAX(a, b) ((a) > (b) ? (a) : (b))\n",
        "static int add(int *values, size_t n) {\n\tint total = 0;\n"
        "\tfor (size_t i = 0; i < n; i++) { total += values[i]; }\n\treturn total;\n}\n",
        "struct point { int x, y; };\n#ifdef DEBUG\nvoid log_it(void) { puts(\"é\"); }\n#endif\n",
    ),
    "cpp": (
        "template <typename T> T add(T a, T b) { return a + b; }\n",
        "namespace shop {\nclass Cart : public Base {\n public:\n"
        "  int size() const { return n_; }\n private:\n  int n_ = 0;\n};\n}\n",
        "auto f = [&](int x) { try { return g(x); } catch (...) { return 0; } };\n",
    ),
    "csharp": (
        "using System;\n",
        "class Cart {\n  public int Size { get; set; }\n  int Add(int x) => Size += x;\n"
        "  void Run() { foreach (var x in Items) { Console.WriteLine($\"{x}\"); } }\n}\n",
    ),
}  # fmt: skip
LANGUAGES_OF = {
    "qwen2.5-coder": ("python", "tsx"),
    "starcoder2": ("javascript", "java"),
    "deepseek-coder": ("go", "typescript"),
    "codellama": ("c", "cpp"),
    "aixcoder": ("rust", "csharp"),
}
LISTED = {  # a construct of each language and its node type
    "python": ("while", "while_statement"),
    "javascript": ("switch", "switch_statement"),
    "typescript": ("return", "return_statement"),
    "tsx": ("return", "return_statement"),
    "java": ("if", "if_statement"),
    "go": ("if", "if_statement"),
    "rust": ("switch", "match_expression"),
    "c": ("for", "for_statement"),
    "cpp": ("try", "try_statement"),
    "csharp": ("return", "return_statement"),
}
STRAY = ("(", "}", '"', "\n", "\t", " ", "é", "日", "😀", "\r\n", "\u2028", "\x00", "'''", "ü", "▁",
         "<|fim_prefix|>", "<fim_suffix>", "<｜fim▁hole｜>", "▁<PRE>", "▁<AIX-SPAN-POST>", "</s>",
         "<|endoftext|>")  # fmt: skip
EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, len(STRAY))), max_size=4)
DOCUMENTS = st.tuples(
    st.integers(0, 1),  # which language of the family's two
    st.lists(st.integers(0, 100), min_size=1, max_size=4),  # snippets
    EDITS,  # a stray string inserted, or (the last number) some characters cut
    st.integers(0, 5),  # line ends
    st.integers(0, 1_000_000),  # seed
)


def assemble(
    language: str, places: list[int], edits: list[tuple[int, int]], line_ends: int
) -> bytes:
    snippets = SNIPPETS[language]
    text = "\n".join(snippets[place % len(snippets)] for place in places)
    for where, what in edits:
        where %= len(text) + 1
        if what < len(STRAY):
            text = text[:where] + STRAY[what] + text[where:]
        else:
            text = text[:where] + text[where + 7 :]
    if line_ends == 0:
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    if line_ends == 1:
        text = "\ufeff" + text
    return text.encode()


class Oracle:
    """What a file's tree says of ranges, from one plain walk."""

    def __init__(self, text: bytes, language: str) -> None:
        tree = tree_sitter.Parser(grammar(language)).parse(text)
        self.ranges: set[tuple[int, int]] = set()
        self.starts: dict[int, set[int]] = {}
        self.ends: dict[int, set[int]] = {}
        self.token_starts: set[int] = set()
        self.node_starts_by_end: dict[int, list[int]] = {}
        self.edges: set[int] = set()
        self.token_ends: set[int] = set()
        self.types: dict[tuple[int, int], set[str]] = {}
        self.wrong: list[tuple[int, int]] = []
        waiting = [tree.root_node]
        while waiting:
            parent = waiting.pop()
            for child in parent.children:
                if child.is_error or child.is_missing:
                    self.wrong.append((child.start_byte, child.end_byte))
                self.types.setdefault((child.start_byte, child.end_byte), set()).add(child.type)
                if child.child_count == 0:
                    self.token_ends.add(child.end_byte)
                start, end = child.start_byte, child.end_byte
                self.edges |= {start, end}
                self.ranges.add((start, end))
                self.starts.setdefault(start, set()).add(parent.id)
                self.ends.setdefault(end, set()).add(parent.id)
                bisect.insort(self.node_starts_by_end.setdefault(end, []), start)
                if child.child_count == 0:
                    self.token_starts.add(start)
            waiting += parent.children

    def is_node(self, start: int, end: int) -> bool:
        return (start, end) in self.ranges

    def is_run(self, start: int, end: int) -> bool:
        return bool(self.starts.get(start, set()) & self.ends.get(end, set()))

    def ends_a_node_around(self, start: int, end: int) -> bool:
        return bisect.bisect_left(self.node_starts_by_end.get(end, []), start) > 0


def check_middle(sample, oracle: Oracle) -> None:
    start, node, end = sample.start_byte, sample.node_start_byte, sample.end_byte
    match sample.sampler:
        case "node":
            assert oracle.is_node(node, end)
        case "siblings" | "construct":
            assert oracle.is_node(node, end) or oracle.is_run(node, end)
        case "cursor":
            assert start == node
            assert start in oracle.token_starts
            assert oracle.ends_a_node_around(start, end)
        case "empty":
            assert start == end
            assert start in oracle.edges
        case "random":
            sample.prefix.decode(), sample.middle.decode(), sample.suffix.decode()
        case _:
            pytest.fail(f"no such sampler: {sample.sampler}")
    if sample.sampler in ("node", "siblings", "construct"):
        assert end - node > 5
        leading = sample.middle[: node - start]
        assert leading.strip(b" \t\r\n") == b""


def check_constructs(text: bytes, language: str, oracle: Oracle) -> set[str]:
    """Check every construct of a file against the oracle; return the names of those it has."""
    found = candidate_spans(parse(text, language), SpanPolicy(max_middle_bytes=400))
    for name, spans in found.items():
        for span in spans:
            start, end = span.start_byte, span.end_byte
            assert all(end <= low or high <= start for low, high in oracle.wrong), name
            if name == "empty":
                assert start == end
                assert end in oracle.token_ends
                assert not text[end:].splitlines()[:1] or not text[end:].splitlines()[0].strip()
                continue
            assert 6 <= end - start <= 400
            whole = oracle.is_node(start, end)
            assert whole or oracle.is_run(start, end)
            construct, kind = LISTED[language]
            if name == construct:
                assert kind in oracle.types[start, end]
            if name == "line":
                line_start = max(text.rfind(b"\n", 0, start), text.rfind(b"\r", 0, start)) + 1
                assert not text[line_start:start].strip()
                assert len(text[start:end].splitlines()) == 1
                assert not text[end:].splitlines()[:1] or not text[end:].splitlines()[0].strip()
            if name == "commented_function":
                assert not whole
                assert text[start:].lstrip().startswith((b"#", b"/*", b"//"))
    return set(found)


def check_tokens(sample, form, tokenizer, max_length: int) -> bool:
    content = content_tokenizer(tokenizer)
    middle = content.encode(sample.middle, guarded="M" in form.row.guarded)
    fixed = (1 if form.row.bos else 0) + 3 + len(middle) + 1
    try:
        tokens = encode(sample, form, tokenizer, max_length=max_length)
    except TooLong:
        assert fixed > max_length
        return False
    ids = tokens.input_ids.tolist()
    assert fixed <= len(ids) <= max_length
    assert ids[len(ids) - len(middle) - 1 :] == [*middle, form.end_id]
    control = [token for token in ids if token in content.control_ids]
    bos = [form.ids[form.row.bos]] if form.row.bos else []
    layout = [part for part in form.row.orders[sample.order] if part not in ("P", "S", "M")]
    assert control == [*bos, *map(form.sentinel_id, layout), form.end_id]
    return True


@pytest.mark.slow
@pytest.mark.parametrize("family", LANGUAGES_OF)
def test_2_000_documents_keep_what_the_readme_says_of_a_sample(tiny_tokenizer, family):
    tokenizer = tiny_tokenizer(family)
    form = resolve_format(tokenizer)
    seen = {"documents": 0, "encoded": 0, "samplers": set(), "constructs": set()}

    @settings(
        max_examples=2_000, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(DOCUMENTS)
    def check(drawn):
        which, places, edits, line_ends, seed = drawn
        language = LANGUAGES_OF[family][which]
        text = assemble(language, places, edits, line_ends)
        document = Document(repo="r", path="a", language=language, text=text)
        samples = make_samples(
            document, SpanPolicy(max_middle_bytes=400), window_bytes=max(1, len(text) // 2),
            fim_rate=1.0, orders={"psm": 0.5, "spm": 0.5}, seed=seed, epoch=0,
        )  # fmt: skip
        oracle = Oracle(text, language)
        seen["documents"] += 1
        seen["constructs"] |= check_constructs(text, language, oracle)
        for sample in samples:
            if sample.order == "ar":
                continue
            assert sample.prefix + sample.middle + sample.suffix == text
            check_middle(sample, oracle)
            max_length = random.Random(seed).randint(64, 1_024)
            seen["encoded"] += check_tokens(sample, form, tokenizer, max_length)
            seen["samplers"].add(sample.sampler)

    check()

    assert seen["documents"] >= 2_000
    assert seen["encoded"] > 2_000
    assert seen["samplers"] == {"node", "siblings", "construct", "cursor", "empty", "random"}
    assert seen["constructs"] >= {"signature", "body", "line", "empty", "function", "call"}
