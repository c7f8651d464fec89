"""What is sent for a place in a file: the place, the file's name, and the order."""

from pathlib import Path

import pytest

from fim import FimError, resolve_format
from finetune.complete import complete_at, locate, read_context, read_place, served_order
from finetune.recipe.file import read_recipe


@pytest.mark.parametrize(
    ("text", "spot", "before"),
    [
        ("a\x0cb\nc\n", "2:1", "a\x0cb\n"),
        ("a\u2028b\nc", "2:2", "a\u2028b\nc"),
        ("a\r\nb\rc\n", "3:1", "a\r\nb\r"),
        ("a\n\nb\n", "4:1", "a\n\nb\n"),
        ("", "1:1", ""),
    ],
)
def test_lines_are_counted_as_editors_do(tmp_path, text, spot, before):
    (tmp_path / "a.py").write_bytes(text.encode())

    prefix, suffix, _ = read_place(f"{tmp_path}/a.py:{spot}")

    assert prefix.decode() == before
    assert (prefix + suffix).decode() == text


def test_file_is_named_from_the_top_of_its_repository(tmp_path, monkeypatch):
    top = tmp_path / "payments"
    (top / "src").mkdir(parents=True)
    (top / ".git").mkdir()
    monkeypatch.chdir(top / "src")

    assert locate(Path("app.py")) == ("payments", "src/app.py")
    assert locate(top / "src" / "app.py") == ("payments", "src/app.py")


def test_file_outside_a_repository_is_named_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here" / "src").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")

    assert locate(Path("src/app.py")) == ("here", "src/app.py")
    assert locate(tmp_path / "other" / "b.py") == ("other", "b.py")


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ("{psm: 0, spm: 1}", "spm"),
        ("{psm: 0.3, spm: 0.7}", "spm"),
        ("{spm: 0.5, psm: 0.5}", "spm"),
        ("{psm: 0.5, spm: 0.5}", "psm"),
        ("{}", "psm"),
    ],
)
def test_order_of_the_largest_weight_is_served(tmp_path, tiny_tokenizer, orders, expected):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: r\nmodel: {{name: m}}\nfim: {{orders: {orders}}}\n"
        "corpus: {sources: [{folder: .}]}\n"
    )

    form = resolve_format(tiny_tokenizer("qwen2.5-coder"))

    assert served_order(read_recipe(path), form) == expected


@pytest.mark.parametrize(
    ("context", "window_bytes", "expected"),
    [
        ("repo", 1_000, ["a.py", "b/c.py"]),
        ("repo", 40, ["b/c.py"]),
        ("none", 1_000, []),
    ],
)
def test_files_before_one_are_its_context_as_in_training(tmp_path, context, window_bytes, expected):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: r\nmodel: {{name: m}}\ncorpus: {{sources: [{{folder: .}}]}}\n"
        f"fim: {{context: {context}, window_bytes: {window_bytes}}}\n"
    )
    top = tmp_path / "app"
    (top / ".git").mkdir(parents=True)
    (top / "b").mkdir()
    for name in ("a.py", "b/c.py", "m.py", "z.py"):
        (top / name).write_text("def f(x):\n    return x\n")
    (top / "b" / "data.bin").write_bytes(b"\0\1")
    (top / "b" / "huge.py").write_text("x = 1\n" * 400)

    documents = read_context(top / "m.py", read_recipe(path))

    assert [document.path for document in documents] == expected
    assert {document.repo for document in documents} <= {"app"}


def test_language_without_a_row_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "name: r\nmodel: {name: m}\ncorpus: {sources: [{folder: .}]}\n"
    )
    (tmp_path / "a.cobol").write_text("MOVE 1 TO X.\n")

    with pytest.raises(FimError, match=r"a\.cobol: unknown language; known: .*\bc, cpp"):
        complete_at(tmp_path, f"{tmp_path}/a.cobol:1:1")
