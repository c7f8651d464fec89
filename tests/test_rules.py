"""Each rule both ways: what it drops, and what looks like it and is kept."""

import base64
import random
import time

import pytest

from fim import Document
from finetune.corpus.filters import RULES, check_document
from finetune.recipe.filters import Filters
from finetune.recipe.presets import FILTER_PRESETS

RNG = random.Random(0)
BASE64 = base64.b64encode(RNG.randbytes(3_000))
CODE = b"".join(
    b"def %s(%s):\n    if %s:\n        return %s.%s(%s)\n\n"
    % tuple(RNG.choice(b"alpha beta gamma delta size total name".split()) for _ in range(6))
    for _ in range(40)
)


def document(text: bytes, path: str = "src/a.py", language: str = "python") -> Document:
    return Document(repo="r", path=path, language=language, text=text)


def only(**limits) -> Filters:
    """Make filters with these rules and no others."""
    return Filters(**{**FILTER_PRESETS["off"], **limits})


def check(text: bytes, filters: Filters, path: str = "src/a.py", language: str = "python"):
    reason = check_document(document(text, path, language), filters)
    return (reason.name, reason.detail) if reason else None


def test_every_rule_has_names_and_a_source():
    assert [name for rule in RULES for name in rule.names] == [
        "other-language", "too-small", "too-large", "vendored", "lock-file", "test", "generated",
        "minified", "long-lines", "long-mean-line", "few-letters", "encoded-data", "literal-table",
        "repeated-lines", "repeated-ngrams", "if-ladder", "parse-timeout", "syntax-errors",
        "too-deep", "obsolete-syntax", "only-comments", "only-imports", "long-literal", "ruff",
    ]  # fmt: skip
    assert all(rule.names and len(rule.source) > 8 for rule in RULES)


def test_code_as_people_write_it_passes_every_rule():
    assert check(CODE, Filters(tests=True, only_imports=True)) is None


@pytest.mark.parametrize(
    ("size", "found"),
    [(999, ("too-small", "999 bytes < 1,000")), (1_000, None), (2_000, None),
     (2_001, ("too-large", "2,001 bytes > 2,000"))],
)  # fmt: skip
def test_sizes_are_the_last_that_is_kept(size, found):
    text = (CODE * 2)[:size]

    assert check(text, only(min_bytes=1_000, max_bytes=2_000)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"a = 'x'\n" + b"b = '" + b"y" * 994 + b"'\n", None),
        (
            b"a = 'x'\n" + b"b = '" + b"y" * 995 + b"'\n",
            ("long-lines", "longest line 1,001 > 1,000"),
        ),
        (b"a = '" + "\u00fc".encode() * 994 + b"'\n", None),
        (b"a = '" + b"y" * 990 + b"'\r" + b"b = '" + b"y" * 990 + b"'\r", None),
        (b"x = '" + b"y" * 2_000 + b"'", ("long-lines", "longest line 2,006 > 1,000")),
    ],
)
def test_a_line_has_a_thousand_characters_whatever_ends_it(text, found):
    assert check(text, only(max_line_length=1_000)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ((b"a = '" + b"x" * 94 + b"'\n") * 99 + b"a = '" + b"x" * 93 + b"'", None),
        ((b"a = '" + b"x" * 96 + b"'\n") * 99, ("long-mean-line", "mean line 101 > 100")),
    ],
)
def test_mean_lines_have_a_hundred_characters(text, found):
    assert check(text, only(max_mean_line_length=100.0)) == found


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        (b"x = [" + b"(1, -2), [3.5]," * 100 + b"]\n", "python", "few-letters"),
        ("имя = 'значение'\n".encode() * 60, "python", None),
        ("# 文件的内容\n".encode() * 60, "python", None),
        (b"x = [" + b"1, " * 100 + b"]\n", "python", None),  # too short to say anything
        (b"| 1 | 2 | 3 |\n" * 100, "markdown", None),
    ],
)
def test_letters_of_any_script_count(text, language, found):
    reason = check(text, only(min_letters=0.4, languages=("python", "markdown")), "a", language)

    assert (reason and reason[0]) == found


@pytest.mark.parametrize(
    ("text", "is_data"),
    [
        (b"KEY = '" + BASE64 + b"'\n" + CODE[:1_000], True),
        (b"KEY = '" + BASE64[:900] + b"'\n" + CODE, False),
        (b"T = [\n" + b"    0x1F, 0xA0ul, -12, 3.5e-3,\n" * 60 + b"]\n", True),
        (b"T = '" + b"".join(b"\\x%02x" % byte for byte in RNG.randbytes(200)) + b"'\n", True),
        (b"T = '" + RNG.randbytes(400).hex().encode() + b"'\n", True),
        (b"def deed(): return add(fee, cafe, dead, beef, face, fade)\n" * 12, False),
        (b"import com/google/android/apps/InternalPackage/TestUtilities/VeryLongName\n" * 9, False),
        (
            b"//////////////////////////////////////////////////////////////////////////\n" * 9,
            False,
        ),
        (b"a[0] = b[1] + c[2] * d[3]; e[4] = f[5] * 6;\n" * 20, False),
    ],
)
def test_encoded_data_is_told_from_code(text, is_data):
    reason = check(text, only(max_data_rate=0.5))

    assert (reason and reason[0]) == ("encoded-data" if is_data else None)


def test_what_was_measured_is_said_and_nothing_of_the_text():
    secret = b"AKIA" + BASE64[:3_000]

    assert check(b"K = '" + secret + b"'\n", only(max_data_rate=0.5)) == (
        "encoded-data", "numbers and encoded data 100% > 50%",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        (b"NAMES = {\n" + b"    'alpha': 'beta',\n" * 90 + b"}\n", "python", "literal-table"),
        (b"HANDLERS = {\n" + b"    'alpha': make(beta),\n" * 9 + b"}\n" + CODE, "python", None),
        (b"f(\n" + b"    first,\n    second(third),\n" * 90 + b")\n", "python", None),
        (b"key:\n" + b"  - [1, 2, 'three']\n" * 90, "yaml", None),  # data is what it is for
    ],
)
def test_a_table_of_literals_is_told_from_a_table_in_code(text, language, found):
    reason = check(text, only(max_table_rate=0.9), "a", language)

    assert (reason and reason[0]) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"".join(b"register_case(%d, handler_%d)\n" % (n, n) for n in range(200)), True),
        (b"".join(b"register_case(%d, handler_%d)\n" % (n, n) for n in range(50)), False),
        (CODE, False),
        (CODE + b"register(1)\n" * 60, False),
    ],
)
def test_lines_that_differ_in_numbers_only_are_repeated(text, found):
    reason = check(text, only(max_repeated_lines=0.75))

    assert (reason and reason[0]) == ("repeated-lines" if found else None)


def test_pieces_that_are_repeated_need_not_be_lines():
    piece = b"f(alpha, (beta, gamma), (delta, epsilon), (zeta, eta)) or "
    repeated = b"x = " + b"\n ".join([piece * 3, piece * 2, piece * 4] * 40) + b"None\n"

    assert check(repeated, only(max_repeated_ngrams=0.75))[0] == "repeated-ngrams"
    assert check(CODE * 2, only(max_repeated_ngrams=0.75)) is None


@pytest.mark.parametrize("word", [b"} else if", b"elif", b"elsif"])
def test_a_ladder_of_ifs_is_told_from_code_with_some(word):
    ladder = b"".join(b"    %s (x == %d) {\n y();\n" % (word, n) for n in range(40))

    found = check(ladder, only(max_ladder_rate=0.25), "a.c", "c")
    assert found == ("if-ladder", "'else if' per line 49% > 25%")
    assert check(ladder[:200] + b"x();\n" * 40, only(max_ladder_rate=0.25), "a.c", "c") is None


@pytest.mark.parametrize(
    ("text", "path", "language", "found"),
    [
        (b"var a=1;" * 40, "a.js", "javascript", ("minified", "320 bytes per line > 110")),
        (b"a{b:c}" * 40, "a.css", "css", ("minified", "240 bytes per line > 110")),
        (b"var a = 1;\n", "a.min.js", "javascript", ("minified", "name of a minified file")),
        (b"var a = 1;\n" * 40, "a.js", "javascript", None),
        (b"x = " + b"y + " * 80 + b"z\n", "a.py", "python", None),
    ],
)
def test_minified_scripts_and_styles(text, path, language, found):
    assert check(text, only(minified=True), path, language) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"print 'hello'\n", "Python 2: print statement in line 1"),
        (b"import sys\nprint >>sys.stderr, 'hello'\n", "Python 2: print statement in line 2"),
        (b"exec code in scope\n", "Python 2: exec statement in line 1"),
        (b"if a <> b:\n    pass\n", "Python 2: comparison operator in line 1"),
        (b"try:\n    f()\nexcept IOError, e:\n    pass\n", "Python 2: except clause in line 3"),
        (b"print('hello')\n", None),
        (b"print ('hello')\n", None),
        (b"'''\nprint 'hello'\nexcept A, e:\n'''\n# exec code\ns = '<>'\n", None),
        (b"try:\n    f()\nexcept (IOError, OSError) as e:\n    pass\n", None),
        (b"try:\n    f()\nexcept IOError, OSError:\n    pass\n", None),  # Python 3.14
        (b"match x:\n    case 1: print = 3\nexec = print\n", None),
    ],
)
def test_python_2_is_obsolete(text, found):
    assert check(text, only(obsolete=True)) == (found and ("obsolete-syntax", found))


@pytest.mark.parametrize(
    ("text", "path", "language", "kind"),
    [
        (b"# a note\n\n# another\n", "a.py", "python", "only-comments"),
        (b'"""What it is."""\n', "__init__.py", "python", "only-comments"),
        (b"/* a note */\n// another\n", "a.c", "c", "only-comments"),
        (b"<?php\n// a note\n", "a.php", "php", "only-imports"),
        (b'"""A."""\nfrom a import b\nimport c\n', "__init__.py", "python", "only-imports"),
        (b"// a\nexport * from './a';\nexport { b } from './b';\n", "i.ts", "typescript",
         "only-imports"),
        (b"#ifndef A_H\n#define A_H\n#include <a.h>\n#endif\n", "a.h", "c", "only-imports"),
        (b"package a\n\nimport \"b\"\n", "a.go", "go", "only-imports"),
        (b"pub mod a;\nmod b;\npub use a::B;\n", "mod.rs", "rust", "only-imports"),
        (b"package a;\n\nimport b.C;\n", "A.java", "java", "only-imports"),
        (b"import a\na.run()\n", "a.py", "python", None),
        (b"import a\n__all__ = ['a']\n", "__init__.py", "python", None),
        (b"export const a = 1;\n", "i.ts", "typescript", None),
        (b"mod tests { fn f() {} }\n", "a.rs", "rust", None),
        (b"<?php\nnamespace A { function f() {} }\n", "a.php", "php", None),
        (b"#ifndef A_H\n#define A_H\n#define SIZE 3\n#endif\n", "a.h", "c", None),
        (b"#ifdef A\nint a;\n#endif\n", "a.c", "c", None),
    ],
)  # fmt: skip
def test_files_without_code_of_their_own(text, path, language, kind):
    both = check(text, only(only_comments=True, only_imports=True), path, language)
    usual = check(text, Filters(), path, language)

    assert both == (kind and (kind, ""))
    assert (usual is None) == (kind != "only-comments")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            b"a = 1\nPAGE = '''" + b"<p>text</p>\n" * 200 + b"'''\n",
            "literal of 2,406 bytes > 2,000",
        ),
        (b"a = 1\nPAGE = '''" + b"<p>text</p>\n" * 160 + b"'''\n" + CODE, None),
        (b"# a note\n" * 400 + b"a = 1\n", None),
        (CODE * 2, None),
    ],
)
def test_one_long_literal(text, found):
    assert check(text, only(max_literal_bytes=2_000)) == (found and ("long-literal", found))


@pytest.mark.parametrize(
    "path",
    ["poetry.lock", "web/yarn.lock", "Cargo.lock", "package-lock.json", "pnpm-lock.yaml", "go.sum",
     "Package.resolved", ".terraform.lock.hcl", "MODULE.bazel.lock", "bun.lockb"],
)  # fmt: skip
def test_lock_files_are_dropped_unless_asked_for(path):
    assert check(CODE, Filters(), path) == ("lock-file", "")
    assert check(CODE, Filters(locks=False), path) is None


@pytest.mark.parametrize("path", ["lock.py", "src/lockfile.py", "package.json", "locks/go.mod"])
def test_code_about_locks_is_kept(path):
    assert check(CODE, Filters(), path) is None


@pytest.mark.parametrize(
    "path",
    ["tests/a.py", "src/test/java/A.java", "test_a.py", "a_test.go", "a.spec.ts", "a.test.js",
     "__tests__/a.js", "conftest.py", "UserServiceTest.java", "PriceTests.cs", "user_spec.rb"],
)  # fmt: skip
def test_tests_are_dropped_where_it_is_asked_for(path):
    assert check(CODE, Filters(tests=True), path)[0] == "test"
    assert check(CODE, Filters(), path) is None


@pytest.mark.parametrize("path", ["contest.py", "latest/a.py", "attestation.go", "Testimony.java"])
def test_names_with_test_in_them_are_no_tests(path):
    assert check(CODE, Filters(tests=True), path) is None


@pytest.mark.parametrize(
    "path",
    ["externals/a.c", "web/ckeditor/a.js", "configure", "m4/libtool.m4", "debian/rules.py",
     "js/react.min.js", "css/normalize.v8.0.1.css", ".yarn/releases/yarn.js", "cpplint.py"],
)  # fmt: skip
def test_more_foreign_paths(path):
    assert check(CODE, only(vendored=True), path)[0] == "vendored"


@pytest.mark.parametrize(
    "path",
    ["src/debian/a.py", "src/cache/a.py", "types/a.d.ts", "env/a.py", "src/react.js", "src/vue.js",
     "charts/chart.js", "tests/fixtures/a.py", "missing.py", "web/jquery.plugin.js",
     "angular.config.js", "src/d3.utils.js", "react.core.js", ".storybook/main.js"],
)  # fmt: skip
def test_what_linguist_leaves_out_though_a_team_wrote_it(path):
    assert check(CODE, only(vendored=True), path) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"// This is a generated file. Not intended for manual editing.\n", "a.java"),
        (b"/* parser generated by jison 0.4.18 */\n", "a.js"),
        (b"// <auto-generated>\n", "a.cs"),
        (b"// generated code - do not modify\n", "a.dart"),
        (b"/* GIMP RGB C-Source image dump (a.c) */\n", "a.c"),
        (CODE, "api/__generated__/a.ts"),
        (CODE, "moc_window.cpp"),
        (CODE, "model.freezed.dart"),
    ],
)
def test_more_generated_files(text, path):
    assert check(text + CODE, only(generated=True), path)[0] == "generated"


@pytest.mark.parametrize(
    "text",
    [
        b"// Package gen holds helpers for code generated by protoc.\n",
        b"/* Do not modify directly from an interrupt handler. */\n",
        b"# This module generates the tables.\n",
    ],
)
def test_code_about_generated_code_is_kept(text):
    assert check(text + CODE, only(generated=True)) is None


def test_compiled_scripts_name_their_source_map():
    text = b"var a = 1;\n" * 50 + b"//# sourceMappingURL=a.js.map\n"

    assert check(text, only(generated=True), "a.js", "javascript")[0] == "generated"
    assert check(text, only(generated=True), "a.ts", "typescript") is None


HOSTILE = {
    "brackets": b"(" * 1_000_000,
    "equals": b"=" * 1_000_000,
    "quotes": b"'" * 1_000_000,
    "blanks": b" " * 1_000_000,
    "lines": b"\n" * 1_000_000,
    "comments": b"#\n" * 500_000,
    "comment": b"/*" * 500_000,
    "prints": b"print x\n" * 125_000,
    "excepts": b"except " + b"a," * 500_000,
    "base64": b"A1b" * 333_333,
    "generated": b"# generated " + b"this a " * 140_000,
    "copyright": b"# copyright " * 80_000,
    "licences": b"# under the " * 80_000 + b"\n" + b"# with the a b c\n" * 10_000,
    "words": b"# " + b"free software " * 70_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("language", ["python", "c"])
def test_no_rule_is_slow_on_a_megabyte_of_nonsense(name, language):
    """All that looks at bytes: with the tree, parsing is what takes time."""
    found = document(HOSTILE[name], "src/a", language)
    rules = [rule for rule in RULES if "syntax-errors" not in rule.names]
    filters = Filters(obsolete=False, only_comments=False, max_literal_bytes=0)

    started = time.process_time()
    for rule in rules:
        rule.check(found, filters)

    assert time.process_time() - started < 1.0
