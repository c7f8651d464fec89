"""What a file says about others is read from its tree, is small, and takes no time to speak of."""

import pickle
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from finetune.corpus.links import find as links
from finetune.corpus.links.find import Links, find_links
from finetune.corpus.links.queries import LINK_ROWS

FILES: dict[str, tuple[bytes, Links]] = {
    "python": (
        b"import a.b as c, d\nfrom __future__ import annotations\nfrom . import x, y as z\n"
        b"from ..p . q import (r,  # why\n  s as t)\nfrom k import *\n"
        b"if TYPE_CHECKING:\n    from types import T\n"
        b"try:\n    import json\nexcept ImportError:\n    import d\n"
        b"class C:\n    def f(self):\n        import late\n",
        Links(
            imports=("a.b", "d", ".:x,y", "..p.q:r,s", "k:*", "json"),
            late_imports=("types:T", "late"),
        ),
    ),
    "java": (
        b"package a.b;\nimport a.b.C;\nimport static a.b.C.f;\nimport a.b.*;\n"
        b"@Ann class A extends D { E e = F.g(); int x = size.get(); void m() { x = N.CONST; } }\n"
        b"enum En {}\nrecord R(int x) {}\n@interface An { }\ninterface If {}\n",
        Links(
            imports=("a.b.C", "a.b.C.f", "a.b.*"),
            package="a.b",
            definitions=("A", "En", "R", "An", "If"),
            names=("Ann", "D", "E", "F", "N"),
        ),
    ),
    "kotlin": (
        b"package a.b\nimport x.y.Z as Q\nimport x.y.*\nclass A : Base() { fun f(): T = g(H.i) }\n"
        b"object O\nfun top(x: Int) {}\nval v = 3\ntypealias TT = Map\nfun Foo.ext() {}\n",
        Links(
            imports=("x.y.Z", "x.y.*"),
            package="a.b",
            definitions=("A", "O", "top", "v", "TT", "ext"),
            names=("Base", "Foo", "H", "Int", "Map", "T", "g"),
        ),
    ),
    "csharp": (
        b"using A.B;\nusing static A.B.C;\nusing X = A.B.D;\nnamespace N.M;\n"
        b"[Attr] public class K : Base<T>, I { Foo f = new Bar(); Baz P {get;}\n"
        b" void M(Qux q) { Stat.Call(); q.Do(); List<Elem> l; } }\nenum E {}\n",
        Links(
            imports=("A.B", "A.B.C", "A.B.D"),
            package="N.M",
            definitions=("K", "E"),
            names=("Attr", "Bar", "Base", "Baz", "Elem", "Foo", "I", "List", "Qux", "Stat", "T"),
        ),
    ),
    "php": (
        b"<?php\nnamespace A\\B;\nuse X\\Y;\nuse X\\{P, Q as R};\nuse function X\\f;\n"
        b"require_once __DIR__ . '/x.php';\ninclude 'y.php';\ninclude $z;\n"
        b"class C extends D implements E { use T; function m(F $f): ?G { \\O\\P::q(H::I); } }\n"
        b"function foo() { return bar(new J()); }\n",
        Links(
            imports=("X\\Y", "X\\P", "X\\Q", "X\\f", "./x.php", "./y.php"),
            late_imports=("O\\P",),
            package="A\\B",
            definitions=("C", "foo"),
            names=("D", "E", "F", "G", "H", "J", "T", "bar"),
        ),
    ),
    "go": (
        b'package p\nimport (\n "fmt"\n al "a/b"\n . "c"\n "d/go-e/v2"\n)\n'
        b"type T struct { x al.U; f V }\ntype W = int\nconst (\n A = 1\n B = 2\n)\nvar C = 3\n"
        b"func F() { G(); fmt.P(); e.Q(); local.R() }\nfunc (t *T) M() {}\n",
        Links(
            imports=("fmt", "al a/b", ". c", "d/go-e/v2"),
            package="p",
            definitions=("T", "W", "A", "B", "C", "F"),
            names=("G", "U", "V", "al.U", "e.Q", "fmt.P", "int"),
        ),
    ),
    "rust": (
        b'mod a;\n#[path = "z.rs"]\n#[doc(hidden)]\nmod q;\n'
        b"pub use crate::a::{self, b::{C, D as E}};\n"
        b"use super::x;\nextern crate foo;\nuse ::std::fmt;\n"
        b"cfg! { mod m; use self::n::{o, p}; }\n"
        b"mod tests { use super::*; use super::super::y; use self::inner::I; mod deep; }\n"
        b"fn f() { crate::m::g(); let x: super::n::T = 1; }\n",
        Links(
            imports=(
                "crate::a", "crate::a::b::C", "crate::a::b::D", "super::x", "foo", "std::fmt",
                "self::n::o", "self::n::p", "self::*", "super::y",
            ),
            late_imports=(
                "mod a", "file z.rs", "mod m", "mod tests::deep", "crate::m::g", "super::n::T",
            ),
        ),
    ),
    "typescript": (
        b'import A, {B} from "./a";\nimport type {C} from "./c";\nimport "./side";\n'
        b'export * from "./d";\nexport const one = 1;\nimport g = require("./g");\n'
        b'async function h() { await import("./h"); require("./late"); other("./no"); }\n'
        b'type Q = import("./q").Q;\n',
        Links(
            imports=("./a", "./side", "./d", "./g"),
            late_imports=("./c", "./h", "./late", "./q"),
        ),
    ),
    "javascript": (
        b'import A from "./a";\nconst f = require("./f"), {g} = require("g");\nrequire(name);\n',
        Links(imports=("./a", "./f", "g")),
    ),
    "tsx": (b'import {A} from "./a";\nexport const b = <A/>;\n', Links(imports=("./a",))),
    "c": (
        b'#include "a.h"\n#  include <b/c.h>\n#include NAME\n#pragma once\n'
        b"struct S { struct U *u; };\ntypedef struct { int x; } TT;\n"
        b"static int f(V v) { return g(v) + f(v); }\nchar *pf(void) { return 0; }\n",
        Links(
            imports=('"a.h"', "<b/c.h>"),
            definitions=("S", "TT", "f", "pf"),
            names=("U", "V", "g"),
        ),
    ),
    "cpp": (
        b'#include "a.hpp"\nnamespace n { class K : public Base {\n#include "members.inc"\n}; }\n'
        b"template<class T> struct Box { T t; };\nusing Al = int;\nint K::m() { helper(); }\n",
        Links(
            imports=('"a.hpp"', '"members.inc"'),
            definitions=("K", "Box", "Al"),
            names=("T", "Base", "helper"),
        ),
    ),
    "ruby": (
        b"require 'a/b'\nrequire_relative \"../c\"\nload 'd.rb'\nputs 'e'\nmodule M\n"
        b"  autoload :X, 'x/y'\n  class C < Base\n    include Foo::Bar\n  end\nend\n",
        Links(
            imports=("a/b", "./../c", "d.rb"),
            late_imports=("x/y",),
            definitions=("M", "C"),
            names=("Bar", "Base", "Foo", "Foo::Bar"),
        ),
    ),
}  # fmt: skip


def test_every_language_with_a_query_is_read():
    assert FILES.keys() == links.LINK_ROWS.keys()


@pytest.mark.parametrize("language", FILES)
def test_links_are_what_the_file_says(language):
    text, expected = FILES[language]

    assert find_links(text, language) == expected


@pytest.mark.parametrize("language", FILES)
def test_line_ends_do_not_matter(language):
    text, expected = FILES[language]

    assert find_links(text.replace(b"\n", b"\r\n"), language) == expected


@pytest.mark.parametrize("language", FILES)
@pytest.mark.parametrize(
    "text",
    [b"", b"using ;", b"x = new ;", b"\n", b"\xff\xfe\x00", b"}" * 50, b"import", b"(" * 3_000],
)
def test_odd_files_have_links_of_some_kind(language, text):
    found = find_links(text, language)

    assert found == find_links(text, language)
    assert found.definitions == ()


@pytest.mark.parametrize("language", ["markdown", "text", "yaml", "bash"])
def test_words_are_what_is_known_of_other_files(language):
    found = find_links(b"the cat and the dog of the Gr\xc3\xb6\xc3\x9fe " + b"x" * 50, language)

    assert found == Links(words=("the", "Gr\u00f6\u00dfe", "and", "cat", "dog"))


def test_a_file_without_imports_is_known_by_its_words():
    assert find_links(b"def area(width):\n    return width\n", "python").words == (
        "width", "area", "def", "return",
    )  # fmt: skip


MADE: dict[str, Callable[[int], str]] = {
    "python": lambda n: f"from package{n} import name{n}\n",
    "java": lambda n: f"import package.a.Class{n};\n",
    "go": lambda n: f"func F{n}() {{ call{n}() }}\n",
    "rust": lambda n: f"use crate::module{n}::Name;\n",
    "markdown": lambda n: f"word{n} other{n}\n",
}


@pytest.mark.parametrize("language", MADE)
def test_links_stay_small_however_long_the_file(language):
    text = "".join(map(MADE[language], range(5_000))).encode()

    size = len(pickle.dumps(find_links(text, language)))

    assert 500 < size < 60_000


@pytest.mark.parametrize("language", [name for name, row in LINK_ROWS.items() if row.words])
@pytest.mark.parametrize("times", [1, 40, 2 * links.MAX_STRETCHES])
def test_parts_of_a_tree_say_as_much_as_the_whole(language, times, monkeypatch):
    """Far from each other, more often than parts are looked at, and where words are not imports."""
    text, expected = FILES[language]
    fill = b"\n" + b"x = important + fuse + 'from crate';\n" * 20
    spread = (text + fill) * times

    found = find_links(spread, language)

    monkeypatch.setitem(LINK_ROWS, language, replace(LINK_ROWS[language], words=()))
    assert found == find_links(spread, language)
    assert set(expected.imports) <= set(found.imports)


def test_imports_are_found_in_a_broken_file():
    text = b'import "./a";\n' + b"{ ( x\n" * 1_000

    assert find_links(text, "javascript").imports == ("./a",)


def test_a_file_that_is_one_error_is_not_searched():
    """The query takes seven seconds here."""
    started = time.process_time()

    assert find_links(b"(" * 100_000, "python") == Links()
    assert time.process_time() - started < 4
