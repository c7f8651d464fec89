"""One file: what is left of it, and what is known of it."""

import pickle

import pytest

from finetune.corpus.entries import File
from finetune.corpus.links.find import Links
from finetune.corpus.study import StudySettings, study_file, study_files
from finetune.recipe.corpus import Corpus, Secrets
from finetune.recipe.filters import Filters

CODE = b"""import json

from app.models import Order


def load(path):
    with open(path) as file:
        return Order(**json.load(file))
"""
TOKEN = b"ghp_" + b"R7mXk2Qw9ZtLb4VnYc8Hs1Jd6Gf3Pa0UeTiO"


def study(data: bytes, path: str = "app/load.py", corpus: Corpus | None = None, **arguments):
    settings = StudySettings.of(corpus or Corpus(), seed=0)
    return study_file(settings, File(repo="r", path=path, data=data, **arguments))


def test_a_file_that_is_kept_is_described():
    found = study(CODE)

    assert (found.reason, found.language, found.text) == ("", "python", CODE)
    assert len(found.id) == len(found.key) == 32
    assert pickle.loads(found.links).imports != ()
    assert isinstance(pickle.loads(found.links), Links)
    assert pickle.loads(pickle.dumps(found)) == found == study(CODE)


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("image.png", b"\x89PNG\0", "binary"),
        ("vendor/a.py", CODE, "vendored"),
        ("a.unknown", b"hello\n", "unsupported-language"),
        ("a.py", b"x" * 2_000 + b" = 1\n", "long-lines"),
    ],
)
def test_a_file_that_is_dropped_has_a_reason_and_no_text(path, data, reason):
    found = study(data, path)

    assert found.reason == reason
    assert (found.text, found.id, found.links, found.signature) == (b"", "", b"", b"")


def test_a_licence_file_says_its_licence_though_it_is_no_code():
    text = (
        b"MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a "
    )

    found = study(text + b"copy of this software", "LICENSE")

    assert (found.reason, found.licence) == ("unsupported-language", "MIT")
    assert study(b"# SPDX-License-Identifier: Apache-2.0\n" + CODE).licence == "Apache-2.0"


def test_secrets_are_not_in_what_is_kept_of_a_file():
    data = CODE + b'\nclient = connect(token="%s")\n' % TOKEN

    found = study(data)

    assert found.reason == ""
    assert len(found.findings) == 1
    assert TOKEN not in pickle.dumps(found)
    without_imports = b'client = connect(token="%s")\n' % TOKEN * 3
    assert TOKEN not in pickle.dumps(study(without_imports))
    keep = Corpus(secrets=Secrets(secrets="keep", personal="keep"))
    assert study(data, corpus=keep).text == data
    dropped = study(data, corpus=Corpus(secrets=Secrets(secrets="drop")))
    assert dropped.reason == "secret"
    assert dropped.findings == found.findings
    assert TOKEN not in pickle.dumps(dropped)


def test_links_are_those_of_the_text_that_is_kept():
    secret = b"https://deploy:%s@code.acme.dev/" % TOKEN
    imports = b'import { load } from "./load.js";\nimport order from "%sorder.js";\n' % secret

    found = study(imports + b"\nexport const total = load(order) + 1;\n", "a.js")

    assert found.findings
    assert TOKEN not in pickle.dumps(found)
    links = pickle.loads(found.links)
    assert links.imports[0] == "./load.js"
    assert all(name.encode() in found.text for name in links.imports)


def test_files_side_by_side_are_studied_as_each_by_itself():
    contents = {
        "a.py": CODE, "b.py": b"", "c.py": b"import json\n", "d.js": b"var $a = $b;\n" * 9,
        "e.py": CODE + b'key = connect(token="%s")\n' % TOKEN, "LICENSE": b"MIT License\n",
        "f.go": b"package a\n\nfunc F(a int) int { return a + 1 }\n", "g.md": b"# A title\n",
    }  # fmt: skip
    files = [File(repo="r", path=path, data=data) for path, data in contents.items()]
    settings = StudySettings.of(Corpus(), seed=0)

    together = study_files(settings, files)

    assert together == [study_file(settings, file) for file in files]
    assert [bool(found.reason) for found in together].count(False) >= 3
    assert study_files(settings, []) == []


def test_general_text_is_kept_of_replay_sources():
    prose = b"# Rivers\n\nA river is water that runs down to the sea, slowly and for a long time.\n"
    only_python = Corpus(filters=Filters(languages=("python",)))

    assert study(prose, "a.md", only_python).reason == "other-language"
    assert study(prose, "a.md", only_python, is_replay=True).reason == ""
