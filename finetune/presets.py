"""Published ways to choose the MIDDLE, as values of `fim.*` that a recipe may start from."""

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
