"""Whether imports point backwards in the order of the files, on real code, and how long it takes.

    python bench/order.py --corpus java=/usr/lib/jvm/src --corpus python=/tmp/django

Each package is ordered as one repository. Beside the order's own counts, its imports are found a
second time, from the text alone, by `regex_imports`: those that are in no circle must all point
backwards. Python's packages are installed ones; those of the other languages come from
`python bench/fetch.py`, or from the folders given.
"""

import argparse
import sysconfig
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from time import process_time

import fetch
import networkx as nx
from regex_imports import find_imports

from fim import LANGUAGES, FimError
from finetune.corpus.links.find import find_links
from finetune.corpus.links.order import OrderFile, Ordering, order_repository
from finetune.recipe.corpus import Order

PYTHON_PACKAGES = ("networkx", "sympy", "torch", "transformers")
MAX_BYTES = 1_000_000
MANY = 10_000
MAX_FILES = 4_000


def packages(language: str) -> Iterator[Path]:
    """Yield the folders that are each ordered as one repository."""
    if language == "python":
        installed = (Path(sysconfig.get_path("purelib")) / name for name in PYTHON_PACKAGES)
        yield from (folder for folder in installed if folder.is_dir())
    else:
        (folder,) = fetch.folders(language)
        yield from sorted(path for path in folder.iterdir() if path.is_dir())


def read_texts(folder: Path, language: str) -> dict[str, bytes]:
    """Read the files of a language, by path."""
    names = {"cpp": ("cpp", "c"), "typescript": ("typescript", "tsx")}.get(language, (language,))
    endings = {ending for name in names for ending in LANGUAGES[name].extensions}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in endings and path.is_file() and path.stat().st_size <= MAX_BYTES:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return dict(islice(found.items(), MAX_FILES))


def link(texts: dict[str, bytes], language: str) -> list[OrderFile]:
    """Find the links of each file; one that cannot be parsed in time has none."""
    files = []
    for path, text in texts.items():
        name = "tsx" if path.endswith(".tsx") else language
        try:
            files.append(OrderFile(path=path, language=name, links=find_links(text, name)))
        except FimError:
            continue
    return files


def check(files: list[OrderFile], ordering: Ordering, found: set[tuple[str, str]]) -> str:
    """Say which of the imports found a second time are known, and which point backwards."""
    place = {files[index].path: number for number, index in enumerate(ordering.positions)}
    found = {(a, b) for a, b in found if a in place and b in place and a != b}
    parts = nx.strongly_connected_components(nx.DiGraph(sorted(found)))
    part_of = {path: number for number, part in enumerate(parts) for path in part}
    outside = [(a, b) for a, b in found if part_of[a] != part_of[b]]
    forward = sorted((a, b) for a, b in outside if place[b] > place[a])
    known = {(files[a].path, files[b].path) for a, b in ordering.edges}
    share = len(found & known) / max(1, len(found))
    example = f", {forward[0][0]} -> {forward[0][1]}" if forward else ""
    return f"{len(found):7} {share:6.1%} {len(outside):7} {len(forward):7}{example}"


def measure(folder: Path, language: str) -> list[OrderFile]:
    """Print a row of the table, and return the files it is about."""
    texts = read_texts(folder, language)
    files = link(texts, language)
    start = process_time()
    ordering = order_repository(files, Order(), seed=0)
    seconds = process_time() - start
    q = ordering.quality
    found = check(files, ordering, find_imports(texts, language, folder.name))
    print(
        f"{language:10} {folder.name[:24]:24} {q.files:6} {q.imports:7} "
        f"{q.resolved / max(1, q.imports):6.1%} {q.edges:7} {q.cyclic_files:6} {q.forward:7} |"
        f" {found} | {seconds:.1f} s"
    )
    return files


def time_many(files: list[OrderFile]) -> None:
    """Print how long 10,000 files take: copies of a repository side by side."""
    copies = islice(cycle(files), MANY)
    many = [
        OrderFile(path=f"{number // len(files)}/{f.path}", language=f.language, links=f.links)
        for number, f in enumerate(copies)
    ]
    start = process_time()
    edges = len(order_repository(many, Order(), seed=0).edges)
    print(f"{MANY} files, {edges} edges: {process_time() - start:.1f} s")


def main() -> None:
    """Measure every language, or those that are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", action="append", default=[], metavar="LANGUAGE=FOLDER")
    corpora = [text.partition("=")[::2] for text in parser.parse_args().corpus] or [
        (language, folder)
        for language in ("python", "java", "go", "typescript", "javascript", "rust", "cpp")
        for folder in packages(language)
    ]
    print(
        f"{'language':10} {'package':24} {'files':>6} {'imports':>7} {'inside':>6} {'edges':>7} "
        f"{'cyclic':>6} {'forward':>7} | {'found':>7} {'known':>6} {'acyclic':>7} {'forward':>7}"
    )
    largest = max((measure(Path(folder), lang) for lang, folder in corpora), key=len)
    time_many(largest)


if __name__ == "__main__":
    main()
