"""Real code for the benchmarks, from the package registries.

    python bench/fetch.py

Downloads source packages of fixed versions from PyPI and npm, about 95 MB, checks their digests and
unpacks them under ~/.cache/sfim-bench/LANGUAGE/, once: 190 MB of different files. Licences differ
by package: they are for measuring. Python's files are those of the standard library and of what is
installed beside it.
"""

import base64
import hashlib
import io
import json
import re
import sys
import sysconfig
import tarfile
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


def fetch(language: str, registry: str, name: str, version: str) -> Path:
    """Download and unpack one package, unless it is there.

    Raises:
        SystemExit: its digest is not the one the registry gives.
    """
    folder = CACHE / language / f"{name}-{version}"
    if folder.is_dir():
        return folder
    url, algorithm, digest = {"npm": _from_npm, "pypi": _from_pypi}[registry](name, version)
    data = _read(url)
    if hashlib.new(algorithm, data).digest() != digest:
        sys.exit(f"error: {url}: wrong {algorithm}; try again")
    partial = folder.with_suffix(".partial")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(partial, filter="data")
    partial.rename(folder)
    return folder


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


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def main() -> None:
    """Fetch everything."""
    for package in PACKAGES:
        print(fetch(*package))


if __name__ == "__main__":
    main()
