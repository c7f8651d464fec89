"""Studies are found again by what they were made from, whatever was killed or damaged."""

import os
import random
import sqlite3
import stat
from collections import Counter
from dataclasses import replace

import pytest

from fim import FimError
from finetune.corpus.cache import (
    SLICES,
    Cache,
    Damaged,
    delete_cache,
    mend_cache,
    open_cache,
    read_pickle,
)
from finetune.corpus.entries import File
from finetune.corpus.study import Study


def file(path="a.py", content_id="1", **arguments) -> File:
    return File(repo="r", path=path, data=b"", content_id=content_id, **arguments)


KEPT = Study(
    id="d" * 32, key=b"k" * 32, language="python", licence="MIT", findings=("e-mail", "e-mail"),
    signature=b"\0\xff" * 512, links=b"links", text=b"x = 1\n",
)  # fmt: skip
DROPPED = Study(reason="too-large", detail="2 > 1", licence="MIT")


def test_what_is_added_is_there_when_it_is_opened_again(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        places = cache.add([(file(), KEPT), (file("b.py"), DROPPED)])

    with open_cache(tmp_path, "s") as cache:
        assert [cache.find(file()), cache.find(file("b.py"))] == places
        facts = {place: (study, num_bytes) for place, study, num_bytes in cache.facts()}
        assert facts[places[0]] == (without_texts(KEPT), 6)
        assert facts[places[1]] == (DROPPED, 0)
        assert cache.links(places[:1]) == {places[0]: b"links"}
        with pytest.raises(Damaged):
            cache.links(places)
        assert list(cache.texts(places[:1] * 2)) == [b"x = 1\n"] * 2


def test_equal_files_have_one_place(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        one, two = cache.add([(file(), KEPT), (file(), KEPT)])

        assert one == two == cache.add([(file(), KEPT)])[0]
        assert len(list(cache.facts())) == 1


def without_texts(study: Study) -> Study:
    names = (name for name in Study.__slots__ if name not in ("text", "links"))
    return Study(**{name: getattr(study, name) for name in names})


@pytest.mark.parametrize(
    "other",
    [
        file("b.py"),
        file(content_id="2"),
        file(language="go"),
        file(is_replay=True),
        File(repo="q", path="a.py", data=b"", content_id="1"),
    ],
)
def test_another_file_has_another_study(tmp_path, other):
    with open_cache(tmp_path, "s") as cache:
        (place,) = cache.add([(file(), KEPT)])

        assert cache.find(file(revision="abc", committed_at=7, weight=0.5)) == place
        assert cache.find(other) is None


def test_other_settings_find_nothing_and_push_the_old_out(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        cache.add([(file(), KEPT)])
    with open_cache(tmp_path, "other") as cache:
        assert cache.find(file()) is None
        (place,) = cache.add([(file(), DROPPED)])
        cache.keep({place})

    with open_cache(tmp_path, "s") as cache:
        assert cache.find(file()) is None
    assert b"x = 1" not in (tmp_path / "studies.sqlite").read_bytes()


def test_an_empty_cache_leaves_nothing_behind(tmp_path):
    with open_cache(tmp_path / "cache", "s") as cache:
        assert cache.is_empty()

    assert not (tmp_path / "cache").exists()


def test_only_the_owner_can_read_it(tmp_path):
    with open_cache(tmp_path / "cache", "s") as cache:
        cache.add([(file(), KEPT)])

    assert stat.S_IMODE(os.stat(tmp_path / "cache").st_mode) == 0o700


def test_what_failed_is_tried_again(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        kept, _ = cache.add([(file(), KEPT), (file("b.py"), Study(reason="worker-died"))])

    with open_cache(tmp_path, "s") as cache:
        assert cache.find(file()) == kept
        assert cache.find(file("b.py")) is None


def test_a_shard_is_written_whole_or_not_at_all(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        cache.add([(file("kept.py"), KEPT)])
        with pytest.raises(ZeroDivisionError):
            cache.add((file(str(1 // n)), KEPT) for n in (1, 0))

    with open_cache(tmp_path, "s") as cache:
        assert len(list(cache.facts())) == 1


@pytest.mark.parametrize("cut", [0, 50, 5_000])
def test_a_damaged_cache_is_told_from_others(tmp_path, cut):
    with open_cache(tmp_path, "s") as cache:
        cache.add([(file(str(n)), KEPT) for n in range(200)])
    path = tmp_path / "studies.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:cut] + b"\x5a" * (len(data) - cut))

    with pytest.raises(Damaged), open_cache(tmp_path, "s") as cache:
        read_all(cache)

    delete_cache(tmp_path)
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "studies.sqlite").mkdir()

    with (
        pytest.raises(FimError, match=r"studies\.sqlite: .*; free some space or delete the folder"),
        open_cache(tmp_path, "s"),
    ):
        pass


def damaged(path) -> None:
    path.write_bytes(b"no database" * 900)


def empty(path) -> None:
    path.write_bytes(b"")


def of_another_version(path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE studies (place INTEGER PRIMARY KEY, name TEXT)")


@pytest.mark.parametrize("write", [damaged, empty, of_another_version])
def test_a_slice_that_cannot_be_read_is_left_out(tmp_path, write):
    for rank in ("0", "1", "2"):
        (tmp_path / SLICES / rank).mkdir(parents=True)
    write(tmp_path / SLICES / "0" / "studies.sqlite")
    with open_cache(tmp_path / SLICES / "1", "s") as cache:
        cache.add([(file(), KEPT)])
    write(tmp_path / SLICES / "2" / "studies.sqlite")

    with open_cache(tmp_path, "s") as cache:
        assert list(cache.texts([cache.find(file())])) == [KEPT.text]

    assert not (tmp_path / SLICES).exists()


def test_the_tables_of_another_version_are_damage(tmp_path):
    of_another_version(tmp_path / "studies.sqlite")

    with pytest.raises(Damaged), open_cache(tmp_path, "s"):
        pass


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("studies", "signature"),
        ("studies", "licence"),
        ("studies", "findings"),
        ("studies", "key"),
        ("links", "links"),
        ("texts", "text"),
    ],
)
def test_a_changed_byte_costs_its_study_only(tmp_path, table, column):
    with open_cache(tmp_path, "s") as cache:
        cache.add([(file(), KEPT), (file("b.py"), KEPT)])
    change_last_byte(tmp_path, table, column)

    with pytest.raises(Damaged), open_cache(tmp_path, "s") as cache:
        read_all(cache)
    mend_cache(tmp_path)

    with open_cache(tmp_path, "s") as cache:
        assert [cache.find(file()) is None, cache.find(file("b.py")) is None] == [True, False]
        read_all(cache)


def change_last_byte(folder, table, column) -> None:
    """Of the first row."""
    with sqlite3.connect(folder / "studies.sqlite") as connection:
        ask = f"SELECT rowid, {column} FROM {table} ORDER BY rowid"
        row, value = connection.execute(ask).fetchone()
        other = value[:-1] + ("x" if isinstance(value, str) else bytes([value[-1] ^ 1]))
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (other, row))


def read_all(cache: Cache) -> None:
    places = [place for place, study, _ in cache.facts() if not study.reason]
    cache.links(places)
    list(cache.texts(places))


def test_rows_that_changed_places_are_damage(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        cache.add([(file(), KEPT), (file("b.py"), replace(KEPT, text=b"y = 2\n"))])
    with sqlite3.connect(tmp_path / "studies.sqlite") as connection:
        for place in ("place + 10", "13 - place"):
            connection.execute(f"UPDATE texts SET place = {place}")

    with pytest.raises(Damaged), open_cache(tmp_path, "s") as cache:
        read_all(cache)
    mend_cache(tmp_path)

    with open_cache(tmp_path, "s") as cache:
        assert cache.is_empty()


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_byte_or_tail_anywhere_costs_studies_but_changes_none(tmp_path, is_cut):
    rng = random.Random(0)
    studies = {
        str(n): replace(KEPT, id=f"{n:032}", signature=rng.randbytes(64), text=b"x\n" * 200 * n)
        for n in range(20)
    }
    with open_cache(tmp_path / "whole", "s") as cache:
        cache.add((file(path), study) for path, study in studies.items())
    data = (tmp_path / "whole" / "studies.sqlite").read_bytes()
    found = Counter()
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = rng.randrange(8_192, len(data))
        rest = b"" if is_cut else bytes([data[place] ^ rng.randrange(1, 256)]) + data[place + 1 :]
        (folder / "studies.sqlite").write_bytes(data[:place] + rest)
        try:
            with open_cache(folder, "s") as cache:
                read_all(cache)
        except Damaged:
            mend_cache(folder)
        with open_cache(folder, "s") as cache:
            places = {path: cache.find(file(path)) for path in studies}
            held = {path: place for path, place in places.items() if place is not None}
            facts = {place: study for place, study, _ in cache.facts()}
            texts = cache.texts(held.values())
            for (path, place), text in zip(held.items(), texts, strict=True):
                assert (facts[place], text) == (without_texts(studies[path]), studies[path].text)
        found[len(held)] += 1

    if is_cut:
        assert len(found) > 5
    else:
        assert found[19] + found[20] > 15
        assert found[19] > 5


def test_a_result_that_is_not_what_was_written_is_made_again(tmp_path):
    with pytest.raises(Damaged):
        read_pickle(b"no pickle")
    with open_cache(tmp_path, "s") as cache:
        cache.remember([b"question"], lambda: "answer")
        cache.add([(file(), KEPT)])
    change_last_byte(tmp_path, "results", "result")

    for again in ("new", "newer"):
        with open_cache(tmp_path, "s") as cache:
            assert cache.remember([b"question"], lambda text=again: text) == "new"


def test_a_cache_that_another_process_writes_is_one_line(tmp_path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0))
    with open_cache(tmp_path, "s") as cache:
        cache.add([(file(), KEPT)])
    other = connect(tmp_path / "studies.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with (
        pytest.raises(FimError, match=r"studies\.sqlite: another process is writing there"),
        open_cache(tmp_path, "s"),
    ):
        pass

    other.close()


def test_the_journal_of_a_killed_run_is_read(tmp_path):
    with open_cache(tmp_path, "s") as cache:
        places = cache.add([(file(), KEPT)])
        copies = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert copies["studies.sqlite-wal"]
    other = tmp_path / "other"
    other.mkdir()
    for name, data in copies.items():
        (other / name).write_bytes(data)

    with open_cache(other, "s") as cache:
        assert [cache.find(file())] == places
        assert list(cache.texts(places)) == [KEPT.text]
    assert sqlite3.connect(other / "studies.sqlite").execute("PRAGMA quick_check").fetchone() == (
        "ok",
    )
