"""What a file needs comes before it; whatever order the files are given in, one order comes out."""

import random
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.corpus.links.find import Links
from finetune.corpus.links.order import OrderFile, OrderQuality, order_repository
from finetune.recipe.corpus import Order

STILL = Order(shuffle_rate=0.0)


def module(name: str, *needs: str, late: tuple[str, ...] = ()) -> OrderFile:
    links = Links(imports=needs, late_imports=late)
    return OrderFile(path=f"{name}.py", language="python", links=links)


def page(path: str, *words: str) -> OrderFile:
    return OrderFile(path=path, language="markdown", links=Links(words=words))


def ordered(files: list[OrderFile], order: Order = STILL, seed: int = 0) -> list[str]:
    positions = order_repository(files, order, seed).positions
    assert sorted(positions) == list(range(len(files)))
    return [files[index].path.rpartition(".")[0] for index in positions]


def test_a_file_comes_right_after_what_it_needs():
    files = [
        module("app", "view", "model"),
        module("base"),
        module("model", "base"),
        module("other", "base", "tool"),
        module("tool"),
        module("view", "base"),
    ]

    assert ordered(files) == ["base", "model", "view", "app", "tool", "other"]


def test_in_a_circle_the_most_used_file_comes_first():
    files = [module("a", "hub"), module("b", "hub"), module("hub", "a", "b"), module("user", "a")]

    assert ordered(files) == ["hub", "a", "user", "b"]


def test_a_circle_is_cut_at_an_import_that_comes_late():
    files = [module("a", "b"), module("b", "c"), module("c", late=("a",))]

    ordering = order_repository(files, STILL, 0)

    assert ordered(files) == ["c", "b", "a"]
    assert ordering.edges == [(0, 1), (1, 2), (2, 0)]
    assert (ordering.quality.cycles, ordering.quality.cyclic_files) == (1, 3)


def test_an_import_is_worth_more_than_a_name():
    """`Late` is used by `Early` and imports it."""
    early = Links(package="p", definitions=("Early",), names=("Late",))
    late = Links(imports=("p.Early",), package="p", definitions=("Late",))
    files = [
        OrderFile(path="p/Late.java", language="java", links=late),
        OrderFile(path="p/Early.java", language="java", links=early),
    ]

    assert ordered(files) == ["p/Early", "p/Late"]


def test_counts_are_of_imports_and_of_edges():
    files = [
        module("a", "b", "c", "redis"),
        module("b", "c"),
        module("c", "b", "os"),
        module("alone", "numpy:array"),
        page("README.md", "word"),
    ]

    assert order_repository(files, STILL, 0).quality == OrderQuality(
        repositories=1, files=5, linked=3, imports=7, resolved=4, edges=4, import_edges=4, cycles=1,
        cyclic_files=2, backward=2, forward=0,
    )  # fmt: skip
    assert order_repository(files, STILL, 0).quality.external == 3


def test_counts_of_repositories_add_up():
    one = OrderQuality(repositories=1, files=5, imports=6, resolved=4)

    total = one + one

    assert (total.repositories, total.files, total.external) == (2, 10, 4)


def test_by_path_is_by_path_and_says_what_points_forward():
    files = [module("b"), module("a", "b"), module("c", "b")]

    ordering = order_repository(files, Order(by="path"), 0)

    assert [files[index].path for index in ordering.positions] == ["a.py", "b.py", "c.py"]
    assert (ordering.quality.backward, ordering.quality.forward) == (1, 1)


@pytest.mark.parametrize("files", [[], [module("a")], [module("a", "a")], [module("a")] * 3])
def test_small_and_odd_repositories_have_an_order(files):
    ordering = order_repository(files, Order(), 0)

    assert sorted(ordering.positions) == list(range(len(files)))
    assert ordering.edges == []


edges = st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11), st.booleans()), max_size=40)


@settings(max_examples=60, deadline=None)
@given(edges, st.randoms(use_true_random=False))
def test_every_import_outside_a_circle_points_backwards(found, rng):
    """Of those that come at once, and of all."""
    needs = {number: ([], []) for number in range(12)}
    for user, used, is_late in sorted(found):
        needs[user][is_late].append(f"m{used:02}")
    files = [module(f"m{n:02}", *now, late=tuple(late)) for n, (now, late) in needs.items()]
    given_files = rng.sample(files, len(files))

    names = ordered(given_files)

    assert names == ordered(files)
    place = {int(name[1:]): number for number, name in enumerate(names)}
    for graph in (
        nx.DiGraph([(a, b) for a, b, is_late in found if not is_late]),
        nx.DiGraph([(a, b) for a, b, _ in found]),
    ):
        circles = {n: c for c in map(frozenset, nx.strongly_connected_components(graph)) for n in c}
        assert all(place[b] < place[a] for a, b in graph.edges if circles[a] != circles[b])
    assert order_repository(files, STILL, 0).quality.forward == 0


def pages(number: int) -> list[OrderFile]:
    """Pages of three topics in two folders, the topics in turn."""
    topics = (("rain", "cloud", "wind"), ("loan", "bank", "rate"), ("cell", "gene", "protein"))
    return [page(f"{'ab'[n % 2]}/{n:03}.md", *topics[n % 3], f"word{n:03}") for n in range(number)]


def test_similar_files_stand_together_where_there_are_no_imports():
    files = pages(60)

    names = ordered(files)

    like = [int(name[2:]) % 6 for name in names]
    assert sum(a == b for a, b in pairwise(like)) >= 50  # at random: 10


def test_a_share_of_the_files_without_links_comes_anywhere():
    files = [*pages(90), module("a", "b"), module("b", "c"), module("c")]
    still = ordered(files)

    some = ordered(files, Order(shuffle_rate=0.2))

    moved = len(files) - longest_common(still, some)
    assert 5 <= moved <= 30
    assert ordered(files, Order(shuffle_rate=0.2), seed=1) != some
    assert [name for name in some if "/" not in name] == ["c", "b", "a"]


def longest_common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    rows = [0] * (len(other) + 1)
    for a in one:
        before = rows[:]
        for place, b in enumerate(other):
            rows[place + 1] = before[place] + 1 if a == b else max(rows[place], before[place + 1])
    return rows[-1]


def test_the_order_given_does_not_matter():
    files = [*pages(80), *(module(f"m{n}", f"m{(n * 7 + 1) % 40}") for n in range(40))]
    expected = ordered(files, Order())

    for seed in range(3):
        assert ordered(random.Random(seed).sample(files, len(files)), Order()) == expected


def test_a_chain_of_many_files_is_ordered_without_recursion():
    files = [module(f"m{n:05}", f"m{n + 1:05}") for n in range(5_000)]
    circle = [replace(files[-1], links=Links(imports=("m00000",)))]

    assert ordered(files) == [f"m{n:05}" for n in reversed(range(5_000))]
    assert order_repository(files[:-1] + circle, STILL, 0).quality.cyclic_files == 5_000
