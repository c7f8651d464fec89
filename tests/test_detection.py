"""A file's language comes from its name, its `#!` line, and where names are shared what parses."""

import sys

import pytest

from fim import detect_language, parse
from fim.languages import grammar

C_HEADER = b"""\
#ifndef LIST_H
#define LIST_H
struct list_head { struct list_head *next, *prev; };
static inline int list_empty(const struct list_head *head) { return head->next == head; }
extern void *new(size_t size);
int class(struct list_head *this, int template);
#endif
"""
CPP_HEADER = b"""\
#pragma once
#include <vector>
namespace store {
template <typename T> class Queue : public Base<T> {
 public:
  explicit Queue(std::size_t size) : items_(size) {}
  bool empty() const { return items_.empty(); }
 private:
  std::vector<T> items_;
};
}
"""
EXPORTED_CLASS = b"""\
class STORE_EXPORT Queue : public QObject
{
    Q_OBJECT
public:
    explicit Queue(QObject *parent = nullptr);
};
"""
OBJC_HEADER = b"""\
#import <Foundation/Foundation.h>
@class Reading;
@interface Queue : NSObject <NSCopying>
@property(nonatomic, copy) NSString *name;
- (void)push:(Reading *)reading atIndex:(NSInteger)index;
@end
"""
OBJC = b"""\
#import "Queue.h"
@implementation Queue
- (void)push:(Reading *)reading atIndex:(NSInteger)index { [items insert:reading]; }
@end
"""
MATLAB = b"""\
% means of the columns
function y = means(x)
  y = zeros(1, size(x, 2));
  for i = 1:size(x, 2)
    y(i) = sum(x(:, i)) / size(x, 1);  % no mean() here
  end
end
"""
PERL = b"use strict;\nmy %seen;\nwhile (<>) { print unless $seen{$_}++; }\n"
PROLOG = b"""\
:- module(family, [ancestor/2]).
parent(tom, bob).
ancestor(X, Y) :- parent(X, Y).
ancestor(X, Y) :- parent(X, Z), ancestor(Z, Y), \\+ X = Y.
"""
TYPESCRIPT = b"export const of = <T>(items: readonly T[]): Set<T> => new Set(items);\n"
QT_LINGUIST = b"""\
<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de_DE">
<context>
    <name>MainWindow</name>
    <message><source>Open</source><translation>Datei</translation></message>
</context>
</TS>
"""
VERILOG = b"module half(input a, b, output s, c);\n  assign s = a ^ b, c = a & b;\nendmodule\n"
COQ = b"""\
Require Import Arith.
Theorem plus_n_O : forall n : nat, n = n + 0.
Proof.
  induction n as [| n IH]; simpl; auto.
Qed.
"""


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"), ("b.pyi", "python"), ("B.PY", "python"), ("a.jsx", "javascript"),
        ("a.mts", "typescript"), ("a.d.ts", "typescript"), ("a.tsx", "tsx"), ("A.java", "java"),
        ("a.go", "go"), ("a.rs", "rust"), ("a.cu", "cpp"), ("a.cs", "csharp"), ("a.R", "r"),
        ("build.gradle.kts", "kotlin"), ("a.mli", "ocaml_interface"), ("a.tf", "hcl"),
        ("a.yml", "yaml"), ("a.blade.php", "php"), ("README.md", "markdown"), ("a.rst",
        "restructuredtext"), ("a.txt", None), (".py", None), ("py", None), ("", None), ("a.", None),
        ("a.b.c.unknown", None), ("dir.py/", "python"), ("a.py.orig", None),
    ],
)  # fmt: skip
def test_an_extension_names_the_language(path, language):
    assert detect_language(path) == language


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("Makefile", "make"), ("src/GNUmakefile", "make"), ("Makefile.am", "make"),
        ("makefile", "make"), ("Dockerfile", "dockerfile"), ("docker/Dockerfile.alpine",
        "dockerfile"), ("web.dockerfile", "dockerfile"), ("Gemfile", "ruby"), ("Rakefile", "ruby"),
        ("home/.bashrc", "bash"), (".profile", "bash"), ("PKGBUILD", "bash"), ("Pipfile", "toml"),
        (".clang-format", "yaml"), ("SConstruct", "python"), ("Makefile.PL", "perl"),
        ("Gemfile.lock", None), ("Makefiles", None), ("MyDockerfile", None), ("bashrc", None),
        ("BUILD", None), ("CMakeLists.txt", None), ("LICENSE", None),
    ],
)  # fmt: skip
def test_a_file_name_names_the_language(path, language):
    assert detect_language(path, PERL if path.endswith(".PL") else b"") == language


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("tool", b"#!/usr/bin/env python3\n", "python"),
        ("tool", b"#!/usr/bin/python3.11 -u\nprint()", "python"),
        ("tool", b"#! /usr/bin/env node", "javascript"),
        ("tool", b"#!/bin/sh\n", "bash"),
        ("tool", b"#!/usr/bin/perl -w\n", "perl"),
        ("tool", b"#!/usr/bin/env Rscript\n", "r"),
        ("tool", b"#!/usr/bin/awk -f\n", None),
        ("tool", b"#!\n", None),
        ("tool", b"#!", None),
        ("tool", b"#! " + b"x" * 100_000, None),
        ("tool", b"#!/usr/bin/env -S python3 -u\n", "python"),
        ("tool.txt", b"#!/usr/bin/env python3\n", None),
        ("tool", b"\xff\xfe", None),
        ("tool", b"", None),
    ],
)
def test_a_shebang_names_the_language_of_a_file_without_extension(path, text, language):
    assert detect_language(path, text) == language


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("list.h", C_HEADER, "c"),
        ("queue.h", CPP_HEADER, "cpp"),
        ("Queue.h", OBJC_HEADER, "objc"),
        ("Queue.H", CPP_HEADER, "cpp"),
        ("exported.h", EXPORTED_CLASS, "cpp"),
        ("umbrella.h", b'#import "Queue.h"\n', "objc"),
        ("Queue.m", OBJC, "objc"),
        ("means.m", MATLAB, None),
        ("seen.pl", PERL, "perl"),
        ("seen.t", PERL, "perl"),
        ("family.pl", PROLOG, None),
        ("of.ts", TYPESCRIPT, "typescript"),
        ("app_de.ts", QT_LINGUIST, None),
        ("half.v", VERILOG, "systemverilog"),
        ("plus.v", COQ, None),
        ("binary.h", bytes(range(1, 256)) * 40, None),
    ],
)
def test_what_parses_tells_languages_with_a_common_extension_apart(path, text, language):
    assert detect_language(path, text) == language


def test_a_long_text_is_told_by_its_head():
    filler = b"static int x(int a) { return a; }\n" * 20_000

    assert detect_language("a.h", CPP_HEADER + filler) == "cpp"
    assert detect_language("a.h", filler + CPP_HEADER) == "c"


def test_without_a_text_a_shared_extension_goes_to_its_first_row():
    assert detect_language("a.h") == "c"
    assert detect_language("a.m") == "objc"


def test_a_language_whose_grammar_is_missing_has_no_say(monkeypatch):
    monkeypatch.setitem(sys.modules, "tree_sitter_objc", None)
    grammar.cache_clear()

    assert detect_language("list.h", C_HEADER) == "c"
    assert detect_language("Queue.m", OBJC) == "objc"  # by its name alone


def test_the_tree_that_decides_can_be_kept():
    trees = {}

    def keep(text, language):
        trees[language] = parse(text, language)
        return trees[language]

    assert detect_language("of.ts", TYPESCRIPT, keep) == "typescript"
    assert trees["typescript"].text is TYPESCRIPT
    assert detect_language("of.py", b"x = 1\n", keep) == "python"  # no tree is asked for
    assert trees.keys() == {"typescript"}
