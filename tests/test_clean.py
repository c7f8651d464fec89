"""What is taken out of a file that is kept, and what has to stay."""

import time
from pathlib import Path

import pytest

import fim
from fim import Document
from finetune.corpus.cleaning.clean import clean_document
from finetune.corpus.cleaning.commented import remove_commented_code
from finetune.corpus.cleaning.headers import remove_licence
from finetune.corpus.licences import find_licence
from finetune.recipe.filters import Filters
from finetune.recipe.presets import FILTER_PRESETS

MIT_BLOCK = b"""/*
 * Copyright (c) 2024 Acme
 *
 * Permission is hereby granted, free of charge, to any person
 *
 * The above copyright notice shall be included.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
 */
"""


@pytest.mark.parametrize(
    ("language", "text", "left"),
    [
        ("c", MIT_BLOCK + b"\nint a;\n", b"int a;\n"),
        ("python", b"#!/usr/bin/python\n# Copyright 2024 Acme\n\nimport a\n",
         b"#!/usr/bin/python\nimport a\n"),
        ("python", b"# -*- coding: utf-8 -*-\n# (c) 2024 Acme\n# All rights reserved.\na = 1\n",
         b"# -*- coding: utf-8 -*-\na = 1\n"),
        ("go", b"// Copyright 2024 Acme. All rights reserved.\n// See the file.\n\n"
               b"//go:build linux\n\npackage a\n", b"//go:build linux\n\npackage a\n"),
        ("php", b"<?php\n/*\n * Copyright 2024 Acme\n */\n\necho 1;\n", b"<?php\necho 1;\n"),
        ("php", b"<?php\n/*\n * This file is part of Acme.\n *\n * (c) Ann Lee\n *\n"
                b" * For the full copyright and license, see X.\n */\n\nf();\n", b"<?php\nf();\n"),
        ("html", b"<!-- Copyright 2024 Acme -->\n<p>a</p>\n", b"<p>a</p>\n"),
        ("css", b"/* Licensed under MIT */\r\na { b: c }\r\n", b"a { b: c }\r\n"),
        ("sql", b"-- Copyright 2024 Acme\n/* Licensed under MIT */\nSELECT 1;\n", b"SELECT 1;\n"),
        ("haskell", b"{-\nCopyright 2024 Acme\n-}\nmodule A where\n", b"module A where\n"),
        ("c", b"\xef\xbb\xbf// Copyright 2024 Acme\n\nint a;\n", b"\xef\xbb\xbfint a;\n"),
        ("rust", b"// SPDX-License-Identifier: MIT\n\nfn a() {}\n", b"fn a() {}\n"),
        ("java", b"/* Copyright 2024 Acme. */\n\n/** What it is. */\nclass A {}\n",
         b"/** What it is. */\nclass A {}\n"),
        ("ruby", b"# frozen_string_literal: true\n\n# Copyright 2024 Acme\n\nputs 1\n",
         b"# frozen_string_literal: true\n\nputs 1\n"),
    ],
)  # fmt: skip
def test_licence_headers_are_taken_out(language, text, left):
    assert remove_licence(text, language) == left


@pytest.mark.parametrize(
    ("language", "text", "left"),
    [
        ("c", b"/* Sorts a list.\n   Copyright 2024 Acme\n\n   Licensed under MIT.  */\nint a;\n",
         b"/* Sorts a list.\n */\nint a;\n"),
        ("c", b"/* Copyright 2024 Acme\n *\n * Sorts a list.\n */\nint a;\n",
         b"/*\n * Sorts a list.\n */\nint a;\n"),
        ("python", b"# Sorts a list.\n#\n# Copyright 2024 Acme\n#\n# It is stable.\na = 1\n",
         b"# Sorts a list.\n#\n# It is stable.\na = 1\n"),
        ("cpp", b"// Sorts a list.\n//\n// Copyright 2024 Acme\n// Licensed under MIT\n\nint a;\n",
         b"// Sorts a list.\n\nint a;\n"),
        ("javascript", b"/**\n * Copyright 2024 Acme\n * @jest-environment jsdom\n */\nf()\n",
         b"/**\n * @jest-environment jsdom\n */\nf()\n"),
        ("bash", b"# Copyright 2024 Acme\n# shellcheck disable=SC2034\na=1\n",
         b"# shellcheck disable=SC2034\na=1\n"),
        ("python", b"# Copyright 2024 Acme\n# noqa: D100\na = 1\n", b"# noqa: D100\na = 1\n"),
        ("sql", b"-- Copyright 2024 Acme\n-- name: Get :one\nSELECT 1;\n",
         b"-- name: Get :one\nSELECT 1;\n"),
    ],
)  # fmt: skip
def test_what_a_header_says_beside_the_licence_stays(language, text, left):
    assert remove_licence(text, language) == left


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", b"# Checks the licence of each user.\nimport a\n"),
        ("python", b"# Checks the copyright notice of each file.\nimport a\n"),
        ("python", b"import a\n# Copyright 2024 Acme\n"),
        ("python", b'"""Copyright 2024 Acme."""\nimport a\n'),
        ("python", b"# Copyright 2024 Acme\n"),
        ("c", b"/* Copyright 2024 Acme */ int a;\n"),
        ("c", b"/* Copyright 2024 Acme\nint a;\n"),
        ("c", b"int a; /* Copyright 2024 Acme */\n"),
        ("markdown", b"# Copyright 2024 Acme\n\ntext\n"),
        ("json", b'{"licence": "MIT"}\n'),
        ("python", b""),
    ],
)
def test_what_is_no_licence_header_stays(language, text):
    assert remove_licence(text, language) == text


PUT_ASIDE = b"""# total = 0
# for row in rows:
#     total += row.size
#     if total > limit:
#         break
# return total
"""
DOCUMENTED = b"""# Returns the sum of all rows.
#
#   rows = [1, 2, 3]
#   total = sum_rows(rows)
#   print(total)
#   rows.append(4)
#   total = sum_rows(rows)
"""
PROSE = b"""# This was a long way to go (and it took some time), because
# the first attempt = a failure; the second one did not
# do any better, see the notes of the meeting (second part),
# where we agreed to try again: with less code, and with
# more care. It is the third one that is used here,
# unless a setting says otherwise.
"""


@pytest.mark.parametrize(
    ("language", "text", "is_code"),
    [
        ("python", PUT_ASIDE, True),
        ("python", PUT_ASIDE.replace(b"# ", b"    #"), True),
        ("python", PUT_ASIDE.replace(b"\n", b"\r\n"), True),
        ("python", b"\n".join(PUT_ASIDE.split(b"\n")[:4]) + b"\n", False),
        ("python", DOCUMENTED, False),
        ("python", PROSE, False),
        ("python", b"#  a.size     # => 3\n" * 8, False),
        ("c", b"// int f(void) {\n//   g(1);\n//   g(2);\n//   return 1;\n// }\n", True),
        ("c", b"/*\nint f(void) {\n  g(1);\n  g(2);\n  return 1;\n}\n*/\n", True),
        ("c", b"  /* int f(void) {\n  g(1);\n  g(2);\n  return 1;\n} */\n", True),
        ("c", b"/**\nint f(void) {\n  g(1);\n  g(2);\n  return 1;\n}\n*/\n", False),
        ("c", b"/* To be called so:\n *\n *   f(1);\n *   f(2);\n *   return 1;\n */\n", False),
        ("c", b"/* int f(void) {\n  g(1);\n  g(2);\n  return 1;\n} */ x();\n", False),
        ("rust", b"/// let a = 1;\n/// let b = 2;\n/// f(a);\n/// f(b);\n/// g();\n", False),
        ("rust", b"//! let a = 1;\n//! let b = 2;\n//! f(a);\n//! f(b);\n//! g();\n", False),
        ("c", b"// --------\n" * 8, False),
        ("java", b"//////////\n" * 8, False),
    ],
)
def test_commented_out_code_is_told_from_comments(language, text, is_code):
    whole = b"a = 1;\n" + text + b"b = 2;\n"

    left = remove_commented_code(whole, language, 1.0, 0)

    assert left == (b"a = 1;\nb = 2;\n" if is_code else whole)


@pytest.mark.parametrize(
    ("language", "block", "before", "after"),
    [
        ("python", PUT_ASIDE, b"S = '''\n", b"'''\n"),
        ("bash", b"# cd a;\n# ls b;\n# rm b;\n# mv c d;\n# ls d;\n", b"cat <<END\n", b"END\n"),
        ("ruby", b"# a = 1\n# b = f(a)\n# c = b\n# g(c)\n# h(c)\n", b"s = <<~END\n", b"END\n"),
    ],
)
def test_lines_of_a_string_are_no_comments(language, block, before, after):
    inside = b"x=1\n" + before + block + after

    assert remove_commented_code(inside, language, 1.0, 0) == inside
    assert remove_commented_code(b"x=1\n" + block, language, 1.0, 0) == b"x=1\n"


def test_blocks_are_taken_out_at_random_and_the_same_ones_again():
    blocks = [b"x%d = 1\n" % n + PUT_ASIDE.replace(b"total", b"t%d" % n) for n in range(200)]
    found = Document(repo="r", path="a.py", language="python", text=b"\n".join(blocks))

    half = Filters(commented_code_rate=0.5)
    texts = {seed: clean_document(found, half, seed).text for seed in (0, 1)}

    left = texts[0].count(b"# return")
    assert 70 < left < 130
    assert texts[0] != texts[1]
    assert clean_document(found, half, 0).text == texts[0]
    assert clean_document(found, Filters(commented_code_rate=0.0), 0) is found
    copy = Document(repo="s", path="b.py", language="python", text=found.text)
    assert clean_document(copy, half, 0).text == texts[0]  # copies stay copies


def test_a_document_keeps_all_but_its_text():
    text = b"# Copyright 2024 Acme\na = 1\n"
    found = Document(
        repo="r", path="a.py", language="python", text=text, revision="c0", committed_at=5,
        licence="MIT", weight=0.5,
    )  # fmt: skip

    assert clean_document(found, Filters(), 0) == Document(
        repo="r", path="a.py", language="python", text=b"a = 1\n", revision="c0", committed_at=5,
        licence="MIT", weight=0.5,
    )  # fmt: skip
    assert clean_document(found, Filters(**FILTER_PRESETS["off"]), 0) is found


def test_python_is_fixed_and_formatted_where_it_is_asked_for():
    text = b"import os\nimport sys\nprint( sys.argv , 'a' )\n"
    found = Document(repo="r", path="a.py", language="python", text=text)

    formatted = clean_document(found, Filters(ruff_format=True), 0).text
    both = clean_document(found, Filters(ruff_fix=True, ruff_format=True), 0).text

    assert formatted == b'import os\nimport sys\n\nprint(sys.argv, "a")\n'
    assert both == b'import sys\n\nprint(sys.argv, "a")\n'


def test_no_file_of_this_project_is_broken_by_cleaning():
    paths = sorted(Path(fim.__file__).parent.glob("*.py"))
    assert len(paths) > 20

    for path in paths:
        text = b"# Copyright 2024 Acme\n" + path.read_bytes()
        found = Document(repo="r", path=path.name, language="python", text=text)
        left = clean_document(found, Filters(commented_code_rate=1.0), 0).text
        assert left == path.read_bytes(), path.name


HOSTILE = [
    b"#" * 1_000_000, b"# a\n" * 250_000, b"/*" * 500_000, b"// a;\n" * 170_000, b"\r" * 1_000_000,
    b"# copyright " * 90_000, b"# " + b"(c) 20 " * 140_000, b"\n" * 1_000_000,
    b"# under the " + b"a " * 500_000, b"# under the a, \n" * 60_000, b"/* a\n */\n" * 110_000,
    b"/*\na;\nb;\nc;\nd;\n*/" * 50_000, b"// a;\n// b;\n// c;\n// d;\n// e;\n\n" * 30_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("language", ["python", "c", "html"])
def test_cleaning_is_quick_on_a_megabyte_of_nonsense(text, language):
    found = Document(repo="r", path="a", language=language, text=text)

    started = time.process_time()
    clean_document(found, Filters(), 0)
    find_licence(text)

    assert time.process_time() - started < 3.0
