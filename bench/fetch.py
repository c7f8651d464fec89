"""Real code from the package registries: for the benchmarks, and for the base that is shipped.

    python bench/fetch.py
    python bench/fetch.py recipes/tiny-base/packages.csv

Downloads source packages of fixed versions from PyPI, npm and Debian, checks their digests and
unpacks them under ~/.cache/sfim-bench/, once. Without a table: about 95 MB for the benchmarks, as
LANGUAGE/PACKAGE, 190 MB of different files whose licences differ: they are for measuring. Python's
files are those of the standard library and of what is installed beside it. With a table: what it
lists, all of it under the licences it names, as FOLDER_OF_THE_TABLE/USE/LANGUAGE/PACKAGE.
"""

import base64
import contextlib
import csv
import hashlib
import io
import json
import re
import sys
import sysconfig
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

CACHE = Path.home() / ".cache" / "sfim-bench"
LANGUAGES = ("python", "java", "go", "rust", "cpp", "javascript")
"""Those that are compared with one another; the corpus has TypeScript beside them."""
PACKAGES = (
    ("java", "npm", "react-native", "0.68.0"),
    ("go", "pypi", "wandb", "0.31.0"),
    ("rust", "pypi", "tokenizers", "0.23.3"),
    ("rust", "pypi", "ruff", "0.17.6"),
    ("cpp", "pypi", "grpcio", "1.76.0"),
    ("javascript", "npm", "eslint", "9.0.0"),
    ("javascript", "npm", "mathjs", "15.2.0"),
    ("javascript", "npm", "webpack", "5.112.2"),
    ("typescript", "npm", "effect", "4.1.0"),
    ("typescript", "npm", "rxjs", "7.8.2"),
    ("typescript", "npm", "viem", "2.57.20"),
)
"""Language, registry, name and version."""


def folders(language: str) -> list[Path]:
    """Where files of a language are to be found: for Python those installed, else what is fetched.

    Raises:
        SystemExit: nothing has been fetched.
    """
    if language == "python":
        return [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    if not (CACHE / language).is_dir():
        sys.exit(f"error: no {language} in {CACHE}; run: python bench/fetch.py")
    return [CACHE / language]


def fetch(language: str, registry: str, name: str, version: str, sha256: str = "") -> Path:
    """Download and unpack one package, unless it is there.

    Args:
        language: folder of the cache, or folders with `/` between them.
        registry: `npm`, `pypi` or `debian`, the source package.
        name: of the package.
        version: of the package.
        sha256: of the archive; empty takes the digest that the registry gives.

    Returns:
        The package's folder.

    Raises:
        SystemExit: the digest is another one.
    """
    folder = CACHE / language / f"{name.replace('/', '+')}-{version}"
    if folder.is_dir():
        return folder
    url, algorithm, digest = _REGISTRIES[registry](name, version)
    data = _read(url)
    if sha256:
        algorithm, digest = "sha256", bytes.fromhex(sha256)
    if hashlib.new(algorithm, data).digest() != digest:
        sys.exit(f"error: {url}: wrong {algorithm}; try again")
    partial = folder.with_name(f"{folder.name}.partial")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(partial, filter="data")
    partial.rename(folder)
    return folder


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table of packages: `use,language,registry,package,version,licence,sha256`."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _from_npm(name: str, version: str) -> tuple[str, str, bytes]:
    found = json.loads(_read(f"https://registry.npmjs.org/{name}/{version}"))["dist"]
    algorithm, _, digest = found["integrity"].partition("-")
    return found["tarball"], algorithm, base64.b64decode(digest)


def _from_pypi(name: str, version: str) -> tuple[str, str, bytes]:
    index = f"https://pypi.org/simple/{name}/"
    archive = re.escape(f"{name.replace('-', '_')}-{version}.tar.gz")
    link = re.search(rf'href="([^"#]*/{archive})#sha256=(\w+)', _read(index).decode())
    if link is None:
        sys.exit(f"error: {index}: no source package of version {version}")
    return urllib.parse.urljoin(index, link[1]), "sha256", bytes.fromhex(link[2])


def _from_debian(name: str, version: str) -> tuple[str, str, bytes]:
    """Its pool has no digest to look up: the table gives it."""
    folder = name[: 4 if name.startswith("lib") else 1]
    pool = f"https://deb.debian.org/debian/pool/main/{folder}/{name}/"
    for suffix in ("xz", "gz"):
        url = f"{pool}{name}_{urllib.parse.quote(version)}.orig.tar.{suffix}"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60).close()
            return url, "sha256", b""
    sys.exit(f"error: {pool}: no source package of version {version}")


_REGISTRIES = {"npm": _from_npm, "pypi": _from_pypi, "debian": _from_debian}


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def main() -> None:
    """Fetch what a table lists, or what the benchmarks read."""
    if not sys.argv[1:]:
        for package in PACKAGES:
            print(fetch(*package))
        return
    table = Path(sys.argv[1])
    for row in read_table(table):
        place = f"{table.resolve().parent.name}/{row['use']}/{row['language']}"
        print(fetch(place, row["registry"], row["package"], row["version"], row["sha256"]))


if __name__ == "__main__":
    main()
