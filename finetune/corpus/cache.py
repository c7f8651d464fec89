"""What was found out about each file of a run, kept between runs and over a `kill -9`.

One SQLite file. Each shard of studies is one transaction, so a killed run loses the shards at work.
Every row has a checksum: a database finds out when a page is torn, not when a byte has changed.
Only texts as they may be learned from are in it; pages of deleted ones are overwritten.
"""

import hashlib
import os
import pickle
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fim import FimError
from finetune.corpus.batches import cut
from finetune.corpus.entries import File
from finetune.corpus.study import Study
from finetune.corpus.workers import FAILURES
from finetune.store import make_run_folder

T = TypeVar("T")

SLICES = "slices"
"""Folder inside that of a cache for those made elsewhere: they are merged when it is opened."""
_NAME = "studies.sqlite"
_ENDS = ("", "-wal", "-shm")
_PARTS = ("links", "texts")
"""Tables of what is kept of files that no rule objects to."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    place INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, reason TEXT, detail TEXT, id TEXT,
    content BLOB, language TEXT, licence TEXT, num_bytes INTEGER, findings TEXT, signature BLOB,
    seal INTEGER);
CREATE TABLE IF NOT EXISTS links (place INTEGER PRIMARY KEY, links BLOB);
CREATE TABLE IF NOT EXISTS texts (place INTEGER PRIMARY KEY, text BLOB);
CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, result BLOB);
"""
_FACTS = "reason, detail, id, content, language, licence, num_bytes, findings, signature, seal"
_AGAIN = f"DELETE FROM studies WHERE reason IN ({', '.join(map(repr, FAILURES))})"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""The last: a table or column is missing, as in the file of another version or of a killed task."""
_NUM_PAGES = 28
"""Where an SQLite file says how many pages it has, 0 if it does not say."""
_UNUSED_RESULTS = 64
_READ, _READ_TEXTS = 500, 64
"""Rows that one question asks for, and texts."""


class Damaged(Exception):
    """The file of a cache is not what was written; `mend_cache` saves what is."""


class Cache:
    """Studies by what they were made from; a place is the number of one.

    Made by `open_cache`. A study is looked up by repository, path and `content_id` of its file, and
    by the settings it was made with. What failed in an earlier run is not found: it is tried again.
    """

    def __init__(
        self, connection: sqlite3.Connection, settings: str, elsewhere: Collection[bytes] = ()
    ) -> None:
        self._connection = connection
        self._elsewhere = elsewhere
        self._settings = settings.encode()
        self._used: set[bytes] = set()
        self._places = self._read_places()
        self._last = max(self._places.values(), default=0)

    def find(self, file: File) -> int | None:
        """Return the place of a file's study, None if it has none; the content is not looked at."""
        return self._places.get(self._key(file))

    def is_known(self, file: File) -> bool:
        """Whether a study of the file is here, or in the cache that this one is merged into."""
        key = self._key(file)
        return key in self._places or key in self._elsewhere

    def keys(self) -> frozenset[bytes]:
        """Return what studies are looked up by."""
        return frozenset(self._places)

    def add(self, studied: Iterable[tuple[File, Study]]) -> list[int]:
        """Write studies, all or none of them; return their places, of equal files the same."""
        places = []
        with self._connection:
            for file, study in studied:
                key = self._key(file)
                if key not in self._places:
                    self._places[key] = self._insert(key, study)
                places.append(self._places[key])
        return places

    def _insert(self, key: bytes, study: Study) -> int:
        self._last += 1
        place = self._last
        facts = (
            study.reason, study.detail, study.id, study.key, study.language, study.licence,
            len(study.text), "\n".join(study.findings), study.signature,
        )  # fmt: skip
        insert = f"INSERT INTO studies (place, key, {_FACTS}) VALUES ({_marks(12)})"
        self._connection.execute(insert, (place, key, *facts, _seal((place, key, *facts))))
        if not study.reason:
            for table, value in (("links", study.links), ("texts", study.text)):
                row = place, _sealed(value, place)
                self._connection.execute(f"INSERT INTO {table} VALUES (?, ?)", row)
        return place

    def facts(self) -> Iterator[tuple[int, Study, int]]:
        """Yield each place, its study without text and links, and the bytes of its text."""
        for row in self._connection.execute(f"SELECT place, key, {_FACTS} FROM studies"):
            yield row[0], *_read_facts(row)

    def links(self, places: Collection[int]) -> dict[int, bytes]:
        """Return the links at some places, all of which have a text."""
        found: dict[int, bytes] = {}
        for some in _slices(places, _READ):
            found |= _read_sealed(self._connection, "links", some)
        return found

    def texts(self, places: Iterable[int]) -> Iterator[bytes]:
        """Yield the texts at some places, in the order asked for, a few held at a time."""
        for some in _slices(places, _READ_TEXTS):
            found = _read_sealed(self._connection, "texts", some)
            yield from (found[place] for place in some)

    def remember(self, parts: Iterable[bytes], make: Callable[[], T]) -> T:
        """Return what `make` returns, or returned in an earlier run for the same parts."""
        key = _digest((self._settings, *parts))
        self._used.add(key)
        ask = "SELECT CAST(result AS BLOB) FROM results WHERE key = ?"
        found = self._connection.execute(ask, (key,)).fetchone()
        if found is not None:
            with suppress(Damaged):
                return read_pickle(_unsealed(found[0], 0))
        result = make()
        with self._connection:
            row = key, _sealed(pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL), 0)
            self._connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", row)
        return result

    def merge(self, folder: Path) -> None:
        """Take over the studies of another cache that are whole and new here."""
        other = sqlite3.connect(folder / _NAME)
        try:
            with self._connection:
                for key, study in _whole_studies(other):
                    if key not in self._places:
                        self._places[key] = self._insert(key, study)
        finally:
            other.close()

    def keep(self, places: Collection[int]) -> None:
        """Delete all studies but those at some places, and the older results not asked for.

        The newest stay: inside one that was found, others are not asked for.
        """
        gone = [(place,) for place in set(self._places.values()).difference(places)]
        results = self._connection.execute("SELECT key FROM results ORDER BY rowid DESC")
        unused = [(key,) for (key,) in results if key not in self._used]
        old = unused[_UNUSED_RESULTS:]
        with self._connection:
            self._connection.executemany("DELETE FROM results WHERE key = ?", old)
            for table in ("studies", *_PARTS):
                self._connection.executemany(f"DELETE FROM {table} WHERE place = ?", gone)
        self._places = self._read_places()

    def is_empty(self) -> bool:
        """Whether there is no study."""
        return not self._places

    def _read_places(self) -> dict[bytes, int]:
        return dict(self._connection.execute("SELECT key, place FROM studies").fetchall())

    def _key(self, file: File) -> bytes:
        replay = "replay" if file.is_replay else ""
        name = "\n".join((file.repo, file.path, file.content_id, file.language, replay))
        return hashlib.sha256(self._settings + name.encode()).digest()[:20]


@contextmanager
def open_cache(folder: Path, settings: str, elsewhere: Collection[bytes] = ()) -> Iterator[Cache]:
    """Open the studies of a run, made with what `settings` are digits of; close them at the end.

    Args:
        folder: where they are.
        settings: see `StudySettings.digits`.
        elsewhere: of a slice, the keys of the cache that it is merged into.

    Raises:
        Damaged: the file is not whole, found when it is opened or later.
        FimError: it cannot be written.
    """
    make_run_folder(folder)
    path = folder / _NAME
    connection = cache = None
    try:
        connection = sqlite3.connect(path)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(_SCHEMA)
        connection.execute(_AGAIN)
        connection.commit()
        cache = Cache(connection, settings, elsewhere)
        for other in sorted((folder / SLICES).glob(f"*/{_NAME}")):
            cache.merge(other.parent)
        shutil.rmtree(folder / SLICES, ignore_errors=True)
        yield cache
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            raise Damaged from None
        if _code(error) == sqlite3.SQLITE_BUSY:
            raise FimError(f"{path}: another process is writing there; wait for it") from None
        raise FimError(f"{path}: {error}; free some space or delete the folder") from None
    finally:
        if connection is not None:
            connection.close()
        if cache is not None and cache.is_empty():
            delete_cache(folder)


def mend_cache(folder: Path) -> None:
    """Put a damaged file where the next to open the cache takes over what is whole of it."""
    aside = folder / SLICES / "damaged"
    aside.mkdir(parents=True, exist_ok=True)
    for end in _ENDS:
        with suppress(FileNotFoundError):
            os.replace(folder / f"{_NAME}{end}", aside / f"{_NAME}{end}")
    with open(aside / _NAME, "r+b") as file:
        file.seek(_NUM_PAGES)
        file.write(bytes(4))  # as many as there are: of a file that was cut, all else is refused


def delete_cache(folder: Path) -> None:
    """Delete the studies in a folder, and the folder if nothing else is in it."""
    for end in _ENDS:
        (folder / f"{_NAME}{end}").unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def read_pickle(data: bytes) -> Any:
    """Return what was pickled into a cache.

    Raises:
        Damaged: it is not what was written.
    """
    try:
        return pickle.loads(data)
    except Exception:  # wrong bytes raise anything
        raise Damaged from None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return _code(error) in _DAMAGED


def _code(error: sqlite3.DatabaseError) -> int:
    """Return the primary code; a text that is no UTF-8 has none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()[:20]


def _whole_studies(connection: sqlite3.Connection) -> Iterator[tuple[bytes, Study]]:
    """Yield keys and studies, of a damaged file those that can be come to from any side."""
    places: set[int] = set()
    for order in ("key", "key DESC", "place", "place DESC"):
        with suppress(sqlite3.DatabaseError):
            ask = f"SELECT place FROM studies ORDER BY {order}"
            places.update(place for (place,) in connection.execute(ask))
    for place in sorted(places):
        with suppress(Damaged, sqlite3.DatabaseError):
            yield _read_study(connection, place)


def _read_study(connection: sqlite3.Connection, place: int) -> tuple[bytes, Study]:
    """Return the key of a study and all of it.

    Raises:
        Damaged: a part of it is missing, or not what was written.
    """
    ask = f"SELECT place, key, {_FACTS} FROM studies WHERE place = ?"
    row = connection.execute(ask, (place,)).fetchone()
    if row is None:
        raise Damaged
    study, _ = _read_facts(row)
    if not study.reason:
        links, text = (_read_sealed(connection, name, [place])[place] for name in _PARTS)
        study = replace(study, links=links, text=text)
    return row[1], study


def _read_facts(row: Sequence[Any]) -> tuple[Study, int]:
    """Return a study without text and links, and the bytes of its text."""
    *sealed, seal = row
    if not isinstance(sealed[-1], bytes) or seal != _seal(sealed):
        raise Damaged
    _, _, reason, detail, name, key, language, licence, num_bytes, findings, signature = sealed
    study = Study(
        reason=reason, detail=detail, id=name, key=key, language=language, licence=licence,
        findings=tuple(findings.split("\n")) if findings else (), signature=signature,
    )  # fmt: skip
    return study, num_bytes


def _read_sealed(
    connection: sqlite3.Connection, table: str, places: Sequence[int]
) -> dict[int, bytes]:
    """Return the links or texts at some places.

    Raises:
        Damaged: one is missing, or not what was written.
    """
    ask = f"SELECT * FROM {table} WHERE place IN ({_marks(len(places))})"
    found = {place: _unsealed(data, place) for place, data in connection.execute(ask, places)}
    if len(found) < len(set(places)):
        raise Damaged
    return found


def _seal(row: Sequence[Any]) -> int:
    *words, signature = row
    return zlib.crc32(signature, zlib.crc32(repr(words).encode()))


def _sealed(data: bytes, place: int) -> bytes:
    return zlib.crc32(data, place).to_bytes(4) + data


def _unsealed(data: bytes, place: int) -> bytes:
    if not isinstance(data, bytes) or zlib.crc32(data[4:], place).to_bytes(4) != data[:4]:
        raise Damaged
    return data[4:]


def _slices(places: Iterable[int], most: int) -> Iterator[list[int]]:
    return cut(places, lambda _: 0, most, 1)


def _marks(number: int) -> str:
    return ", ".join("?" * number)
