"""Rules that look at the syntax tree: errors, depth, old syntax, nothing but comments."""

import re
from itertools import islice

import tree_sitter

import fim
from fim import Document, FimError, Syntax
from fim.languages import LANGUAGES, has_grammar
from finetune.corpus.entries import Reason
from finetune.corpus.parsing import parse_file
from finetune.recipe.filters import Filters

_DEPTH_STEP = 4_096
"""Bytes between the places at which the depth of a tree is looked at."""


def syntax(document: Document, filters: Filters) -> Reason | None:
    """Drop files that are not what their language says, nest deep, or cannot be parsed in time.

    Prose is not judged, nor is a language whose grammar does not exist or is not installed.
    """
    if not _has_tree(document):
        return None
    try:
        parsed = parse_file(document.text, document.language)
    except FimError as error:
        return Reason(name="parse-timeout", detail=str(error))
    rate = fim.error_rate(parsed)
    if rate > filters.max_error_rate:
        detail = f"{rate:.1%} of its bytes in errors > {filters.max_error_rate:.1%}"
        return Reason(name="syntax-errors", detail=detail)
    if _is_deeper(parsed, filters.max_depth):
        return Reason(name="too-deep", detail=f"nodes nest more than {filters.max_depth:,} deep")
    return None


def _has_tree(document: Document) -> bool:
    return LANGUAGES[document.language].is_code and has_grammar(document.language)


def _is_deeper(parsed: Syntax, most: int) -> bool:
    """Whether so many nodes lie in each other, looked at in places that no deep nest fits between.

    What is asked of a tree costs a step per level: files of a hundred thousand never end.
    """
    for byte in range(0, len(parsed.text), _DEPTH_STEP):
        cursor, depth = parsed.root.walk(), 0
        while depth <= most and cursor.goto_first_child_for_byte(byte) is not None:
            depth += 1
        if depth > most:
            return True
    return False


_OBSOLETE = {
    "python": (
        (re.compile(rb"print[ \t]*(?:>>|[ \t]+[^\s=(.,)])"), "print_statement"),
        (re.compile(rb"exec[ \t]+[^\s=(.,)]"), "exec_statement"),
        (re.compile(rb"<>"), "comparison_operator"),
        (re.compile(rb"except[ \t][^:\n]*,[ \t]*[a-z]\w*[ \t]*:"), "except_clause"),
    )
}
"""What Python 2 has and Python 3 has not, and the node that it then starts; Python 3.14 allows
`except A, B:` of classes, which have capitals."""
_MOST_LOOKED_AT = 1_000
"""Places of a file: enough where each is in a comment, quick where there are a million."""


def obsolete(document: Document, filters: Filters) -> Reason | None:
    """Drop files in a form of their language that is no longer read: Python 2."""
    if not filters.obsolete or document.language not in _OBSOLETE or not _has_tree(document):
        return None
    for pattern, kind in _OBSOLETE[document.language]:
        for found in islice(pattern.finditer(document.text), _MOST_LOOKED_AT):
            leaf = parse_file(document.text, document.language).leaf(found.start())
            if leaf is not None and leaf.parent is not None and leaf.parent.type == kind:
                detail = f"Python 2: {kind.replace('_', ' ')} in line {leaf.start_point.row + 1:,}"
                return Reason(name="obsolete-syntax", detail=detail)
    return None


_LITERAL_STEP = 1_024


def long_literal(document: Document, filters: Filters) -> Reason | None:
    """Drop files that carry a text, a page or a picture as one literal.

    A literal of `max_literal_bytes`, if that is a kilobyte or more, holds a place that is looked
    at, so none is missed.
    """
    most, row = filters.max_literal_bytes, LANGUAGES[document.language]
    kinds = row.constructs.get("string", ())
    if not most or len(document.text) <= most or not kinds or not _has_tree(document):
        return None
    root = parse_file(document.text, document.language).root
    for byte in range(0, len(document.text), max(most, _LITERAL_STEP)):
        cursor = root.walk()
        while cursor.goto_first_child_for_byte(byte) is not None:
            node = cursor.node
            size = node.end_byte - node.start_byte
            if size <= most:
                break
            if node.type in kinds:
                detail = f"literal of {size:,} bytes > {most:,}"
                return Reason(name="long-literal", detail=detail)
    return None


_PREAMBLE = frozenset(
    "php_tag hash_bang_line shebang package_clause package_declaration package_header "
    "namespace_definition preproc_call mod_item export_statement".split()
)
"""What stands before and between imports; with a body, or without a source, some are code."""
_GUARDS = frozenset({"preproc_ifdef", "preproc_if"})


def nothing_new(document: Document, filters: Filters) -> Reason | None:
    """Drop files of comments only, or of comments, imports and re-exports only.

    A module's docstring is a comment, and a header's guard is nothing.
    """
    if not (filters.only_comments or filters.only_imports) or not _has_tree(document):
        return None
    kinds = _kinds_before_code(document)
    if kinds is None:
        return None
    name = "only-imports" if kinds else "only-comments"
    asked = filters.only_imports if kinds else filters.only_comments
    return Reason(name=name) if asked else None


def _kinds_before_code(document: Document) -> set[str] | None:
    """Kinds of what a file has beside comments, `None` once anything is neither import nor guard.

    Most files are known by their first few nodes.
    """
    row = LANGUAGES[document.language]
    comments = frozenset(row.constructs.get("comment", ("comment",)))
    imports = frozenset(row.constructs.get("import", ()))
    cursor = parse_file(document.text, document.language).root.walk()
    found: set[str] = set()
    depth, more = 0, cursor.goto_first_child()
    while more:
        node = cursor.node
        if node.type in _GUARDS and cursor.goto_first_child():
            depth += 1
            continue
        if node.type in imports or (node.type in _PREAMBLE and _says_nothing(node)):
            found.add(node.type)
        elif node.is_named and not (
            node.type in comments or _is_text(node) or (depth and _is_guard(node))
        ):
            return None
        more = cursor.goto_next_sibling()
        while not more and depth:
            cursor.goto_parent()
            depth -= 1
            more = cursor.goto_next_sibling()
    return found


def _says_nothing(node: tree_sitter.Node) -> bool:
    if node.type == "export_statement":
        return node.child_by_field_name("source") is not None
    return node.child_by_field_name("body") is None


def _is_text(node: tree_sitter.Node) -> bool:
    if node.type != "expression_statement" or node.named_child_count != 1:
        return False
    return node.named_child(0).type == "string"


def _is_guard(node: tree_sitter.Node) -> bool:
    """Whether a node is the name that a header's guard asks for, or its definition as nothing."""
    defines = node.type == "preproc_def" and node.child_by_field_name("value") is None
    return defines or node.type == "identifier"
