"""Planted secrets are found, whole, in every place; real code is left alone.

python -m pytest tests/test_secrets.py
"""

import os
import random
import string
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import pytest
from planted_secrets import KINDS, is_left, plant

from fim import FimError
from finetune.corpus.privacy.scanner import cache_folder
from finetune.corpus.privacy.search import Finding, find_secrets, merge

TOKEN = b"ghp_" + b"iK2ZWeqhFWCEPyYng" + b"Fb51yBMWXaSCrUZoL8g"  # the scanner reads this file too


def hide(text: bytes) -> bytes:
    """Return a text without what is found in it."""
    hidden = bytearray(text)
    for finding in find_secrets(text):
        hidden[finding.start : finding.end] = b" " * (finding.end - finding.start)
    return bytes(hidden)


def found(text: bytes) -> list[tuple[str, bytes]]:
    return [(finding.kind, text[finding.start : finding.end]) for finding in find_secrets(text)]


@pytest.mark.parametrize("name", ["", "setting"], ids=["fitting names", "one name for all"])
def test_planted_secrets_are_found_whole(name):
    left, planted = Counter(), Counter()
    for item in plant(values=4, name=name):
        generic = KINDS[item.kind].is_generic
        planted[generic] += 1
        left[generic] += is_left(item.secret, hide(item.text))

    assert len(KINDS) >= 25
    assert left[False] <= 0.01 * planted[False]
    assert left[True] <= 0.1 * planted[True]


@pytest.mark.parametrize(
    "text",
    [
        b'key = "%s" + "%s"\n',
        b'key = ("%s"\n       "%s")\n',
        b'String key = "%s" +\n    "%s";\n',
        b"$key = '%s' . '%s';\n",
        b'key = "%s\\\n%s"\n',
    ],
)
def test_a_split_literal_is_one_secret(text):
    split = text % (TOKEN[:15], TOKEN[15:])

    ((kind, range_),) = found(split)

    assert kind == "github-pat"
    assert range_.startswith(TOKEN[:15])
    assert range_.endswith(TOKEN[15:])


def test_split_literals_far_from_each_other_are_each_found_whole():
    code = b'names = ["alpha", "beta"]\nfor name in names:\n    print(name)\n' * 20
    split = b'key = "%s" + "%s"\n' % (TOKEN[:15], TOKEN[15:])
    parts = b'key = (\n    "%s"\n    "%s"\n    "%s"\n)\n' % (TOKEN[:9], TOKEN[9:20], TOKEN[20:])

    places = found(code + split + code + parts + code + split + split)

    assert [kind for kind, _ in places] == ["github-pat"] * 4
    assert all(range_.startswith(TOKEN[:9]) and range_.endswith(TOKEN[20:]) for _, range_ in places)


@pytest.mark.parametrize(
    "around",
    [
        (b"a " * 100_000, b" b" * 100_000),
        (b"a" * 200_000 + b" ", b""),
        (b"\0\0\0", b"\0" * 1_000),
        (b"\xe9\xff\xfe # latin-1\n", b"\r\n"),
        (b"\xff\xfe", b""),
        (b"\xef\xbb\xbf", b"\r\n"),
    ],
    ids=["200 kB line", "long word", "NUL", "latin-1", "starts like UTF-16", "UTF-8 BOM"],
)
def test_what_is_around_does_not_hide_a_secret(around):
    text = around[0] + b'key = "%s"' % TOKEN + around[1]

    assert [value for _, value in found(text)] == [TOKEN]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"source": ["password = \\"summer2024!\\"\\n"]', b"summer2024!"),  # a notebook
        (b"<password>Summer-2024</password>", b"Summer-2024"),
        (b"spring.datasource.password=Summer-2024\r\n", b"Summer-2024"),
        (b"export DB_PASS=hunter2\n", b"hunter2"),
        (b"Server=db;User=app;Password=aB3$kkk;\n", b"aB3$kkk"),
        (b'map.put("password", "hunter2");', b"hunter2"),
        (b'db.setPassword("hunter2");', b"hunter2"),
        (b'password: str = "hunter2"', b"hunter2"),
        (b"# the password is hunter2\n", b"hunter2"),
        (b"ALTER USER bob WITH PASSWORD 'hunter2';", b"hunter2"),
        (b'login("bob", "dragon77")', b"dragon77"),
        (b'Client("P@ssw0rd")', b"P@ssw0rd"),
        (b"redis://:s3cr3t@10.0.0.1:6379/0", b"s3cr3t"),
        (b'password = "MwOtnSJiPt"', b"MwOtnSJiPt"),
        (b'password = "r9(Kx#v2[Qp!"', b"r9(Kx#v2[Qp!"),
        (b'let password: &\'static str = "kestrel77";', b"kestrel77"),
        (b'const password string = "kestrel77"', b"kestrel77"),
        (b"/* password: hunter2 */", b"hunter2"),
        (b"<!-- password: hunter2 -->", b"hunter2"),
        (b'"Server=tcp:a.io,1433;User=sa;Password=vvghZkntgwq;"', b"vvghZkntgwq"),
        (b'f("jdbc:mysql://a.io/x?user=app&password=ayLvGEyesaxq")', b"ayLvGEyesaxq"),
        (b'<add key="Password" value="kestrel77"/>', b"kestrel77"),
        (b"- name: DB_PASSWORD\n  value: hunter2\n", b"hunter2"),
        (b'Client("x8$Kq2!vRt9z")', b"x8$Kq2!vRt9z"),
        (b'"Basic dXNlcjprODVhRDVhSkRVeGVtVg=="', b"dXNlcjprODVhRDVhSkRVeGVtVg=="),
        (b'"abc\\"def12" password = "abc\\"def12"', b'abc\\"def12'),
    ],
)
def test_a_password_is_found_where_people_write_it(text, value):
    assert value in [range_ for _, range_ in found(text)]


@pytest.mark.parametrize(
    "line",
    [
        b'public static final String VALUE = "%s";\n',
        b"/* value: %s */\n",
        b"<!-- value: %s -->\n",
        b"values:\n  - %s\n",
        b"-- %s\n",
    ],
)
def test_a_random_string_is_found_where_it_is_all_of_a_value(line):
    value = random.Random(0).randbytes(32).hex().encode()

    assert found(line % value) == [("random-string", value)]


@pytest.mark.parametrize(
    ("start", "characters", "length", "end"),
    [
        ("AKCp8", string.ascii_letters, 68, ""),
        ("", "0123456789abcdef", 32, "-us12"),
        ("sq0atp-", string.ascii_letters, 22, ""),
        ("?sig=", string.ascii_letters, 43, "%3D"),
        ("a1B8Q~", string.ascii_letters, 34, ""),
        ("LTAI", string.ascii_letters, 20, ""),
        ("secret_", string.ascii_letters, 43, ""),
        ("NRAK-", string.ascii_uppercase, 27, ""),
        ("sl.", string.ascii_letters, 135, ""),
    ],
)
def test_a_known_form_needs_no_name_and_no_value_of_its_own(start, characters, length, end):
    value = start + "".join(random.Random(1).choices(characters, k=length)) + end

    ((_, range_),) = found(f'[\n "{value}",\n]'.encode())

    assert range_.decode() == value.removeprefix("?sig=")


@pytest.mark.parametrize("unit", [b"token=", b"password=", b"token: "])
def test_names_without_end_take_no_time_without_end(unit):
    started = time.process_time()

    assert found(unit * (250_000 // len(unit))) == []

    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "text",
    [
        b'password = "password"',
        b'{"err.password", "\\u7121\\u6CD5\\u8B80\\u53D6\\u5BC6"}',
        b'password = "DbPassWordField"',
        b'password = "InvalidPasswordError"',
        b'password = getpass("Your password")',
        b"def login(password: str, token: Token = None): ...",
        b"password = password1\n",
        b'password = "${DB_PASSWORD}"',
        b'password = "{{ secrets.db }}"',
        b'password = "<your password>"',
        b'api_key = "YOUR_API_KEY"',
        b'token = "xxxxxxxxxxxxxxxxxxxx"',
        b'url = "https://user:password@host/x"',
        b'AutoTokenizer.from_pretrained("Qwen/Qwen2.5-Coder-0.5B")',
        b'PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]',
        b'"integrity": "sha512-' + b"aB3" * 28 + b'=="',
        b'checksum = "5f4dcc3b5aa765d61d8327deb882cf995f4dcc3b5aa765d61d8327deb882cf99"',
        b"# fixed in 5f4dcc3b5aa765d61d8327deb882cf9912345678\n",
        b'_TABLE = [\n "5f4dcc3b5aa765d61d8327deb882cf99",\n "0d107d09f5bbe40cade3de5c71e9e9b7"]',
        b'psA("SecretKeyFactory", "PBEWithHmacSHA256AndAES_128")',
        b"v.Op = OpARM64LoweredAtomicExchange64Variant\n",
    ],
)
def test_what_only_looks_like_a_secret_is_left_alone(text):
    assert found(text) == []


def test_findings_are_sorted_and_do_not_overlap():
    findings = [
        Finding(kind=k, start=s, end=e) for k, s, e in [("c", 8, 9), ("b", 2, 7), ("a", 0, 4)]
    ]

    assert [(f.kind, f.start, f.end) for f in merge(findings)] == [("a", 0, 7), ("c", 8, 9)]


def test_the_standard_library_has_next_to_none():
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = [p for p in folder.rglob("*.py") if not {"site-packages", "test"} & {*p.parts}]
    texts = [path.read_bytes() for path in paths]

    lines = sum(text.count(b"\n") for text in texts)
    findings = sum(len(find_secrets(text)) for text in texts)

    assert lines > 200_000
    assert findings <= 0.5 * lines / 10_000


def test_the_cache_is_ours_alone_and_holds_no_secret(tmp_path):
    script = (
        "import sys; from finetune.corpus.privacy.search import find_secrets\n"
        "print(len(find_secrets(sys.stdin.buffer.read())))"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"SFIM_CACHE": str(tmp_path / "cache"), "HOME": str(home)}
    environment |= {"XDG_CACHE_HOME": str(home)}

    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(2)  # they share it
    ]
    answers = [run.communicate(b'key = "%s"\n' % TOKEN) for run in runs]

    assert answers == [(b"1\n", b"")] * 2
    assert list(home.rglob("*")) == []
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(written) > 1
    assert not any(TOKEN in path.read_bytes() for path in written)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_cache_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SFIM_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)

    with pytest.raises(FimError, match="belongs to another user; set SFIM_CACHE"):
        cache_folder()
