"""Published ways to choose the MIDDLE and to filter files, as values a recipe may start from."""

PRESETS: dict[str, dict[str, object]] = {
    # aiXcoder-7B README: 70 % structured FIM, 30 % autoregressive; a node of the syntax tree, and
    # in its two examples a part of one that goes to its end. The kinds are those of its evaluation;
    # how often each was trained on is not published, so all are alike.
    "aixcoder": {
        "fim_rate": 0.7,
        "samplers": {"construct": 0.65, "cursor": 0.3, "empty": 0.05},
        "constructs": dict.fromkeys(
            ("signature", "body", "body_top", "body_middle", "body_bottom", "commented_function",
             "line", "if", "for", "while", "try", "switch"),
            1.0,
        ),
    },
    # AST-FIM (arXiv 2506.00204): nine tenths of the MIDDLEs from the tree, half of them one node
    # by size, half a run of siblings; one tenth cut between characters
    "ast-fim": {
        "samplers": {"node": 0.45, "siblings": 0.45, "random": 0.1},
        "boundaries": {"exact": 1.0},
    },
    # Bavarian et al. 2022 (arXiv 2207.14255): two uniform cuts between characters, however far
    # apart; the limit is the size of the largest file that is kept, so it shortens none of them
    "random": {
        "samplers": {"random": 1.0},
        "max_middle_bytes": 1_048_576,
    },
    # ExecRepoBench (arXiv 2412.11990, create_test_repo.py): kinds by these ratios, renormalized
    # over those that a file has
    "execrepobench": {
        "samplers": {"construct": 1.0},
        "boundaries": {"exact": 1.0},
        "constructs": {
            "import": 0.1, "comment": 0.05, "return": 0.1, "if": 0.15, "for": 0.15, "while": 0.1,
            "class": 0.1, "function": 0.1, "assignment": 0.05, "expression": 0.05,
        },
    },
}  # fmt: skip
"""Each fills what the recipe itself, file or overrides, does not say."""

_NO_FILTERS: dict[str, object] = {
    "min_bytes": 0, "max_bytes": 1_073_741_824,
    "max_line_length": 1_000_000_000, "max_mean_line_length": 1e9,
    "min_letters": 0.0, "max_data_rate": 1.0, "max_table_rate": 1.0, "max_literal_bytes": 0,
    "max_repeated_lines": 1.0, "max_repeated_ngrams": 1.0, "max_ladder_rate": 1.0,
    "max_error_rate": 1.0,
    **dict.fromkeys(("generated", "vendored", "minified", "locks", "tests"), False),
    **dict.fromkeys(("obsolete", "only_comments", "only_imports"), False),
    "licence_headers": False, "commented_code_rate": 0.0,
}  # fmt: skip
FILTER_PRESETS: dict[str, dict[str, object]] = {
    # aiXcoder-7B README and arXiv 2410.13187: generated files and those with syntax errors or
    # faults that static analysis finds go, large blocks of commented-out code at random. Its rules
    # are not published; these are ruff's for names that do not exist and for certain errors.
    "aixcoder": {
        "max_error_rate": 0.0,
        "generated": True,
        "only_comments": True,
        "commented_code_rate": 0.5,
        "ruff": ("F821", "F822", "F823", "PLE"),
    },
    # CodeGeeX (arXiv 2303.17568, section 2.2): these and no others
    "codegeex": {
        **_NO_FILTERS,
        "min_bytes": 1_024,
        "max_bytes": 102_400,
        "max_mean_line_length": 100.0,
        "min_letters": 0.4,
        "generated": True,
    },
    # OpenCoder (arXiv 2411.04905): files up to 8 MB, copyright notices removed; of its many
    # signals those that are rules here keep their usual limits
    "opencoder": {
        "max_bytes": 8_388_608,
        "max_line_length": 1_000,
        "max_mean_line_length": 100.0,
        "licence_headers": True,
    },
    # all but the languages, and the depth up to which a tree is safe to look at
    "off": _NO_FILTERS,
}
"""Each fills what of `corpus.filters` the recipe itself does not say."""
