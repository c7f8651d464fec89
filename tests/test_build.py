"""Sources in, corpus out: every entry is counted, and the same input gives the same bytes."""

import json
import os
import sqlite3
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_code import make_code
from pyarrow import parquet

from fim import Document, FimError
from finetune.corpus.build import (
    CLUSTERS,
    COUNTS,
    DOCUMENTS,
    FINDINGS,
    SKIPPED,
    corpus_fingerprint,
    count_documents,
    document_ids,
    read_documents,
    source_commits,
    write_corpus,
)
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.filters import Filters


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "app"
    (root / "vendor").mkdir(parents=True)
    for number in range(20):
        (root / f"m{number:02}.py").write_bytes(make_code(number))
    (root / "copy.py").write_bytes(make_code(0).replace(b"\n", b"\r\n"))
    (root / "vendor" / "v.py").write_bytes(make_code(99))
    (root / "image.png").write_bytes(b"\x89PNG\0")
    (root / "README").write_bytes(b"hello")
    (root / "loop").symlink_to("loop")
    (root / "broken.py").write_bytes(b"def class (((]] return import while = =\n" * 9)
    with open(os.path.join(os.fsencode(root), b"od\xff\nd.py"), "wb") as file:
        file.write(make_code(50))
    return root


def git_repository(tmp_path, monkeypatch):
    for key in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(key, "t@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "service"
    root.mkdir()
    (root / "main.py").write_bytes(make_code(70))
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "c"]):
        subprocess.run(["git", "-C", root, *arguments], check=True)
    return root


def corpus(*sources: Source, **arguments) -> Corpus:
    return Corpus(sources=sources, workers=1, **arguments)


def digits(value: Corpus) -> str:
    """Return the fingerprint of a section whose sources are one place each."""
    return corpus_fingerprint(value, value)


@dataclass(frozen=True)
class Built:
    folder: Path
    train: list[Document]
    held_out: list[Document]
    skipped: list[dict]


@pytest.fixture
def build(tmp_path):
    """Write a corpus to a folder of its own and read it back."""

    def run(corpus: Corpus, seed: int = 0, **options) -> Built:
        place = tmp_path / f"corpus-{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        write_corpus(place, corpus, seed, **options)
        sides = [list(read_documents(place, side)) for side in ("train", "eval")]
        return Built(place, *sides, parquet.read_table(place / SKIPPED).to_pylist())

    return run


def test_every_entry_is_kept_or_skipped_with_its_reason(folder, build):
    built = build(corpus(Source(folder=str(folder))))

    assert Counter(skip["reason"] for skip in built.skipped) == {
        "binary": 1,
        "duplicate": 1,
        "symlink": 1,
        "syntax-errors": 1,
        "unsupported-language": 1,
        "vendored": 1,
    }
    assert len(built.train) + len(built.held_out) == 21
    entries = sum(len(files) for _, _, files in os.walk(folder))
    assert len(built.train) + len(built.held_out) + len(built.skipped) == entries
    assert r"od\xff\nd.py" in {d.path for d in (*built.train, *built.held_out)}


def test_parts_are_sorted_and_sources_mix(folder, tmp_path, monkeypatch, build):
    service = git_repository(tmp_path, monkeypatch)
    (tmp_path / "rows.jsonl").write_text('{"path": "r.py", "text": "rows = read(lines)"}\n{bad\n')
    sources = (
        Source(git=str(service)),
        Source(jsonl=str(tmp_path / "rows.jsonl")),
        Source(folder=str(folder)),
    )

    built = build(corpus(*sources))

    for part in (built.train, built.held_out):
        assert [d.repo for d in part] == sorted(d.repo for d in part)
    assert built.skipped == sorted(built.skipped, key=lambda s: (s["repo"], s["path"]))
    documents = {(d.repo, d.path): d for d in (*built.train, *built.held_out)}
    main = documents["service", "main.py"]
    assert len(main.revision) == 40
    assert main.committed_at > 0
    assert ("app", "m01.py") in documents
    assert ("rows.jsonl", "row-2") in {(s["repo"], s["path"]) for s in built.skipped}
    assert ("rows.jsonl", "r.py") in documents


def test_progress_sees_each_entry_once(folder, build):
    seen = []

    def watch(entries):
        for entry in entries:
            seen.append(entry)
            yield entry

    built = build(corpus(Source(folder=str(folder))), progress=watch)

    assert len(seen) == len(built.train) + len(built.held_out) + len(built.skipped)


def test_max_documents_chooses_training_files_only(folder, build):
    source, split = Source(folder=str(folder)), Split(eval_rate=0.2)

    whole = build(corpus(source, split=split))
    part = build(corpus(source, split=split, max_documents=5))

    assert len(part.train) == 5
    assert set(part.train) < set(whole.train)
    assert set(part.held_out) == set(whole.held_out)
    assert sum(s["reason"] == "not-chosen" for s in part.skipped) == len(whole.train) - 5


def test_equal_sources_give_equal_bytes_whatever_the_order_they_come_in(folder, tmp_path, build):
    rows = [{"path": f"{n}.py", "text": make_code(n).decode()} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rows.jsonl").write_text("\n".join(map(json.dumps, reversed(rows))))
    split = Split(eval_rate=0.3)
    first, second = (Source(folder=str(folder)), Source(jsonl=str(tmp_path / "rows.jsonl")))
    turned = Source(jsonl=str(tmp_path / "other" / "rows.jsonl"))

    one = build(corpus(first, second, split=split))
    two = build(corpus(turned, first, split=split))

    assert len(one.held_out) == len(two.held_out) > 3
    for name in (DOCUMENTS, SKIPPED, CLUSTERS, FINDINGS, COUNTS):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    made = {DOCUMENTS, SKIPPED, CLUSTERS, FINDINGS, COUNTS}
    assert {path.name for path in one.folder.iterdir()} == made


@pytest.mark.parametrize(
    ("table", "column", "again"), [("texts", "text", 1), ("results", "result", 0)]
)
def test_damage_to_what_is_kept_costs_the_study_of_one_file(
    folder, tmp_path, build, monkeypatch, capsys, table, column, again
):
    source, cache = corpus(Source(folder=str(folder))), tmp_path / "cache"
    whole = build(source, cache=cache)
    with sqlite3.connect(cache / "studies.sqlite") as connection:
        first = f"WHERE rowid = (SELECT min(rowid) FROM {table})"
        connection.execute(f"UPDATE {table} SET {column} = {column} || 'x' {first}")
    studied = []

    def study_here(work, shards, *_):
        for shard in shards:
            studied.extend(shard)
            yield list(map(work, shard))

    monkeypatch.setattr("finetune.corpus.collect.run_shards", study_here)

    mended = build(source, cache=cache)

    assert len(studied) == again
    assert (f"{cache}: damaged" in capsys.readouterr().err) == (again > 0)
    for name in (DOCUMENTS, SKIPPED, CLUSTERS, FINDINGS, COUNTS):
        assert (mended.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_two_texts_of_one_path_keep_one_order(tmp_path, build):
    texts = [make_code(number).decode() for number in range(8)]
    contents = set()
    for order in (texts, texts[::-1]):
        rows = [json.dumps({"path": "same.py", "text": text}) for text in order]
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        built = build(corpus(Source(jsonl=str(tmp_path / "rows.jsonl"))))
        contents.add((built.folder / DOCUMENTS).read_bytes())

    assert len(contents) == 1


def test_a_row_that_is_there_twice_is_counted_twice(tmp_path, build):
    rows = [
        json.dumps({"path": f"{n % 3}.py", "text": make_code(n % 3).decode()}) for n in range(9)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    built = build(corpus(Source(jsonl=str(tmp_path / "rows.jsonl"))))

    assert len(built.train) + len(built.held_out) == 3
    assert [skip["reason"] for skip in built.skipped] == ["duplicate"] * 6


def test_counts_are_those_of_the_files(folder, build):
    built = build(corpus(Source(folder=str(folder)), split=Split(eval_rate=0.2)))

    counts = count_documents(built.folder)

    documents = [*built.train, *built.held_out]
    assert counts["documents"]["kept"] == len(documents) == 21
    assert counts["documents"]["skipped"] == Counter(skip["reason"] for skip in built.skipped)
    assert counts["languages"] == {"python": 21}
    assert counts["bytes"] == sum(len(document.text) for document in documents)
    assert counts["held_out"] == {"documents": len(built.held_out)}


def test_chosen_documents_are_read_by_id(folder, build):
    built = build(corpus(Source(folder=str(folder))))

    ids = document_ids(built.folder, "train")

    assert ids == sorted(document.id for document in built.train)
    chosen = list(read_documents(built.folder, "train", set(ids[:3])))
    assert {document.id for document in chosen} == set(ids[:3])
    assert not list(read_documents(built.folder, "eval", set(ids)))


def test_large_texts_are_written_in_groups_a_reader_can_hold(tmp_path, build, monkeypatch):
    monkeypatch.setattr("finetune.corpus.outputs._GROUP_BYTES", 2_000)
    rows = [json.dumps({"path": f"{n}.py", "text": make_code(n).decode()}) for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    built = build(corpus(Source(jsonl=str(tmp_path / "rows.jsonl"))))

    written = parquet.ParquetFile(built.folder / DOCUMENTS)
    groups = [written.read_row_group(n).to_pylist() for n in range(written.num_row_groups)]
    sizes = [sum(row["num_bytes"] for row in group) for group in groups]
    assert sum(map(len, groups)) == 20
    assert len(groups) > 2
    assert max(sizes) < 2_000 + 3_000


def test_a_missing_or_cut_corpus_is_refused_in_one_line(folder, tmp_path, build):
    with pytest.raises(FimError, match=r"documents\.parquet: missing or damaged"):
        list(read_documents(tmp_path, "train"))
    path = build(corpus(Source(folder=str(folder)))).folder / DOCUMENTS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FimError, match=r"documents\.parquet: missing or damaged"):
        list(read_documents(path.parent, "train"))


def test_a_text_that_is_not_the_one_of_its_id_is_refused(folder, build):
    path = build(corpus(Source(folder=str(folder)))).folder / DOCUMENTS
    table = parquet.read_table(path)
    texts = [text + b"#" for text in table["text"].to_pylist()]
    column = table.schema.get_field_index("text")
    parquet.write_table(table.set_column(column, "text", [texts]), path)

    with pytest.raises(FimError, match=r"documents\.parquet: damaged; run 'sfim prepare' again"):
        list(read_documents(path.parent, "train"))


def test_nothing_left_names_the_three_commonest_reasons(folder, build):
    strict = corpus(Source(folder=str(folder)), filters=Filters(min_bytes=10_000))

    with pytest.raises(FimError) as caught:
        build(strict)

    assert str(caught.value) == (
        "corpus: none of 27 files is left (too-small 24, binary 1, symlink 1); "
        "correct corpus.sources or loosen corpus.filters"
    )


def test_an_empty_folder_is_refused(tmp_path, build):
    (tmp_path / "empty").mkdir()

    with pytest.raises(FimError, match="they hold no file"):
        build(corpus(Source(folder=str(tmp_path / "empty"))))


def test_the_fingerprint_follows_section_files_and_commits(folder, tmp_path, monkeypatch):
    service = git_repository(tmp_path, monkeypatch)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"path": "r.py", "text": "r = 1"}))
    value = corpus(Source(folder=str(folder)), Source(git=str(service)), Source(jsonl=str(rows)))
    prints = [digits(value), digits(value)]
    assert len(set(prints)) == 1

    (service / "main.py").write_bytes(b"uncommitted\n")
    assert digits(value) == prints[0]

    os.utime(folder / "m00.py", ns=(1, 1))
    prints.append(digits(value))
    rows.write_text("{}")
    prints.append(digits(value))
    subprocess.run(["git", "-C", service, "commit", "-qam", "c"], check=True)
    prints.append(digits(value))
    prints.append(digits(corpus(*value.sources, max_documents=1)))

    assert len(set(prints)) == 5


def test_the_fingerprint_follows_only_files_that_can_become_documents(folder):
    value = corpus(Source(folder=str(folder), exclude=("runs/",)))
    before = digits(value)

    for name in ("__pycache__/m00.pyc", "runs/packs/a.py", "m00.pyc", "notes.unknown", "plain"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x = 1\n")
        assert digits(value) == before, name
    (folder / "script").write_bytes(b"#!/usr/bin/env python3\nx = 1\n")
    assert digits(value) != before


@pytest.mark.parametrize(
    ("name", "languages", "counts"),
    [
        ("README.md", (), False),
        ("package.json", (), False),
        ("README.md", ("markdown",), True),
        ("main.go", ("markdown",), False),
        ("view.h", ("objc",), True),  # only its text tells that from C
        ("view.H", ("cpp",), True),
        ("view.h", ("go",), False),
    ],
)
def test_the_fingerprint_follows_only_languages_that_are_kept(tmp_path, name, languages, counts):
    filters = Filters(languages=languages)
    value = Corpus(sources=(Source(folder=str(tmp_path)),), filters=filters)
    before = digits(value)

    (tmp_path / name).write_bytes(b"x\n")

    assert (digits(value) != before) == counts


def test_a_ref_counts_by_the_commit_it_leads_to(tmp_path, monkeypatch):
    service = git_repository(tmp_path, monkeypatch)
    moving = corpus(Source(git=str(service)))

    commits = source_commits(moving, tmp_path)

    pinned = corpus(Source(git=str(service), ref=commits["corpus.sources.0.ref"]))
    assert digits(pinned) == digits(moving)
    (service / "new.py").write_bytes(make_code(3))
    for arguments in (["add", "-A"], ["commit", "-q", "-m", "c"]):
        subprocess.run(["git", "-C", service, *arguments], check=True)
    assert digits(pinned) != digits(moving)


def test_a_missing_source_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(FimError, match=r"gone\.jsonl: no such file"):
        digits(corpus(Source(jsonl=str(tmp_path / "gone.jsonl"))))
