"""The order of a repository's files: what a file needs comes before it, similar files together.

Source: DeepSeek-Coder (arXiv 2401.14196, topological order of the files of a repository),
aiXcoder-7B (arXiv 2410.13187: call graph, K-means of TF-IDF vectors, PageRank).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import networkx as nx

from finetune.corpus.links.files import LATE, NAME, OrderFile
from finetune.corpus.links.resolve import FileGraph, link_files
from finetune.recipe_corpus import Order

__all__ = ["OrderFile", "OrderQuality", "Ordering", "order_repository"]

CLUSTER_FILES = 12
"""Files of a cluster, on average."""
MAX_CLUSTERS = 256
MAX_FEATURES = 4_096
_ROUNDS = 20

Remember = Callable[[Iterable[bytes], Callable[[], list[int]]], list[int]]
"""Gives what the function returns, or returned before for the same bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderQuality:
    """What the order of some repositories rests on; counts, so that they add up."""

    repositories: int = 0
    files: int = 0
    linked: int = 0
    """Files that use another file of their repository, or are used by one."""
    imports: int = 0
    """Imports that were found."""
    resolved: int = 0
    """Those that mean a file of the repository; the others are `external`."""
    edges: int = 0
    """Pairs of files of which one uses the other."""
    import_edges: int = 0
    """Those that an import gave, not a name."""
    cycles: int = 0
    """Groups of files that import each other in a circle."""
    cyclic_files: int = 0
    """Files in them."""
    backward: int = 0
    """Import edges outside cycles that point backwards: the used file comes first."""
    forward: int = 0
    """Import edges outside cycles that do not; 0 but where `by: path` was asked for."""

    @property
    def external(self) -> int:
        """Imports that mean no file of the repository."""
        return self.imports - self.resolved

    def __add__(self, other: "OrderQuality") -> "OrderQuality":
        """Return the counts of both."""
        names = [field.name for field in fields(self)]
        return OrderQuality(**{n: getattr(self, n) + getattr(other, n) for n in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """The files of a repository in order."""

    positions: list[int]
    """For each place in the order, the index of the file that comes there."""
    edges: list[tuple[int, int]]
    """Indices of a file and of one that it uses, sorted."""
    quality: OrderQuality


def order_repository(
    files: Sequence[OrderFile],
    order: Order,
    seed: int,
    remember: Remember = lambda _parts, make: make(),
) -> Ordering:
    """Order the files of one repository.

    An import outside a cycle of imports always points backwards. Which of the remaining orders is
    taken depends on paths, links and seed, not on the order in which files are given.

    Args:
        files: those of one repository.
        order: `by` and `shuffle_rate`.
        seed: decides clusters, and the files that come at a random place.
        remember: keeps the clusters, which take longest, for the next time.
    """
    by_path = sorted(range(len(files)), key=lambda index: (files[index].path, index))
    graph = link_files([files[index] for index in by_path])
    linked = set().union(*graph.uses, (user for user, ties in enumerate(graph.uses) if ties))
    alone = [place for place in range(len(files)) if place not in linked]
    if order.by == "path":
        ordered = list(range(len(files)))
    else:
        features = [_features(files[by_path[place]]) for place in alone]
        parts = ("\n".join(words).encode() for words in features)
        clusters = remember((b"clusters", *parts), lambda: _cluster(features, seed))
        needed = (place for place in _order_linked(graph, sorted(linked)) if place < len(files))
        ordered = [*needed, *(alone[number] for number in clusters)]
        paths = {place: files[by_path[place]].path for place in alone}
        ordered = _shuffle_some(ordered, paths, order.shuffle_rate, seed)
    edges = sorted((by_path[user], by_path[used]) for user, used, _ in _edges(graph))
    return Ordering(
        positions=[by_path[place] for place in ordered],
        edges=edges,
        quality=_quality(graph, ordered, len(files) - len(alone)),
    )


def _edges(graph: FileGraph) -> list[tuple[int, int, int]]:
    """A file, one that it uses, and how strong the tie is."""
    return [
        (user, used, strength)
        for user, ties in enumerate(graph.uses[: graph.num_files])
        for used, strength in ties.items()
        if used < graph.num_files
    ]


def _order_linked(graph: FileGraph, places: list[int]) -> list[int]:
    """Settle which way the ties of circles point, then bring each file close to what it needs.

    The second walk starts at the files that nobody uses, and keeps what points backwards so.
    """
    num_users = dict.fromkeys(places, 0)
    for ties in graph.uses:
        for used in ties:
            num_users[used] += 1
    uses = {
        place: dict(sorted(graph.uses[place].items(), key=lambda tie: (num_users[tie[0]], tie[0])))
        for place in places
    }
    places = sorted(places, key=lambda place: (num_users[place] > 0, place))
    position = {place: number for number, place in enumerate(_arrange(places, uses, NAME))}
    near = nx.DiGraph()
    near.add_nodes_from(places)
    near.add_edges_from(
        (user, used) for user in places for used in uses[user] if position[used] < position[user]
    )
    return list(nx.dfs_postorder_nodes(near))


def _arrange(places: Sequence[int], uses: dict[int, dict[int, int]], weakest: int) -> Iterator[int]:
    """Yield what each file needs before it, and else the places in the order given.

    Where files need each other in a circle, the weakest ties of the circle are let go; without any
    left, the files come by PageRank.
    """
    graph = _graph(places, uses, weakest)
    parts = list(nx.strongly_connected_components(graph))
    part_of = {place: number for number, part in enumerate(parts) for place in part}
    needs = nx.DiGraph()
    needs.add_nodes_from(dict.fromkeys(part_of[place] for place in places))
    ties = ((part_of[user], part_of[used]) for user, used in graph.edges)
    needs.add_edges_from((user, used) for user, used in ties if user != used)
    for number in nx.dfs_postorder_nodes(needs):
        part = parts[number]
        if len(part) == 1:
            yield from part
            continue
        ranked = _by_rank(graph.subgraph(part))
        yield from ranked if weakest == 0 else _arrange(ranked, uses, weakest - 1)


def _graph(
    places: Iterable[int], uses: dict[int, dict[int, int]] | list[dict[int, int]], weakest: int
) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(places)
    graph.add_edges_from(
        (user, used)
        for user in graph
        for used, strength in uses[user].items()
        if strength <= weakest and used in graph
    )
    return graph


def _by_rank(graph: nx.DiGraph) -> list[int]:
    """Files of a component, the most used first."""
    ordered = nx.DiGraph()
    ordered.add_nodes_from(sorted(graph))
    ordered.add_edges_from(sorted(graph.edges))
    ranks = nx.pagerank(ordered)
    return sorted(ordered, key=lambda place: (-round(ranks[place], 9), place))


def _shuffle_some(ordered: list[int], paths: dict[int, str], rate: float, seed: int) -> list[int]:
    """Give a share of the files without links a random place; a function of seed and path."""
    keys = {}
    for number, place in enumerate(ordered):
        keys[place] = (number + 1) / (len(ordered) + 1)
        if place in paths:
            draws = hashlib.sha256(f"{seed}/{paths[place]}".encode()).digest()
            if int.from_bytes(draws[:8]) < rate * 2**64:
                keys[place] = int.from_bytes(draws[8:16]) / 2**64
    return sorted(ordered, key=lambda place: (keys[place], place))


def _cluster(features: Sequence[list[str]], seed: int) -> list[int]:
    """Order files that come by path so that those with like paths and words stand together."""
    number = min(MAX_CLUSTERS, len(features) // CLUSTER_FILES)
    if number < 2:
        return list(range(len(features)))
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # sums differ in the last digit with the number of threads
        vectors = TfidfVectorizer(analyzer=list, max_features=MAX_FEATURES)
        found = vectors.fit_transform(features)
        means = MiniBatchKMeans(number, random_state=seed % 2**32, n_init=1, max_iter=_ROUNDS)
        labels = means.fit_predict(found).tolist()
    first = {}
    for place, label in enumerate(labels):
        first.setdefault(label, place)
    return sorted(range(len(features)), key=lambda place: (first[labels[place]], place))


def _features(file: OrderFile) -> list[str]:
    folders = file.path.split("/")[:-1]
    above = ["/".join(folders[: depth + 1]) + "/" for depth in range(len(folders))]
    return [*above, f".{file.language}", *file.links.words]


def _quality(graph: FileGraph, ordered: list[int], num_linked: int) -> OrderQuality:
    position = {place: number for number, place in enumerate(ordered)}
    parts = list(nx.strongly_connected_components(_graph(position, graph.uses, LATE)))
    part_of = {place: number for number, part in enumerate(parts) for place in part}
    cycles = [len(part) for part in parts if len(part) > 1]
    edges = _edges(graph)
    imports = [(user, used) for user, used, strength in edges if strength <= LATE]
    outside = [(user, used) for user, used in imports if part_of[user] != part_of[used]]
    backward = sum(position[used] < position[user] for user, used in outside)
    return OrderQuality(
        repositories=1,
        files=len(ordered),
        linked=num_linked,
        imports=graph.imports,
        resolved=graph.resolved,
        edges=len(edges),
        import_edges=len(imports),
        cycles=len(cycles),
        cyclic_files=sum(cycles),
        backward=backward,
        forward=len(outside) - backward,
    )
