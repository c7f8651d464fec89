"""An audit finds nothing in what `prepare` made, and finds every fault that is planted in it."""

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_code import make_code, make_javascript

from finetune.audit.read import Row
from finetune.audit.samples import RULES, audit
from finetune.audit.tree import covered_thrice, middle_faults, walk_tree
from finetune.cli import main
from finetune.prepare import prepare
from finetune.recipe.corpus import Corpus, Source, Split
from finetune.recipe.file import write_recipe
from finetune.recipe.schema import Evaluate, Fim, Model, Recipe, Train
from finetune.samples.tokenizer import save_tokenizer

ROOT = Path(__file__).parents[1]
FAMILIES = ("qwen2.5-coder", "starcoder2", "deepseek-coder", "codellama", "aixcoder")
FORBIDDEN = {
    "fim.spans", "fim.samples", "fim.syntax", "fim.encoding", "fim.content", "fim.packing",
    "finetune.samples.sampling", "finetune.samples.packs", "finetune.prepare", "finetune.corpus",
}  # fmt: skip
SHARED_NAMES = {"FORMATS", "LANGUAGES", "IGNORE_INDEX", "FimError"}
PYTHON = '''\
import os


class Größe{0}:
    """Says 'é' and '日😀': <|fim_prefix|> <fim_suffix> ▁<PRE> </s>."""

    def wide(self, width, height={0}):
        # the sum of both
        total = width + height
        if total > {0}:
            return os.path.join(str(total), "ü")
        for item in range(total):
            print(item, total, sep=" ")
        return total * {0}


def main_{0}(values):
    try:
        return [Größe{0}().wide(value) for value in values if value]
    except ValueError:
        return []
'''
JAVASCRIPT = """\
import {{ read }} from "fs";

class Cart{0} extends Base {{
  #items = [];
  add(item) {{
    if (item.price > {0}) {{
      this.#items.push(item);
    }}
    return this.#items.map((one) => one.price).reduce((a, b) => a + b, {0});
  }}
}}

export async function load{0}(url) {{
  try {{
    return await fetch(url);
  }} catch (error) {{
    console.log(`no ${{url}}: ${{error}}`);
  }}
}}
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    """Two dozen files: small ones that fit a window, large ones that do not, one of no code."""
    folder = tmp_path_factory.mktemp("code")
    for number in range(12):
        times = 1 if number % 3 else 6
        python = "\n\n".join(PYTHON.format(100 * number + i) for i in range(times))
        python += f"\n\n{make_code(number, 3 * times).decode()}"
        javascript = "\n".join(JAVASCRIPT.format(100 * number + i) for i in range(times))
        javascript += make_javascript(number, 3 * times).decode()
        if number % 4 == 1:
            python = python.replace("\n", "\r\n")
        (folder / f"m{number}.py").write_text(python, encoding="utf-8", newline="")
        (folder / f"c{number}.js").write_text(javascript, encoding="utf-8")
    (folder / "notes.unknown").write_text("nothing")
    return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory, tiny_tokenizer, code) -> Callable[..., Path]:
    """A factory `(family, **fim) -> run folder`, prepared."""

    def make(family: str, **fim) -> Path:
        here = tmp_path_factory.mktemp("run")
        save_tokenizer(tiny_tokenizer(family), here / "base")
        recipe = Recipe(
            name="run",
            runs=str(here),
            model=Model(name=str(here / "base")),
            corpus=Corpus(
                sources=(Source(folder=str(code)),), split=Split(eval_rate=0.2), workers=1
            ),
            fim=Fim(**({"max_length": 384, "orders": {"psm": 0.5, "spm": 0.5}} | fim)),
            train=Train(epochs=2),
            evaluate=Evaluate(max_new_tokens=16),
        )
        prepare(recipe)
        assert (recipe.folder / "recipe.yaml").read_text() == write_recipe(recipe)
        return recipe.folder

    return make


@pytest.fixture(scope="module")
def sound(build) -> Path:
    """A run without a fault; read only."""
    return build("qwen2.5-coder", fim_rate=0.8)


@pytest.fixture
def run(sound, tmp_path) -> Path:
    """A copy of it to plant faults in."""
    return shutil.copytree(sound, tmp_path / "run")


def broken(run: Path) -> set[str]:
    return {rule for rule, number in audit(run, workers=1)["violations"].items() if number}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untouched_run_breaks_no_rule(build, family):
    result = audit(build(family))

    assert result["violations"] == dict.fromkeys(RULES, 0)
    assert result["examples"] == []
    assert result["documents"] == 24
    assert result["samples"].keys() >= {"ar", "node", "siblings", "construct", "cursor", "random"}


@pytest.mark.parametrize(
    "fim",
    [
        {"loss": "middle"},
        {"path_header": "comment"},
        {"path_header": "family", "loss": "middle"},
        {"max_length": 2_048, "context": "repo"},
        {"context": "repo", "path_header": "family"},
        {"fim_rate": 0.0},
    ],
)
@pytest.mark.parametrize("family", ["starcoder2", "codellama"])
def test_every_way_to_render_breaks_no_rule(build, family, fim):
    assert audit(build(family, **fim))["violations"] == dict.fromkeys(RULES, 0)


# Planting faults ----------------------------------------------------------------------------------


def change_rows(run: Path, change: Callable[[dict], None], split: str = "train") -> None:
    """Change rows of `samples.parquet` in place."""
    import pyarrow
    from pyarrow import parquet

    path = run / "packs" / split / "samples.parquet"
    table = parquet.read_table(path)
    rows = table.to_pylist()
    change(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), path)


def change_packs(run: Path, change: Callable[[list[dict]], None]) -> None:
    """Change the training packs in place."""
    from datasets import Dataset, load_from_disk

    folder = run / "packs" / "train"
    packs = load_from_disk(str(folder))
    features, rows = packs.features, packs.to_list()
    change(rows)
    Dataset.from_list(rows, features=features).save_to_disk(run / "changed")
    (folder / "samples.parquet").rename(run / "changed" / "samples.parquet")
    shutil.rmtree(folder)
    (run / "changed").rename(folder)


def change_stats(run: Path, change: Callable[[dict], None]) -> None:
    path = run / "packs" / "stats.json"
    stats = json.loads(path.read_text())
    change(stats)
    path.write_text(json.dumps(stats))


def change_documents(run: Path, change: Callable[[list[dict]], None]) -> None:
    import pyarrow
    from pyarrow import parquet

    path = run / "corpus" / "documents.parquet"
    table = parquet.read_table(path)
    rows = table.to_pylist()
    change(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), path)


def first(rows: list[dict], **wanted) -> dict:
    return next(row for row in rows if all(row[k] == v for k, v in wanted.items()))


def sample_in(packs: list[dict], rows: list[dict], **wanted) -> tuple[dict, slice]:
    """The pack that holds the first sample with some values, and its place in it."""
    name = first(rows, **wanted)["sample_id"]
    pack = next(pack for pack in packs if name in pack["sample_ids"])
    number = pack["sample_ids"].index(name)
    start = sum(pack["seq_lengths"][:number])
    return pack, slice(start, start + pack["seq_lengths"][number])


def rows_of(run: Path) -> list[dict]:
    from pyarrow import parquet

    return parquet.read_table(run / "packs" / "train" / "samples.parquet").to_pylist()


@pytest.mark.parametrize(
    ("wanted", "values", "expected"),
    [
        ({"sampler": "node"}, {"kind": "elsewhere"}, {"kinds", "stats"}),
        ({"sampler": "cursor"}, {"kind": "elsewhere"}, {"kinds", "stats"}),
        ({"sampler": "siblings"}, {"sampler": "guess"}, {"samplers", "weights", "stats"}),
        ({"sampler": "empty"}, {"boundary": "somewhere"}, {"stats"}),
        ({"sampler": "node"}, {"boundary": "somewhere"}, {"boundaries", "weights", "stats"}),
        ({"sampler": "node"}, {"end_byte": 10**9}, {"offsets"}),
        ({"order": "psm", "sampler": "empty"}, {"node_start_byte": -1}, {"offsets"}),
        ({"order": "ar"}, {"end_byte": 10**9}, {"offsets"}),
        ({"order": "psm"}, {"order": "spm"}, {"layout", "stats"}),
        ({"order": "psm"}, {"path": "other.py"}, {"documents"}),
        ({"order": "psm"}, {"language": "go"}, {"documents"}),
        ({"order": "psm"}, {"document_id": "0" * 32}, {"documents", "windows"}),
        ({"order": "psm"}, {"middle_tokens": 1}, {"counts"}),
        ({"order": "psm"}, {"prefix_tokens": 0}, {"counts"}),
        ({"order": "spm"}, {"suffix_tokens": 10**6}, {"counts"}),
        ({"order": "ar"}, {"middle_tokens": 10**6}, {"counts"}),
        ({"order": "ar", "epoch": 0}, {"epoch": 1}, {"packs", "windows"}),
    ],
)  # fmt: skip
def test_a_wrong_row_breaks_its_rules(run, wanted, values, expected):
    change_rows(run, lambda rows: first(rows, **wanted).update(values))

    assert broken(run) == expected


def test_shifted_offsets_are_no_node(run):
    def shift(rows):
        row = max((r for r in rows if r["sampler"] == "node"), key=lambda r: r["middle_tokens"])
        row["node_start_byte"] = row["start_byte"] = row["node_start_byte"] + 1

    change_rows(run, shift)

    assert {"nodes", "texts"} <= broken(run)


def test_a_third_middle_over_one_byte(run):
    def cover(rows):
        chosen = first(rows, sampler="siblings", epoch=0)
        for window in (900, 901):
            rows.append(chosen | {"sample_id": f"{chosen['document_id']}-0-{window}"})

    change_rows(run, cover)

    assert broken(run) == {"coverage", "packs", "windows", "stats"}


def test_held_out_documents_in_training_packs(run):
    def leak(documents):
        wanted = rows_of(run)[0]["document_id"]
        first(documents, id=wanted)["split"] = "eval"

    change_documents(run, leak)

    assert broken(run) == {"sides", "windows", "stats"}


def test_another_text_under_the_same_id(run):
    change_documents(run, lambda documents: documents[0].update(text=documents[0]["text"] + b"\n"))

    assert "documents" in broken(run)


def test_a_document_too_few(run):
    change_documents(run, lambda documents: documents.pop(0))

    assert broken(run) == {"documents", "stats"}


def _swap_sentinels(ids: list[int], control: list[int]) -> None:
    ids[control[0]], ids[control[1]] = ids[control[1]], ids[control[0]]


def _double_sentinel(ids: list[int], control: list[int]) -> None:
    ids[control[0] + 1] = ids[control[0]]


def _lose_end(ids: list[int], control: list[int]) -> None:
    ids[-1] = ids[-2]


def _lose_sentinel(ids: list[int], control: list[int]) -> None:
    ids[control[1]] = ids[control[1] + 1]


def _change_text(ids: list[int], control: list[int]) -> None:
    middle = control[-2] + 1
    ids[middle] = next(i for i in ids[1:] if i not in (ids[middle], *map(ids.__getitem__, control)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_swap_sentinels, {"layout"}),
        (_double_sentinel, {"layout"}),
        (_lose_sentinel, {"layout"}),
        (_lose_end, {"ends"}),
        (_change_text, {"texts"}),
    ],
)  # fmt: skip
def test_wrong_ids_break_their_rule(run, change, expected):
    rows = rows_of(run)

    def plant(packs):
        # labels follow the ids, so that no other rule sees it
        pack, place = sample_in(packs, rows, order="psm", sampler="siblings")
        ids = pack["input_ids"][place]
        change(ids, [i for i, token in enumerate(ids) if token >= 400])  # the added tokens
        pack["input_ids"][place] = ids
        learned = pack["labels"][place]
        pack["labels"][place] = [
            old if old == -100 else new for old, new in zip(learned, ids, strict=True)
        ]

    change_packs(run, plant)

    assert broken(run) == expected


def test_held_out_files_as_context_of_training_samples(build, tmp_path):
    run = shutil.copytree(
        build("starcoder2", max_length=2_048, context="repo"), tmp_path / "with_context"
    )
    rows = rows_of(run)
    used = {row["document_id"] for row in rows}

    def hold_out(documents):
        # all but a short document with room for context: whatever came before it is now held out
        short = [d for d in documents if d["id"] in used and d["num_bytes"] < 1_500]
        for document in documents:
            document["split"] = "train" if document is short[-1] else "eval"

    assert "contexts" not in broken(run)
    change_documents(run, hold_out)
    assert "contexts" in broken(run)


def _learn_the_first(pack: dict, place: slice) -> None:
    pack["labels"][place.start] = pack["input_ids"][place.start]


def _ignore_one(pack: dict, place: slice) -> None:
    pack["labels"][place.stop - 1] = -100


@pytest.mark.parametrize("change", [_learn_the_first, _ignore_one])
def test_wrong_labels_break_their_rule(run, change):
    rows = rows_of(run)

    change_packs(run, lambda packs: change(*sample_in(packs, rows, order="spm")))

    assert broken(run) == {"labels"}


def _drop_row(rows: list[dict]) -> None:
    rows.remove(first(rows, order="ar"))


def test_a_dropped_row(run):
    change_rows(run, _drop_row)

    assert broken(run) == {"packs", "windows", "stats"}


def _drop_sample(packs: list[dict]) -> None:
    del packs[-1]


def _repeat_pack(packs: list[dict]) -> None:
    packs.append(packs[-1])


def _wrong_lengths(packs: list[dict]) -> None:
    packs[-1]["input_ids"].append(1)
    packs[-1]["labels"].append(1)


def _mix_epochs(packs: list[dict]) -> None:
    packs.reverse()


def _join_packs(packs: list[dict]) -> None:
    for name in ("input_ids", "labels", "seq_lengths", "sample_ids"):
        packs[0][name] += packs[1][name]
    del packs[1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_drop_sample, {"packs", "stats"}),
        (_repeat_pack, {"packs", "stats"}),
        (_wrong_lengths, {"packs"}),
        (_mix_epochs, {"packs"}),
        (_join_packs, {"packs", "stats"}),
    ],
)  # fmt: skip
def test_wrong_packs_break_their_rule(run, change, expected):
    change_packs(run, change)

    assert broken(run) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda stats: stats["documents"].update(kept=25), {"stats"}),
        (lambda stats: stats["documents"]["skipped"].clear(), {"stats"}),
        (lambda stats: stats["samples"].update(ar=0), {"stats"}),
        (lambda stats: stats.update(tokens=1), {"stats"}),
        (lambda stats: stats.update(utilisation=1.0), {"stats"}),
        (lambda stats: stats["lost"].update({"too-long": 3}), {"windows"}),
    ],
)
def test_wrong_counts_break_their_rule(run, change, expected):
    change_stats(run, change)

    assert broken(run) == expected


# The rules of a tree, on literal files ------------------------------------------------------------

CODE = (
    b"def f(a):\n    x = a + 1\n    y = g(x, a)\n\n\nif f(2) >:\n    h(1)\n\n\n"
    b"def i():\n    return 5\n"
)
ROW = Row(
    split="train", sample_id="d-0-0", document_id="d", repo="r", path="a.py", language="python",
    order="psm", sampler="node", kind="", boundary="exact", start_byte=0, end_byte=0,
    node_start_byte=0, epoch=0, prefix_tokens=0, middle_tokens=0, suffix_tokens=0, places=(),
)  # fmt: skip


def faults(sampler, text, kind="", boundary="exact", blanks=0, code=CODE) -> set[str]:
    """Rules broken by a MIDDLE of `code` that is `text`, with so many blanks before the node."""
    start = code.index(text)
    row = replace(
        ROW, sampler=sampler, kind=kind, boundary=boundary, start_byte=start,
        node_start_byte=start + blanks, end_byte=start + len(text),
    )  # fmt: skip
    return set(middle_faults(row, walk_tree(code, "python", [row], max_bytes=40)))


@pytest.mark.parametrize(
    ("sampler", "text", "kind", "expected"),
    [
        ("node", b"x = a + 1", "assignment", set()),
        ("node", b"x = a + 1", "expression_statement", set()),
        ("node", b"x = a + 1", "block", {"kinds"}),
        ("node", b"x = a + ", "assignment", {"nodes"}),
        ("node", b"x = a + 1\n    y = g(x, a)", "block", set()),
        ("node", b"a + 1", "binary_operator", {"sizes"}),
        ("node", b"g(x, a)", "call", set()),
        ("siblings", b"g(x, a)", "call", set()),
        ("siblings", b"= g(x, a)", "assignment", {"nodes"}),  # starts with no named node
        ("construct", b"= g(x, a)", "assignment", set()),
        ("construct", b"def f(a):", "function_definition", set()),
        ("construct", b"return", "return_statement", set()),  # one token, which has no name
        ("node", b"return", "return_statement", {"nodes"}),
        ("node", b"def f(a):", "function_definition", {"nodes"}),
        ("node", b"f(2) >:\n    h(1)", "call", {"nodes"}),
        ("cursor", b"a + 1\n    y = g(x, a)", "block", set()),
        ("cursor", b"+ 1\n    y = g(x, a)", "block", set()),
        ("cursor", b" + 1\n    y = g(x, a)", "block", {"cursors"}),
        (
            "cursor",
            b"x = a + 1\n    y = g(x, a)",
            "block",
            {"kinds"},
        ),  # all of it
        ("cursor", b"a + 1\n    y = g(x", "block", {"cursors"}),
        ("cursor", b"a + 1\n    y = g(x, a)", "call", {"kinds"}),
        ("cursor", b"a + 1", "assignment", {"sizes"}),
        ("empty", b"", "", set()),
        ("empty", b"x = a", "", {"empties"}),
        ("random", b"f f(a):\n  ", "", set()),
        ("random", CODE, "", {"randoms"}),
        ("random", b"f f(a):\n  ", "block", {"randoms"}),
        ("chance", b"x = a + 1", "assignment", {"samplers"}),
    ],
)
def test_middles_of_a_tree(sampler, text, kind, expected):
    assert faults(sampler, text, kind) == expected


@pytest.mark.parametrize(
    ("text", "blanks", "boundary", "expected"),
    [
        (b"x = a + 1", 0, "exact", set()),
        (b" x = a + 1", 1, "exact", {"boundaries"}),
        (b"    x = a + 1", 4, "line", set()),
        (b"  x = a + 1", 2, "line", {"boundaries"}),
        (b"\n    x = a + 1", 5, "blanks", set()),
        (b"    x = a + 1", 4, "blanks", {"boundaries"}),
        (b":\n    x = a + 1", 6, "blanks", {"boundaries"}),
        (b"x = a + 1", 0, "line", {"boundaries"}),
    ],
)
def test_blanks_that_lead_are_those_of_the_boundary(text, blanks, boundary, expected):
    assert faults("node", text, "assignment", boundary, blanks) == expected


def test_a_node_in_a_syntax_error_is_no_middle():
    code = b"def f(:\n    return some_value + 1\n\n\nx = compute(1)\n"

    assert faults("node", b"compute(1)", "call", code=code) == set()
    assert "errors" in faults("node", b"some_value", "identifier", code=b"x = ) ) some_value ( (\n")


def test_the_whole_file_is_no_run_of_siblings():
    code = b"import os\nimport re\n"

    assert faults("siblings", b"import os\nimport re", "module", code=code) == {"nodes"}
    assert faults("node", b"import os\nimport re\n", "module", code=code) == {"nodes"}


def test_offsets_inside_a_character_are_none():
    row = replace(ROW, sampler="random", start_byte=1, node_start_byte=1, end_byte=2)

    assert set(middle_faults(row, walk_tree("é = 1".encode(), "python", [row], 40))) == {"offsets"}


def test_a_byte_in_three_middles_is_found_and_one_in_two_is_not():
    spans = [(0, 10), (5, 15), (10, 20), (12, 12), (14, 30)]
    rows = [replace(ROW, start_byte=a, end_byte=b) for a, b in spans]

    assert [(r.start_byte, r.end_byte) for r in covered_thrice(rows)] == [(14, 30)]
    assert list(covered_thrice(rows[:4])) == []


# The verb and its independence --------------------------------------------------------------------


def test_the_verb_prints_one_object_and_fails_where_a_rule_is_broken(run, capsys):
    assert main(["audit", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["violations"] == dict.fromkeys(RULES, 0)

    change_rows(run, lambda rows: first(rows, sampler="node").update(kind="elsewhere"))

    assert main(["audit", str(run), "--json"]) == 1
    out, error = capsys.readouterr()
    (example, _) = json.loads(out)["examples"]
    assert (example["rule"], example["sampler"]) == ("kinds", "node")
    assert error.count("\n") == 1
    assert main(["audit", str(run)]) == 1
    assert "kinds: not true that" in capsys.readouterr().out


def test_workers_find_the_same(sound, monkeypatch):
    monkeypatch.setattr("finetune.audit.samples._SMALL_BYTES", 0)
    monkeypatch.setattr("finetune.audit.samples._DOCUMENTS_PER_TASK", 5)

    alone, together = audit(sound, workers=1), audit(sound, workers=2)

    assert {**alone, "seconds": 0} == {**together, "seconds": 0}


@pytest.mark.parametrize("missing", ["recipe.yaml", "packs/manifest.json"])
def test_a_folder_that_is_no_prepared_run_is_refused(run, capsys, missing):
    (run / missing).unlink()

    assert main(["audit", str(run)]) == 1
    assert str(run) in capsys.readouterr().err


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."
            if node.module == "fim":
                assert {alias.name for alias in node.names} <= SHARED_NAMES


def test_the_audit_shares_no_code_with_what_it_checks():
    paths = sorted((ROOT / "finetune" / "audit").glob("*.py"))

    names = {name for path in paths for name in imported(path)}

    assert len(paths) >= 6
    assert not {n for n in names if any(n == f or n.startswith(f + ".") for f in FORBIDDEN)}
