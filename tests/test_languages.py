"""Every construct of a row is found in code that has it; a row names what its grammar has."""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import tree_sitter

from fim import LANGUAGES, FimError, SpanPolicy, candidate_spans, detect_language, parse
from fim.language import BODY_CONSTRUCTS, CONSTRUCTS, DERIVED_CONSTRUCTS
from fim.languages import construct_query, find_language, grammar, has_grammar
from finetune.cli import main

ROOT = Path(__file__).parents[1]
FILES = {
    path.stem: path
    for path in sorted((ROOT / "tests" / "languages").iterdir())
    if path.name != "README.md"
}
PARSED = [name for name, row in LANGUAGES.items() if row.distribution]
COMPLETE = (
    "python", "java", "javascript", "typescript", "tsx", "go", "rust", "c", "cpp", "csharp", "php",
    "ruby", "kotlin", "swift", "scala",
)  # fmt: skip
LACKING = {  # base constructs that a language of `COMPLETE` does not have
    "go": {"while", "try"},
    "c": {"try"},
    "ruby": {"import"},  # `require` is a call
}


def found_in(language: str) -> set[str]:
    syntax = parse(FILES[language].read_bytes(), language)
    assert not syntax.root.has_error
    return set(candidate_spans(syntax, SpanPolicy()))


def test_every_language_has_a_file_of_its_own():
    assert FILES.keys() == LANGUAGES.keys()
    assert len(LANGUAGES) == 41


@pytest.mark.parametrize("language", FILES)
def test_a_file_is_told_by_its_name_and_is_of_a_readable_size(language):
    text = FILES[language].read_bytes()

    assert detect_language(FILES[language].name, text) == language
    assert 14 <= len(text.splitlines()) <= 80


def test_the_source_and_licence_of_every_file_are_given():
    page = (FILES["python"].parent / "README.md").read_text(encoding="utf-8")

    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == [path.name for path in FILES.values()]
    assert all(row[2].strip() and row[3].strip() for row in rows)


@pytest.mark.parametrize("language", COMPLETE)
def test_every_construct_that_code_of_a_language_can_have_is_found(language):
    row = LANGUAGES[language]

    assert found_in(language) == set(row.construct_names)
    assert set(row.constructs) == set(CONSTRUCTS) - LACKING.get(language, set())
    assert set(row.construct_names) == {*row.constructs, *DERIVED_CONSTRUCTS}


@pytest.mark.parametrize("language", [name for name in PARSED if LANGUAGES[name].is_code])
def test_every_construct_of_a_row_is_found(language):
    row = LANGUAGES[language]
    with_bodies = {"signature", "body"} & set(row.construct_names)

    found = found_in(language)

    assert {*row.constructs, *with_bodies, "line"} <= found <= set(row.construct_names)
    assert bool(with_bodies) == ("function" in row.constructs and row.has_bodies)


@pytest.mark.parametrize("language", PARSED)
def test_every_node_type_of_a_row_exists_in_its_grammar(language):
    row = LANGUAGES[language]

    construct_query(language, tuple(row.constructs))  # refuses what the grammar does not have
    assert set(row.constructs) <= set(CONSTRUCTS)
    for kind in (*row.bodies, *(mark.split()[0] for mark in row.marks)):
        assert grammar(language).id_for_node_kind(kind, True), kind
    kinds = [kind for kinds in row.constructs.values() for kind in kinds]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("language", PARSED)
def test_a_function_has_a_field_for_its_body_or_the_row_says_what_it_is(language):
    row = LANGUAGES[language]
    if "function" not in row.constructs or not row.has_bodies:
        assert row.bodies == ()
        return
    syntax = parse(FILES[language].read_bytes(), language)
    query = tree_sitter.QueryCursor(construct_query(language, ("function",)))
    functions = query.captures(syntax.root)["function"]

    bodies = [
        node.child_by_field_name("body")
        or next((child for child in node.named_children if child.type in row.bodies), None)
        for node in functions
    ]

    assert any(bodies)


def test_names_of_constructs_are_told_apart():
    assert set(BODY_CONSTRUCTS) < set(DERIVED_CONSTRUCTS)
    assert not set(CONSTRUCTS) & set(DERIVED_CONSTRUCTS)
    assert LANGUAGES["json"].construct_names == ("string", "assignment", "expression", "line",
                                                 "empty")  # fmt: skip
    assert LANGUAGES["markdown"].construct_names == LANGUAGES["r"].construct_names == ()


def test_constructs_are_in_document_order_whatever_the_order_in_memory():
    text = b"call(one)\n" * 300

    found = candidate_spans(parse(text, "python"), SpanPolicy())

    assert [span.start_byte for span in found["call"]] == list(range(0, 3_000, 10))


@pytest.mark.parametrize(
    ("language", "text", "kind", "expected"),
    [
        ("c", b"struct point { int x; };\nstruct point origin;\n", "class",
         [b"struct point { int x; }"]),
        ("haskell", b"f :: Int -> Int\nf x = x + 1\n", "function", [b"f x = x + 1"]),
        ("zig", b"extern fn a() void;\nfn b() void { return a(); }\n", "function",
         [b"fn b() void { return a(); }"]),
    ],
)  # fmt: skip
def test_a_row_can_ask_for_what_is_inside_a_node(language, text, kind, expected):
    spans = candidate_spans(parse(text, language), SpanPolicy())[kind]

    assert [text[span.start_byte : span.end_byte] for span in spans] == expected


def test_extensions_are_shared_only_where_a_row_says_so():
    owners: dict[str, list[str]] = {}
    for name, row in LANGUAGES.items():
        for extension in row.extensions:
            owners.setdefault(extension, []).append(name)
        assert set(row.shared) <= set(row.extensions)
        assert all(e.startswith(".") and e == e.lower() for e in row.extensions)

    several = {extension: names for extension, names in owners.items() if len(names) > 1}
    assert several == {".h": ["c", "cpp", "objc"]}
    assert all(".h" in LANGUAGES[name].shared for name in several[".h"])


@pytest.mark.parametrize("language", PARSED)
def test_a_row_names_an_installed_grammar(language):
    assert has_grammar(language)
    assert LANGUAGES[language].version.count(".") == 2


def test_a_language_without_a_grammar_says_so():
    assert not has_grammar("r")
    assert LANGUAGES["r"].version is None
    with pytest.raises(FimError, match="r: there is no grammar for it"):
        grammar("r")


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(FimError, match="unknown language 'cobol'; known: bash, c, cpp, csharp"):
        parse(b"", "cobol")
    with pytest.raises(FimError, match="unknown language 'cobol'"):
        has_grammar("cobol")


def test_a_missing_grammar_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tree_sitter_swift", None)
    grammar.cache_clear()

    assert not has_grammar("swift")
    with pytest.raises(
        FimError, match=r"swift: tree-sitter-swift is not installed; pip install 'sfim\[languages]'"
    ):
        grammar("swift")


def test_listing_the_languages_loads_no_grammar():
    program = """
import json, sys
import fim
rows = {name: [row.version, *row.construct_names] for name, row in fim.LANGUAGES.items()}
print(json.dumps(sorted(name for name in sys.modules if name.startswith("tree_sitter_"))))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == []


def test_a_row_is_found_by_its_name():
    assert find_language("csharp").title == "C#"


def requirements() -> dict[str, set[str]]:
    """Names of the grammars that are always installed, and of those of the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {
        "always": project["dependencies"],
        "extra": project["optional-dependencies"]["languages"],
    }
    return {
        where: {line.split(">")[0] for line in lines if line.startswith("tree-sitter-")}
        for where, lines in lists.items()
    }


def test_what_can_be_installed_is_what_the_table_names():
    found = requirements()
    names = ("c", "c-sharp", "cpp", "go", "java", "javascript", "kotlin", "php", "python", "ruby",
             "rust", "typescript")  # fmt: skip

    assert found["always"] == {f"tree-sitter-{name}" for name in names}
    assert found["always"] | found["extra"] == {LANGUAGES[name].distribution for name in PARSED}
    assert not found["always"] & found["extra"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert {f"{LANGUAGES[n].distribution}=={LANGUAGES[n].version}" for n in PARSED} <= set(pinned)


@pytest.mark.parametrize("distribution", sorted({LANGUAGES[n].distribution for n in PARSED}))
def test_a_grammar_has_a_permissive_licence(distribution):
    about = metadata.metadata(distribution)

    assert (about["License-Expression"] or about["License"]) in ("MIT", "Apache-2.0")


def test_a_listed_language_says_what_its_grammar_needs(monkeypatch, capsys):
    installed = metadata.version

    def version(name: str) -> str:
        if name == "tree-sitter-swift":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr("fim.language.metadata.version", version)

    main(["languages"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    main(["languages", "--json"])
    rows = json.loads(capsys.readouterr().out)

    assert lines.keys() == rows.keys() == LANGUAGES.keys()
    assert "pip install 'sfim[languages]'" in lines["swift"]
    assert "pip install" not in lines["python"] + lines["r"]
    asked_for = {name for name, line in lines.items() if "corpus.filters.languages" in line}
    assert asked_for == {"json", "markdown", "restructuredtext"}
    assert not rows["json"]["by_default"]
    assert rows["swift"]["grammar"] is rows["r"]["grammar"] is None
    assert rows["go"] == {
        "extensions": [".go"],
        "constructs": list(LANGUAGES["go"].construct_names),
        "by_default": True,
        "grammar": installed("tree-sitter-go"),
    }
