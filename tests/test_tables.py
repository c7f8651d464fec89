"""Every row of a table comes out once, as a file or as a skip with its reason."""

import gzip
import json
import os
from hashlib import sha256

import pyarrow as pa
import pytest
from pyarrow import parquet

from fim import FimError
from finetune.corpus.entries import File
from finetune.corpus.sources.read import read_source
from finetune.recipe.corpus import Source


def read(source: Source, max_bytes: int = 1_000_000) -> dict[str, bytes | str]:
    entries = list(read_source(source, "n", max_bytes))
    found = {e.path: e.data if isinstance(e, File) else e.reason for e in entries}
    assert len(found) == len(entries)
    return found


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

    assert list(read_source(source, "n", 100)) == [
        File(
            repo="n",
            path="row-1",
            data=b"a = 1",
            content_id=sha256(b"a = 1").hexdigest(),
            language="python",
            num_bytes=5,
        )
    ]


def test_parquet_is_read_with_and_without_paths_as_text_or_bytes(tmp_path):
    table = {"path": ["a.py", None, "c.py"], "text": ["a", "b", None], "raw": [b"a", b"b", b"c"]}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    place = str(tmp_path / "rows.parquet")

    assert read(Source(parquet=place)) == {"a.py": b"a", "row-2": "no-path", "c.py": "no-text"}
    bare = Source(parquet=place, column="raw", path_column="none", language="go")
    assert read(bare) == {"row-1": b"a", "row-2": b"b", "row-3": b"c"}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_string_of_parquet_that_is_no_utf8_is_taken_as_it_is(kind, tmp_path):
    raw = pa.binary() if kind == pa.string() else pa.large_binary()
    columns = {"path": [b"a.py", b"\xff.py"], "text": [b"\xfe", b"b"]}
    arrays = {name: pa.array(values, raw).view(kind) for name, values in columns.items()}
    arrays["packed"] = arrays["text"].dictionary_encode()
    parquet.write_table(pa.table(arrays), tmp_path / "rows.parquet")

    for column in ("text", "packed"):
        source = Source(parquet=str(tmp_path / "rows.parquet"), column=column)
        assert read(source) == {"a.py": b"\xfe", r"\xff.py": b"b"}


def test_a_value_that_is_no_date_is_refused_in_one_line(tmp_path):
    times = pa.array([2**62], pa.timestamp("us"))
    parquet.write_table(pa.table({"text": ["a"], "path": times}), tmp_path / "rows.parquet")

    with pytest.raises(FimError, match=r"rows\.parquet: not a whole Parquet file"):
        read(Source(parquet=str(tmp_path / "rows.parquet")))


def test_files_with_odd_names_are_read(tmp_path):
    odd = tmp_path / os.fsdecode(b"o\xffd")
    odd.with_suffix(".jsonl").write_text('{"path": "a.py", "text": "a"}\n')
    with open(odd.with_suffix(".parquet"), "wb") as file:
        parquet.write_table(pa.table({"path": ["a.py"], "text": ["a"]}), file)

    assert read(Source(jsonl=str(odd.with_suffix(".jsonl")))) == {"a.py": b"a"}
    assert read(Source(parquet=str(odd.with_suffix(".parquet")))) == {"a.py": b"a"}


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2"])
def test_packed_jsonl_is_unpacked_and_refused_where_it_is_cut(ending, tmp_path):
    rows = b"".join(b'{"path": "%d.py", "text": "%d"}\n' % (n, n) for n in range(5_000))
    place = tmp_path / f"rows.jsonl.{ending}"
    with pa.output_stream(str(place), compression="detect") as file:
        file.write(rows)

    assert read(Source(jsonl=str(place))) == {f"{n}.py": b"%d" % n for n in range(5_000)}

    place.write_bytes(place.read_bytes()[:-9])
    with pytest.raises(FimError, match=f"rows.jsonl.{ending}: not a whole packed file"):
        read(Source(jsonl=str(place)))


def test_members_of_a_gzip_file_are_all_read(tmp_path):
    rows = [b'{"path": "a.py", "text": "a"}\n', b'{"path": "b.py", "text": "b"}\n']
    (tmp_path / "rows.jsonl.gz").write_bytes(b"".join(gzip.compress(row) for row in rows))

    found = read(Source(jsonl=str(tmp_path / "rows.jsonl.gz")))

    assert found == {"a.py": b"a", "b.py": b"b"}


def test_a_dataset_takes_a_configuration_and_a_split(tmp_path, monkeypatch):
    asked = []

    class Rows(list):
        column_names = ("text",)

    def load_dataset(*arguments, **settings):
        asked.append((*arguments, settings["split"]))
        return Rows([{"text": "a", "path": "a.py"}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    for name in ("team/rows", "team/rows:java", "team/rows::test", "team/rows:java:test[:9]"):
        assert read(Source(dataset=name)) == {"a.py": b"a"}

    assert asked == [
        ("team/rows", None, "train"),
        ("team/rows", "java", "train"),
        ("team/rows", None, "test"),
        ("team/rows", "java", "test[:9]"),
    ]


def test_a_dataset_folder_is_read(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"path": "a.py", "text": "a = 1"}\n')

    assert read(Source(dataset=str(tmp_path))) == {"a.py": b"a = 1"}
