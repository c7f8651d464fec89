"""Packs on the disk: what was encoded, whole and once, however it is cut into batches."""

import numpy as np
import pytest
from pyarrow import parquet

from fim import FimError
from finetune.recipe.schema import Fim
from finetune.samples import packs
from finetune.samples.packs import write_packs
from finetune.samples.sampling import ROW_NUMBERS, ROW_TEXTS, Refused, Shard

FIM = Fim(max_length=64)
SAMPLES = 300


def make_shards(number: int, seed: int = 0) -> list[Shard]:
    """Samples of three epochs, spread over so many shards in random order."""
    rng = np.random.default_rng(seed)
    lengths = np.random.default_rng(9).integers(2, 65, SAMPLES)
    parts = np.array_split(rng.permutation(SAMPLES), number)
    return [_shard(part, lengths[part]) for part in parts]


def _shard(numbers: np.ndarray, lengths: np.ndarray) -> Shard:
    ids = [
        1_000 * number + np.arange(length, dtype=np.int32)
        for number, length in zip(numbers, lengths, strict=True)
    ]
    rows: dict[str, list] = {name: ["x"] * len(numbers) for name in ROW_TEXTS}
    rows |= {name: [0] * len(numbers) for name in ROW_NUMBERS}
    rows["epoch"] = [int(number) % 3 for number in numbers]
    rows["document_id"] = [f"{int(number) // 6:032x}" for number in numbers]
    rows["order"] = ["ar" if number % 5 == 0 else "psm" for number in numbers]
    rows["kind"] = ["" if number % 5 == 1 else "call" for number in numbers]
    rows["end_byte"] = [int(number) for number in numbers]
    windows = [int(number) % 6 // 3 for number in numbers]
    rows["sample_id"] = [
        f"{document_id}-{epoch}-{window}"
        for document_id, epoch, window in zip(
            rows["document_id"], rows["epoch"], windows, strict=True
        )
    ]
    flat = np.concatenate(ids).astype(np.int32)
    return Shard(
        input_ids=flat, labels=-flat, lengths=lengths.astype(np.int64),
        windows=np.array(windows), rows=rows, refused=Refused(),
    )  # fmt: skip


def read(folder) -> list[dict]:
    from datasets import load_from_disk

    return list(load_from_disk(str(folder)))


def test_every_sample_is_in_one_pack_with_its_id_and_labels(tmp_path):
    stats = write_packs(tmp_path / "p", make_shards(4), FIM, epochs=3)

    seen = []
    for row in read(tmp_path / "p"):
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) <= 64
        assert row["labels"] == [-token for token in row["input_ids"]]
        ends = np.cumsum(row["seq_lengths"])[:-1]
        for ids, name in zip(np.split(row["input_ids"], ends), row["sample_ids"], strict=True):
            number = int(ids[0]) // 1_000
            assert name == f"{number // 6:032x}-{row['epoch']}-{number % 6 // 3}"
            assert ids.tolist() == list(range(1_000 * number, 1_000 * number + len(ids)))
            seen.append(number)
    assert sorted(seen) == list(range(SAMPLES))
    assert stats["packs"] == len(read(tmp_path / "p"))


def test_shards_and_batches_change_no_pack(tmp_path, monkeypatch):
    contents = {write_packs(tmp_path / "a", make_shards(1), FIM, epochs=3)["content"]}
    contents.add(write_packs(tmp_path / "b", make_shards(7, seed=5), FIM, epochs=3)["content"])
    monkeypatch.setattr(packs, "_BATCH_TOKENS", 100)
    monkeypatch.setattr(packs, "_GROUP_ROWS", 10)
    contents.add(write_packs(tmp_path / "c", make_shards(7), FIM, epochs=3)["content"])

    assert len(contents) == 1
    assert read(tmp_path / "a") == read(tmp_path / "b") == read(tmp_path / "c")
    for name in "abc":
        rows = parquet.read_table(tmp_path / name / "samples.parquet")
        assert rows.column_names == [*ROW_TEXTS, *ROW_NUMBERS]
        assert len(set(rows["sample_id"].to_pylist())) == len(rows) == SAMPLES


def test_two_contents_have_two_names_in_the_cache_of_datasets(tmp_path):
    from datasets import load_from_disk

    folders = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder, shards in zip(folders, (4, 4, 1), strict=True):
        write_packs(folder, make_shards(shards)[:shards], FIM, epochs=3)
    write_packs(tmp_path / "d", make_shards(4)[:1], FIM, epochs=3)

    names = [load_from_disk(str(tmp_path / name))._fingerprint for name in "abcd"]

    assert names[0] == names[1] == names[2] != names[3]


def test_counts_are_those_of_the_rows(tmp_path):
    stats = write_packs(tmp_path / "p", make_shards(4), FIM, epochs=3)

    assert stats["samples"] == {"psm": 240, "spm": 0, "ar": 60}
    assert stats["kinds"] == {"call": 180}
    assert stats["boundaries"] == {"x": 240}
    fim = [number for number in range(SAMPLES) if number % 5]
    for name, share in (("p10", 10), ("p50", 50), ("p90", 90)):
        assert stats["middle_bytes"][name] == int(np.percentile(fim, share))
    assert stats["tokens"] == sum(stats["tokens_by_order"].values())
    assert stats["utilisation"] == round(stats["tokens"] / (64 * stats["packs"]), 4)


def test_no_sample_is_refused_and_leaves_no_tokens(tmp_path):
    with pytest.raises(FimError, match=r"no sample fits: raise fim\.max_length"):
        write_packs(tmp_path / "p", [], FIM, epochs=1)

    assert not list((tmp_path / "p").glob(".*"))
