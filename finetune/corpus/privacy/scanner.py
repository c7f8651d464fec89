"""The kept scanner: kingfisher's offline rules and ours, loaded once per process."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fim import FimError

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

CACHE_VARIABLE = "SFIM_CACHE"


class Hit(NamedTuple):
    """One match of a rule."""

    rule: str
    """`known.jwt`, `maybe.uri`; of a built-in rule `github-pat`."""
    start: int
    """Offset of the first byte."""
    end: int
    is_encoded: bool
    """Whether what was found is inside base64; the range is that of the base64."""


def cache_folder() -> Path:
    """Return the folder of compiled rules, which only this user can enter.

    It is what the variable `SFIM_CACHE` names, else `sfim-<user id>` in the system's folder for
    temporary files. Compiling takes 4 seconds, loading what is compiled 0.3; processes share it.

    Raises:
        FimError: it belongs to somebody else; set `SFIM_CACHE`.
    """
    given = os.environ.get(CACHE_VARIABLE)
    folder = Path(given or os.path.join(tempfile.gettempdir(), f"sfim-{os.getuid()}"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.lstat()
    if info.st_uid != os.getuid():
        raise FimError(f"{folder}: belongs to another user; set {CACHE_VARIABLE} to another folder")
    if info.st_mode & 0o077 and not given:
        folder.chmod(0o700)
    return folder


def scan_bytes(scanner: "Scanner", text: bytes) -> Iterator[Hit]:
    """Yield what a scanner finds in a text, in no order; several rules may find one thing."""
    # What has NULs or starts like UTF-16 it would decode, and give offsets of another text.
    text = text.replace(b"\0", b" ")
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = b"  " + text[2:]
    for finding in scanner.scan(text):
        native = finding._native
        if native.visible or native.rule_id.endswith(("secret", "secret-access-key", "passphrase")):
            place = native.location
            yield Hit(
                native.rule_id.removeprefix("betterleaks.").removeprefix("veles.secrets/"),
                place["start_offset"],
                place["end_offset"],
                native.is_base64_encoded,
            )


def load_scanner(rules: Mapping[str, object], builtins: bool) -> "Scanner":
    """Compile rules, or load them as another process compiled them.

    Args:
        rules: see `secret_patterns.make_rules`.
        builtins: whether the scanner's own rules are searched for too.
    """
    import kingfisher_sdk  # its `Validator` would ask the network: never used

    def load() -> "Scanner":
        compiled = kingfisher_sdk.Rules([path], builtins=builtins, cache_dir=folder / "compiled")
        return kingfisher_sdk.Scanner(compiled, base64=builtins)

    content = json.dumps(rules, sort_keys=True).encode()
    digest = hashlib.sha256(content + kingfisher_sdk.__version__.encode()).hexdigest()[:16]
    folder = cache_folder()
    path, done = folder / f"rules-{digest}.yaml", folder / f"rules-{digest}.done"
    if done.is_file() and path.is_file():
        return load()
    with open(folder / "lock", "wb") as lock:  # one compiles, the others wait and load
        fcntl.flock(lock, fcntl.LOCK_EX)
        path.write_bytes(content)  # JSON is YAML
        scanner = load()
        done.touch()
    return scanner
