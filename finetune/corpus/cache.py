"""What was found out about each file of a run, kept between runs and over a `kill -9`.

One SQLite file. Each shard of studies is one transaction, so a killed run loses the shards at work.
Only texts as they may be learned from are in it; pages of deleted ones are overwritten.
"""

import hashlib
import pickle
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fim import FimError
from finetune.corpus.entries import File
from finetune.corpus.study import Study
from finetune.store import make_run_folder
from finetune.workers import FAILURES

T = TypeVar("T")

SLICES = "slices"
"""Folder inside that of a cache for those made elsewhere: they are merged when it is opened."""
_NAME = "studies.sqlite"
_PARTS = ("", "-wal", "-shm")
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
_UNUSED_RESULTS = 64
_READ = 500
"""Rows that one question asks for."""


class Damaged(Exception):
    """The file of a cache is not what was written; without it, everything is studied again."""


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
        facts = (
            study.reason, study.detail, study.id, study.key, study.language, study.licence,
            len(study.text), "\n".join(study.findings), study.signature,
        )  # fmt: skip
        insert = f"INSERT INTO studies (key, {_FACTS}) VALUES ({_marks(11)})"
        place = self._connection.execute(insert, (key, *facts, _seal(facts))).lastrowid
        if not study.reason:
            for table, value in (("links", _sealed(study.links)), ("texts", study.text)):
                self._connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (place, value))
        return place

    def facts(self) -> Iterator[tuple[int, Study, int]]:
        """Yield each place, its study without text and links, and the bytes of its text."""
        rows = self._connection.execute(f"SELECT place, {_FACTS} FROM studies")
        for place, *facts, seal in rows:
            if seal != _seal(facts):
                raise Damaged
            reason, detail, name, key, language, licence, num_bytes, findings, signature = facts
            study = Study(
                reason=reason, detail=detail, id=name, key=key, language=language, licence=licence,
                findings=tuple(findings.split("\n")) if findings else (), signature=signature,
            )  # fmt: skip
            yield place, study, num_bytes

    def links(self, places: Collection[int]) -> dict[int, bytes]:
        """Return the links at some places, all of which have a text."""
        found = dict(self._read_links(places))
        if len(found) < len(set(places)):
            raise Damaged
        return {place: _unsealed(data) for place, data in found.items()}

    def texts(self, places: Iterable[int]) -> Iterator[bytes]:
        """Yield the texts at some places, in the order asked for, a few held at a time."""
        for place in places:
            row = self._connection.execute("SELECT text FROM texts WHERE place = ?", (place,))
            found = row.fetchone()
            if found is None:
                raise Damaged
            yield found[0]

    def remember(self, parts: Iterable[bytes], make: Callable[[], T]) -> T:
        """Return what `make` returns, or returned in an earlier run for the same parts."""
        key = _digest((self._settings, *parts))
        self._used.add(key)
        ask = "SELECT result FROM results WHERE key = ?"
        found = self._connection.execute(ask, (key,)).fetchone()
        if found is not None:
            return read_pickle(_unsealed(found[0]))
        result = make()
        with self._connection:
            row = key, _sealed(pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL))
            self._connection.execute("INSERT INTO results VALUES (?, ?)", row)
        return result

    def merge(self, folder: Path) -> None:
        """Take over the studies of another cache that are new here; of a damaged one none."""
        try:
            self._connection.execute("ATTACH ? AS other", (str(folder / _NAME),))
            with self._connection:
                self._take_over()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
        with suppress(sqlite3.OperationalError):  # it was not attached
            self._connection.execute("DETACH other")
        self._places = self._read_places()

    def _take_over(self) -> None:
        self._connection.execute(
            f"INSERT OR IGNORE INTO studies (key, {_FACTS}) SELECT key, {_FACTS} FROM other.studies"
        )
        for table, column in (("links", "links"), ("texts", "text")):
            self._connection.execute(
                f"INSERT OR IGNORE INTO {table} SELECT mine.place, theirs.{column} "
                f"FROM other.{table} AS theirs JOIN other.studies USING (place) "
                "JOIN main.studies AS mine ON mine.key = other.studies.key"
            )

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
            for table in ("studies", "links", "texts"):
                self._connection.executemany(f"DELETE FROM {table} WHERE place = ?", gone)
        self._places = self._read_places()

    def is_empty(self) -> bool:
        """Whether there is no study."""
        return not self._places

    def _read_places(self) -> dict[bytes, int]:
        return dict(self._connection.execute("SELECT key, place FROM studies").fetchall())

    def _read_links(self, places: Collection[int]) -> Iterator[tuple[int, bytes]]:
        wanted = list(places)
        for start in range(0, len(wanted), _READ):
            some = wanted[start : start + _READ]
            question = f"SELECT place, links FROM links WHERE place IN ({_marks(len(some))})"
            yield from self._connection.execute(question, some)

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


def delete_cache(folder: Path) -> None:
    """Delete the studies in a folder, and the folder if nothing else is in it."""
    for part in _PARTS:
        (folder / f"{_NAME}{part}").unlink(missing_ok=True)
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


def _seal(facts: Iterable[Any]) -> int:
    """A checksum: a database finds out when a page is torn, not when a byte has changed."""
    *words, signature = facts
    return zlib.crc32(signature or b"", zlib.crc32(repr(words).encode()))


def _sealed(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4) + data


def _unsealed(data: bytes) -> bytes:
    if zlib.crc32(data[4:]).to_bytes(4) != data[:4]:
        raise Damaged
    return data[4:]


def _marks(number: int) -> str:
    return ", ".join("?" * number)
