"""Planted copies that are found, other files called copies, and what the split lets through.

    python bench/duplicates.py [--corpus java=/usr/lib/jvm/src] [--megabytes 4] [--show 40]

Takes real files of five languages, plants 200 copies (exact, moved, reformatted, renamed, and forks
with 10 to 15 % of the lines edited), and prints the share of each kind that is found, the pairs
found among the files themselves, to be looked at, and the near copies between training and
evaluation after the split, counted without any MinHash: by the exact Jaccard similarity of the
five-word shingles.
"""

import argparse
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import process_time

import fetch
import tree_sitter

from fim import Document, parse
from finetune.corpus.copies.dedup import (
    Copy,
    Duplicates,
    Record,
    content_key,
    find_duplicates,
    make_record,
)
from finetune.corpus.split import split_records
from finetune.recipe.corpus import Dedup, Split

LANGUAGES = {
    "python": (".py",),
    "java": (".java",),
    "javascript": (".js", ".mjs"),
    "cpp": (".hpp", ".cc", ".cpp"),
    "go": (".go",),
}
MIN_BYTES, MAX_BYTES = 500, 100_000
PER_KIND = 8
"""Copies of each kind and language: 5 x 5 x 8 are 200."""
MIN_SHINGLES = 40
"""Files of fewer are not copied: there is too little in them."""
RARE = 50
"""A shingle in so many files, or more, makes no pair of them: it is a licence or a habit."""
WORDS = b"alpha beta gamma delta Value item Thing node buffer Count state handler".split()
QUOTED = re.compile("string|char|comment")


def read_files(folders: Sequence[Path], language: str, megabytes: float) -> list[Document]:
    """Read a seeded choice of the files of a language."""
    paths = sorted(p for f in folders for p in f.rglob("*") if p.suffix in LANGUAGES[language])
    random.Random(0).shuffle(paths)
    found, size = [], 0
    for path in paths:
        text = path.read_bytes() if path.is_file() else b""
        if not MIN_BYTES <= len(text) <= MAX_BYTES or len(text) > 120 * (text.count(b"\n") + 1):
            continue
        try:
            text.decode()
        except UnicodeDecodeError:
            continue
        found.append(Document(repo=language, path=str(path), language=language, text=text))
        size += len(text)
        if size > megabytes * 1e6:
            break
    return found


def leaves(document: Document) -> list[tuple[int, int, str]]:
    """Return start, end and type of the tokens of a file."""
    found, todo = [], [parse(document.text, document.language).root]
    while todo:
        node = todo.pop()
        if node.child_count and (not QUOTED.search(node.type) or _interpolates(node)):
            todo.extend(reversed(node.children))
        else:
            found.append((node.start_byte, node.end_byte, node.type))
    return found


def _interpolates(node: tree_sitter.Node) -> bool:
    inside = ("interpolation", "template_substitution", "string")
    return any(child.type in inside for child in node.children)


def exact(document: Document, rng: random.Random) -> bytes:
    """Change line ends and trailing blanks only."""
    return document.text.replace(b"\r\n", b"\n").replace(b"\n", b" \r\n") + b"\n\n"


def moved(document: Document, rng: random.Random) -> bytes:
    """Change nothing."""
    return document.text


def reformatted(document: Document, rng: random.Random) -> bytes:
    """Change quotes, wrapping, trailing commas, indentation, braces and the comment at the top."""
    if document.language == "python":
        config = ("line-length=60", "format.quote-style='single'", "indent-width=2")
        options = [part for line in config for part in ("--config", line)]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--isolated", *options, "-"],
            input=document.text, capture_output=True,
        )  # fmt: skip
        return b"# Copyright of somebody else.\n" + (done.stdout or document.text)
    out, last, depth = [b"// Copyright of somebody else.\n"], 0, 0
    for start, end, kind in leaves(document):
        gap, token = document.text[last:start], document.text[start:end]
        depth += (kind in "([") - (kind in ")]")
        if b"\n" in gap:
            line = gap.rpartition(b"\n")[2]
            gap = b"\n" + line.expandtabs(4).replace(b"    ", b"\t")
        elif out[-1] == b"," and depth > 0 and rng.random() < 0.4:
            gap = b"\n\t\t"
        elif kind == "{" and gap == b" " and document.language in ("java", "cpp"):
            gap = b"\n"
        if kind == "string" and document.language == "javascript" and token.count(b'"') == 0:
            token = b'"' + token[1:-1] + b'"'
        elif kind == "string" and document.language == "javascript" and token.count(b"'") == 0:
            token = b"'" + token[1:-1] + b"'"
        out += [gap, token]
        last = end
    return b"".join([*out, document.text[last:]])


def renamed(document: Document, rng: random.Random) -> bytes:
    """Change every name, the same one in the same way."""
    names: dict[bytes, bytes] = {}
    tokens = leaves(document)
    keywords = {kind for start, end, kind in tokens if document.text[start:end] == kind.encode()}
    for start, end, kind in tokens:
        if "identifier" in kind and document.text[start:end].decode() not in keywords:
            names.setdefault(document.text[start:end], b"%s%d" % (rng.choice(WORDS), len(names)))
    out, last = [], 0
    for start, end, kind in tokens:
        token = document.text[start:end]
        if "identifier" in kind or kind == "preproc_arg":  # the body of a macro
            token = re.sub(rb"[A-Za-z_$][\w$]*", lambda name: names.get(name[0], name[0]), token)
        out += [document.text[last:start], token]
        last = end
    return b"".join([*out, document.text[last:]])


def forked(document: Document, rng: random.Random) -> bytes:
    """Change 10 to 15 % of the lines: a word, a new line, a line less."""
    lines = document.text.split(b"\n")
    code = [number for number, line in enumerate(lines) if re.search(rb"\w\W+\w", line)]
    for number in rng.sample(code, round(len(code) * rng.uniform(0.10, 0.15))):
        edit = rng.random()
        if edit < 0.6:
            words = re.findall(rb"\w+", lines[number])
            lines[number] = lines[number].replace(rng.choice(words), rng.choice(WORDS), 1)
        elif edit < 0.8:
            lines[number] += b"\n" + rng.choice(WORDS) + b"(" + rng.choice(WORDS) + b");"
        else:
            lines[number] = b""
    return b"\n".join(lines)


KINDS: dict[str, Callable[[Document, random.Random], bytes]] = {
    "exact": exact, "moved": moved, "reformatted": reformatted, "renamed": renamed,
    "forked": forked,
}  # fmt: skip


def plant(documents: Sequence[Document]) -> dict[Document, tuple[str, Document]]:
    """Return copies of a seeded choice of files, each with its kind and its original."""
    planted = {}
    for language in LANGUAGES:
        files = [
            d for d in documents if d.language == language and len(shingles(d)) >= MIN_SHINGLES
        ]
        rng = random.Random(f"plant {language}")
        chosen = iter(rng.sample(files, min(len(files), len(KINDS) * PER_KIND)))
        for kind, change in KINDS.items():
            for original in islice(chosen, PER_KIND):
                path = f"copies/{kind}/{len(planted)}{Path(original.path).suffix}"
                text = change(original, rng)
                copy = Document(repo="planted", path=path, language=language, text=text)
                planted[copy] = (kind, original)
    return planted


def shingles(document: Document) -> frozenset[tuple[bytes, ...]]:
    """Return the exact five-word shingles of a file without its comments, as a tree sees them."""
    spans = [(start, end) for start, end, kind in leaves(document) if "comment" not in kind]
    words = [w for s, e in spans for w in re.findall(rb"[\w\x80-\xff]+", document.text[s:e])]
    return frozenset(zip(*(words[start:] for start in range(5)), strict=False))


def near_pairs(
    left: Sequence[Document], right: Sequence[Document], threshold: float
) -> Iterator[tuple[Document, Document, float]]:
    """Yield pairs across two sides whose exact similarity reaches the threshold."""
    sets = {d.id: shingles(d) for d in (*left, *right)}
    counts = Counter(shingle for found in sets.values() for shingle in found)
    index = defaultdict(list)
    for document in left:
        for shingle in sets[document.id]:
            if 1 < counts[shingle] < RARE:
                index[shingle].append(document)
    for other in right:
        mine = sets[other.id]
        for document in {d for shingle in mine for d in index.get(shingle, ())}:
            theirs = sets[document.id]
            similarity = len(mine & theirs) / len(mine | theirs)
            if similarity >= threshold:
                yield document, other, similarity


def report_planted(documents: Sequence[Document], records: Sequence[Record], dedup: Dedup) -> None:
    """Print which share of the planted copies is found, by kind."""
    planted = plant(documents)
    copies = [make_record(copy) for copy in planted]
    found = find_duplicates([*records, *copies], dedup)
    clusters = {(copy.repo, copy.path): copy.cluster for copy in found.clusters}
    hits: Counter[str] = Counter()
    for copy, (kind, original) in planted.items():
        cluster = clusters.get((copy.repo, copy.path), -1)
        hits[kind] += cluster == clusters.get((original.repo, original.path), -2)
    print(f"\n{len(planted)} planted copies:")
    for kind, total in Counter(kind for kind, _ in planted.values()).items():
        print(f"  {kind:12} {hits[kind]:3} of {total:3}  {hits[kind] / total:.3f}")


def report_clusters(documents: Sequence[Document], found: Duplicates, most: int) -> None:
    """Print the near copies among the files themselves, for people to judge."""
    texts = {(d.repo, d.path): d.text for d in documents}
    kept = {copy.cluster: copy for copy in found.clusters if copy.is_kept}
    reasons = Counter(skip.reason for skip in found.skipped)
    print(f"\nfound among the files themselves: {dict(reasons)}")
    near = [
        c
        for c in found.clusters
        if not c.is_kept and _key(texts, c) != _key(texts, kept[c.cluster])
    ]
    for copy in random.Random(0).sample(near, min(most, len(near))):
        print(f"  {copy.similarity:.2f} {copy.path}\n       {kept[copy.cluster].path}")


def _key(texts: dict[tuple[str, str], bytes], copy: Copy) -> bytes:
    return content_key(texts[copy.repo, copy.path])


def report_split(documents: Sequence[Document], records: Sequence[Record], dedup: Dedup) -> None:
    """Print how many pairs of near copies the split leaves across its sides."""
    texts = {(d.repo, d.path): d for d in documents}
    for name, split in (
        ("deduplicated", find_duplicates(records, dedup).kept),
        ("all files", records),
    ):
        sides = split_records(split, Split(eval_rate=0.2), seed=0, threshold=dedup.threshold)
        train, held_out = (
            [texts[r.repo, r.path] for r in side] for side in (sides.train, sides.held_out)
        )
        pairs = list(near_pairs(train, held_out, dedup.threshold))
        print(
            f"\nsplit of {name}: {len(train)} train, {len(held_out)} evaluate, "
            f"{len(sides.skipped)} left out; near copies across: {len(pairs)}"
        )
        for left, right, similarity in pairs[:10]:
            print(f"  {similarity:.2f} {left.path}\n       {right.path}")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", action="append", default=[], metavar="LANGUAGE=FOLDER")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of each language")
    parser.add_argument("--threshold", type=float, default=Dedup().threshold)
    parser.add_argument("--show", type=int, default=40, help="pairs to list")
    options = parser.parse_args()
    given = defaultdict(list)
    for language, _, folder in (entry.partition("=") for entry in options.corpus):
        given[language].append(Path(folder))
    documents = [
        document
        for language in LANGUAGES
        for document in read_files(
            given[language] or fetch.folders(language), language, options.megabytes
        )
    ]
    started = process_time()
    records = [make_record(document) for document in documents]
    megabytes = sum(len(d.text) for d in documents) / 1e6
    speed = 1_000 * (process_time() - started) / megabytes
    dedup = Dedup(threshold=options.threshold)
    started = process_time()
    found = find_duplicates(records, dedup)
    seconds = process_time() - started
    print(
        f"{len(documents)} files, {megabytes:.1f} MB: signature and key {speed:.0f} ms/MB, "
        f"search {seconds:.2f} s"
    )
    kept = {(r.repo, r.path) for r in found.kept}
    report_planted([d for d in documents if (d.repo, d.path) in kept], records, dedup)
    report_clusters(documents, found, options.show)
    report_split(documents, records, dedup)


if __name__ == "__main__":
    main()
