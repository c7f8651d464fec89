"""Addresses, internal hosts and names of people are found; versions and companies are not."""

import pytest

from finetune.corpus.privacy.personal import find_personal


def found(text: bytes, *domains: str) -> list[tuple[str, str]]:
    return [(f.kind, text[f.start : f.end].decode()) for f in find_personal(text, domains)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('mail = "jane.doe+x@acme.io"', [("email", "jane.doe+x@acme.io")]),
        ("# ask bob@acme.io: he knows", [("email", "bob@acme.io")]),
        ("<a href='mailto:bob@acme.io'>", [("email", "bob@acme.io")]),
        ('host = "10.20.30.40"', [("ip-address", "10.20.30.40")]),
        ("ssh://jane@172.20.14.5:22", [("ip-address", "172.20.14.5")]),
        ("dns: 2a00:1450:4001:81b::200e", [("ip-address", "2a00:1450:4001:81b::200e")]),
        ("https://wiki.corp.internal/x/y", [("internal-host", "wiki.corp.internal")]),
        ('"db01.prod.internal:5432"', [("internal-host", "db01.prod.internal")]),
        ("host: db-1.lan\n", [("internal-host", "db-1.lan")]),
        (" * @author Jane Doe\n", [("person", "Jane Doe")]),
        (" * @author jdoe\n", [("person", "jdoe")]),
        ("# Authors: Jan van der Berg\n", [("person", "Jan van der Berg")]),
        ("# Authors: Jane Doe, Al Roe\n", [("person", "Jane Doe"), ("person", "Al Roe")]),
        ("Author Tobias Muster @tmuster", [("person", "Tobias Muster"), ("person", "@tmuster")]),
        ('__author__ = "Jane Doe"', [("person", "Jane Doe")]),
        ("Copyright (c) 2019-2020 Jane Doe", [("person", "Jane Doe")]),
        ("\u00a9 2021 Jos\u00e9 N\u00fa\u00f1ez", [("person", "Jos\u00e9 N\u00fa\u00f1ez")]),
        ("// TODO(jane): rewrite", [("person", "jane")]),
        ("Signed-off-by: Jane Doe <jd@acme.io>", [("person", "Jane Doe"), ("email", "jd@acme.io")]),
    ],
)  # fmt: skip
def test_personal_data_is_found(text, expected):
    assert found(text.encode()) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"user@example.com you@your-domain.com",
        b"git@github.com:acme/x.git ssh://git@host.io/x",
        b"@app.route('/x')\n@functools.cache",
        b"npm i @scope/pkg@1.2.3 lodash@4.17.21 icon@2x.png",
        b"y = x@w.T",
        b"127.0.0.1 0.0.0.0 255.255.255.0 255.255.255.255 192.0.2.4 224.0.0.1 8.8.8.8",
        b"10.0.0.0/8 192.168.1.0/24",
        b'version 10.1.2.3; AssemblyVersion("4.0.1.12"); see section 14.4.1.2',
        b"oid 1.3.6.1 and 2.5.29.17",
        b"::1 fe80::1 2001:db8::1 12:34:56 std::dec::abc",
        b" * @xerces.internal",
        b"threading.local() e.internal com.sun.internal 'jdk.internal'",
        b"Copyright 2020 Acme Inc. All rights reserved.",
        b"Copyright (c) 2009 The Go Authors",
        b"TODO(#123) TODO(b/42) // author: see AUTHORS",
        b"author = book.author; self.author = Author.first",
    ],
)
def test_what_is_nobodys_is_left_alone(text):
    assert found(text) == []


def test_hosts_of_named_domains_are_internal_anywhere():
    text = b"see git.acme.example/x, https://acme.example and notacme.example"

    assert found(text, "acme.example") == [
        ("internal-host", "git.acme.example"),
        ("internal-host", "acme.example"),
    ]
    assert found(text) == []
