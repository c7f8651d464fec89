"""Tasks of evaluation sets are found inside larger files, and ordinary code holds none."""

import gzip
import json
import os
import random
import re
import sysconfig
from pathlib import Path

import pytest

from fim import Document, FimError
from finetune.corpus.copies.benchmarks import Benchmarks, find_near_tasks
from finetune.corpus.copies.dedup import make_record

DATA = Path(os.environ.get("SFIM_TEST_DATA", ""))
needs_data = pytest.mark.skipif(
    not (DATA / "humaneval-x").is_dir(), reason="SFIM_TEST_DATA names no folder with humaneval-x"
)
PROMPT = '''\
def count_pairs(readings, limit):
    """Count the pairs of neighboring readings that lie further apart than the limit.
    >>> count_pairs([1, 5, 6, 9], 2)
    2
    """
'''
SOLUTION = """\
    pairs = 0
    for left, right in zip(readings, readings[1:]):
        distance = abs(left - right)
        if distance > limit:
            pairs += 1
        elif distance == 0 and not readings[0]:
            continue
    return {"pairs": pairs, "limit": limit}
"""
TEST = "def check(candidate):\n" + "".join(
    f"    assert candidate([{n}, {n + 3}, alpha, beta_{n}], {n}) == gamma_{n}\n" for n in range(6)
)
HOST = "\n".join(f"def function_{n}(value):\n    return value + {n}\n" for n in range(300))


def write_set(path: Path, *rows: dict) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def benchmarks(tmp_path):
    row = {"task_id": "a/0", "prompt": PROMPT, "canonical_solution": SOLUTION, "test": TEST}
    row["declaration"] = PROMPT.splitlines()[0] + "\n"
    return Benchmarks.load([write_set(tmp_path / "pairs.jsonl.gz", row)])


def hide(text: str) -> bytes:
    half = len(HOST) // 2
    return (HOST[:half] + "\n" + text + "\n" + HOST[half:]).encode()


@pytest.mark.parametrize(
    "text",
    [
        PROMPT + SOLUTION,
        PROMPT,  # somebody's own solution follows
        SOLUTION,
        TEST,
        (PROMPT + SOLUTION).replace("count_pairs", "far_neighbors"),
        re.sub(r"\s+", " ", PROMPT + SOLUTION).replace('"', "'"),
        (PROMPT + SOLUTION).replace("\n", "\r\n"),
        "\n".join("# " + line for line in PROMPT.splitlines()),
    ],
)
def test_a_task_inside_a_larger_file_is_found(benchmarks, text):
    assert benchmarks.find(hide(text)) == "pairs"


@pytest.mark.parametrize(
    "text",
    [
        "",
        HOST,
        "for left, right in zip(readings, readings[1:]):\n    print(left, right)\n",
        "assert candidate([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) == 1\n" * 9,
        " ".join(sorted(PROMPT.split())),
        "Count the pairs of neighboring readings that lie next to each other\n",
    ],
)
def test_ordinary_code_holds_no_task(benchmarks, text):
    assert benchmarks.find(hide(text)) == ""
    assert benchmarks.find(text.encode()) == ""


def test_what_many_tasks_share_is_none(tmp_path):
    head = "import " + ", ".join(f"module_{letter}" for letter in "abcdefghijklmn") + "\n"
    rows = [
        {"prompt": head + "".join(f"task{n} word{n * k} " for k in range(20)), "test": head}
        for n in range(3)
    ]

    two, three = (
        Benchmarks.load([write_set(tmp_path / f"{count}.jsonl", *rows[:count])]) for count in (2, 3)
    )

    assert two.find(hide(head)) == "2"
    assert three.find(hide(head)) == ""
    assert three.find(hide(rows[0]["prompt"])) == "3"


def test_numbers_alone_are_no_task(tmp_path):
    numbers = ", ".join(map(str, range(60)))
    row = {"test": f"assert candidate([{numbers}]) == 1"}

    benchmarks = Benchmarks.load([write_set(tmp_path / "a.jsonl", row, {"prompt": PROMPT})])

    assert benchmarks.find(hide(f"TABLE = [{numbers}]")) == ""
    assert benchmarks.find(hide(PROMPT)) == "a"


def test_pieces_of_a_task_are_put_together(tmp_path):
    text = PROMPT + SOLUTION
    cuts = [(cut, cut + 20) for cut in range(200, 400, 25)]
    rows = [
        {"task_id": f"{a}", "prompt": text[:a], "canonical_solution": text[a:b], "suffix": text[b:]}
        for a, b in cuts
    ]

    benchmarks = Benchmarks.load([write_set(tmp_path / "infilling.jsonl", *rows)])

    assert len(benchmarks.tasks) == 1
    assert benchmarks.find(hide(text)) == "infilling"


def test_any_text_column_counts_and_lists_too(tmp_path):
    row = {
        "id": 7,
        "text": "Write a function. " + PROMPT,
        "test_list": TEST.splitlines(),
        "x": None,
    }

    benchmarks = Benchmarks.load([write_set(tmp_path / "mbpp.jsonl", row)])

    assert benchmarks.find(hide(PROMPT)) == benchmarks.find(hide(TEST)) == "mbpp"


def test_a_solution_with_other_names_alone_in_a_file_is_near(benchmarks):
    renamed = PROMPT.splitlines()[0] + "\n" + SOLUTION
    for old, new in {
        "pairs": "n",
        "left": "a",
        "right": "b",
        "distance": "d",
        "limit": "m",
    }.items():
        renamed = re.sub(rf'\b{old}\b(?!")', new, renamed)
    renamed = renamed.replace("readings", "xs").replace("count_n", "f")
    assert not benchmarks.find(renamed.encode())
    texts = [HOST, renamed]
    records = [
        make_record(Document(repo="r", path=f"{n}.py", language="python", text=text.encode()))
        for n, text in enumerate(texts)
    ]

    assert find_near_tasks(records, benchmarks) == {1: "pairs"}
    assert find_near_tasks(records, Benchmarks()) == {}


def test_no_benchmark_finds_nothing():
    assert Benchmarks.load([]).find(hide(PROMPT)) == ""


@pytest.mark.parametrize("content", [b"no json\n", b"[1, 2]\n", b"\x1f\x8b\x08 cut", b"\xff\xfe\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_bad_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(FimError, match=r"a\.jsonl.*expected JSON Lines, one task a line"):
        Benchmarks.load([path])


def test_a_packed_file_that_is_damaged_inside_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"")[:10] + b"\xff" * 20)  # no block of deflate

    with pytest.raises(FimError, match=r"a\.jsonl\.gz: expected JSON Lines"):
        Benchmarks.load([path])


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b'{"prompt": 5}\n'])
def test_a_file_without_a_task_guards_nothing_and_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)

    with pytest.raises(FimError, match=r"a\.jsonl: no task in it"):
        Benchmarks.load([tmp_path / "a.jsonl"])


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}"])
def test_a_deep_row_is_refused(tmp_path, deep):
    (tmp_path / "a.jsonl").write_bytes(deep)

    with pytest.raises(FimError, match="recursion"):
        Benchmarks.load([tmp_path / "a.jsonl"])


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path):
    task = json.dumps({"prompt": PROMPT, "canonical_solution": SOLUTION}).encode()
    (tmp_path / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + task + b"\n\n" + task + b"\n\n")

    assert Benchmarks.load([tmp_path / "pairs.jsonl"]).find(hide(PROMPT)) == "pairs"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FimError, match=r"missing\.jsonl"):
        Benchmarks.load([tmp_path / "missing.jsonl"])


@pytest.fixture(scope="module")
def human_eval() -> Benchmarks:
    return Benchmarks.load(sorted(DATA.glob("human*/*.jsonl.gz")))


@needs_data
@pytest.mark.parametrize("name", ["python", "java", "cpp", "js", "go", "rust"])
def test_every_task_of_human_eval_is_found(human_eval, name):
    with gzip.open(DATA / "humaneval-x" / f"humaneval_{name}.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 164

    columns = ("prompt", *(("declaration",) if name == "rust" else ()), "canonical_solution")
    texts = [("".join(row[column] for column in columns), _function(row)) for row in rows]
    whole = [text for text, _ in texts]
    renamed = [re.sub(rf"\b{function}\b", "my_own", text) for text, function in texts]

    assert sum(bool(human_eval.find(hide(text))) for text in whole) == 164
    assert sum(bool(human_eval.find(hide(text))) for text in renamed) >= 0.95 * 164


def _function(row: dict) -> str:
    names = re.findall(r"(\w+)\s*(?:=\s*)?\(", row["declaration"])
    return names[-1] if names else "function"


@needs_data
def test_the_standard_library_holds_no_task(human_eval):
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    chosen = random.Random(0).sample(paths, 60)

    assert [path.name for path in chosen if human_eval.find(path.read_bytes())] == []
