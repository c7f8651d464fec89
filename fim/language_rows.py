"""Rows of the languages that most code is written in, Python to C#.

What counts as which construct: `function` has a body to fill in, closures that are written as
expressions are under `expression`; `class` is whatever defines a type or a namespace of members;
`assignment` includes declarations that may give a value; `while` includes `do` and endless loops.
"""

from fim.language import Language

_JAVASCRIPT = {
    "function": (
        "function_declaration", "generator_function_declaration", "method_definition",
        "arrow_function", "function_expression", "generator_function",
    ),
    "class": ("class_declaration", "class"),
    "import": ("import_statement",),
    "comment": ("comment",),
    "string": ("string", "template_string"),
    "call": ("call_expression", "new_expression"),
    "arguments": ("arguments",),
    "assignment": (
        "assignment_expression", "augmented_assignment_expression", "lexical_declaration",
        "variable_declaration",
    ),
    "return": ("return_statement",),
    "expression": (
        "binary_expression", "unary_expression", "ternary_expression", "member_expression",
        "subscript_expression", "await_expression", "yield_expression", "array", "object", "regex",
    ),
    "if": ("if_statement",),
    "for": ("for_statement", "for_in_statement"),
    "while": ("while_statement", "do_statement"),
    "try": ("try_statement",),
    "switch": ("switch_statement",),
}  # fmt: skip
_JSX = ("jsx_element", "jsx_self_closing_element", "jsx_expression")
_TYPESCRIPT = {
    **_JAVASCRIPT,
    "class": (
        *_JAVASCRIPT["class"], "abstract_class_declaration", "interface_declaration",
        "enum_declaration", "type_alias_declaration", "internal_module",
    ),
    "assignment": (*_JAVASCRIPT["assignment"], "public_field_definition"),
    "expression": (
        *_JAVASCRIPT["expression"], "as_expression", "satisfies_expression",
        "non_null_expression",
    ),
}  # fmt: skip
_C = {
    "function": ("function_definition",),
    "class": (
        "struct_specifier body: (_)", "union_specifier body: (_)", "enum_specifier body: (_)",
        "type_definition",
    ),
    "import": ("preproc_include",),
    "comment": ("comment",),
    "string": ("string_literal", "concatenated_string"),
    "call": ("call_expression",),
    "arguments": ("argument_list",),
    "assignment": ("assignment_expression", "init_declarator"),
    "return": ("return_statement",),
    "expression": (
        "binary_expression", "unary_expression", "conditional_expression", "cast_expression",
        "subscript_expression", "field_expression", "pointer_expression", "sizeof_expression",
        "initializer_list",
    ),
    "if": ("if_statement",),
    "for": ("for_statement",),
    "while": ("while_statement", "do_statement"),
    "switch": ("switch_statement",),
}  # fmt: skip

COMMON_ROWS = {
    "python": Language(
        title="Python",
        extensions=(".py", ".pyi", ".pyw"),
        filenames=("SConstruct", "SConscript"),
        shebangs=("python", "python3"),
        distribution="tree-sitter-python",
        comment="#",
        constructs={
            "function": ("function_definition",),
            "class": ("class_definition", "type_alias_statement"),
            "import": ("import_statement", "import_from_statement", "future_import_statement"),
            "comment": ("comment",),
            "string": ("string", "concatenated_string"),
            "call": ("call",),
            "arguments": ("argument_list",),
            "assignment": ("assignment", "augmented_assignment", "named_expression"),
            "return": ("return_statement",),
            "expression": (
                "binary_operator", "unary_operator", "boolean_operator", "not_operator",
                "comparison_operator", "conditional_expression", "attribute", "subscript", "lambda",
                "await", "yield", "list", "tuple", "dictionary", "set", "list_comprehension",
                "dictionary_comprehension", "set_comprehension", "generator_expression",
            ),
            "if": ("if_statement",),
            "for": ("for_statement",),
            "while": ("while_statement",),
            "try": ("try_statement",),
            "switch": ("match_statement",),
        },
    ),
    "java": Language(
        title="Java",
        extensions=(".java",),
        distribution="tree-sitter-java",
        constructs={
            "function": (
                "method_declaration", "constructor_declaration", "compact_constructor_declaration",
            ),
            "class": (
                "class_declaration", "interface_declaration", "enum_declaration",
                "record_declaration", "annotation_type_declaration",
            ),
            "import": ("import_declaration",),
            "comment": ("line_comment", "block_comment"),
            "string": ("string_literal",),
            "call": (
                "method_invocation", "object_creation_expression",
                "explicit_constructor_invocation",
            ),
            "arguments": ("argument_list",),
            "assignment": (
                "assignment_expression", "local_variable_declaration", "field_declaration",
            ),
            "return": ("return_statement",),
            "expression": (
                "binary_expression", "unary_expression", "ternary_expression", "cast_expression",
                "instanceof_expression", "field_access", "array_access", "lambda_expression",
                "method_reference", "array_creation_expression", "array_initializer",
            ),
            "if": ("if_statement",),
            "for": ("for_statement", "enhanced_for_statement"),
            "while": ("while_statement", "do_statement"),
            "try": ("try_statement", "try_with_resources_statement"),
            "switch": ("switch_expression",),
        },
    ),
    "javascript": Language(
        title="JavaScript",
        extensions=(".js", ".mjs", ".cjs", ".jsx"),
        filenames=("Jakefile",),
        shebangs=("node", "nodejs", "bun"),
        distribution="tree-sitter-javascript",
        constructs={
            **_JAVASCRIPT,
            "assignment": (*_JAVASCRIPT["assignment"], "field_definition"),
            "expression": (*_JAVASCRIPT["expression"], *_JSX),
        },
    ),
    "typescript": Language(
        title="TypeScript",
        extensions=(".ts", ".mts", ".cts"),
        shared=(".ts",),  # Qt's translations are XML
        shebangs=("ts-node", "tsx", "deno"),
        distribution="tree-sitter-typescript",
        function="language_typescript",
        constructs=_TYPESCRIPT,
    ),
    "tsx": Language(
        title="TSX",
        extensions=(".tsx",),
        distribution="tree-sitter-typescript",
        function="language_tsx",
        constructs={**_TYPESCRIPT, "expression": (*_TYPESCRIPT["expression"], *_JSX)},
    ),
    "go": Language(
        title="Go",
        extensions=(".go",),
        distribution="tree-sitter-go",
        constructs={
            "function": ("function_declaration", "method_declaration", "func_literal"),
            "class": ("type_declaration",),
            "import": ("import_declaration",),
            "comment": ("comment",),
            "string": ("interpreted_string_literal", "raw_string_literal"),
            "call": ("call_expression",),
            "arguments": ("argument_list",),
            "assignment": (
                "assignment_statement", "short_var_declaration", "var_declaration",
                "const_declaration",
            ),
            "return": ("return_statement",),
            "expression": (
                "binary_expression", "unary_expression", "selector_expression", "index_expression",
                "slice_expression", "type_assertion_expression", "type_conversion_expression",
                "composite_literal",
            ),
            "if": ("if_statement",),
            "for": ("for_statement",),
            "switch": ("expression_switch_statement", "type_switch_statement", "select_statement"),
        },
    ),
    "rust": Language(
        title="Rust",
        extensions=(".rs",),
        distribution="tree-sitter-rust",
        constructs={
            "function": ("function_item",),
            "class": ("struct_item", "enum_item", "union_item", "trait_item", "impl_item"),
            "import": ("use_declaration", "extern_crate_declaration"),
            "comment": ("line_comment", "block_comment"),
            "string": ("string_literal", "raw_string_literal"),
            "call": ("call_expression", "macro_invocation"),
            "arguments": ("arguments",),
            "assignment": (
                "assignment_expression", "compound_assignment_expr", "let_declaration",
                "const_item", "static_item",
            ),
            "return": ("return_expression",),
            "expression": (
                "binary_expression", "unary_expression", "reference_expression", "field_expression",
                "index_expression", "range_expression", "type_cast_expression", "await_expression",
                "closure_expression", "struct_expression", "tuple_expression", "array_expression",
            ),
            "if": ("if_expression",),
            "for": ("for_expression",),
            "while": ("while_expression", "loop_expression"),
            "try": ("try_expression", "try_block"),
            "switch": ("match_expression",),
        },
    ),
    "c": Language(
        title="C",
        extensions=(".c", ".h"),
        shared=(".h",),
        distribution="tree-sitter-c",
        constructs=_C,
    ),
    "cpp": Language(
        title="C++",
        extensions=(
            ".cpp", ".cc", ".cxx", ".c++", ".hpp", ".hh", ".hxx", ".h++", ".ipp", ".tpp", ".txx",
            ".cu", ".cuh", ".ino", ".h",
        ),
        shared=(".h",),
        marks=(
            "class_specifier", "base_class_clause", "access_specifier", "namespace_definition",
            "template_declaration", "using_declaration",
        ),
        distribution="tree-sitter-cpp",
        constructs={
            **_C,
            "class": (
                "class_specifier body: (_)", *_C["class"], "alias_declaration",
                "concept_definition",
            ),
            "import": ("preproc_include", "using_declaration"),
            "string": (*_C["string"], "raw_string_literal"),
            "call": ("call_expression", "new_expression"),
            "expression": (*_C["expression"], "lambda_expression", "fold_expression"),
            "for": ("for_statement", "for_range_loop"),
            "try": ("try_statement",),
            "switch": ("switch_statement",),
        },
    ),
    "csharp": Language(
        title="C#",
        extensions=(".cs", ".csx"),
        distribution="tree-sitter-c-sharp",
        constructs={
            "function": (
                "method_declaration", "constructor_declaration", "destructor_declaration",
                "operator_declaration", "conversion_operator_declaration",
                "local_function_statement",
            ),
            "class": (
                "class_declaration", "interface_declaration", "struct_declaration",
                "record_declaration", "enum_declaration", "delegate_declaration",
            ),
            "import": ("using_directive",),
            "comment": ("comment",),
            "string": (
                "string_literal", "verbatim_string_literal", "raw_string_literal",
                "interpolated_string_expression",
            ),
            "call": (
                "invocation_expression", "object_creation_expression",
                "implicit_object_creation_expression", "constructor_initializer",
            ),
            "arguments": ("argument_list", "bracketed_argument_list"),
            "assignment": (
                "assignment_expression", "local_declaration_statement", "field_declaration",
                "property_declaration",
            ),
            "return": ("return_statement",),
            "expression": (
                "binary_expression", "prefix_unary_expression", "conditional_expression",
                "conditional_access_expression", "member_access_expression", "cast_expression",
                "element_access_expression", "is_pattern_expression", "is_expression",
                "as_expression", "await_expression", "lambda_expression",
                "anonymous_method_expression", "query_expression", "array_creation_expression",
                "initializer_expression", "tuple_expression", "typeof_expression",
            ),
            "if": ("if_statement",),
            "for": ("for_statement", "foreach_statement"),
            "while": ("while_statement", "do_statement"),
            "try": ("try_statement",),
            "switch": ("switch_statement", "switch_expression"),
        },
    ),
}  # fmt: skip
