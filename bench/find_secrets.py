"""Recall, false alarms, what is left after redaction, and speed of the secret and personal search.

    python bench/find_secrets.py [FOLDER ...] [--values 4] [--mixtures 2000]

Plants every kind of `tests/planted_secrets.py` in five contexts, with names that fit and with one
name for all; a secret counts as found if no eight bytes in a row of it are left. Then mixtures of
them in nine languages are redacted and searched again. False alarms and speed are of the standard
library and of the folders given, which should hold no secrets; speed is in processor time.
"""

import argparse
import base64
import random
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from planted_secrets import CONTEXTS, KINDS, is_left, make_mixture, plant  # noqa: E402

import fim  # noqa: E402
from finetune.corpus.privacy.personal import find_personal  # noqa: E402
from finetune.corpus.privacy.redact import redact  # noqa: E402
from finetune.corpus.privacy.search import find_secrets  # noqa: E402
from finetune.recipe.corpus import Secrets  # noqa: E402
from finetune.scan import find_in_file  # noqa: E402

NAMES = {"fitting names": "", "one name": "setting"}
FILES = {
    "utf-16": lambda text: text.decode().encode("utf-16"),
    "utf-16-be": lambda text: text.decode().encode("utf-16-be"),
    "latin-1": lambda text: b"# \xe9\xfc\n" + text,
    "crlf": lambda text: text.replace(b"\n", b"\r\n"),
    "base64": base64.encodebytes,
    "200 kB line": lambda text: b"a " * 100_000 + text,
}
ROUNDS = 3


def print_recall(values: int) -> None:
    """Print what share of planted secrets is found whole, by kind and context."""
    print(f"{'':20}" + "".join(f"{context:>9}" for context in CONTEXTS))
    totals: Counter = Counter()
    for label, name in NAMES.items():
        print(f"-- {label}")
        found: Counter = Counter()
        for item in plant(values, name=name):
            hidden = bytearray(item.text)
            for finding in find_secrets(item.text):
                hidden[finding.start : finding.end] = b" " * (finding.end - finding.start)
            is_found = not is_left(item.secret, bytes(hidden))
            found[item.kind, item.context] += is_found
            totals[label, KINDS[item.kind].is_generic, "found"] += is_found
            totals[label, KINDS[item.kind].is_generic, "all"] += 1
        for kind in KINDS:
            cells = "".join(f"{found[kind, context] / values:9.2f}" for context in CONTEXTS)
            print(f"{kind:20}{cells}{'  generic' if KINDS[kind].is_generic else ''}")
    for label in NAMES:
        for generic, word in ((False, "with a format"), (True, "generic")):
            number = totals[label, generic, "all"]
            rate = totals[label, generic, "found"] / number
            print(f"recall, {label}, {word}: {rate:.4f} of {number}")


def print_encodings() -> None:
    """Print what share of them is found in files that are no plain UTF-8."""
    items = list(plant(values=1))
    for label, write in FILES.items():
        found = sum(any(True for _ in find_in_file(write(item.text))) for item in items)
        print(f"files, {label}: {found} of {len(items)} found")


def print_redaction(mixtures: int) -> None:
    """Print what is found again in redacted mixtures of secrets, and what no longer parses."""
    rng, seen = random.Random(0), Counter()
    for _ in range(mixtures):
        mixture = make_mixture(rng)
        language, text = mixture.language, mixture.text
        result = redact(text, language, Secrets())
        seen["found again"] += len(find_secrets(result.text)) + len(find_personal(result.text))
        seen["dropped"] += result.reason is not None
        broken = fim.parse(result.text, language).has_error
        seen["no longer parse"] += broken and not fim.parse(text, language).has_error
        seen["places"] += len(result.kinds)
    print(f"{mixtures} mixtures redacted: " + ", ".join(f"{n} {word}" for word, n in seen.items()))


def read_code(folder: Path, limit: int = 12_000_000) -> Iterator[tuple[str, bytes]]:
    """Yield language and text of the code below a folder."""
    for path in sorted(folder.rglob("*")):
        if limit > 0 and path.is_file() and not path.is_symlink():
            if "site-packages" in path.parts or path.stat().st_size > 1_000_000:
                continue
            data = path.read_bytes()
            if language := fim.detect_language(path.name, data[:4_096]):
                limit -= len(data)
                yield language, data


def print_code(folder: Path) -> None:
    """Print findings per 10,000 lines of real code, and how fast it is searched and redacted."""
    texts = list(read_code(folder))
    size, lines = sum(len(t) for _, t in texts) / 1e6, sum(t.count(b"\n") for _, t in texts)
    found = Counter(f.kind for _, text in texts for f in find_secrets(text))
    personal = Counter(f.kind for _, text in texts for f in find_personal(text))
    searched, redacted = [], []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _, text in texts:
            find_secrets(text)
            find_personal(text)
        middle = time.process_time()
        for language, text in texts:
            redact(text, language, Secrets())
        searched.append(middle - started)
        redacted.append(time.process_time() - middle)
    rate = found.total() / max(1, lines) * 10_000
    speed, cost = size / median(searched), 1_000 * median(redacted) / size
    print(f"{folder}: {len(texts)} files, {lines:,} lines, {size:.1f} MB")
    print(f"  {rate:.2f} secrets per 10,000 lines {dict(found)}")
    print(f"  personal data {dict(personal)}")
    print(f"  search {speed:.1f} MB/s, redact {cost:.0f} ms/MB")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--values", type=int, default=4)
    parser.add_argument("--mixtures", type=int, default=2_000)
    options = parser.parse_args()
    print_recall(options.values)
    print_encodings()
    print_redaction(options.mixtures)
    for folder in [Path(sysconfig.get_paths()["stdlib"]), *options.folders]:
        print_code(folder)


if __name__ == "__main__":
    main()
