"""What a URL names is cloned once, kept up to date, and no password of a URL comes to light."""

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fim import FimError
from finetune.corpus.sources.clones import is_url, strip_credentials, url_name
from finetune.corpus.sources.git import resolve_commit
from finetune.corpus.sources.read import expand_sources, read_source
from finetune.recipe.corpus import Source

PASSWORD = "pa ss/w:rd"  # escaped in a URL as below
AUTHOR = ("-c", "user.name=t", "-c", "user.email=t@example.com")
USER_INFO = "ada:pa%20ss%2Fw%3Ard@"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, tmp_path):
    (tmp_path / "gitconfig").touch()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def remote(tmp_path, make_repo) -> Path:
    """A repository that others clone from."""
    return make_repo(tmp_path / "remote" / "shop.git", {"a.py": b"a = 1\n", "b.py": b"b = 2\n"})


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def clone(url: str, cache: Path, ref: str = "HEAD", fetch: bool = True) -> Source:
    return expand_sources([Source(git=url, ref=ref)], cache, fetch)[0]


def read(source: Source, **arguments) -> dict[str, bytes]:
    return {file.path: file.data for file in read_source(source, "n", 1_000, **arguments)}


def test_a_url_is_told_from_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name").mkdir()

    urls = ["https://host/x", "file:///x", "git@host:team/x.git", "ssh://host/x", "gh:team/x"]
    paths = ["/x", "../x", "~/src/*", "odd:name", "./a:b"]

    assert [text for text in urls + paths if is_url(text)] == urls


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("https://ada:secret@host:8080/team/shop.git", "https://host:8080/team/shop.git", "shop"),
        ("https://token@host/team/shop/", "https://host/team/shop/", "shop"),
        ("https://host/shop.git?token=secret#part", "https://host/shop.git", "shop"),
        ("https://a:b@c:d@host/x/.git", "https://host/x/.git", "x"),
        ("ssh://git:secret@host/~/shop.git", "ssh://git@host/~/shop.git", "shop"),
        ("git+ssh://git:secret@host/shop", "git+ssh://git@host/shop", "shop"),
        ("git@host:shop.git", "git@host:shop.git", "shop"),
        ("file:///srv/shop.git", "file:///srv/shop.git", "shop"),
        ("ssh://git@host/c#/what?.git", "ssh://git@host/c#/what?.git", "what?"),
        ("file:///srv/c#", "file:///srv/c#", "c#"),
        ("/srv/a@b", "/srv/a@b", None),
    ],
)
def test_what_is_shown_of_a_url_holds_no_credentials(url, shown, name):
    assert strip_credentials(url) == shown
    assert name is None or url_name(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:two/halves@host/x.git",
        "https://ada:2#halves@host/x.git",
        "https://ada:2?halves@host/x.git",
        "ada:two@host:x.git",
        "https:/ada:two@host/x.git",
        "://ada:two@host/x.git",
        "https:///ada:two@host/x.git",
    ],
)
def test_a_url_that_cannot_be_understood_is_refused_without_being_shown(url, tmp_path):
    with pytest.raises(FimError, match="malformed; escape") as caught:
        clone(url, tmp_path)

    assert not {"ada", "two", "halves"} & set(re.findall("[a-z]+", str(caught.value)))


def test_only_git_takes_a_url_and_none_is_shown(tmp_path):
    with pytest.raises(FimError, match=r"^corpus.sources: 'folder' takes no URL; only 'git' does$"):
        expand_sources([Source(folder="https://ada:two@host/x")], tmp_path)


def test_a_clone_is_bare_private_and_read_like_the_repository(remote, tmp_path):
    source = clone(f"file://{remote}", tmp_path / "cache")

    folder = Path(source.git)
    assert read(source) == {"a.py": b"a = 1\n", "b.py": b"b = 2\n"}
    assert source.name == "shop"
    assert folder.parent == tmp_path / "cache" / "clones"
    assert git(folder, "rev-parse", "--is-bare-repository") == "true"
    assert [stat_mode(place) for place in (folder, folder.parent)] == [0o700, 0o700]


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_clone_is_read_where_git_refuses_bare_repositories(remote, tmp_path):
    (tmp_path / "gitconfig").write_text("[safe]\n\tbareRepository = explicit\n")

    assert "a.py" in read(clone(f"file://{remote}", tmp_path))


def test_a_second_run_fetches_and_only_what_changed_is_unknown(remote, tmp_path, make_repo):
    url = f"file://{remote}"
    known = {f.content_id for f in read_source(clone(url, tmp_path), "n", 1_000)}
    make_repo(remote, {"b.py": b"b = 3\n", "c.py": b"c = 4\n"})

    before = read(clone(url, tmp_path, fetch=False), is_known=lambda f: f.content_id in known)
    after = read(clone(url, tmp_path), is_known=lambda f: f.content_id in known)

    assert before == {"a.py": b"", "b.py": b""}
    assert after == {"a.py": b"", "b.py": b"b = 3\n", "c.py": b"c = 4\n"}
    assert len(list((tmp_path / "clones").glob("shop-*"))) == 1


def test_branches_come_move_and_go(remote, tmp_path, make_repo):
    url = f"file://{remote}"
    git(remote, "checkout", "-q", "-b", "side")
    make_repo(remote, {"side.py": b"s"})
    assert "side.py" in read(clone(url, tmp_path, "side"))
    assert "side.py" in read(clone(url, tmp_path))  # it is what HEAD names now

    git(remote, "checkout", "-q", "main")
    git(remote, *AUTHOR, "commit", "-q", "--amend", "--message", "other")
    git(remote, "branch", "-q", "-D", "side")
    git(remote, "checkout", "-q", "-b", "side/deep")

    assert resolve_commit(clone(url, tmp_path).git, "main").id == git(remote, "rev-parse", "main")
    assert "side.py" not in read(clone(url, tmp_path, "side/deep"))
    with pytest.raises(FimError, match="unknown ref 'side'"):
        read(clone(url, tmp_path, "side"))


def test_a_commit_that_is_there_is_not_asked_for_again(remote, tmp_path):
    url, commit = f"file://{remote}", git(remote, "rev-parse", "HEAD")
    clone(url, tmp_path)
    remote.rename(tmp_path / "gone")

    assert "a.py" in read(clone(url, tmp_path, commit))
    assert "a.py" in read(clone(url, tmp_path, fetch=False))
    with pytest.raises(FimError, match=r"shop\.git: cannot be cloned \(fatal: .* make sure that"):
        clone(url, tmp_path)


def test_a_commit_on_no_branch_is_asked_for_by_name(remote, tmp_path, make_repo):
    make_repo(remote, {"lost.py": b"l"})
    lost = git(remote, "rev-parse", "HEAD")
    git(remote, "reset", "-q", "--hard", "HEAD~")
    git(remote, "config", "uploadpack.allowAnySHA1InWant", "true")

    assert "lost.py" in read(clone(f"file://{remote}", tmp_path, lost))


def test_without_fetching_only_what_is_cloned_can_be_read(remote, tmp_path):
    with pytest.raises(FimError, match=r"shop\.git: not cloned yet; run 'sfim prepare'"):
        clone(f"file://{remote}", tmp_path / "cache", fetch=False)

    assert not (tmp_path / "cache").exists()


def test_a_long_name_is_cut_in_the_cache(remote, tmp_path):
    long = remote.rename(remote.with_name("ü" * 120))

    source = clone(f"file://{long}", tmp_path / "cache")

    assert (source.name, set(read(source))) == ("ü" * 120, set(read(Source(git=str(long)))))


def test_a_remote_whose_head_names_no_commit_is_read_by_branch(remote, tmp_path):
    url = f"file://{remote}"
    clone(url, tmp_path)
    git(remote, "symbolic-ref", "HEAD", "refs/heads/none")

    assert "a.py" in read(clone(url, tmp_path, "main"))
    with pytest.raises(FimError, match="unknown ref 'HEAD'; known: main"):
        read(clone(url, tmp_path))


def test_foreign_transports_never_run(tmp_path):
    with pytest.raises(FimError, match="transport 'ext' not allowed"):
        clone(f"ext::sh -c touch% {tmp_path}/ran", tmp_path / "cache")

    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache" / "clones").glob("[!.]*"))


def test_what_a_killed_git_leaves_behind_is_cleared_away(remote, tmp_path, make_repo):
    url = f"file://{remote}"
    folder = Path(clone(url, tmp_path).git) / ".git"
    (folder / "refs" / "heads").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "heads" / "main.lock").touch()
    (folder / "packed-refs.lock").touch()
    make_repo(remote, {"c.py": b"c"})

    assert "c.py" in read(clone(url, tmp_path))


def test_runs_at_the_same_time_share_one_clone(remote, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: clone(f"file://{remote}", tmp_path), range(4)))

    assert len({source.git for source in sources}) == 1
    assert len(list((tmp_path / "clones").glob("shop-*"))) == 1
    assert "a.py" in read(sources[0])


class Handler(SimpleHTTPRequestHandler):
    """Serve files, to those who know the password if there is one."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.server.seen.append((self.path, given))
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect + self.path)
            self.end_headers()
        elif self.server.password is None or given == basic(self.server.password):
            if "/objects/" in self.path:
                self.server.open.wait(20)
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="code"')
            self.end_headers()

    def log_message(self, *arguments) -> None:
        """Say nothing."""


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"ada:{password}".encode()).decode()


@pytest.fixture
def serve(remote, tmp_path):
    """A factory `(password, redirect) -> server` of `remote`, on the loopback device."""
    git(tmp_path / "remote", "clone", "-q", "--bare", str(remote), "served.git")
    git(tmp_path / "remote" / "served.git", "update-server-info")
    servers = []

    def start(password: str | None = None, redirect: str = "") -> ThreadingHTTPServer:
        handler = partial(Handler, directory=str(tmp_path / "remote"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.password, server.redirect, server.seen = password, redirect, []
        server.open = threading.Event()
        server.open.set()
        server.place = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.open.set()
        server.shutdown()
        server.server_close()


def test_the_password_of_a_url_opens_the_remote_and_is_written_nowhere(serve, tmp_path):
    server = serve(PASSWORD)
    cache = tmp_path / "cache"

    source = clone(f"http://{USER_INFO}{server.place}/served.git", cache)

    assert "a.py" in read(source)
    assert source.name == "served"
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) > 5
    for secret in ("pa ss", "pa%20ss", basic(PASSWORD)):
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert not [path for path in files if secret in str(path)]


def test_a_wrong_password_fails_at_once_and_is_not_shown(serve, tmp_path, monkeypatch):
    server = serve("another")
    (tmp_path / "ask").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    (tmp_path / "ask").chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(tmp_path / "ask"))

    for user_info in (USER_INFO, "secret-token@", ""):
        with pytest.raises(FimError, match=r"served\.git: cannot be cloned") as caught:
            clone(f"http://{user_info}{server.place}/served.git", tmp_path / "cache")

        message = str(caught.value)
        assert not [word for word in ("pa ss", "pa%20", "ada", "secret") if word in message]
        assert "\n" not in message
        assert caught.value.__cause__ is None
    assert not (tmp_path / "asked").exists()


def test_the_users_own_credential_helper_is_asked(serve, tmp_path):
    server = serve("kept")
    (tmp_path / "gitconfig").write_text(
        '[credential]\n\thelper = "!f() { cat >/dev/null; '
        'test $1 = get && echo username=ada && echo password=kept; }; f"\n'
    )

    assert "a.py" in read(clone(f"http://{server.place}/served.git", tmp_path / "one"))
    assert "a.py" in read(clone(f"http://ada@{server.place}/served.git", tmp_path / "two"))


@pytest.mark.parametrize("url", ["git@code.example:{0}", "ssh://git@code.example{0}"])
def test_the_users_own_ssh_is_used_and_told_not_to_ask(url, remote, tmp_path, monkeypatch):
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nshift $(($# - 1))\neval "$1"\n')
    ssh.chmod(0o700)
    monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    (tmp_path / "gitconfig").write_text(f'[core]\n\tsshCommand = "{ssh} -i key"\n')

    source = clone(url.format(remote), tmp_path / "cache")

    assert "a.py" in read(source)
    assert source.name == "shop"
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-i key -o BatchMode=yes")
    assert "git@code.example git-upload-pack" in asked


def test_another_host_is_not_told_the_password(serve, tmp_path):
    other = serve(PASSWORD)
    server = serve(redirect=f"http://{other.place}")

    with pytest.raises(FimError, match="cannot be cloned"):
        clone(f"http://{USER_INFO}{server.place}/served.git", tmp_path / "cache")

    assert other.seen
    assert not any(given for _, given in other.seen)


def test_a_clone_that_is_killed_in_the_middle_leaves_none(serve, tmp_path):
    server = serve()
    server.open.clear()
    url, cache = f"http://{server.place}/served.git", tmp_path / "cache"
    script = (
        "import sys; from pathlib import Path; "
        "from finetune.corpus.sources.clones import make_clone; "
        "make_clone(sys.argv[1], 'HEAD', Path(sys.argv[2]) / 'clones')"
    )
    process = subprocess.Popen([sys.executable, "-c", script, url, str(cache)])
    wait_for(lambda: any("/objects/" in path for path, _ in server.seen))
    process.send_signal(signal.SIGKILL)
    process.wait()
    left_over = os.listdir(cache / "clones")
    server.open.set()

    with pytest.raises(FimError, match="not cloned yet"):
        clone(url, cache, fetch=False)
    source = clone(url, cache)

    assert any(".new-" in name for name in left_over)
    assert "a.py" in read(source)
    assert sorted(name for name in os.listdir(cache / "clones") if ".lock" not in name) == [
        Path(source.git).name
    ]


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
