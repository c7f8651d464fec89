"""Which repositories are worth learning from: facts of their history, and ranks by them."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.corpus.sources import git

_TEST = re.compile(
    r"(^|/)(tests?|specs?|__tests__|testing)/|(^|/)test_[^/]*$|[_.-](test|spec)s?\.[^/.]+$"
    r"|[a-z0-9]Tests?\.[^/.]+$",
)
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What is known of one repository; of every fact, more is better."""

    commits: int
    """Commits that lead to the one that is read."""
    contributors: int
    """Authors of them, by e-mail address."""
    age_days: int
    """Days from the first of them to the last."""
    num_tests: int
    """Files that look like tests."""
    stars: int = 0
    """0 if unknown."""


FACTS = ("commits", "contributors", "age_days", "num_tests", "stars")


def project_facts(folder: str | Path, commit: str, paths: Iterable[str], stars: int = 0) -> Project:
    """Count what speaks for a repository; a shallow clone has only the history it has.

    Addresses of authors stay in memory.

    Args:
        folder: the repository.
        commit: id of the commit that is read.
        paths: of its files.
        stars: of the project, 0 if unknown.

    Raises:
        FimError: the history cannot be read.
    """
    commits = git.read_history(folder, commit)
    times = [seconds for seconds, _ in commits if seconds] or [0]
    return Project(
        commits=len(commits),
        contributors=len({author.lower() for _, author in commits}),
        age_days=(max(times) - min(times)) // _DAY,
        num_tests=sum(1 for path in paths if is_test(path)),
        stars=stars,
    )


def is_test(path: str) -> bool:
    """Whether a path looks like a test: its folder or name says so, as test runners expect."""
    return bool(_TEST.search(path))


def rank_projects(
    facts: Mapping[str, Project], drop_rate: float
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Score repositories and choose the lowest.

    The score is the mean of a repository's ranks by each fact, from 0, below all others, to 1. An
    unknown number of stars has no rank.

    Args:
        facts: by name of the repository.
        drop_rate: share to drop, rounded down.

    Returns:
        Scores by name, highest first, and the names to drop, lowest first; equal scores by name.

    Source:
        aiXcoder-7B (arXiv 2410.13187) ranks projects by stars, commits and test files and drops
        the lowest 10 %; contributors and age are added here.
    """
    known = {
        name: sorted(
            value for p in facts.values() if (value := getattr(p, name)) or name != "stars"
        )
        for name in FACTS
    }
    scores = {repo: _score(project, known) for repo, project in facts.items()}
    ranked = sorted(scores, key=lambda repo: (-scores[repo], repo))
    num_dropped = int(drop_rate * len(ranked) + 1e-9)
    dropped = tuple(reversed(ranked))[:num_dropped]
    return {repo: scores[repo] for repo in ranked}, dropped


def _score(project: Project, known: Mapping[str, list[int]]) -> float:
    ranks = [
        _rank(value, known[name])
        for name in FACTS
        if (value := getattr(project, name)) or name != "stars"
    ]
    return round(sum(ranks) / len(ranks), 6)


def _rank(value: int, ordered: list[int]) -> float:
    """Return the share of the others that a value is above; half of those it equals count."""
    if len(ordered) < 2:
        return 0.5
    below, upto = bisect_left(ordered, value), bisect_right(ordered, value)
    return (below + (upto - below - 1) / 2) / (len(ordered) - 1)
