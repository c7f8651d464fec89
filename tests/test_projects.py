"""Repositories are ranked by what their history says, the same way every time."""

import os
import subprocess

import pytest

from fim import FimError
from finetune.corpus.sources import git
from finetune.corpus.sources.git import resolve_commit
from finetune.corpus.sources.projects import Project, is_test, project_facts, rank_projects


def project(commits: int = 1, contributors: int = 1, age_days: int = 0, **facts: int) -> Project:
    facts = {"num_tests": 0} | facts
    return Project(commits=commits, contributors=contributors, age_days=age_days, **facts)


def test_facts_are_counted_from_history_and_paths(tmp_path, make_repo):
    repo = make_repo(tmp_path / "repo", {"a.py": b"a"})
    for day, author in ((5, "Ada@Example.com"), (12, "bob@example.com")):
        identity = ["-c", "user.name=t", "-c", f"user.email={author}"]
        date = f"2024-01-{day:02}T04:00:00 +0000"
        subprocess.run(
            ["git", "-C", str(repo), *identity, "commit", "-q", "--allow-empty", "-m", "c"],
            check=True,
            env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_COMMITTER_DATE": date},
        )
    head = resolve_commit(repo, "HEAD").id

    found = project_facts(repo, head, ["a.py", "tests/test_a.py", "src/b_test.go"], stars=7)

    assert found == Project(commits=3, contributors=2, age_days=10, num_tests=2, stars=7)


@pytest.mark.parametrize(
    "people",
    [
        b"author A <a\rb@c> 5 +0000\ncommitter A <a> 1700000000 +0000",
        b"author A <a>\ncommitter A <a>",
        b"author A <a> 5 +0000\ncommitter A <a> -5 +0000",
        b"author A <a> 5 +0000\ncommitter A <a> 18446744073709551614 +0000",
    ],
)
def test_a_damaged_commit_is_one_of_unknown_time(people, tmp_path, make_repo):
    repo = make_repo(tmp_path / "repo", {"a.py": b"a"})
    parent = resolve_commit(repo, "HEAD")
    command = ["git", "-C", str(repo)]
    tree = subprocess.check_output([*command, "rev-parse", "HEAD^{tree}"]).strip()
    made = subprocess.run(
        [*command, "hash-object", "-t", "commit", "-w", "--literally", "--stdin"],
        input=b"tree %s\nparent %s\n%s\n\nm\n" % (tree, parent.id.encode(), people),
        check=True,
        capture_output=True,
    )
    name = made.stdout.decode().strip()

    commit, history = resolve_commit(repo, name), git.read_history(repo, name)

    assert commit.committed_at in (0, 1_700_000_000)
    assert [seconds for seconds, _ in history] == [commit.committed_at, parent.committed_at]
    assert git.change_times(repo, name) == {b"a.py": parent.committed_at}
    assert project_facts(repo, name, []).commits == 2


def test_commits_of_unknown_time_have_no_age(tmp_path, make_repo, monkeypatch):
    repo = make_repo(tmp_path / "repo", {"a.py": b"a"})
    monkeypatch.setattr(git, "read_history", lambda *_: [(1_700_000_000, "a"), (0, "b")])
    head = resolve_commit(repo, "HEAD").id

    assert project_facts(repo, head, []).age_days == 0


def test_a_history_that_cannot_be_read_is_refused(tmp_path, make_repo):
    repo = make_repo(tmp_path / "repo", {"a.py": b"a"})

    with pytest.raises(FimError, match="git cannot read it"):
        project_facts(repo, "1" * 40, [])


TESTS = [
    "tests/a.py", "src/test/java/A.java", "pkg/a_test.go", "test_a.py", "src/a.spec.ts",
    "a.test.js", "__tests__/a.js", "src/QueueTest.java", "QueueTests.cs", "spec/a_spec.rb",
]  # fmt: skip
NO_TESTS = [
    "latest/a.py",
    "contest.py",
    "attest/a.c",
    "src/latest.go",
    "protest.js",
    "TEST",
    "a.py",
]


def test_tests_are_told_by_folder_and_name():
    assert [path for path in TESTS + NO_TESTS if is_test(path)] == TESTS


def test_the_score_is_the_mean_of_the_ranks():
    facts = {
        "best": project(commits=900, contributors=9, age_days=900, num_tests=9),
        "some": project(commits=90, contributors=9, age_days=90, num_tests=0),
        "least": project(commits=9, contributors=1, age_days=9, num_tests=0),
    }

    scores, dropped = rank_projects(facts, 0.34)

    # ranks of commits, contributors, age and tests; equal values share theirs
    assert list(scores.items()) == [
        ("best", (1 + 0.75 + 1 + 1) / 4),
        ("some", (0.5 + 0.75 + 0.5 + 0.25) / 4),
        ("least", (0 + 0 + 0 + 0.25) / 4),
    ]
    assert dropped == ("least",)


def test_stars_count_only_among_those_that_have_some():
    facts = {
        "famous": project(stars=1_000),
        "known": project(stars=10),
        "unknown": project(),
    }

    scores, _ = rank_projects(facts, 0)

    assert scores == {"famous": 0.6, "unknown": 0.5, "known": 0.4}


@pytest.mark.parametrize(
    ("drop_rate", "num_dropped"), [(0, 0), (0.09, 0), (0.1, 1), (0.3, 3), (0.9, 9)]
)
def test_a_share_is_dropped_rounded_down(drop_rate, num_dropped):
    facts = {f"r{n}": project(commits=n) for n in range(10)}

    _, dropped = rank_projects(facts, drop_rate)

    assert dropped == tuple(f"r{n}" for n in range(num_dropped))


def test_equal_projects_are_told_apart_by_name_whatever_the_order():
    names = ["c", "a", "b"]

    for order in (names, sorted(names), names[::-1]):
        scores, dropped = rank_projects({name: project() for name in order}, 0.4)

        assert list(scores.items()) == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
        assert dropped == ("c",)


def test_one_repository_and_none_are_ranked_too():
    assert rank_projects({"only": project()}, 0.9) == ({"only": 0.5}, ())
    assert rank_projects({}, 0.9) == ({}, ())
