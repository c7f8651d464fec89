"""For each language, the query that finds what ties files together, and the form of an import.

Captures: `import` is read by the row's `read_import`, `package` is the file's own, `definition` is
what other files may use without saying where it is, `name` is what this file uses so.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tree_sitter

from finetune.corpus.links.readers import (
    Import,
    all_names,
    capitals,
    go_names,
    read_c_import,
    read_csharp_import,
    read_go_import,
    read_java_import,
    read_javascript_import,
    read_kotlin_import,
    read_php_import,
    read_python_import,
    read_ruby_import,
    read_rust_import,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """How the links of a language's files are found."""

    query: str
    read_import: Callable[[tree_sitter.Node, bytes], Iterator[Import]]
    read_names: Callable[[Counter[str], Sequence[Import]], Counter[str]] = all_names
    """Which of the captured names are kept, given the file's imports."""
    words: tuple[bytes, ...] = ()
    """Of which each import has one; where only imports are captured, so that most of a tree need
    not be walked through, which takes longest."""


_PYTHON = LinkRow(
    query="""
    (import_statement) @import
    (import_from_statement) @import
    """,
    read_import=read_python_import,
    words=(b"import", b"from"),
)

_JAVA = LinkRow(
    query="""
    (package_declaration [(scoped_identifier) (identifier)] @package)
    (import_declaration) @import
    (program (_ name: (identifier) @definition))
    (type_identifier) @name
    (marker_annotation name: (identifier) @name)
    (annotation name: (identifier) @name)
    (method_invocation object: (identifier) @name)
    (field_access object: (identifier) @name)
    """,
    read_import=read_java_import,
    read_names=capitals,
)

_KOTLIN = LinkRow(
    query="""
    (package_header (qualified_identifier) @package)
    (import) @import
    (source_file (_ name: (identifier) @definition))
    (source_file (property_declaration (variable_declaration (identifier) @definition)))
    (source_file (type_alias type: (identifier) @definition))
    (user_type (identifier) @name)
    (call_expression . (identifier) @name)
    (navigation_expression . (identifier) @name)
    """,
    read_import=read_kotlin_import,
)

_CSHARP_KINDS = "class struct interface enum record delegate"

_CSHARP = LinkRow(
    query=f"""
    (namespace_declaration name: (_) @package)
    (file_scoped_namespace_declaration name: (_) @package)
    (using_directive) @import
    [{
        " ".join(
            f"({kind}_declaration name: (identifier) @definition)" for kind in _CSHARP_KINDS.split()
        )
    }]
    (_ type: (identifier) @name)
    (_ returns: (identifier) @name)
    (_ type: (_ (identifier) @name))
    (generic_name . (identifier) @name)
    (type_argument_list (identifier) @name)
    (base_list (identifier) @name)
    (attribute name: (identifier) @name)
    (member_access_expression expression: (identifier) @name)
    """,
    read_import=read_csharp_import,
    read_names=capitals,
)

_PHP_KINDS = "class interface trait enum"

_PHP = LinkRow(
    query=f"""
    (namespace_definition name: (namespace_name) @package)
    (namespace_use_declaration) @import
    (qualified_name) @import
    [(require_expression) (require_once_expression) (include_expression)
     (include_once_expression)] @import
    [{" ".join(f"({kind}_declaration name: (name) @definition)" for kind in _PHP_KINDS.split())}]
    (function_definition name: (name) @definition)
    (named_type (name) @name)
    (object_creation_expression (name) @name)
    (scoped_call_expression scope: (name) @name)
    (class_constant_access_expression . (name) @name)
    (base_clause (name) @name)
    (class_interface_clause (name) @name)
    (use_declaration (name) @name)
    (function_call_expression function: (name) @name)
    """,
    read_import=read_php_import,
)

_GO = LinkRow(
    query="""
    (package_clause (package_identifier) @package)
    (import_spec) @import
    (source_file (function_declaration name: (identifier) @definition))
    (source_file (type_declaration (_ name: (type_identifier) @definition)))
    (source_file (const_declaration (const_spec name: (identifier) @definition)))
    (source_file (var_declaration (var_spec name: (identifier) @definition)))
    (source_file (var_declaration (var_spec_list (var_spec name: (identifier) @definition))))
    (type_identifier) @name
    (qualified_type) @name
    (call_expression function: (identifier) @name)
    (selector_expression operand: (identifier)) @name
    """,
    read_import=read_go_import,
    read_names=go_names,
)

_RUST = LinkRow(
    query="""
    (use_declaration) @import
    (mod_item) @import
    (macro_invocation (token_tree) @import)
    (extern_crate_declaration) @import
    (scoped_identifier path: [(crate) (super)]) @import
    (scoped_type_identifier path: [(crate) (super)]) @import
    """,
    read_import=read_rust_import,
    words=(b"use", b"mod", b"crate", b"super"),
)

_JAVASCRIPT = LinkRow(
    query="""
    (import_statement) @import
    (export_statement source: (string)) @import
    (call_expression function: [(identifier) (import)] arguments: (arguments . (string))) @import
    """,
    read_import=read_javascript_import,
    words=(b"import", b"require", b"from"),
)

_C_QUERY = """
    ["#include" (preproc_call)] @import
    (function_definition declarator: (function_declarator declarator: (identifier) @definition))
    (function_definition declarator:
      (pointer_declarator declarator: (function_declarator declarator: (identifier) @definition)))
    (struct_specifier name: (type_identifier) @definition body: (_))
    (union_specifier name: (type_identifier) @definition body: (_))
    (enum_specifier name: (type_identifier) @definition body: (_))
    (type_definition declarator: (type_identifier) @definition)
    (type_identifier) @name
    (call_expression function: (identifier) @name)
    """

_C = LinkRow(query=_C_QUERY, read_import=read_c_import)

_CPP = LinkRow(
    query=f"""{_C_QUERY}
    (class_specifier name: (type_identifier) @definition body: (_))
    (alias_declaration name: (type_identifier) @definition)
    """,
    read_import=read_c_import,
)

_RUBY = LinkRow(
    query="""
    (call !receiver method: (identifier) arguments: (argument_list . (string) .)) @import
    (call !receiver method: (identifier)
      arguments: (argument_list . (simple_symbol) . (string) .)) @import
    (class name: (constant) @definition)
    (module name: (constant) @definition)
    (constant) @name
    (scope_resolution) @name
    """,
    read_import=read_ruby_import,
)

LINK_ROWS = {
    "python": _PYTHON,
    "java": _JAVA,
    "kotlin": _KOTLIN,
    "csharp": _CSHARP,
    "php": _PHP,
    "go": _GO,
    "rust": _RUST,
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "tsx": _JAVASCRIPT,
    "c": _C,
    "cpp": _CPP,
    "ruby": _RUBY,
}
