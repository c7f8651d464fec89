"""Each reason a file is dropped for, by name, and what none of them may drop."""

import sys

import pytest

from fim import Document
from finetune.corpus.entries import File, Skip
from finetune.corpus.filters import RULES, check_document, to_document
from finetune.recipe.file import read_recipe
from finetune.recipe.filters import Filters
from finetune.recipe.presets import FILTER_PRESETS
from finetune.recipe.schema import RecipeError

CODE = b"def add(a, b):\n    return a + b\n"


def document(text: bytes = CODE, path: str = "src/a.py", language: str = "python") -> Document:
    return Document(repo="r", path=path, language=language, text=text)


def only(**limits) -> Filters:
    """Make filters with these rules and no others."""
    return Filters(**{**FILTER_PRESETS["off"], **limits})


def reason_of(found: Document, filters: Filters) -> str | None:
    reason = check_document(found, filters)
    return reason.name if reason else None


@pytest.mark.parametrize(
    ("reason", "data", "path"),
    [
        ("empty", b"", "a.py"),
        ("empty", b" \r\n\t\n", "a.py"),
        ("binary", b"a\0b", "a.py"),
        ("not-utf-8", "né".encode("latin-1"), "a.py"),
        ("not-utf-8", "a = 1".encode("utf-16"), "a.py"),
        ("not-utf-8", "a = 1".encode("utf-32"), "a.py"),
        ("not-utf-8", b"\xed\xa0\x80", "a.py"),
        ("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a.py"),
        ("notebook", b"{}", "a.ipynb"),
        ("unsupported-language", b"hello", "README"),
        ("unsupported-language", b"hello", "a.unknown"),
    ],
)
def test_files_that_are_no_text_in_a_known_language_are_dropped(reason, data, path):
    assert to_document(File(repo="r", path=path, data=data)) == Skip(
        repo="r", path=path, reason=reason, num_bytes=len(data)
    )


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfa = 1\r\n", "s = '\u2028\U0001f600'".encode(), b"a = 1\r", CODE]
)
def test_a_document_holds_the_bytes_of_its_file(data):
    assert to_document(File(repo="r", path="a.py", data=data)).text == data


def test_a_document_keeps_where_it_came_from():
    file = File(
        repo="r", path="row-1", data=CODE, language="python", revision="c0", committed_at=5,
        weight=0.5,
    )  # fmt: skip

    assert to_document(file) == Document(
        repo="r", path="row-1", language="python", text=CODE, revision="c0", committed_at=5,
        weight=0.5,
    )  # fmt: skip


def test_a_script_without_extension_is_known_by_its_first_line():
    file = File(repo="r", path="bin/run", data=b"#!/usr/bin/env python3\nprint(1)\n")

    assert to_document(file).language == "python"


@pytest.mark.parametrize(
    ("reason", "filters", "text"),
    [
        ("too-small", Filters(min_bytes=100), CODE),
        ("too-large", Filters(max_bytes=10), CODE),
        ("long-lines", Filters(), b"a = '" + b"x" * 1_000 + b"'\n" + b"b = 1\n" * 100),
        ("long-mean-line", Filters(), (b"a = '" + b"x" * 120 + b"'\n") * 20),
        ("too-deep", only(max_depth=1_000), b"x = " + b"[\n" * 3_000 + b"]\n" * 3_000),
        ("too-deep", only(max_depth=3), b"if a:\n    if b:\n        c = d(e)\n" * 300),
        ("syntax-errors", Filters(), b"def ((((: <html> }}} ] class = = 5 ;; $$ ???\n" * 5),
    ],
)
def test_files_past_a_limit_are_dropped(reason, filters, text):
    assert reason_of(document(text), filters) == reason


def test_prose_may_have_long_lines_and_no_syntax():
    paragraph = b"a word of prose " * 100 + b"\n\n"

    prose = document(paragraph * 3, path="README.md", language="markdown")
    same_in_code = document(paragraph * 3, path="a.py")

    filters = Filters(languages=("markdown", "python"))
    assert reason_of(prose, filters) is None
    assert reason_of(same_in_code, filters) == "long-lines"


@pytest.mark.parametrize(
    ("languages", "kept"),
    [((), {"python", "yaml"}), (("python", "json"), {"python", "json"})],
)
def test_data_and_prose_are_kept_where_they_are_asked_for(languages, kept):
    texts = {
        "python": b"a = 1\n", "yaml": b"a: 1\n", "json": b"[1]\n", "markdown": b"# A\n",
    }  # fmt: skip
    filters = Filters(languages=languages)
    reasons = {
        language: reason_of(document(text, path="a", language=language), filters)
        for language, text in texts.items()
    }

    assert {language for language, reason in reasons.items() if reason is None} == kept
    assert set(reasons.values()) == {None, "other-language"}


@pytest.mark.parametrize("language", ["r", "swift"])
def test_a_language_without_an_installed_grammar_is_not_judged_by_its_syntax(monkeypatch, language):
    text = b"}}}} [[[[ ((((\n" * 20
    monkeypatch.setitem(sys.modules, "tree_sitter_swift", None)

    assert reason_of(document(text, path="a", language=language), Filters()) is None
    assert reason_of(document(text), Filters()) == "syntax-errors"


@pytest.mark.parametrize(
    ("text", "language"),
    [(b"struct list { int x; };\n", "c"), (b"namespace a { class B { int x; }; }\n", "cpp")],
)
def test_a_header_is_told_by_its_whole_text(text, language):
    comment = b"/* " + b"a long licence\n" * 200 + b"*/\n"

    assert to_document(File(repo="r", path="a.h", data=comment + text)).language == language


def test_line_lengths_count_characters_and_any_line_end():
    wide = "# " + "ü" * 90

    assert reason_of(document((wide + "\r").encode() * 20), Filters(only_comments=False)) is None


def test_a_parse_that_does_not_end_in_time_is_counted(monkeypatch):
    for clock in ("time.monotonic", "time.thread_time"):
        monkeypatch.setattr(clock, iter(range(0, 10**9, 60)).__next__)

    assert reason_of(document(CODE * 20_000), only()) == "parse-timeout"


@pytest.mark.parametrize(
    "path",
    [
        "vendor/a.py",
        "x/node_modules/y/a.js",
        "Third_Party/a.c",
        "lib/python3.11/site-packages/a.py",
        ".venv/a.py",
        ".git/hooks/a.py",
        "dist/a.js",
        "Pods/a.c",
        "static/jquery-3.1.js",
        "web/jquery.min.js",
    ],
)
def test_vendored_paths_are_dropped_unless_asked_for(path):
    assert reason_of(document(path=path), Filters()) == "vendored"
    assert reason_of(document(path=path), Filters(vendored=False, generated=False)) is None


@pytest.mark.parametrize(
    "path",
    [
        "vendor.py",
        "src/vendors_api/a.py",
        ".github/a.py",
        "../a.py",
        "pkg/pods/a.go",
        "a/distance.py",
    ],
)
def test_own_paths_are_not_vendored(path):
    assert reason_of(document(path=path), Filters()) is None


@pytest.mark.parametrize(
    "head",
    [
        b"# @generated by tool\n",
        b"// Code generated by protoc-gen-go. DO NOT EDIT.\n",
        b"# Generated by the protocol buffer compiler.  DO NOT EDIT!\n",
        b"#!/bin/sh\n# This file is automatically generated by SWIG\n",
        b"/* A Bison parser, made by GNU Bison 3.8.2. */\n",
        b"# Autogenerated by Thrift Compiler (0.9)\n",
        b"/* DO NOT EDIT THIS FILE - it is machine generated */\n",
        b"# Do not edit by hand\n",
        b"# DO NOT EDIT\n",
        b"# THIS FILE WAS AUTO-GENERATED\n",
        b"/* Generated by Cython 3.0 */\n",
        b'"""Generated by mypy."""\n',
    ],
)
def test_headers_of_tools_are_dropped_unless_asked_for(head):
    text = head + CODE

    assert reason_of(document(text), Filters()) == "generated"
    lax = Filters(generated=False, max_error_rate=1.0)
    assert reason_of(document(text), lax) is None


@pytest.mark.parametrize(
    "text",
    [
        b'HEADER = "# @generated"\n',
        b"# We do not edit messages here, we only send them\n",
        b'"""Tests of the code generator."""\n',
        b"# The id is generated by the database, see models.py\n",
        b"x = 1\n" * 300 + b"# @generated\n",
    ],
)
def test_code_about_generated_code_is_kept(text):
    assert reason_of(document(text + CODE), only(generated=True)) is None


@pytest.mark.parametrize("path", ["a_pb2.py", "x/a.pb.go", "a.g.dart", "Form.Designer.cs"])
def test_generated_names_are_dropped(path):
    assert reason_of(document(path=path), Filters()) == "generated"


def test_minified_javascript_is_generated():
    text = b"var a=1;" * 40

    assert reason_of(document(text, "a.js", "javascript"), Filters()) == "minified"


def test_no_tree_is_looked_at_before_it_is_known_to_be_sound():
    names = [name for rule in RULES for name in rule.names]

    assert len(set(names)) == len(names)
    assert names.index("syntax-errors") < names.index("obsolete-syntax")


def test_plain_code_passes_every_rule():
    assert reason_of(document(), Filters()) is None


RECIPE = """\
name: acme
model: {name: acme/coder}
corpus:
  sources: [{git: .}]
  filters: {%s}
"""


def filters_of(tmp_path, text: str, *overrides: str) -> Filters:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE % text, encoding="utf-8")
    return read_recipe(path, overrides).corpus.filters


@pytest.mark.parametrize("name", FILTER_PRESETS)
def test_a_preset_fills_what_a_recipe_does_not_say(tmp_path, name):
    assert filters_of(tmp_path, f"preset: {name}") == Filters(preset=name, **FILTER_PRESETS[name])
    assert filters_of(tmp_path, "", f"corpus.filters.preset={name}").preset == name


def test_a_preset_leaves_what_a_recipe_says(tmp_path):
    filters = filters_of(
        tmp_path,
        "preset: codegeex, max_bytes: 5000, ruff: [F821]",
        "corpus.filters.min_letters=0.1",
    )

    assert (filters.min_bytes, filters.max_bytes, filters.min_letters) == (1_024, 5_000, 0.1)
    assert filters.ruff == ("F821",)
    assert filters_of(tmp_path, "preset: aixcoder").ruff == ("F821", "F822", "F823", "PLE")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "preset: of",
            "corpus.filters.preset: expected one of , aixcoder, codegeex, opencoder, of",
        ),
        ("max_data_rate: 2", "corpus.filters.max_data_rate: expected 0 to 1, got 2.0"),
        ("max_ruff: -1", "corpus.filters.max_ruff: expected 0 or more, got -1"),
        ("ruff: ['F821,--fix']", "corpus.filters.ruff: expected codes or prefixes of rules"),
    ],
)
def test_filters_that_make_no_sense_are_refused(tmp_path, text, fault):
    with pytest.raises(RecipeError) as caught:
        filters_of(tmp_path, text)

    assert fault in str(caught.value)


def test_without_filters_only_what_no_one_could_learn_from_is_dropped():
    texts = [
        b"x = 1\n" * 5_000,
        b"# a\n",
        b"print 'a'\n",
        b"a = '" + b"A1b" * 9_000 + b"'\n",
        b"(:",
    ]

    assert [reason_of(document(text), only()) for text in texts] == [None] * len(texts)
