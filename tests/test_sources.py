"""Every entry of a source comes out once, as a file or as a skip with its reason."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from fim import FimError
from finetune.corpus.entries import File, Skip
from finetune.corpus.sources.read import expand_sources, read_source, source_state, unique_names
from finetune.recipe.corpus import Source


def read(source: Source, max_bytes: int = 1_000_000) -> dict[str, bytes | str]:
    entries = list(read_source(source, "n", max_bytes))
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
    for name in (b"caf\xe9.py", b"new\nline.py", "ünï.py".encode(), "\x85\x9b.py".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)

    assert read(Source(folder=str(tmp_path))) == {
        r"caf\xe9.py": b"caf\xe9.py",
        r"new\nline.py": b"new\nline.py",
        "ünï.py": "ünï.py".encode(),
        r"\x85\x9b.py": "\x85\x9b.py".encode(),
    }


def test_excluded_files_are_counted(tmp_path):
    for name in ("a.py", "b.py", "c.txt"):
        (tmp_path / name).write_bytes(b"x")

    found = read(Source(folder=str(tmp_path), include=("*.py",), exclude=("b*",)))

    assert found == {"a.py": b"x", "b.py": "excluded", "c.txt": "excluded"}


def test_the_standard_library_is_read_without_installed_packages():
    source = Source(folder="{stdlib}", include=("json/*.py",))

    entries = list(read_source(source, "n", 1_000_000))

    files = {entry.path for entry in entries if isinstance(entry, File)}
    assert {"json/decoder.py", "json/encoder.py"} <= files
    assert all(path.startswith("json/") for path in files)
    assert not any("-packages/" in entry.path for entry in entries)
    assert unique_names([source]) == (os.path.basename(sysconfig.get_paths()["stdlib"]),)


def test_sources_of_one_name_get_numbers():
    sources = [Source(folder=f"/none/{parent}/app") for parent in "xyz"]

    assert unique_names([*sources, Source(folder="/none/app-2")]) == (
        "app", "app-2", "app-3", "app-2-2",
    )  # fmt: skip


def test_a_source_is_named_after_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = [
        Source(folder="."),
        Source(folder=".", name="mine"),
        Source(git="x/payments.git"),
        Source(git="x/shop/.git"),
        Source(git="/"),
        Source(jsonl="rows.jsonl"),
        Source(dataset="team/rows:java:train"),
    ]

    assert unique_names(sources) == (
        tmp_path.name, "mine", "payments", "shop", "git", "rows.jsonl", "rows",
    )  # fmt: skip


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
        list(read_source(Source(**{key: str(tmp_path / place)}), "n", 100))

    assert "\n" not in str(caught.value)


def test_skips_carry_the_size(tmp_path):
    (tmp_path / "a.py").write_bytes(b"x" * 7)

    entries = list(read_source(Source(folder=str(tmp_path), exclude=("*",)), "n", 9))

    assert entries == [Skip(repo="n", path="a.py", reason="excluded", num_bytes=7)]


@pytest.fixture
def places(tmp_path, make_repo) -> dict[str, Path]:
    """The same two files as every kind of source."""
    files = {"a.py": b"a = 1\n", "b.py": b"b = 2\n"}
    rows = [{"path": path, "text": data.decode()} for path, data in files.items()]
    make_repo(tmp_path / "repo", files)
    (tmp_path / "folder").mkdir()
    for path, data in files.items():
        (tmp_path / "folder" / path).write_bytes(data)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    names = {"git": "repo", "folder": "folder", "jsonl": "rows.jsonl", "parquet": "rows.parquet"}
    return {kind: tmp_path / name for kind, name in names.items()}


KINDS = ("git", "folder", "jsonl", "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_known_files_come_without_data_and_are_asked_about_without_it(kind, places):
    source = Source(**{kind: str(places[kind])}, weight=0.5, replay=True)
    asked: list[File] = []

    def is_known(file: File) -> bool:
        asked.append(file)
        return file.path == "a.py"

    first = list(read_source(source, "n", 100))
    again = list(read_source(source, "n", 100, is_known))

    assert [(f.data, f.num_bytes) for f in first] == [(b"a = 1\n", 6), (b"b = 2\n", 6)]
    assert all(f.content_id and f.weight == 0.5 and f.is_replay for f in first)
    assert again == [replace(first[0], data=b""), first[1]]
    assert asked == [replace(file, data=b"") for file in first]


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_id_and_the_state_change_with_the_content_only(kind, places, make_repo):
    def content_ids() -> dict[str, str]:
        return {f.path: f.content_id for f in read_source(source, "n", 100)}

    source = Source(**{kind: str(places[kind])})
    before, state = content_ids(), source_state(source, {"python"})
    assert (content_ids(), source_state(source, {"python"})) == (before, state)

    CHANGES[kind](places[kind], make_repo)

    after = content_ids()
    assert after["a.py"] == before["a.py"]
    assert after["b.py"] != before["b.py"]
    assert source_state(source, {"python"}) != state


def test_the_state_changes_with_licences_and_with_any_language_of_a_replay_source(tmp_path):
    for name in ("a.py", "LICENSE", "notes.md"):
        (tmp_path / name).write_bytes(b"a")
    source = Source(folder=str(tmp_path))

    def change(source: Source, name: str) -> bool:
        before = source_state(source, {"python"})
        with open(tmp_path / name, "ab") as file:
            file.write(b"b")
        return source_state(source, {"python"}) != before

    assert [change(source, name) for name in ("a.py", "LICENSE", "notes.md")] == [True, True, False]
    assert change(replace(source, replay=True), "notes.md")


CHANGES: dict[str, Callable[[Path, Callable], None]] = {
    "git": lambda place, make_repo: make_repo(place, {"b.py": b"b = 3\n"}),
    "folder": lambda place, _: (place / "b.py").write_bytes(b"b = 30\n"),
    "jsonl": lambda place, _: place.write_text(place.read_text().replace("2", "3")),
    "parquet": lambda place, _: parquet.write_table(
        pa.table({"path": ["a.py", "b.py"], "text": ["a = 1\n", "b = 3\n"]}), place
    ),
}


def test_known_files_of_a_folder_are_not_even_opened(tmp_path):
    (tmp_path / "a.py").write_bytes(b"a")

    def is_known(file: File) -> bool:
        (tmp_path / file.path).unlink()
        return True

    (file,) = read_source(Source(folder=str(tmp_path)), "n", 100, is_known)

    assert (file.data, file.num_bytes) == (b"", 1)


def test_the_time_of_a_file_is_that_of_its_last_commit_where_asked_for(tmp_path, make_repo):
    repo = make_repo(tmp_path / "repo", {"a.py": b"a", "b.py": b"b"})
    (repo / "b.py").write_bytes(b"c")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(
        ["git", "-C", str(repo), *author, "commit", "-qam", "c"],
        env=os.environ
        | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_COMMITTER_DATE": "1800000000 +0000"},
        check=True,
    )

    def times(**arguments) -> dict[str, int]:
        files = read_source(Source(git=str(repo)), "n", 9, **arguments)
        return {file.path: file.committed_at for file in files}

    assert times(times=True) == {"a.py": 1_704_164_645, "b.py": 1_800_000_000}
    assert times() == {"a.py": 1_800_000_000, "b.py": 1_800_000_000}


def test_a_glob_gives_one_source_per_repository_folder_or_file(tmp_path, make_repo):
    make_repo(tmp_path / "team" / "shop", {"a.py": b"a"})
    make_repo(tmp_path / "team" / "payments", {"a.py": b"a"})
    os.rename(tmp_path / "team" / "payments" / ".git", tmp_path / "team" / "bare.git")
    (tmp_path / "team" / "notes.jsonl").touch()
    glob = f"{tmp_path}/team/*"

    def expand(source: Source) -> list[tuple[str, ...]]:
        sources = expand_sources([source], tmp_path / "cache")
        return [(s.git + s.folder + s.jsonl, s.name) for s in sources]

    team = f"{tmp_path}/team"
    assert expand(Source(git=glob)) == [(f"{team}/bare.git", "bare"), (f"{team}/shop", "shop")]
    assert expand(Source(git=glob, name="x")) == [
        (f"{team}/bare.git", "x-bare"),
        (f"{team}/shop", "x-shop"),
    ]
    assert expand(Source(folder=glob)) == [
        (f"{team}/bare.git", "bare.git"),
        (f"{team}/payments", "payments"),
        (f"{team}/shop", "shop"),
    ]
    assert expand(Source(jsonl=glob)) == [(f"{team}/notes.jsonl", "notes.jsonl")]
    assert expand(Source(git=f"{team}/shop", name="mine")) == [(f"{team}/shop", "mine")]
    assert not (tmp_path / "cache").exists()


def test_repositories_without_a_commit_are_left_out_of_a_glob(tmp_path, make_repo):
    make_repo(tmp_path / "team" / "shop", {"a.py": b"a"})
    for name in ("new", "newer"):
        subprocess.run(["git", "init", "-q", tmp_path / "team" / name], check=True)
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "team" / "bare.git"], check=True)
    team, left_out = tmp_path / "team", []

    (source,) = expand_sources([Source(git=f"{team}/*")], tmp_path, leave_out=left_out.append)

    assert source.git == f"{team}/shop"
    assert left_out == [f"{team}/{name}" for name in ("bare.git", "new", "newer")]
    with pytest.raises(FimError, match="no repository with a commit matches"):
        expand_sources([Source(git=f"{team}/new*")], tmp_path)


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    for kind, what in (("git", "repository"), ("folder", "folder"), ("parquet", "file")):
        with pytest.raises(FimError, match=rf"none-\*: no {what} matches; correct corpus.sources"):
            expand_sources([Source(**{kind: f"{tmp_path}/none-*"})], tmp_path)


def test_a_place_that_exists_is_no_glob(tmp_path):
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a1").mkdir()

    (source,) = expand_sources([Source(folder=f"{tmp_path}/a[1]")], tmp_path)

    assert source.folder == f"{tmp_path}/a[1]"
