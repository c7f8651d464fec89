"""The report is one self-contained, well-formed file, whatever the run folder holds so far.

PYTHONPATH=. python -m pytest tests/test_report.py
"""

import json
import math
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from finetune.report.page import write_report

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SECTIONS = ("results", "training", "completions", "samples", "corpus", "data", "recipe")
INPUTS = (
    "recipe.yaml", "log.jsonl", "metrics.json", "predictions.parquet", "packs/stats.json",
    "packs/manifest.json", "packs/train/samples.parquet", "corpus/skipped.parquet",
    "corpus/documents.parquet",
)  # fmt: skip
VOID = {"meta", "br", "hr", "img", "link", "input"}

PYTHON = '''"""Invoices that are due, and what is still owed on them."""

from datetime import date, timedelta
from decimal import Decimal

GRACE = timedelta(days=14)
# <script>alert(1)</script> stays text, and so does &amp; here


def overdue(ledger: Ledger, today: date) -> list[Invoice]:
    """Return invoices whose grace period has ended, the oldest first."""
    found = []
    for invoice in ledger.invoices():
        if invoice.paid_at is None and invoice.due + GRACE < today:
            found.append(invoice)
    return sorted(found, key=lambda invoice: invoice.due)


def total_owed(invoices: list[Invoice], currency: str = "EUR") -> Decimal:
    return sum((i.amount - i.paid for i in invoices if i.currency == currency), Decimal(0))


def remind(ledger: Ledger, mailer, today: date) -> int:
    customers = {invoice.customer for invoice in overdue(ledger, today)}
    for customer in sorted(customers, key=lambda c: c.number):
        mailer.send(customer.email, "reminder", {"name": customer.name})
    return len(customers)
'''

JAVA = """package com.acme.billing;

import java.util.ArrayList;
import java.util.List;

/** Keeps rates per country and rounds the way the tax office does. */
public final class TaxTable {
    private final List<Rate> rates = new ArrayList<>();

    public long taxCents(String country, long netCents) {
        for (Rate rate : rates) {
            if (rate.country().equals(country)) {
                return Math.round(netCents * rate.percent() / 100.0);
            }
        }
        throw new IllegalStateException("no rate for " + country);
    }

    private record Rate(String country, double percent) {}
}
"""

RECIPE = """name: payments
model: {name: Qwen/Qwen2.5-Coder-1.5B, adapter: lora, lora_r: 16}
corpus:
  sources:
  - {git: /home/someone/code/payments, ref: main}
  - {git: 'https://someone:hunter2@git.example.org/billing.git'}
fim: {fim_rate: 0.7, max_length: 8192}
train: {epochs: 2, learning_rate: 1.0e-4}
"""


def _write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _sample(text: str, piece: str, number: int, order: str, sampler: str, kind: str) -> dict:
    python = text is PYTHON
    start = len(text[: text.index(piece)].encode())
    end = start + len(piece.encode())
    fim = order != "ar"
    return {
        "sample_id": f"{'4a' if python else '9c'}-0-{number}",
        "document_id": "4a" if python else "9c",
        "repo": "payments" if python else "billing",
        "path": "payments/overdue.py" if python else "src/main/java/com/acme/TaxTable.java",
        "language": "python" if python else "java",
        "order": order,
        "sampler": sampler,
        "kind": kind,
        "boundary": "blanks" if number % 2 and fim else "exact",
        "start_byte": start,
        "end_byte": end,
        "node_start_byte": start,
        "epoch": 0,
        "prefix_tokens": start // 4 if fim else 0,
        "middle_tokens": len(piece) // 4,
        "suffix_tokens": (len(text) - end) // 4 if fim else 0,
    }


def _samples() -> list[dict]:
    remind = PYTHON[PYTHON.index("def remind") :]
    loop = JAVA[JAVA.index("        for (Rate") : JAVA.index("        throw new IllegalState")]
    rows = [
        _sample(PYTHON, "invoice.paid_at is None", 0, "psm", "node", "comparison_operator"),
        _sample(PYTHON, "GRACE = timedelta(days=14)\n# <script>", 1, "spm", "siblings", "module"),
        _sample(PYTHON, remind, 2, "ar", "", ""),
        _sample(PYTHON, "{invoice.customer for", 3, "psm", "cursor", "set_comprehension"),
        _sample(PYTHON, "mount - i.paid for", 4, "spm", "random", ""),
        _sample(JAVA, loop, 5, "psm", "construct", "enhanced_for_statement"),
        _sample(JAVA, 'throw new IllegalStateException("', 6, "spm", "siblings", "block"),
        _sample(JAVA, "", 7, "psm", "empty", "program"),
    ]
    generator = random.Random(0)
    filler = dict(rows[0], document_id="ff")
    for number in range(600):
        tokens = int(generator.lognormvariate(3.2, 1.1))
        rows.append(dict(filler, sample_id=f"ff-0-{number}", middle_tokens=tokens))
    return rows


STATS = {
    "documents": {"kept": 1843, "skipped": {"generated": 212, "duplicate": 131, "too_long": 9}},
    "languages": {"python": 1204, "java": 587, "yaml": 52},
    "samples": {"psm": 4102, "spm": 4055, "ar": 3518},
    "samplers": {"node": 2451, "siblings": 2440, "construct": 1222, "cursor": 1063, "random": 981},
    "kinds": {f"kind_{n}": 900 // (n + 1) for n in range(26)} | {"call": 811, "block": 640},
    "packs": 912, "tokens": 7_311_204, "utilisation": 0.9787, "seconds": 83.2, "bytes": 14_802_113,
    "boundaries": {"exact": 5210, "blanks": 1922, "line": 1025},
    "middle_bytes": {"p10": 14, "p50": 96, "p90": 611},
    "held_out": {"documents": 97},
    "tokens_by_order": {"psm": 2_810_000, "spm": 2_790_000, "ar": 1_711_204},
    "redrawn": {"too_long": 14}, "format": "qwen2.5-coder", "window_bytes": 24_300,
}  # fmt: skip


def _numbers(scale: float) -> dict:
    return {
        "n": 400, "files": 97, "stop_rate": 0.93, "loss_middle": 0.92 / scale,
        "exact_match": 0.31 * scale, "edit_similarity": 0.66 * scale,
        "parse_rate": 1.11 - 0.23 * scale,
    }  # fmt: skip


def _paired(scale: float) -> dict:
    return {
        "loss_middle": {"difference": -0.11 * scale, "low": -0.15, "high": -0.07},
        "exact_match": {"difference": 0.062 * scale, "low": 0.021, "high": 0.104},
        "edit_similarity": {"difference": 0.02 * scale, "low": -0.004, "high": 0.044},
        "parse_rate": {"difference": -0.03, "low": -0.051, "high": -0.008},
        "stop_rate": {"difference": 0.0, "low": -0.01, "high": 0.01},
    }


def _metrics() -> dict:
    scenarios, languages = ("call_arguments", "function_body", "import"), ("python", "java")
    value = {"paired": _paired(1) | {"loss_ar": {"difference": -0.1, "low": -0.13, "high": -0.08}}}
    for side, scale in (("base", 1.0), ("adapter", 1.13)):
        value[side] = _numbers(scale) | {"loss_ar": 1.21 / scale}
        value[side]["by_scenario"] = {s: _numbers(scale) | {"n": 80} for s in scenarios}
        value[side]["by_language"] = {s: _numbers(scale) | {"n": 200} for s in languages}
    value["paired"]["by_scenario"] = {s: _paired(0.7 + i / 8) for i, s in enumerate(scenarios)}
    value["paired"]["by_language"] = {s: _paired(1) for s in languages}
    return value


def _predictions() -> list[dict]:
    generator, rows = random.Random(1), []
    for number in range(40):
        text, piece = (
            (PYTHON, "invoice.paid_at is None") if number % 3 else (JAVA, "rate.country()")
        )
        start = text.index(piece)
        rows.append({
            "path": "payments/overdue.py" if text is PYTHON else "src/TaxTable.java",
            "language": "python" if text is PYTHON else "java",
            "scenario": "if_condition",
            "start_byte": start + number,
            "end_byte": start + number + len(piece),
            "prefix_tail": text[max(0, start - 400) : start],
            "middle": piece,
            "suffix_head": text[start + len(piece) :][:300],
            "base": ["invoice.due < today", "rate.country()", ""][number % 3],
            "adapter": [piece, "invoice.paid_at is not None", piece][number % 3],
            "base_loss": generator.uniform(0.3, 1.6),
            "adapter_loss": generator.uniform(0.2, 1.5),
        })  # fmt: skip
    return rows


def make_run(run: Path) -> Path:
    """Write every input of a report."""
    (run / "packs").mkdir(parents=True)
    (run / "recipe.yaml").write_text(RECIPE)
    (run / "packs/stats.json").write_text(json.dumps(STATS))
    versions = {"python": "3.11.2", "torch": "2.11.0", "tree-sitter-java": "0.23.5"}
    (run / "packs/manifest.json").write_text(json.dumps({"versions": versions}))
    (run / "metrics.json").write_text(json.dumps(_metrics()))
    _write_table(run / "packs/train/samples.parquet", _samples())
    skipped = [("generated", "api_pb2.py"), ("generated", "<b>.py"), ("duplicate", "copy of a.py")]
    rows = [{"repo": "payments", "path": p, "reason": r, "num_bytes": 9} for r, p in skipped]
    _write_table(run / "corpus/skipped.parquet", rows)
    rows = [{"id": "4a", "text": PYTHON.encode()}, {"id": "9c", "text": JAVA.encode()}]
    _write_table(run / "corpus/documents.parquet", rows)
    _write_table(run / "predictions.parquet", _predictions())
    generator = random.Random(2)
    log = [
        {"step": n, "loss": 0.6 + 0.9 * math.exp(-n / 90) + generator.gauss(0, 0.06),
         "learning_rate": 1e-4 * min(1, n / 30) * (1 - n / 460), "tokens": 8192 * n, "seconds": n,
         "tokens_per_second": 8000 + 40 * (n % 7), "mfu": 0.41}
        for n in range(1, 457)
    ]  # fmt: skip
    kinds = {
        "loss_middle": 0.71, "loss_ar": 0.9, "order/psm": 0.7, "order/spm": 0.72,
        "sampler/node": 0.66, "sampler/cursor": 0.8, "kind/if_statement": 0.5, "kind/<b>": 0.75,
    }  # fmt: skip
    log += [
        {"step": step} | {name: low + 0.7 * math.exp(-step / 80) for name, low in kinds.items()}
        for step in range(0, 457, 50)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"step": 45')
    return run


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder with every input."""
    return make_run(tmp_path_factory.mktemp("runs") / "payments")


class _Balance(HTMLParser):
    """Collects open tags, tags closed in the wrong order, ids and resources."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.resources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def _note(self, attrs: list) -> None:
        self.ids += [value for name, value in attrs if name == "id"]
        self.resources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def read_page(path: Path) -> tuple[str, _Balance]:
    """Read and parse a report; it must be well-formed."""
    text = path.read_text(encoding="utf-8")
    parsed = _Balance()
    parsed.feed(text)
    parsed.close()
    assert parsed.wrong == []
    assert parsed.open == []
    return text, parsed


def test_full_report_has_every_section_and_nothing_missing(full):
    text, parsed = read_page(write_report(full))

    assert parsed.ids == list(SECTIONS)
    assert parsed.resources == [f"#{name}" for name in SECTIONS]
    assert 'class="absent"' not in text
    assert "Qwen/Qwen2.5-Coder-1.5B" in text
    assert "1,843 files" in text
    assert "torch" in text


def test_report_needs_nothing_from_outside(full):
    text, _ = read_page(write_report(full))
    resources = re.findall(r"(?:src|href)\s*=|url\(|@import|<script|<link|<iframe", text)

    assert set(resources) == {"href="}
    assert re.findall(r"https?://[^/\s]*", text) == ["https://git.example.org"]  # recipe, as text
    assert str(full) not in text
    assert str(full.parent) not in text
    assert "someone" not in text
    assert "hunter2" not in text


def test_source_code_stays_text(full):
    text, _ = read_page(write_report(full))

    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "alert(1)&lt;/script&gt;" in text
    assert "&amp;amp; here" in text
    assert "payments/&lt;b&gt;.py" in text


def test_samples_show_prefix_middle_and_suffix_of_each_order(full):
    text, _ = read_page(write_report(full))
    shown = text[text.index('<section id="samples"') : text.index('<section id="corpus"')]

    for order in ("PSM", "SPM", "AR"):
        assert f'<span class="chip">{order}</span>' in shown
    for sampler in ("node", "siblings", "construct", "cursor", "empty", "random"):
        assert f'<span class="chip">{sampler}</span>' in shown
    assert '<span class="middle">invoice.paid_at is None</span><span class="suffix"> and' in shown
    assert '<span class="middle">&empty;</span>' in shown


def test_completions_are_marked_where_they_depart(full):
    text, _ = read_page(write_report(full))

    assert "invoice.paid_at is <mark>not None</mark>" in text
    assert '<small class="exact">exact</small>' in text
    assert "rank 1 of 40" in text
    assert "rank 40 of 40" in text


def test_equal_inputs_give_equal_bytes(full, tmp_path):
    again = make_run(tmp_path / "elsewhere" / "payments")

    assert write_report(full).read_bytes() == write_report(again).read_bytes()


@pytest.mark.parametrize("damage", [None, b"", b"PAR1 {: \xff["])
@pytest.mark.parametrize("name", INPUTS)
def test_report_with_one_input_missing_or_damaged(full, tmp_path, name, damage):
    run = tmp_path / "payments"
    shutil.copytree(full, run)
    (run / name).unlink() if damage is None else (run / name).write_bytes(damage)

    text, parsed = read_page(write_report(run))

    assert parsed.ids == list(SECTIONS)
    if name != "corpus/skipped.parquet":  # the counts of stats.json still stand
        assert re.search(r'class="absent">No .* yet: <code>sfim \w+ RECIPE</code>', text)


def test_report_of_an_empty_run(tmp_path):
    text, parsed = read_page(write_report(tmp_path))

    assert parsed.ids == list(SECTIONS)
    assert text.count('class="absent"') == len(SECTIONS)


@pytest.mark.parametrize(("adapter", "said"), [("dora", "A DoRA adapter"), ("full", "All weights")])
def test_the_first_sentence_says_what_was_tuned_and_on_what(full, tmp_path, adapter, said):
    copy = tmp_path / "copy"
    shutil.copytree(full, copy)
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["model"]["adapter"] = adapter
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    lead = write_report(copy).read_text().partition('<p class="lead">')[2].partition("</p>")[0]

    assert lead.startswith(said)
    assert "tuned on 1,746 of 1,843 files" in lead


def test_report_of_a_model_from_nothing_has_no_base(full, tmp_path):
    run = tmp_path / "tiny"
    shutil.copytree(full, run)
    (run / "metrics.json").write_text(json.dumps({"base": None, "adapter": _metrics()["adapter"]}))
    rows = [{**row, "base": None, "base_loss": None} for row in _predictions()]
    _write_table(run / "predictions.parquet", rows)

    text, _ = read_page(write_report(run))

    assert '<p class="number">35.0&nbsp;%</p></div>' in text
    assert 'class="tile undecided"' in text
    assert 'class="tile better"' not in text
    assert '<div class="column base">' not in text


def test_control_is_shown(full, tmp_path):
    run = tmp_path / "payments"
    shutil.copytree(full, run)
    metrics = _metrics() | {
        "control": _numbers(1.02),
        "paired_control": _paired(0.1),
        "adapter_against_control": _paired(0.9),
    }
    (run / "metrics.json").write_text(json.dumps(metrics))

    text, _ = read_page(write_report(run))

    assert "<h3>Control against the base</h3>" in text
    assert "<h3>Adapter against the control</h3>" in text


def test_differences_of_one_file_are_undecided(full, tmp_path):
    run = tmp_path / "payments"
    shutil.copytree(full, run)
    metrics = _metrics()
    for name in ("loss_middle", "exact_match", "edit_similarity", "parse_rate"):
        metrics["paired"][name] |= {"low": None, "high": None}
    (run / "metrics.json").write_text(json.dumps(metrics))

    text, _ = read_page(write_report(run))

    tiles = re.findall(r'class="tile (\w+)">', text)
    assert tiles == ["undecided"] * 4
    assert text.count("interval n/a") == 4


def test_undecided_is_not_shown_as_a_gain(full):
    text, _ = read_page(write_report(full))

    by_title = {title: css for css, title in re.findall(r'class="tile (\w+)"><h3>([^<]*)<', text)}

    assert by_title == {
        "Loss on the MIDDLE": "better",
        "Exact match": "better",
        "Edit similarity": "undecided",
        "Parses": "worse",
    }
    assert "Of 6 measures: 3 better, 1 worse, 2 undecided." in text
