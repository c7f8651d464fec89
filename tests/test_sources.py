"""Every entry of a source comes out once, as a file or as a skip with its reason."""

import json
import os
import sysconfig

import pyarrow as pa
import pytest
from pyarrow import parquet

from fim import FimError
from finetune.corpus.sources import File, Skip, clean_path, is_wanted, read_source
from finetune.recipe_corpus import Source


def read(source: Source, max_bytes: int = 1_000_000) -> dict[str, bytes | str]:
    entries = list(read_source(source, set(), max_bytes))
    found = {e.path: e.data if isinstance(e, File) else e.reason for e in entries}
    assert len(found) == len(entries)
    return found


def test_a_folder_gives_each_entry_once_and_follows_no_link(tmp_path):
    root = tmp_path / "code"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "a.py").write_bytes(b"a\n")
    (root / "b.py").write_bytes(b"")
    (root / "big.py").write_bytes(b"x" * 101)
    (root / "deep" / "loop").symlink_to(root)
    (root / "gone").symlink_to("nowhere")
    os.mkfifo(root / "pipe")

    assert read(Source(folder=str(root)), max_bytes=100) == {
        "deep/er/a.py": b"a\n",
        "b.py": b"",
        "big.py": "too-large",
        "deep/loop": "symlink",
        "gone": "symlink",
        "pipe": "not-a-file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_counted(tmp_path):
    (tmp_path / "a.py").touch(mode=0)
    (tmp_path / "locked").mkdir(mode=0)

    assert read(Source(folder=str(tmp_path))) == {"a.py": "unreadable", "locked": "unreadable"}


def test_what_git_keeps_is_one_entry_and_never_read(tmp_path):
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    (tmp_path / ".git" / "hooks" / "a.py").write_bytes(b"x")

    assert read(Source(folder=str(tmp_path))) == {".git": "vendored"}


def test_odd_names_come_out_as_clean_unicode(tmp_path):
    for name in (b"caf\xe9.py", b"new\nline.py", "ünï.py".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)

    assert read(Source(folder=str(tmp_path))) == {
        r"caf\xe9.py": b"caf\xe9.py",
        r"new\nline.py": b"new\nline.py",
        "ünï.py": "ünï.py".encode(),
    }


@pytest.mark.parametrize(
    ("path", "clean"),
    [(b"a\xff", r"a\xff"), ("a\ud800", r"a\ud800"), ("a\u2028b", r"a\u2028b"), ("ok/ü", "ok/ü")],
)
def test_clean_paths_hold_no_surrogate_and_no_line_break(path, clean):
    assert clean_path(path) == clean


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.py", ["a.py", "src/deep/a.py"], ["a.pyc", "a.py/b"]),
        ("src/*.py", ["src/a.py"], ["a.py", "src/deep/a.py", "lib/src/a.py"]),
        ("src/**", ["src/a.py", "src/deep/a.py"], ["src", "mysrc/a.py"]),
        ("src/", ["src/a.py"], ["a.py"]),
        ("**/test/*.c", ["test/a.c", "x/y/test/a.c"], ["latest/a.c", "test/x/a.c"]),
        ("src/**/a.py", ["src/a.py", "src/x/y/a.py"], ["src/xa.py"]),
        ("a?[!0-9].py", ["abc.py"], ["ab1.py", "ac.py"]),
        ("[ab]+.py", ["a+.py"], ["aa.py"]),
        ("[z-a].py", ["[z-a].py"], ["z.py"]),
        ("[", ["["], ["a"]),
    ],
)
def test_globs_stay_inside_a_folder_unless_doubled(pattern, taken, left):
    assert [p for p in taken + left if is_wanted(p, Source(include=(pattern,)))] == taken
    assert [p for p in taken + left if is_wanted(p, Source(exclude=(pattern,)))] == left


def test_excluded_files_are_counted(tmp_path):
    for name in ("a.py", "b.py", "c.txt"):
        (tmp_path / name).write_bytes(b"x")

    found = read(Source(folder=str(tmp_path), include=("*.py",), exclude=("b*",)))

    assert found == {"a.py": b"x", "b.py": "excluded", "c.txt": "excluded"}


def test_the_standard_library_is_read_without_installed_packages():
    source = Source(folder="{stdlib}", include=("json/*.py",))

    entries = list(read_source(source, set(), 1_000_000))

    files = {entry.path for entry in entries if isinstance(entry, File)}
    assert {"json/decoder.py", "json/encoder.py"} <= files
    assert all(path.startswith("json/") for path in files)
    assert not any("-packages/" in entry.path for entry in entries)
    assert {e.repo for e in entries} == {os.path.basename(sysconfig.get_paths()["stdlib"])}


def test_jsonl_rows_with_paths_are_files_and_bad_rows_are_counted(tmp_path):
    rows = [
        json.dumps({"path": "a.py", "text": "a = 'ü'"}),
        "{not json",
        "",
        "[1, 2]",
        json.dumps({"path": "b.py"}),
        json.dumps({"path": "c.py", "text": 5}),
        json.dumps({"text": "no path"}),
        '{"path": "d.py", "text": "\\ud800"}',
        "[" * 100_000,
    ]
    (tmp_path / "rows.jsonl").write_bytes("\n".join(rows).encode() + b"\n\xff\xfe\n")

    assert read(Source(jsonl=str(tmp_path / "rows.jsonl"))) == {
        "a.py": "a = 'ü'".encode(),
        "row-2": "bad-row",
        "row-4": "bad-row",
        "b.py": "no-text",
        "c.py": "no-text",
        "row-7": "no-path",
        "d.py": b"\xed\xa0\x80",  # no UTF-8, which is for the next step to say
        "row-9": "bad-row",
        "row-10": "bad-row",
    }


def test_jsonl_without_path_column_takes_the_language_of_the_source(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"code": "a = 1"}\n')
    source = Source(jsonl=str(tmp_path / "rows.jsonl"), column="code", language="python")

    assert list(read_source(source, set(), 100)) == [
        File(repo="rows.jsonl", path="row-1", data=b"a = 1", language="python")
    ]


def test_parquet_is_read_with_and_without_paths_as_text_or_bytes(tmp_path):
    table = {"path": ["a.py", None, "c.py"], "text": ["a", "b", None], "raw": [b"a", b"b", b"c"]}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    place = str(tmp_path / "rows.parquet")

    assert read(Source(parquet=place)) == {"a.py": b"a", "row-2": "no-path", "c.py": "no-text"}
    bare = Source(parquet=place, column="raw", path_column="none", language="go")
    assert read(bare) == {"row-1": b"a", "row-2": b"b", "row-3": b"c"}


def test_a_dataset_folder_is_read(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"path": "a.py", "text": "a = 1"}\n')

    assert read(Source(dataset=str(tmp_path))) == {"a.py": b"a = 1"}


def test_sources_of_one_name_get_numbers(tmp_path):
    seen: set[str] = set()
    for parent in ("x", "y", "z"):
        (tmp_path / parent / "app").mkdir(parents=True)
        (tmp_path / parent / "app" / "a.py").write_bytes(b"a")

    entries = [
        entry
        for parent in ("x", "y", "z")
        for entry in read_source(Source(folder=f"{tmp_path}/{parent}/app"), seen, 100)
    ]

    assert [entry.repo for entry in entries] == ["app", "app-2", "app-3"]


def test_the_current_folder_is_named_after_the_real_one(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_bytes(b"a")
    monkeypatch.chdir(tmp_path)

    assert next(read_source(Source(folder="."), set(), 100)).repo == tmp_path.name
    assert next(read_source(Source(folder=".", name="mine"), set(), 100)).repo == "mine"


def test_what_python_compiles_is_one_entry_and_never_read(tmp_path):
    (tmp_path / "deep" / "__pycache__").mkdir(parents=True)
    (tmp_path / "deep" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")

    assert read(Source(folder=str(tmp_path))) == {"deep/__pycache__": "vendored"}


@pytest.mark.parametrize(
    ("key", "place", "message"),
    [
        ("git", "gone", "gone: no such folder; clone"),
        ("folder", "gone", "gone: no such folder; correct"),
        ("folder", "text.txt", "text.txt: no such folder"),
        ("jsonl", "gone.jsonl", "gone.jsonl: no such file"),
        ("jsonl", ".", ": no such file"),
        ("parquet", "gone.parquet", "gone.parquet: no such file"),
        ("parquet", "text.txt", "text.txt: not a whole Parquet file"),
        ("parquet", "other.parquet", "no column 'text'; set 'column' to one of: code"),
        ("dataset", "empty", "empty: 'datasets' cannot load it"),
    ],
)
def test_a_source_that_is_not_what_it_claims_is_refused_in_one_line(key, place, message, tmp_path):
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    parquet.write_table(pa.table({"code": ["a"]}), tmp_path / "other.parquet")

    with pytest.raises(FimError, match=message) as caught:
        list(read_source(Source(**{key: str(tmp_path / place)}), set(), 100))

    assert "\n" not in str(caught.value)


def test_skips_carry_the_size(tmp_path):
    (tmp_path / "a.py").write_bytes(b"x" * 7)

    entries = list(read_source(Source(folder=str(tmp_path), exclude=("*",), name="n"), set(), 9))

    assert entries == [Skip(repo="n", path="a.py", reason="excluded", num_bytes=7)]
