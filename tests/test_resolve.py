"""Imports of tiny repositories, written out, lead to the files that they mean."""

from pathlib import PurePosixPath

import pytest

from fim import LANGUAGES
from finetune.corpus.links.files import LATE, NAME, OrderFile
from finetune.corpus.links.find import find_links
from finetune.corpus.links.queries import LINK_ROWS
from finetune.corpus.links.resolve import RESOLVERS, link_files

ENDINGS = {
    ending: name for name in reversed(LINK_ROWS) for ending in LANGUAGES[name].extensions
} | {".h": "c", ".md": "markdown"}


def read(texts: dict[str, str]) -> list[OrderFile]:
    found = []
    for path, text in texts.items():
        language = ENDINGS[PurePosixPath(path).suffix]
        links = find_links(text.encode(), language)
        found.append(OrderFile(path=path, language=language, links=links))
    return found


def ties(texts: dict[str, str]) -> dict[tuple[str, str], int]:
    """How strong each tie is, by user and used file."""
    files = read(texts)
    graph = link_files(files)
    return {
        (files[user].path, files[used].path): strength
        for user in range(len(files))
        for used, strength in graph.uses[user].items()
        if used < len(files)
    }


def edges(texts: dict[str, str], weakest: int = LATE) -> set[str]:
    """`user > used` for the ties that imports give."""
    return {f"{a} > {b}" for (a, b), strength in ties(texts).items() if strength <= weakest}


REPOSITORIES = {
    "python: absolute, relative, names and modules of packages": (
        {
            "src/app/__init__.py": "from .core import run\n",
            "src/app/core.py": "import os\nfrom . import util\nfrom .sub.deep import thing\n",
            "src/app/util.py": "import app.sub.deep as d, redis\n",
            "src/app/sub/__init__.py": "",
            "src/app/sub/deep.py": "from ...outside import x\nfrom ..util import (\n  a, b as c)\n",
            "tests/test_app.py": "from app import run, util\nfrom helpers import h\n",
            "tests/helpers.py": "import json\n",
            "scripts/json.py": "import helpers\n",
        },
        {
            "src/app/__init__.py > src/app/core.py",
            "src/app/core.py > src/app/util.py",
            "src/app/core.py > src/app/sub/deep.py",
            "src/app/util.py > src/app/sub/deep.py",
            "src/app/sub/deep.py > src/app/util.py",
            "tests/test_app.py > src/app/__init__.py",
            "tests/test_app.py > src/app/util.py",
            "tests/test_app.py > tests/helpers.py",
        },
    ),
    "python: the repository is the package": (
        {
            "__init__.py": "from acme.graph import Graph\nfrom acme.io import *\n",
            "graph.py": "import acme\nimport acme.io\n",
            "io.py": "import io\nimport types\n",
            "types.py": "",
        },
        {
            "__init__.py > graph.py",
            "__init__.py > io.py",
            "graph.py > __init__.py",
            "graph.py > io.py",
        },
    ),
    "java: classes, nested and static ones, from a package declared elsewhere than its folder": (
        {
            "core/src/A.java": "package org.a;\nimport org.b.B;\nimport java.util.List;\n"
            "class A {}",
            "b/B.java": "package org.b;\nimport org.a.A.Inner;\nimport static org.c.C.make;\n"
            "public class B { D d; }",
            "c/C.java": "package org.c;\nimport static org.a.A.*;\npublic class C {}",
            "b/D.java": "package org.b;\nclass D {}",
        },
        {
            "core/src/A.java > b/B.java",
            "b/B.java > core/src/A.java",
            "b/B.java > c/C.java",
            "c/C.java > core/src/A.java",
        },
    ),
    "kotlin: classes and functions, and classes of Java": (
        {
            "a/Main.kt": "package a\nimport b.Box\nimport b.open as openBox\nimport b.Old\n"
            "fun main() = openBox(Box())",
            "b/Box.kt": "package b\nclass Box",
            "b/tools.kt": "package b\nfun open(box: Box) = box",
            "b/Old.java": "package b;\npublic class Old {}",
        },
        {"a/Main.kt > b/Box.kt", "a/Main.kt > b/tools.kt", "a/Main.kt > b/Old.java"},
    ),
    "go: the files of a package that define what is used, or all of it": (
        {
            "main.go": 'package main\nimport (\n "fmt"\n "example.com/m/store"\n'
            ' u "example.com/m/util"\n)\nfunc main() { fmt.Println(store.Open(), u.X) }',
            "store/open.go": "package store\nfunc Open() int { return 1 }",
            "store/close.go": "package store\nfunc Close() {}",
            "store/open_test.go": 'package store\nimport "example.com/m/util"\nvar y = util.F()',
            "util/util.go": "package util\nconst X = 1\nfunc F() int { return X }",
            "fmt/own.go": "package fmt\nfunc Println() {}",
            "side/side.go": 'package side\nimport _ "example.com/m/store"\n',
        },
        {
            "main.go > store/open.go",
            "main.go > util/util.go",
            "store/open_test.go > util/util.go",
            "side/side.go > store/open.go",
            "side/side.go > store/close.go",
        },
    ),
    "typescript: endings, index files, aliases, types, what is built, workspaces": (
        {
            "src/main.ts": 'import {a} from "./a";\nimport type {T} from "./types";\n'
            'export * from "./parts";\nimport z = require("./z");\nimport fs from "fs";\n',
            "src/a.tsx": 'import {b} from "@/lib/b";\nconst c = import("./parts/c.js");\n',
            "src/types.d.ts": "",
            "src/parts/index.ts": 'export {c} from "./c"\n',
            "src/parts/c.ts": 'import {x} from "@acme/tools";\nimport "react";\n',
            "src/z.js": 'const y = require("./parts");\nconst w = require(name);\n',
            "src/lib/b.ts": 'import a from ".."\n',
            "src/index.ts": "",
            "packages/tools/src/index.ts": "",
        },
        {
            "src/main.ts > src/a.tsx",
            "src/main.ts > src/types.d.ts",
            "src/main.ts > src/parts/index.ts",
            "src/main.ts > src/z.js",
            "src/a.tsx > src/lib/b.ts",
            "src/a.tsx > src/parts/c.ts",
            "src/parts/index.ts > src/parts/c.ts",
            "src/parts/c.ts > packages/tools/src/index.ts",
            "src/z.js > src/parts/index.ts",
            "src/lib/b.ts > src/index.ts",
        },
    ),
    "javascript: a script means scripts": (
        {
            "lib/a.js": 'require("./b"); import("./c.mjs"); require("./data");\n',
            "lib/b.js": "",
            "lib/b.d.ts": 'import "./a"\n',
            "lib/a.d.ts": "",
            "lib/c.mjs": 'export * as a from "./a.js"\n',
        },
        {
            "lib/a.js > lib/b.js",
            "lib/a.js > lib/c.mjs",
            "lib/b.d.ts > lib/a.d.ts",
            "lib/c.mjs > lib/a.js",
        },
    ),
    "rust: modules, lists of paths, other crates, what a macro passes on": (
        {
            "net/src/lib.rs": "mod tcp;\nfeature! { mod extra; }\npub use crate::tcp::{self, S};\n",
            "net/src/tcp/mod.rs": '#[path = "odd.rs"]\nmod even;\nuse super::extra::E as F;\n'
            "mod tests { use super::*; use super::super::extra; }\n",
            "net/src/tcp/odd.rs": "fn f() { crate::extra::g() }\nuse std::{fmt, io};\n",
            "net/src/extra.rs": "",
            "app/src/main.rs": "mod args;\nuse net::tcp::S;\nuse args::{Args, deep::D};\n",
            "app/src/args.rs": "mod deep;\n",
            "app/src/args/deep.rs": "use super::Args;\n",
        },
        {
            "net/src/lib.rs > net/src/tcp/mod.rs",
            "net/src/lib.rs > net/src/extra.rs",
            "net/src/tcp/mod.rs > net/src/tcp/odd.rs",
            "net/src/tcp/mod.rs > net/src/extra.rs",
            "net/src/tcp/odd.rs > net/src/extra.rs",
            "app/src/main.rs > net/src/tcp/mod.rs",
            "app/src/main.rs > app/src/args.rs",
            "app/src/main.rs > app/src/args/deep.rs",
            "app/src/args.rs > app/src/args/deep.rs",
            "app/src/args/deep.rs > app/src/args.rs",
        },
    ),
    "c: beside the file, by the end of a path, not for the standard library": (
        {
            "src/a.c": '#include "a.h"\n#include <lib/b.h>\n#include <string.h>\n#include "b.h"\n',
            "src/a.h": "",
            "include/lib/b.h": "class X {\n#include <lib/c.h>\n};\n",
            "include/lib/c.h": "",
            "src/string.h": "",
        },
        {
            "src/a.c > src/a.h",
            "src/a.c > include/lib/b.h",
            "include/lib/b.h > include/lib/c.h",
        },
    ),
    "csharp: what is used of a namespace": (
        {
            "A.cs": "using Acme.Data;\nusing static Acme.Tools.Text;\nusing System;\n"
            "namespace Acme;\nclass A { Row row; Other other; }",
            "Row.cs": "namespace Acme.Data { public class Row {} }",
            "Table.cs": "namespace Acme.Data { public class Table {} }",
            "Text.cs": "namespace Acme.Tools;\nstatic class Text {}",
        },
        {"A.cs > Row.cs", "A.cs > Text.cs"},
    ),
    "ruby: beside the file and in lib": (
        {
            "lib/acme.rb": "require 'acme/part'\nrequire_relative 'acme/util'\nrequire 'json'\n"
            "module Acme\n  autoload :Lazy, 'acme/lazy'\nend\n",
            "lib/acme/part.rb": "",
            "lib/acme/util.rb": "",
            "lib/acme/lazy.rb": "",
            "test/json.rb": "require 'acme'\n",
        },
        {
            "lib/acme.rb > lib/acme/part.rb",
            "lib/acme.rb > lib/acme/util.rb",
            "lib/acme.rb > lib/acme/lazy.rb",
            "test/json.rb > lib/acme.rb",
        },
    ),
    "php: namespaces, declared or by path, and files": (
        {
            "src/App.php": "<?php\nnamespace Acme;\nuse Acme\\Db\\{Row, Table as T};\n"
            "use Other\\Lib;\nuse Acme\\Legacy\\Thing;\nrequire_once __DIR__ . '/boot.php';\n"
            "class App {}\n",
            "src/Db/Row.php": "<?php\nnamespace Acme\\Db;\nclass Row {}\n",
            "src/Db/Table.php": "<?php\nnamespace Acme\\Db;\nclass Table extends Row {}\n",
            "src/Legacy/Thing.php": "<?php\nreturn 1;\n",
            "src/boot.php": "<?php\n\\Acme\\Db\\Row::make();\n",
        },
        {
            "src/App.php > src/Db/Row.php",
            "src/App.php > src/Db/Table.php",
            "src/App.php > src/Legacy/Thing.php",
            "src/App.php > src/boot.php",
            "src/boot.php > src/Db/Row.php",
        },
    ),
}


def test_every_language_with_a_query_has_a_resolver_and_a_repository():
    named = {name.partition(":")[0] for name in REPOSITORIES}

    assert LINK_ROWS.keys() == RESOLVERS.keys()
    assert RESOLVERS.keys() - {"tsx", "cpp"} == named


@pytest.mark.parametrize("name", REPOSITORIES)
def test_imports_mean_files(name):
    texts, expected = REPOSITORIES[name]

    assert edges(texts) == expected
    assert edges(dict(reversed(texts.items()))) == expected


NAMES = {
    "java": (
        {
            "A.java": "package p;\nimport q.*;\nclass A { B b; Q q; Twice t; }",
            "B.java": "package p;\nclass B {}",
            "Q.java": "package q;\npublic class Q {}",
            "one/T.java": "package p;\nclass Twice {}",
            "two/T.java": "package p;\nclass Twice {}",
        },
        {"A.java > B.java", "A.java > Q.java"},
    ),
    "go": (
        {
            "p/a.go": "package p\nfunc A() { b() ; local() }\nfunc local() {}",
            "p/b.go": "package p\nfunc b() {}",
            "q/b.go": "package q\nfunc b() {}",
        },
        {"p/a.go > p/b.go"},
    ),
    "c": (
        {
            "main.c": '#include "tool.h"\nint main() { return work(); }',
            "tool.h": "int work(void);",
            "tool.c": '#include "tool.h"\nint work(void) { return 1; }',
        },
        {"main.c > tool.c", "tool.h > tool.c"},
    ),
    "ruby": (
        {
            "app/users_controller.rb": "class UsersController < Admin::BaseController\nend",
            "app/admin/base_controller.rb": "module Admin\n class BaseController\n end\nend",
            "app/admin/base.rb": "module Admin\nend",
        },
        {"app/users_controller.rb > app/admin/base_controller.rb"},
    ),
    "php": (
        {
            "A.php": "<?php\nnamespace N;\nclass A extends B { use C; }",
            "B.php": "<?php\nnamespace N;\nabstract class B {}",
            "C.php": "<?php\nnamespace N;\ntrait C {}",
            "other/B.php": "<?php\nnamespace M;\nclass B {}",
        },
        {"A.php > B.php", "A.php > C.php"},
    ),
    "csharp": (
        {
            "A.cs": "namespace N.M { class A : Base { Peer p; } }",
            "Base.cs": "namespace N { class Base {} }",
            "Peer.cs": "namespace N.M { class Peer {} }",
            "Other.cs": "namespace O { class Peer {} }",
        },
        {"A.cs > Base.cs", "A.cs > Peer.cs"},
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_without_an_import_mean_the_one_file_that_defines_them(name):
    texts, expected = NAMES[name]

    found = ties(texts)

    weak = {f"{a} > {b}" for (a, b), strength in found.items() if strength > LATE}
    assert weak == expected


def test_a_name_that_a_package_hands_on_leads_to_where_it_is_defined():
    found = ties(
        {
            "p/__init__.py": "from .a import Thing\n",
            "p/a.py": "from .b import Thing\n",
            "p/b.py": "class Thing: pass\n",
            "use.py": "from p import Thing\n",
        }
    )

    users = {used: strength for (user, used), strength in found.items() if user == "use.py"}
    assert users == {"p/__init__.py": 0, "p/a.py": 2, "p/b.py": 2}


def test_an_import_that_does_not_run_at_once_is_late():
    found = ties(
        {
            "a.py": "import b\nif TYPE_CHECKING:\n    import c\ndef f():\n    import d\n",
            "b.py": "try:\n    import d\nexcept ImportError:\n    pass\n",
            "c.py": "",
            "d.py": "",
        }
    )

    assert found == {("a.py", "b.py"): 0, ("a.py", "c.py"): 1, ("a.py", "d.py"): 1} | {
        ("b.py", "d.py"): 0
    }


def test_a_foreign_module_of_the_same_ending_is_not_taken_for_a_folder():
    """`image-spec/specs-go/v1` is not the repository's `image/v1`."""
    texts = {
        "image/v1/old.go": "package v1\nfunc Old() {}",
        "image/store.go": 'package image\nimport "example.com/m/layer"\nvar x = layer.X',
        "layer/layer.go": 'package layer\nimport "github.com/other/specs-go/v1"\nvar X = v1.Old',
    }

    assert edges(texts, NAME) == {"image/store.go > layer/layer.go"}
