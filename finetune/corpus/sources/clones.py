"""Repositories named by a URL: bare clones in a cache, made with the user's own git credentials.

What a URL says before `@` goes to git through the environment only: no message, file, or list of
processes shows it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fim import FimError
from finetune.corpus.sources import git
from finetune.corpus.sources.patterns import clean_path
from finetune.store import fsync_path, fsync_tree

PROTOCOLS = "file:git:http:https:ssh"
SWITCHES = (
    "fetch.recurseSubmodules=false", "fetch.unpackLimit=1", "gc.autoDetach=false",
    "http.lowSpeedLimit=1", "http.lowSpeedTime=600",  # a server that packs sends 5 bytes in 5 s
)  # fmt: skip
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
HEAD = "refs/remotes/origin/HEAD"
"""Where the commit of the remote's `HEAD` is kept; the clone's own is detached there."""
_HELPER = '!f() { test "$1" = get && printf "password=%s\\n" "$SFIM_GIT_PASSWORD"; }; f'
_SSH_OPTIONS = "-o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A URL taken apart."""

    address: str
    """The URL without password, query and, but for ssh, user: safe to show and to hash."""
    user: str = ""
    password: str | None = None


def is_url(text: str) -> bool:
    """Whether git would take a text for a URL: `scheme://` or `host:path` that is no local path."""
    return "://" in text or (":" in text.partition("/")[0] and not os.path.exists(text))


def parse_url(url: str) -> Remote:
    """Take a URL apart.

    Raises:
        FimError: it cannot be understood; the message does not hold it.
    """
    malformed = "corpus.sources: a 'git' URL is malformed; escape what is special in its password"
    if "://" not in url:  # `git@host:path`
        if "@" in url.partition(":")[2]:
            raise FimError(malformed)
        return Remote(address=url)
    try:
        parts = urlsplit(url)
        password = parts.password
        parts.port  # noqa: B018 - raises where an unescaped password is taken for one
    except ValueError:
        raise FimError(malformed) from None
    no_host = not parts.netloc and parts.scheme != "file"
    if "@" in parts.query + parts.fragment or not parts.scheme or no_host:
        raise FimError(malformed)
    user, host = unquote(parts.username or ""), parts.netloc.rpartition("@")[2]
    if "ssh" in parts.scheme and user:  # `git+ssh` is the same
        host = f"{parts.username}@{host}"
    path = parts.path
    if parts.scheme not in ("http", "https"):  # `?` and `#` are part of it
        path = url.partition("://")[2].removeprefix(parts.netloc)
    return Remote(
        address=f"{parts.scheme}://{host}{path}",
        user=user,
        password=None if password is None else unquote(password),
    )


def strip_credentials(url: str) -> str:
    """Return a `git` source that can be shown: a URL as `Remote.address`, a path as it is."""
    return parse_url(url).address if is_url(url) else url


def url_name(url: str) -> str:
    """Return the last part of a URL, `payments` for `https://host/team/payments.git`."""
    parts = [part for part in re.split("[/:]", parse_url(url).address) if part not in ("", ".git")]
    return clean_path(parts[-1].removesuffix(".git")) or "git"


def make_clone(url: str, ref: str, folder: Path, fetch: bool = True) -> Path:
    """Return the bare clone of a repository below `folder`, cloned or brought up to date.

    A crash leaves the clone as it was, or none. Submodules, hooks and `ext::` are off.

    Args:
        url: of the repository, perhaps with user and password.
        ref: if it is a full commit id that the clone has, nothing is fetched.
        folder: where clones live; made readable for its owner only.
        fetch: False never uses the network.

    Raises:
        FimError: git cannot reach or read it, or it is not cloned yet and `fetch` is False.
    """
    remote = parse_url(url)
    digits = hashlib.sha256(remote.address.encode()).hexdigest()[:12]
    place = folder / f"{url_name(url)[:40]}-{digits}"
    if not fetch:
        if not place.is_dir():
            raise FimError(f"{remote.address}: not cloned yet; run 'sfim prepare'")
        return place
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _locked(folder / f".{place.name}.lock") as lock:
        if not place.is_dir():
            _clone(remote, ref, place, lock)
        elif not _has_commit(place, ref):
            for left_over in place.rglob("*.lock"):  # of a git that was killed
                left_over.unlink()
            _fetch(remote, ref, place, lock)
    return place


def _clone(remote: Remote, ref: str, place: Path, lock: int) -> None:
    prefix = f".{place.name}.new-"
    for left_over in place.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
    try:
        # Under this name git reads it even where the user has it refuse bare repositories.
        git.run(fresh, "init", "--quiet", "--bare", "--template=", ".git")
        _fetch(remote, ref, fresh, lock)
        fsync_tree(fresh)
        fresh.rename(place)
        fsync_path(place.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fetch(remote: Remote, ref: str, place: Path, lock: int) -> None:
    message = _call(remote, place, lock, (f"+HEAD:{HEAD}", *REFSPECS))
    if "couldn't find remote ref HEAD" in message:  # it names a branch that does not exist
        git.run(place, "symbolic-ref", "HEAD", "refs/heads/HEAD")  # neither does this
        message = _call(remote, place, lock, REFSPECS)
    elif not message:
        git.run(place, "update-ref", "--no-deref", "HEAD", HEAD)
    if message:
        raise FimError(
            f"{remote.address}: cannot be cloned ({_reason(message, remote)}); make sure that "
            f"'git ls-remote {remote.address}' works without asking"
        )
    if _is_commit_id(ref) and not _has_commit(place, ref):
        _call(remote, place, lock, (f"+{ref}:refs/commits/{ref}",))  # on no branch, perhaps


def _call(remote: Remote, place: Path, lock: int, refspecs: tuple[str, ...]) -> str:
    """Fetch; return what git said if it failed. git holds `lock` even if this process dies."""
    switches = [word for switch in SWITCHES for word in ("-c", switch)]
    result = subprocess.run(
        [*git.command(place, *switches, "fetch", "--quiet", "--prune", "--no-tags"),
         "--no-write-fetch-head", "--update-shallow", "--", remote.address, *refspecs],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=_environment(remote, place),
        pass_fds=(lock,),
        start_new_session=True,  # without a terminal nothing can ask
    )  # fmt: skip
    return os.fsdecode(result.stderr).strip() or "no message" if result.returncode else ""


def _environment(remote: Remote, place: Path) -> dict[str, str]:
    """Return the user's environment without ways to ask, with what the URL said before `@`."""
    environment = git.environment() | {"GIT_ALLOW_PROTOCOL": PROTOCOLS}
    environment.pop("SSH_ASKPASS", None)
    if "GIT_SSH" not in environment:
        ssh = os.environ.get("GIT_SSH_COMMAND")
        ssh = ssh or os.fsdecode(git.call(place, "config", "core.sshCommand").stdout).strip()
        environment["GIT_SSH_COMMAND"] = f"{ssh or 'ssh'} {_SSH_OPTIONS}"
    parts = urlsplit(remote.address)
    if parts.scheme not in ("http", "https"):
        return environment
    section = f"credential.{parts.scheme}://{parts.netloc}"  # no other host is told
    settings = [(f"{section}.username", remote.user)] if remote.user else []
    if remote.password is not None:
        settings += [(f"{section}.helper", ""), (f"{section}.helper", _HELPER)]
        environment["SFIM_GIT_PASSWORD"] = remote.password
    first = int(environment.get("GIT_CONFIG_COUNT") or 0)
    for number, (key, value) in enumerate(settings, start=first):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | {"GIT_CONFIG_COUNT": str(first + len(settings))}


def _reason(message: str, remote: Remote) -> str:
    """Return the fatal line of git's message and the one before it, without credentials."""
    lines = [line for line in message.splitlines() if line and not line.startswith("warning:")]
    fatal = next((n for n, line in enumerate(lines) if line.startswith("fatal:")), len(lines) - 1)
    text = re.sub(r"//[^/@\s]*@", "//", ", ".join(lines[max(0, fatal - 1) : fatal + 1]))
    return clean_path(text.replace(remote.password, "***") if remote.password else text)


def _is_commit_id(ref: str) -> bool:
    return bool(re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", ref))


def _has_commit(place: Path, ref: str) -> bool:
    return (
        _is_commit_id(ref) and not git.call(place, "cat-file", "-e", f"{ref}^{{commit}}").returncode
    )


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a lock until the block, and every process that was given the descriptor, has ended."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
