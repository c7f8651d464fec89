"""Constructs of a file: the nodes that a language's row lists, and those made from them.

A construct is found in two steps: `num_sources` says in how many places it may be, and
`construct_range` what its bytes are in one of them. The second is asked only for what is drawn,
so that a look at a file stays cheap.
"""

from functools import cache

import tree_sitter

from fim.data import Span
from fim.language import BODY_CONSTRUCTS
from fim.languages import find_language, grammar
from fim.syntax import Syntax

MIN_MIDDLE_BYTES = 6
"""Smaller nodes are no MIDDLE (AST-FIM, arXiv 2506.00204, drops nodes of 5 bytes or less)."""
THIRDS = {"body_top": 0, "body_middle": 1, "body_bottom": 2}
_WRAPPERS = frozenset(
    {"decorated_definition", "export_statement", "template_declaration", "value_definition"}
)
"""Nodes that are a function and what stands before it; the comment stands before them."""
_ATTRIBUTES = frozenset({"attribute_item", "decorator", "signature"})
"""Siblings that may stand between a comment and its function."""
_LISTS = frozenset(
    {"block", "body_statement", "compound_statement", "function_body", "script_block_body",
     "statement_list", "statements"}
)  # fmt: skip
"""Nodes that hold the statements of a body, where they are not its own children."""

Range = tuple[int, int, str]
"""First byte, one past the last, node type (of the parent for a run of siblings)."""


def construct_names(syntax: Syntax) -> tuple[str, ...]:
    """Names of the constructs that the file may have, in the order of its language's row."""
    present = {*syntax.constructs(), "line", "empty"}
    if "function" in present:
        present.update(BODY_CONSTRUCTS)
    names = find_language(syntax.language).construct_names
    return tuple(name for name in names if name in present)


@cache
def kind_ids(language: str, name: str) -> frozenset[int]:
    """Numbers of the node types a construct is found at; none where the type is not all of it."""
    row = find_language(language)
    listed = row.constructs.get(_source(name), ())
    if not all(kind.isidentifier() for kind in listed):
        return frozenset()
    types = grammar(language)
    return frozenset(
        number
        for number in range(types.node_kind_count)
        if types.node_kind_is_named(number) and types.node_kind_for_id(number) in listed
    )


def num_sources(syntax: Syntax, name: str) -> int:
    """In how many places a construct may be: nodes of the file, or its lines."""
    if name in ("line", "empty"):
        return len(syntax.line_starts()) - 1
    return syntax.num_nodes(_source(name))


def construct_range(syntax: Syntax, name: str, place: int, most: int) -> Range | None:
    """Return the bytes of a construct in one of its places, or `None` if it may not be taken there.

    Args:
        syntax: the parsed file.
        name: one of `construct_names`.
        place: below `num_sources`, in the order of the document.
        most: most bytes; `empty` has none, all others have `MIN_MIDDLE_BYTES` at least.
    """
    if name == "empty":
        return _line_end(syntax, *_stripped_line(syntax, place))
    if name == "line":
        return _line(syntax, *_stripped_line(syntax, place), most)
    node = syntax.node_of(_source(name), place)
    return range_at(syntax, name, node, most)


def range_at(syntax: Syntax, name: str, source: tree_sitter.Node, most: int) -> Range | None:
    """Return the bytes of a construct at a node that is one, or the function it is made from."""
    if syntax.in_error(source.start_byte):
        return None
    if name not in BODY_CONSTRUCTS:
        return node_range(source, most)
    if name == "commented_function":
        return _commented(syntax, source, most)
    body = _body(syntax, source)
    if body is None:
        return None
    if name == "body":
        return node_range(body, most)
    if name == "signature":
        before = body.prev_sibling
        return before and run_range(source, source.start_byte, before.end_byte, most)
    return _third(body, THIRDS[name], most)


def construct_ranges(syntax: Syntax, name: str, most: int) -> list[Range]:
    """Return every place of a construct, in document order; looked up once."""
    if (name, most) not in syntax.found:
        places = range(num_sources(syntax, name))
        found = (construct_range(syntax, name, place, most) for place in places)
        syntax.found[name, most] = [each for each in found if each is not None]
    return syntax.found[name, most]


def _source(name: str) -> str:
    """The construct whose nodes one is found at: `function` for the parts of functions."""
    return "function" if name in BODY_CONSTRUCTS else name


def to_span(found: Range, sampler: str) -> Span:
    """Name the sampler of a range."""
    return Span(start_byte=found[0], end_byte=found[1], sampler=sampler, kind=found[2])


def node_range(node: tree_sitter.Node, most: int) -> Range | None:
    """The bytes of a node that may be a MIDDLE: named, free of errors, and of fitting size."""
    start, end = node.byte_range
    if MIN_MIDDLE_BYTES <= end - start <= most and node.is_named and not _is_broken(node):
        return start, end, node.type
    return None


def run_range(parent: tree_sitter.Node, start: int, end: int, most: int) -> Range | None:
    """The bytes of a run of children, each free of errors, that are of fitting size together."""
    if not MIN_MIDDLE_BYTES <= end - start <= most:
        return None
    if parent.has_error and _has_error_between(parent, start, end):
        return None
    return start, end, parent.type


def _has_error_between(parent: tree_sitter.Node, start: int, end: int) -> bool:
    cursor = parent.walk()
    more = cursor.goto_first_child_for_byte(start) is not None
    while more and cursor.node.start_byte < end:
        if _is_broken(cursor.node):
            return True
        more = cursor.goto_next_sibling()
    return False


def _is_broken(node: tree_sitter.Node) -> bool:
    """Whether there is an error in a node; an ERROR node without children does not say so."""
    return node.has_error or node.is_error


def _body(syntax: Syntax, function: tree_sitter.Node) -> tree_sitter.Node | None:
    body = function.child_by_field_name("body")
    kinds = find_language(syntax.language).bodies
    if body is not None or not kinds:
        return body
    return next((child for child in function.named_children if child.type in kinds), None)


def _third(body: tree_sitter.Node, place: int, most: int) -> Range | None:
    """The first, second or last third of a body's statements, as a run."""
    parent, statements = _statements(body, most)
    if len(statements) < 3:
        return None
    first = statements[place * len(statements) // 3]
    last = statements[(place + 1) * len(statements) // 3 - 1]
    if first == last:
        return node_range(first, most)
    return run_range(parent, first.start_byte, last.end_byte, most)


def _statements(
    body: tree_sitter.Node, most: int
) -> tuple[tree_sitter.Node, list[tree_sitter.Node]]:
    """The named children of a body that are no comments, and their parent.

    None of a body with so many that a third of them is too large.
    """
    while body.named_child_count <= most:
        found = [child for child in body.named_children if not child.is_extra]
        if len(found) != 1 or found[0].type not in _LISTS:
            return body, found
        body = found[0]
    return body, []


def _commented(syntax: Syntax, function: tree_sitter.Node, most: int) -> Range | None:
    """A function with the comment lines directly before it.

    Decorators, `export` and the like belong to the function; an empty line, or code on the
    comment's own line, parts the two.
    """
    parent = function.parent
    while (
        parent is not None and parent.type in _WRAPPERS and not syntax.in_error(parent.start_byte)
    ):
        function, parent = parent, parent.parent
    if parent is None or function.has_error:
        return None
    comments = find_language(syntax.language).constructs.get("comment", ())
    first, start, end = None, function.start_byte, function.end_byte
    node = function.prev_sibling
    while node is not None and end - node.start_byte <= most and not node.has_error:
        is_comment = node.type in comments
        if not (is_comment or node.type in _ATTRIBUTES) or not _is_above(syntax, node, start):
            break
        start = node.start_byte
        first = start if is_comment else first
        node = node.prev_sibling
    if first is None or syntax.is_all(first, end):
        return None
    return run_range(parent, first, end, most)


def _is_above(syntax: Syntax, node: tree_sitter.Node, start: int) -> bool:
    """Whether a node begins its line, and ends on the line before `start`, or on its own line."""
    text, (low, high) = syntax.text, node.byte_range
    high = low + len(text[low:high].rstrip())
    line_start = text.rfind(b"\n", 0, low) + 1
    between = text[high:start]
    return not (text[line_start:low].strip() or between.strip()) and between.count(b"\n") <= 1


def _stripped_line(syntax: Syntax, number: int) -> tuple[int, int]:
    """First byte of a line that is no blank, and one past the last; both the same if all are."""
    start, end = syntax.line_starts()[number : number + 2]
    line = syntax.text[start:end]
    return end - len(line.lstrip()), start + len(line.rstrip())


def _line(syntax: Syntax, start: int, end: int, most: int) -> Range | None:
    """The node, or run of siblings, that fills a line from its first token to its last."""
    if not MIN_MIDDLE_BYTES <= end - start <= most or syntax.in_error(start):
        return None
    node = syntax.around(start, end)
    if node.byte_range == (start, end):
        return node_range(node, most)
    cursor = node.walk()
    for byte, edge in ((start, "start_byte"), (end - 1, "end_byte")):
        if cursor.goto_first_child_for_byte(byte) is None:
            return None
        if getattr(cursor.node, edge) != (start if edge == "start_byte" else end):
            return None
        cursor.goto_parent()
    return None if syntax.is_all(start, end) else run_range(node, start, end, most)


def _line_end(syntax: Syntax, start: int, end: int) -> Range | None:
    """Nothing, after the last token of a line."""
    if start >= end or syntax.in_error(end - 1):
        return None
    leaf = syntax.leaf(end - 1)
    if leaf is None or leaf.end_byte != end or leaf.has_error:
        return None
    return end, end, leaf.type
