"""The report says what became of every file of the corpus, and shows runs that know less.

PYTHONPATH=. python -m pytest tests/test_report_corpus.py
"""

import json
import re
from pathlib import Path

import pytest
from pyarrow import Table, parquet

from finetune.report.corpus import corpus_section
from finetune.report.read import Inputs, read_inputs

COUNTS = {
    "documents": {"kept": 50, "skipped": {"generated": 40, "near-duplicate": 10}},
    "languages": {"python": 30, "java": 20},
    "bytes": 500,
    "held_out": {"documents": 5},
    "funnel": [
        {"reason": "", "files": 100, "bytes": 2000, "left_files": 100, "left_bytes": 2000},
        {"reason": "generated", "files": 40, "bytes": 1200, "left_files": 60, "left_bytes": 800},
        {"reason": "<near>", "files": 10, "bytes": 300, "left_files": 50, "left_bytes": 500},
    ],
    "secrets": {"aws-key": 3, "e-mail": 12},
    "licences": {"MIT": 30, "unknown": 20},
    "duplicates": {"exact": 0, "near": 10, "clusters": 4, "largest": 7},
    "order": {"imports": 90, "resolved": 60, "cyclic_files": 4, "of_a_later_version": 8},
    "projects": [
        {
            "repo": "a/<b>",
            "score": 0.75,
            "commits": 1200,
            "contributors": 9,
            "has_tests": True,
        },
        {"repo": "toy", "score": 0.25, "commits": 3, "contributors": 1, "has_tests": False},
    ],
    "benchmarks": {"humaneval": 2},
    "replay": {"documents": 7, "bytes": 1000, "share": 0.2},
}
CLUSTERS = [
    {"cluster": 3, "repo": "a", "path": "old.py", "similarity": 0.91, "is_kept": False},
    {"cluster": 3, "repo": "b", "path": "z.py", "similarity": 1.0, "is_kept": True},
    {"cluster": 1, "repo": "a", "path": "x.py", "similarity": 1.0, "is_kept": True},
    {"cluster": 1, "repo": "a", "path": "y<1>.py", "similarity": 0.86, "is_kept": False},
    {"cluster": 1, "repo": "a", "path": "w.py", "similarity": 0.97, "is_kept": False},
]


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(Table.from_pylist(rows), path)


def skipped(number: int, reason: str, detail: str) -> list[dict]:
    return [
        {"repo": "a", "path": f"{n}.py", "reason": reason, "detail": detail, "num_bytes": 9}
        for n in range(number)
    ]


@pytest.fixture
def run(tmp_path) -> Path:
    """Return a run folder with a corpus and no packs."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/counts.json").write_text(json.dumps(COUNTS))
    rows = skipped(40, "generated", "head says <protoc>") + skipped(
        10, "near-duplicate", "of b/z.py"
    )
    write_table(tmp_path / "corpus/skipped.parquet", rows)
    write_table(tmp_path / "corpus/clusters.parquet", CLUSTERS)
    return tmp_path


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Return the texts of the cells of the first table under a heading."""
    table = page[page.index(f"<h3>{heading}") :].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table)[1:]
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows)
    return [[cell for cell in row if "<svg" not in cell] for row in cells]


def test_funnel_lists_every_step_in_order(run):
    page = corpus_section(read_inputs(run))

    assert rows_of(page, "From what was found") == [
        ["found", "", "", "100", "2.00&nbsp;kB"],
        ["generated", "40", "1.20&nbsp;kB", "60", "800&nbsp;B"],
        ["&lt;near&gt;", "10", "300&nbsp;B", "50", "500&nbsp;B"],
    ]
    assert re.findall(r'class="dropped" x="(.*?)" width="(.*?)"', page) == [
        ("100.00", "0.00"),  # what was found
        ("40.00", "60.00"),
        ("25.00", "15.00"),
    ]


def test_twenty_files_of_each_reason_are_shown_with_what_was_measured(run):
    page = corpus_section(read_inputs(run))

    assert page.count("<small>head says &lt;protoc&gt;</small>") == 20
    assert page.count("<small>of b/z.py</small>") == 10


def test_the_draw_depends_on_the_paths_only(tmp_path, run):
    rows = parquet.read_table(run / "corpus/skipped.parquet").to_pylist()
    write_table(tmp_path / "other/corpus/skipped.parquet", rows[::-1])

    drawn = read_inputs(run).dropped["generated"].examples

    assert read_inputs(tmp_path / "other").dropped["generated"].examples == drawn
    assert [path for path, _ in drawn] != sorted(f"a/{n}.py" for n in range(40))[:20]


def test_largest_clusters_come_first_and_the_kept_file_on_top(run):
    first, second = read_inputs(run).clusters

    assert [path for path, _, _ in first.members] == ["a/x.py", "a/w.py", "a/y<1>.py"]
    assert [path for path, _, _ in second.members] == ["b/z.py", "a/old.py"]
    page = corpus_section(read_inputs(run))
    assert "3 files like <code>a/x.py</code>" in page
    assert "<code>a/y&lt;1&gt;.py</code> <small>86.0&nbsp;% alike</small>" in page


def test_every_part_of_the_counts_is_shown(run):
    page = corpus_section(read_inputs(run))

    for heading in ("Languages", "Licences", "Secrets and personal data", "Benchmarks", "Replay",
                    "Duplicates", "Order of the files", "Projects"):  # fmt: skip
        assert f"<h3>{heading}" in page
    assert "<dt>near copies</dt><dd>10</dd>" in page
    assert "<dt>files in cycles</dt><dd>4</dd></div><div><dt>of a later version</dt>" in page
    assert "20.0&nbsp;% of the training bytes" in page
    assert rows_of(page, "Projects") == [
        ["a/&lt;b&gt;", "0.750", "1,200", "9", "yes"],
        ["toy", "0.250", "3", "1", "no"],
    ]


def test_a_run_from_before_the_funnel_shows_its_reasons(tmp_path):
    stats = {"documents": {"kept": 3, "skipped": {"generated": 2}}, "languages": {"python": 3}}
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/stats.json").write_text(json.dumps(stats))
    rows = [{"repo": "", "path": f"{n}.py", "reason": "generated", "num_bytes": 1} for n in (1, 2)]
    write_table(tmp_path / "corpus/skipped.parquet", rows)

    page = corpus_section(read_inputs(tmp_path))

    assert re.findall("<h3>(.*?)</h3>", page) == ["Files left out, 2", "Languages"]
    assert "<li><code>1.py</code></li><li><code>2.py</code></li>" in page


@pytest.mark.parametrize("key", [key for key in COUNTS if key != "documents"])
def test_no_key_is_needed(run, key):
    counts = {name: value for name, value in COUNTS.items() if name != key}
    (run / "corpus/counts.json").write_text(json.dumps(counts))

    assert corpus_section(read_inputs(run)).startswith("<h3>F")


def test_a_corpus_without_duplicates_secrets_and_imports_has_no_empty_parts():
    counts = {
        "duplicates": {"exact": 0, "near": 0, "clusters": 0, "largest": 0},
        "order": {"imports": 0, "resolved": 0}, "secrets": {}, "projects": [], "benchmarks": {},
        "replay": {"documents": 0, "bytes": 0, "share": 0.0}, "languages": {"c": 1},
    }  # fmt: skip

    page = corpus_section(Inputs(name="r", counts=counts))

    assert re.findall("<h3>(.*?)</h3>", page) == ["Languages"]
