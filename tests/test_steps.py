"""What is decided with the whole corpus in view, each step with its reason, all of them counted."""

import json
import keyword
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from made_code import make_code
from pyarrow import parquet

from fim import FimError
from finetune.corpus.build import (
    CLUSTERS,
    FINDINGS,
    SKIPPED,
    count_documents,
    read_documents,
    write_corpus,
)
from finetune.corpus.steps import read_drop_list
from finetune.recipe.corpus import Corpus, Dedup, Order, Source, Split
from finetune.recipe.filters import Filters

NONE_HELD_OUT = Split(eval_rate=0.0)


@pytest.fixture
def build(tmp_path):
    """Write a corpus and return its folder."""

    def run(*sources: Source, **arguments) -> Path:
        place = tmp_path / f"corpus-{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        arguments = {"split": NONE_HELD_OUT, "workers": 1} | arguments
        write_corpus(place, Corpus(sources=sources, **arguments), 0)
        check_sums(place)
        return place

    return run


def check_sums(place: Path) -> None:
    """Every file is in the counts once, and the funnel ends at what is kept."""
    counts, skipped = count_documents(place), skips(place)
    kept = sum(1 for side in ("train", "eval") for _ in read_documents(place, side))
    funnel = counts["funnel"]
    assert counts["documents"] == {"kept": kept, "skipped": dict(Counter(skipped.values()))}
    assert funnel[0]["files"] == kept + len(skipped)
    assert funnel[-1]["left_files"] == kept
    for before, row in pairwise(funnel):
        assert row["left_files"] == before["left_files"] - row["files"]
        assert row["left_bytes"] == before["left_bytes"] - row["bytes"]


def skips(place: Path) -> dict[tuple[str, str], str]:
    rows = parquet.read_table(place / SKIPPED).to_pylist()
    return {(row["repo"], row["path"]): row["reason"] for row in rows}


def paths(place: Path) -> set[str]:
    return {document.path for document in read_documents(place, "train")}


def write(folder: Path, files: dict[str, bytes]) -> Source:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return Source(folder=str(folder))


def test_licence_files_hold_for_what_lies_below(tmp_path, build):
    mit = b"Permission is hereby granted, free of charge, to any person obtaining a copy of this"
    source = write(
        tmp_path / "app",
        {
            "LICENSE": mit,
            "a.py": make_code(1),
            "b.py": b"# SPDX-License-Identifier: GPL-3.0-only\n" + make_code(2),
        },
    )
    bare = write(tmp_path / "bare", {"c.py": make_code(3)})

    both = build(source, bare)
    allowed = build(source, bare, filters=Filters(licences_allowed=("MIT",)))

    licences = {d.path: d.licence for d in read_documents(both, "train")}
    assert licences == {"a.py": "MIT", "b.py": "GPL-3.0-only", "c.py": ""}
    assert count_documents(both)["licences"] == {"GPL-3.0-only": 1, "MIT": 1, "unknown": 1}
    assert skips(allowed)["app", "b.py"] == "licence"
    assert "a.py" in paths(allowed)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_drop_list_drops_what_it_names(tmp_path, build, suffix):
    import pyarrow as pa

    source = write(tmp_path / "app", {f"{n}.py": make_code(n) for n in range(4)})
    rows = [
        {"repo": "app", "path": "2.py", "reason": "loss 9.1"},
        {"repo": "other", "path": "1.py", "reason": "loss 9.1"},
    ]
    path = tmp_path / f"list.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))

    place = build(source, drop_list=str(path))

    assert skips(place) == {("app", "2.py"): "drop-list"}
    assert parquet.read_table(place / SKIPPED)["detail"].to_pylist() == ["loss 9.1"]


@pytest.mark.parametrize(
    ("name", "text"), [("gone.jsonl", None), ("a.jsonl", "[1]"), ("a.parquet", "x"), ("b", "{}")]
)
def test_a_drop_list_that_is_none_is_one_line(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)

    with pytest.raises(FimError, match=r"correct corpus\.drop_list"):
        read_drop_list(tmp_path / name)


def test_the_lowest_projects_are_dropped_and_all_are_listed(tmp_path, build, make_repo):
    sources = []
    for number in range(4):
        place = tmp_path / f"p{number}"
        for commit in range(number + 1):
            make_repo(place, {f"m{commit}.py": make_code(10 * number + commit)}, f"c{commit}")
        sources.append(Source(git=str(place)))

    place = build(*sources, drop_projects=0.25)

    assert skips(place) == {("p0", "m0.py"): "low-project"}
    projects = count_documents(place)["projects"]
    assert [(p["repo"], p["commits"], p["is_kept"]) for p in projects] == [
        ("p3", 4, True), ("p2", 3, True), ("p1", 2, True), ("p0", 1, False),
    ]  # fmt: skip


def test_copies_across_repositories_are_listed(tmp_path, build):
    one = write(tmp_path / "one", {f"{n}.py": make_code(n) for n in range(3)})
    two = write(tmp_path / "two", {"far/0.py": make_code(0), "9.py": make_code(9)})
    changed = make_code(1) + b"\n\ndef added():\n    pass\n"
    three = write(tmp_path / "three", {"1.py": changed, "0.py": make_code(0)})

    place = build(one, two, three)

    assert Counter(skips(place).values()) == {"duplicate": 2, "near-duplicate": 1}
    assert count_documents(place)["duplicates"] == {
        "exact": 2, "near": 1, "clusters": 2, "largest": 3,
    }  # fmt: skip
    clusters = parquet.read_table(place / CLUSTERS).to_pylist()
    assert sorted(Counter(row["cluster"] for row in clusters).values()) == [2, 3]
    assert sum(row["is_kept"] for row in clusters) == 2
    both = build(one, two, dedup=Dedup(exact=False, near=False))
    assert skips(both) == {}


def test_weights_and_replay_are_counted(tmp_path, build):
    own = write(tmp_path / "own", {f"{n}.py": make_code(n) for n in range(40)})
    rows = [{"path": f"{n}.md", "text": make_code(1_000 + n).decode()} for n in range(60)]
    (tmp_path / "prose.jsonl").write_text("\n".join(map(json.dumps, rows)))
    replay = Source(jsonl=str(tmp_path / "prose.jsonl"), replay=True)

    place = build(own, replay, replay_rate=0.25, split=Split(eval_rate=0.1))

    counts = count_documents(place)
    assert {document.repo for document in read_documents(place, "eval")} == {"own"}
    assert abs(counts["replay"]["share"] - 0.25) < 0.02
    left_out = 60 - counts["replay"]["documents"]
    assert Counter(skips(place).values()) == {"replay-not-needed": left_out}
    thin = build(own, language_weights={"python": 0.5})
    assert 10 < Counter(skips(thin).values())["down-sampled"] < 30


def test_secrets_are_counted_by_kind_and_file(tmp_path, build):
    token = b"ghp_" + b"R7mXk2Qw9ZtLb4VnYc8Hs1Jd6Gf3Pa0UeTiO"
    source = write(
        tmp_path / "app",
        {"a.py": make_code(1) + b'\nTOKEN = "%s"\n' % token, "b.py": make_code(2)},
    )

    place = build(source)

    findings = parquet.read_table(place / FINDINGS).to_pylist()
    assert [(row["repo"], row["path"], row["number"]) for row in findings] == [("app", "a.py", 1)]
    assert count_documents(place)["secrets"] == {findings[0]["kind"]: 1}
    assert not any(token in path.read_bytes() for path in place.iterdir())
    assert all(token not in document.text for document in read_documents(place, "train"))


def test_what_a_file_imports_comes_before_it(tmp_path, build):
    source = write(
        tmp_path / "app",
        {
            "app/a.py": b"from app import z\n\n\n" + make_code(1),
            "app/m.py": b"from app import a, z\n\n\n" + make_code(2),
            "app/z.py": make_code(3),
        },
    )

    place = build(source, order=Order(shuffle_rate=0.0))

    assert [d.path for d in read_documents(place, "train")] == ["app/z.py", "app/a.py", "app/m.py"]
    order = count_documents(place)["order"]
    assert (order["files"], order["backward"], order["forward"]) == (3, 3, 0)
    by_path = build(source, order=Order(by="path"))
    assert [d.path for d in read_documents(by_path, "train")] == [
        "app/a.py", "app/m.py", "app/z.py",
    ]  # fmt: skip


def test_tasks_of_benchmarks_are_left_out(tmp_path, build):
    task = make_code(77, 6).decode()
    (tmp_path / "eval.jsonl").write_text(json.dumps({"prompt": task, "canonical_solution": task}))
    files = {
        "a.py": make_code(1),
        "inside.py": make_code(2) + task.encode(),
        "renamed.py": rename(task).encode(),
    }
    source = write(tmp_path / "app", files)

    place = build(source, benchmarks=(str(tmp_path / "eval.jsonl"),))

    assert skips(place) == {("app", f"{name}.py"): "benchmark" for name in ("inside", "renamed")}
    assert count_documents(place)["benchmarks"] == {"eval": 2}


def rename(code: str) -> str:
    """Give every name another."""
    names = set(re.findall(r"[^\W\d]\w*", code)) - set(keyword.kwlist)
    return re.sub(r"[^\W\d]\w*", lambda m: f"n{m[0]}x" if m[0] in names else m[0], code)
