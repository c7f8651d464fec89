"""`sfim scan` finds secrets in files of any encoding, and no stream or file ever holds one."""

import base64
import json
import os
import random
import subprocess

import pytest
from planted_secrets import KINDS, is_left, plant

from fim import FimError
from finetune.cli import main
from finetune.scan import find_in_file, scan, scan_summary

TOKEN = KINDS["github-classic"].make(random.Random(0))
CODE = f'# caf\u00e9\r\nx = 1\r\npassword = "dragon77!"\r\nkey = "{TOKEN}"\r\n'
PLACES = [(3, "password"), (4, "github-token")]


def places(data: bytes) -> list[tuple[int, str]]:
    return [(line, kind.replace("github-pat", "github-token")) for line, kind in find_in_file(data)]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"],
)
def test_secrets_are_found_in_any_encoding(encoding):
    bom = "\ufeff" if encoding in ("utf-16-be", "utf-32-be") else ""

    assert places((bom + CODE).encode(encoding)) == PLACES


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_needs_no_byte_order_mark(encoding):
    assert places(CODE.encode(encoding)) == PLACES


def test_every_kind_is_found_in_utf_16_and_base64():
    missed = []
    for item in plant(values=1):
        for data in (item.text.decode().encode("utf-16"), base64.encodebytes(item.text)):
            if not list(find_in_file(data)):
                missed.append((item.kind, item.context))

    assert len(missed) <= 0.02 * 2 * 5 * len(KINDS), missed


def test_lines_of_a_base64_file_are_its_own():
    lines = ["x = 1"] * 200
    lines[150] = 'password = "dragon77!"'

    ((line, kind),) = find_in_file(base64.encodebytes("\n".join(lines).encode()))

    assert kind == "password"
    assert abs(line - (150 * 6 * 4 / 3 / 76 + 1)) < 2


def test_what_is_excluded_is_not_scanned(tmp_path, capsys):
    for name in ("app.py", "tests/test_app.py", "tests/data/key.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CODE)

    assert main(["scan", str(tmp_path), "--json", "--exclude", "tests/**"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == 1
    assert {row["path"] for row in found["findings"]} == {str(tmp_path / "app.py")}
    assert main(["scan", str(tmp_path), "--exclude", "app.py", "--exclude", "tests/"]) == 0


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_editors_do(ending):
    text = ending.join(["a = 1", "", 'password = "dragon77!"', ""])

    assert list(find_in_file(text.encode())) == [(3, "password")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clean.py").write_text("x = 1\n")
    (tmp_path / "a" / "code.py").write_bytes(CODE.encode())
    (tmp_path / "a" / "link.py").symlink_to("code.py")
    os.mkfifo(tmp_path / "a" / "pipe")
    return tmp_path / "a"


def git(folder, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )


def test_a_folder_is_scanned_without_links_and_pipes(folder):
    result = scan(["a"])

    assert result["files"] == 2
    assert [(row["path"], row["line"]) for row in result["findings"]] == [
        ("a/code.py", 3),
        ("a/code.py", 4),
    ]
    assert result["unread"] == []


def test_files_can_be_named_and_a_missing_one_is_an_error(folder):
    assert scan(["a/clean.py", "a/code.py"])["files"] == 2
    with pytest.raises(FimError, match=r"a/none: no such file or folder; give another one"):
        scan(["a/none"])


def test_of_a_repository_what_is_or_could_be_committed_is_scanned(folder):
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("*.env\n")
    (folder / "local.env").write_text("DB_PASSWORD=dragon77!\n")
    git(folder, "add", "clean.py", ".gitignore")
    git(folder, "commit", "-qm", "x")

    result = scan(["a"])
    git(folder, "add", "code.py")
    git(folder, "commit", "-qm", "y")
    git(folder.parent, "clone", "-q", "--bare", "a", "bare.git")
    bare = scan(["bare.git"])

    assert result["files"] == 3
    assert {row["path"] for row in result["findings"]} == {"a/code.py"}
    assert bare["files"] == 3
    assert {row["path"] for row in bare["findings"]} == {"bare.git/code.py"}


def test_a_file_that_cannot_be_read_is_told(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr("finetune.scan.Path.read_bytes", refuse)

    result = scan(["a"])

    assert result["files"] == 0
    assert {"path": "a/clean.py", "reason": "unreadable"} in result["unread"]


def test_without_git_a_folder_is_a_folder(folder, monkeypatch):
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("*\n")
    monkeypatch.setattr("shutil.which", lambda name: None)

    assert {row["path"] for row in scan(["a"])["findings"]} == {"a/code.py"}


def test_a_large_file_is_told(folder, monkeypatch):
    monkeypatch.setattr("finetune.scan.MAX_BYTES", 20)

    result = scan(["a"])

    assert result["unread"] == [{"path": "a/code.py", "reason": "too-large"}]
    assert "a/code.py: not scanned, too-large" in scan_summary(result)


def test_personal_data_is_found_where_asked(folder, capsys):
    (folder / "clean.py").write_text("# ask jane@acme.io\n")

    assert main(["scan", "a/clean.py"]) == 0
    assert main(["scan", "a/clean.py", "--personal"]) == 1

    assert capsys.readouterr().out.splitlines() == [
        "1 files, 0 findings",
        "a/clean.py:1 email",
        "1 files, 1 findings",
    ]


def test_json_has_the_shape_that_was_promised(folder, capsys):
    assert main(["scan", "a", "--json"]) == 1

    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["files"] == 2
    assert {"path": "a/code.py", "line": 3, "kind": "password"} in result["findings"]
    assert captured.err == (
        "error: 2 findings; take them out of the files, and change the secrets\n"
    )


def test_clean_files_are_exit_code_0(folder, capsys):
    assert main(["scan", "a/clean.py", "--json"]) == 0

    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"files": 1, "findings": [], "unread": []}
    assert captured.err == ""


def test_no_stream_holds_a_secret_not_even_of_a_file_name(folder, capsys):
    planted = list(plant(values=1))
    for number, item in enumerate(planted):
        (folder / f"{number}.txt").write_bytes(item.text)
    (folder / f"{TOKEN}.txt").write_text(CODE)

    for options in ([], ["--json"], ["--personal"]):
        assert main(["scan", "a", *options]) == 1
    assert main(["scan", f"a/{TOKEN}.none"]) == 1

    captured = capsys.readouterr()
    printed = (captured.out + captured.err).encode()
    assert printed.count(b"code.py") > 2
    assert not is_left(TOKEN, printed)
    assert [item.kind for item in planted if is_left(item.secret, printed)] == []
