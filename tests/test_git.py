"""Files come from git objects, one entry each, whatever the repository holds."""

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from fim import FimError
from finetune.corpus.sources.git import Blob, change_times, read_blobs, read_history, resolve_commit

IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


@pytest.fixture(autouse=True)
def _identity(monkeypatch):
    for key, value in IDENTITY.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "payments"
    git(tmp_path, "init", "-q", "-b", "main", "payments")
    (folder / "a.py").write_bytes(b"a = 1\n")
    (folder / "src").mkdir()
    (folder / "src" / "b.py").write_bytes(b"b = 2\n")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str | bytes, data: bytes = b"") -> str:
    command = ["git", "-C", str(folder), *arguments]
    return os.fsdecode(subprocess.run(command, input=data, capture_output=True, check=True).stdout)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "c")


def read(folder: Path, ref: str = "HEAD", max_bytes: int = 1_000_000, **arguments) -> dict:
    blobs = list(read_blobs(folder, resolve_commit(folder, ref).id, max_bytes, **arguments))
    assert len({blob.path for blob in blobs}) == len(blobs)
    return {blob.path: blob.reason or blob.content for blob in blobs}


def object_file(folder: Path, name: str) -> Path:
    oid = git(folder, "rev-parse", f"HEAD:{name}").strip()
    return folder / ".git" / "objects" / oid[:2] / oid[2:]


def test_contents_commit_and_time_come_from_the_commit(repository):
    found = resolve_commit(repository, "HEAD")

    assert found.id == git(repository, "rev-parse", "HEAD").strip()
    assert found.committed_at == 1_700_000_000
    assert read(repository) == {b"a.py": b"a = 1\n", b"src/b.py": b"b = 2\n"}


def test_uncommitted_and_staged_files_are_not_read(repository):
    (repository / "a.py").write_bytes(b"changed\n")
    (repository / "new.py").write_bytes(b"new\n")
    git(repository, "add", "-A")

    assert read(repository) == {b"a.py": b"a = 1\n", b"src/b.py": b"b = 2\n"}


def test_a_ref_other_than_head_is_read(repository):
    git(repository, "tag", "v1")
    (repository / "a.py").write_bytes(b"a = 3\n")
    commit(repository)

    assert read(repository, "v1")[b"a.py"] == b"a = 1\n"
    assert read(repository, "main")[b"a.py"] == b"a = 3\n"


def test_a_bare_repository_is_read(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", "payments", "bare.git")

    assert read(tmp_path / "bare.git") == read(repository)


def test_links_and_submodules_drop_out_by_mode(repository):
    (repository / "loop").symlink_to("loop")
    (repository / "out").symlink_to("/etc/passwd")
    git(repository, "add", "-A")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repository, "commit", "-q", "-m", "c")

    found = read(repository)

    assert found[b"loop"] == "symlink"
    assert found[b"out"] == "symlink"
    assert found[b"sub"] == "submodule"


def test_a_missing_and_a_damaged_object_cost_only_themselves(repository):
    for name in ("d.py", "z.py"):
        (repository / name).write_bytes(name.encode() * 50)
    (repository / "c.py").write_bytes(random.Random(0).randbytes(50_000))  # does not compress
    commit(repository)
    object_file(repository, "a.py").unlink()
    damaged = object_file(repository, "c.py")
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-9_000])
    header = object_file(repository, "d.py")
    header.chmod(0o600)
    header.write_bytes(b"not zlib")

    found = read(repository)

    assert found == {
        b"a.py": "missing-object",
        b"c.py": "damaged-object",
        b"d.py": "missing-object",  # not even its size can be read
        b"src/b.py": b"b = 2\n",
        b"z.py": b"z.py" * 50,
    }


def test_a_partial_clone_is_read_without_fetching(repository, tmp_path):
    git(repository, "config", "uploadpack.allowFilter", "true")
    url = f"file://{repository}"
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", url, "partial")
    git(tmp_path / "partial", "cat-file", "blob", "HEAD:a.py")  # fetches this one

    found = read(tmp_path / "partial")

    assert found == {b"a.py": b"a = 1\n", b"src/b.py": "missing-object"}


def test_names_with_newlines_and_foreign_bytes_arrive_intact(repository):
    odd = [b"new\nline.py", b"caf\xe9.py", b"tab\t.py", b'"quoted".py', b"-rf.py"]
    for name in odd:
        Path(os.fsdecode(os.path.join(os.fsencode(repository), name))).write_bytes(name)
    commit(repository)

    found = read(repository)

    assert {name: found[name] for name in odd} == {name: name for name in odd}


def test_large_and_unwanted_blobs_are_not_read(repository):
    (repository / "big.py").write_bytes(b"x" * 101)
    (repository / "fits.py").write_bytes(b"x" * 100)
    commit(repository)

    found = read(repository, max_bytes=100, wanted=lambda path: path != b"a.py")

    assert found[b"big.py"] == "too-large"
    assert found[b"fits.py"] == b"x" * 100
    assert found[b"a.py"] == "excluded"


def test_damage_in_the_middle_of_a_batch_costs_nothing_else(repository):
    names = [f"{number:03}.py" for number in range(200)]
    for name in names:
        (repository / name).write_bytes(random.Random(name).randbytes(3_000))
    commit(repository)
    damaged = names[50:200:70]
    for name in damaged:
        file = object_file(repository, name)
        file.chmod(0o600)
        file.write_bytes(file.read_bytes()[:-500])

    found = read(repository)

    assert len(found) == 202
    assert [found[name.encode()] for name in damaged] == ["damaged-object"] * 3
    for name in set(names) - set(damaged):
        assert found[name.encode()] == random.Random(name).randbytes(3_000)


def test_many_large_blobs_come_in_order_however_they_are_batched(repository):
    contents = {b"%03d.py" % number: b"%d\n" % number * 150_000 for number in range(40)}
    for name, content in contents.items():
        (repository / os.fsdecode(name)).write_bytes(content)
    commit(repository)

    blobs = list(read_blobs(repository, resolve_commit(repository, "HEAD").id, 1_000_000))

    assert [blob.path for blob in blobs] == [*contents, b"a.py", b"src/b.py"]
    assert all(blob.content == contents[blob.path] for blob in blobs[:40])
    assert all(blob.num_bytes == len(blob.content) for blob in blobs)


def test_a_git_that_is_killed_costs_no_file(repository, monkeypatch):
    for number in range(8):
        (repository / f"{number}.bin").write_bytes(random.Random(number).randbytes(400_000))
    commit_at(repository, 1_700_000_100)
    started, start = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1]
    )

    found = []
    for blob in read_blobs(repository, resolve_commit(repository, "HEAD").id, 1_000_000):
        found.append(blob)
        if len(found) in (1, 5):
            started[-1].kill()

    assert [blob.path for blob in found if blob.reason] == []
    assert sum(len(blob.content) == 400_000 for blob in found) == 8


def test_known_blobs_are_not_read(repository):
    object_id = git(repository, "rev-parse", "HEAD:a.py").strip()
    damaged = object_file(repository, "src/b.py")
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-3])
    asked: list[Blob] = []

    def is_known(blob: Blob) -> bool:
        asked.append(blob)
        return blob.path == b"src/b.py"

    first, second = read_blobs(
        repository, resolve_commit(repository, "HEAD").id, 1_000, is_known=is_known
    )

    assert first == Blob(path=b"a.py", id=object_id, content=b"a = 1\n", num_bytes=6)
    assert (second.content, second.reason, second.num_bytes) == (b"", "", 6)
    assert [(blob.path, blob.content) for blob in asked] == [(b"a.py", b""), (b"src/b.py", b"")]


def test_a_reader_that_is_left_leaves_no_process(repository):
    blobs = read_blobs(repository, resolve_commit(repository, "HEAD").id, 1_000)
    next(blobs)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    before = children.read_text().split()

    blobs.close()

    assert len(before) - len(children.read_text().split()) == 1


def commit_at(folder: Path, seconds: int, author: str = "t@example.org") -> None:
    git(folder, "add", "-A")
    dates = {"GIT_COMMITTER_DATE": f"{seconds} +0000", "GIT_AUTHOR_EMAIL": author}
    command = ["git", "-C", str(folder), "commit", "-q", "-m", "c", "--allow-empty"]
    subprocess.run(command, check=True, env=os.environ | dates)


@pytest.fixture
def history(repository):
    """Two branches and a merge that changes `merged.py` by itself."""
    odd = os.fsdecode(os.path.join(os.fsencode(repository), b"new\nline\xff.py"))
    Path(odd).write_bytes(b"x")
    commit_at(repository, 1_700_000_100)
    git(repository, "checkout", "-q", "-b", "side")
    (repository / "side.py").write_bytes(b"s")
    commit_at(repository, 1_700_000_200, author="Ada@example.org")
    git(repository, "checkout", "-q", "main")
    (repository / "a.py").write_bytes(b"a = 2\n")
    (repository / "gone.py").write_bytes(b"g")
    commit_at(repository, 1_700_000_300, author="ada@example.org")
    git(repository, "merge", "-q", "--no-ff", "--no-commit", "side")
    (repository / "merged.py").write_bytes(b"m")
    commit_at(repository, 1_700_000_400)
    (repository / "gone.py").unlink()
    commit_at(repository, 1_700_000_500)
    return repository


TIMES = {
    b"a.py": 1_700_000_300,
    b"merged.py": 1_700_000_400,
    b"new\nline\xff.py": 1_700_000_100,
    b"side.py": 1_700_000_200,
    b"src/b.py": 1_700_000_000,
}


def test_each_path_has_the_time_of_the_last_commit_that_changed_it(history):
    git(history, "config", "diff.renames", "copies")
    git(history, "config", "log.showRoot", "false")

    assert change_times(history, resolve_commit(history, "HEAD").id) == TIMES


def test_a_path_that_is_named_like_a_commit_is_none(repository):
    first = resolve_commit(repository, "HEAD").id
    for name in (first, "z.py"):
        (repository / name).write_bytes(b"z")
    commit_at(repository, 1_700_000_600)

    times = change_times(repository, resolve_commit(repository, "HEAD").id)

    assert (times[first.encode()], times[b"z.py"]) == (1_700_000_600, 1_700_000_600)


def test_what_a_shallow_clone_lacks_is_as_old_as_what_it_has(history, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=2", f"file://{history}", "shallow")
    folder, head = tmp_path / "shallow", resolve_commit(history, "HEAD").id

    assert change_times(folder, head) == {
        path: max(seconds, 1_700_000_400) for path, seconds in TIMES.items()
    }
    assert len(read_history(folder, head)) == 2


@pytest.mark.parametrize("lacking", ["blob:none", "tree:0"])
def test_times_and_history_of_a_partial_clone_are_read_without_fetching(lacking, history, tmp_path):
    git(history, "config", "uploadpack.allowFilter", "true")
    url = f"file://{history}"
    git(tmp_path, "clone", "-q", "--no-checkout", f"--filter={lacking}", url, "partial")
    folder, head = tmp_path / "partial", resolve_commit(history, "HEAD").id
    git(folder, "ls-tree", "-r", "HEAD")  # fetches the newest trees
    history.rename(tmp_path / "gone")

    times = change_times(folder, head)

    assert len(read_history(folder, head)) == 6
    assert times == (TIMES if lacking == "blob:none" else {})


def test_replaced_commits_do_not_count(history):
    head = resolve_commit(history, "HEAD").id
    git(history, "replace", head, "HEAD~2")

    assert change_times(history, head) == TIMES
    assert read_history(history, head) == [
        (1_700_000_500, "t@example.org"),
        (1_700_000_400, "t@example.org"),
        (1_700_000_300, "ada@example.org"),
        (1_700_000_200, "Ada@example.org"),
        (1_700_000_100, "t@example.org"),
        (1_700_000_000, "t@example.org"),
    ]


def test_filters_and_hooks_of_the_repository_never_run(repository, tmp_path):
    (repository / ".gitattributes").write_text("*.py filter=evil text eol=crlf\n")
    commit(repository)
    git(repository, "config", "filter.evil.smudge", f"touch {tmp_path}/ran")
    git(repository, "config", "core.fsmonitor", f"touch {tmp_path}/ran")

    assert read(repository)[b"a.py"] == b"a = 1\n"
    assert not (tmp_path / "ran").exists()


def test_git_variables_of_a_hook_do_not_redirect(repository, tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))

    assert read(repository)[b"a.py"] == b"a = 1\n"


def test_a_missing_folder_and_a_plain_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()

    with pytest.raises(FimError, match=r"^.*/gone: no such folder; clone the repository"):
        resolve_commit(tmp_path / "gone", "HEAD")
    with pytest.raises(FimError, match=r"plain: not a git repository; use 'folder:'"):
        resolve_commit(tmp_path / "plain", "HEAD")


def test_a_folder_inside_a_repository_is_refused_with_the_include_to_use(repository):
    with pytest.raises(FimError, match=r"not the top .* include: \['src/\*\*'\]"):
        resolve_commit(repository / "src", "HEAD")


def test_a_repository_without_commit_and_an_unknown_ref_are_refused(repository, tmp_path):
    git(tmp_path, "init", "-q", "fresh")

    with pytest.raises(FimError, match="fresh: no commit yet"):
        resolve_commit(tmp_path / "fresh", "HEAD")
    for ref in ("v9", "--all", "", "^HEAD", "a..b"):
        with pytest.raises(FimError, match=f"unknown ref {re.escape(repr(ref))}; known: main$"):
            resolve_commit(repository, ref)


def test_a_repository_of_another_user_is_refused_with_the_way_out(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    with pytest.raises(FimError, match=r"belongs to another user; .*safe\.directory /") as caught:
        resolve_commit(repository, "HEAD")

    assert "\n" not in str(caught.value)
