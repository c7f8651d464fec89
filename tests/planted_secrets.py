"""Made-up secrets of many kinds, and the places in code where people leave them.

Every value is drawn at random, no checksum in it is right, and none of them opens anything.
"""

import base64
import json
import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

DIGITS, LETTERS = string.digits, string.ascii_letters
HEX = "0123456789abcdef"
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
ALNUM = string.ascii_letters + string.digits
URL = ALNUM + "-_"
B64 = ALNUM + "+/"
WORDS = ("summer", "dragon", "hunter", "welcome", "monkey", "orange", "falcon", "winter", "coffee")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of secret."""

    make: Callable[[random.Random], str]
    name: str
    """What a variable that holds one is called."""
    is_generic: bool = False
    """Whether it has no format of its own."""
    secret: str = "(?s)(.*)"
    """Expression for the part of it that is secret."""


def _some(rng: random.Random, alphabet: str, size: int) -> str:
    return "".join(rng.choices(alphabet, k=size))


def _shape(pattern: str) -> Callable[[random.Random], str]:
    """Return a maker for `ghp_{ALNUM:36}`: a name above and how many of its characters."""

    def make(rng: random.Random) -> str:
        parts = []
        for literal, field, size, _ in string.Formatter().parse(pattern):
            parts += [literal, _some(rng, globals()[field], int(size)) if field else ""]
        return "".join(parts)

    return make


def _jwt(rng: random.Random) -> str:
    def part(data: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    header = part({"alg": "HS256", "typ": "JWT"})
    return (
        f"{header}.{part({'sub': _some(rng, LOWER, 10), 'iat': 1516239022})}.{_some(rng, URL, 43)}"
    )


def _private_key(rng: random.Random) -> str:
    kind = rng.choice(("RSA ", "EC ", "OPENSSH ", ""))
    lines = [_some(rng, B64, 64) for _ in range(8)] + [_some(rng, B64, 22) + "=="]
    return "\n".join(
        (f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----")
    )


def _weak_password(rng: random.Random) -> str:
    word = rng.choice(WORDS)
    word = rng.choice((word, word.capitalize(), word.replace("e", "3").replace("o", "0")))
    return f"{word}{rng.randrange(1, 3000)}{rng.choice('!@#$')}"


def _database_url(rng: random.Random) -> str:
    scheme = rng.choice(("postgres", "mysql", "mongodb", "redis", "amqp"))
    return f"{scheme}://app:{_some(rng, ALNUM, 14)}@db{rng.randrange(9)}.acme.io:5432/orders"


KINDS: dict[str, Kind] = {
    "aws-key-id": Kind(make=_shape("AKIA{UPPER:16}"), name="aws_access_key_id"),
    "aws-secret": Kind(make=_shape("{B64:40}"), name="aws_secret_access_key"),
    "azure-storage": Kind(
        make=_shape(
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={B64:86}==;"
            "EndpointSuffix=core.windows.net"
        ),
        name="connection_string",
        secret="AccountKey=([^;]+)",
    ),
    "github-classic": Kind(make=_shape("ghp_{ALNUM:36}"), name="github_token"),
    "github-fine-grained": Kind(make=_shape("github_pat_{ALNUM:22}_{ALNUM:59}"), name="gh_token"),
    "gitlab": Kind(make=_shape("glpat-{URL:20}"), name="gitlab_token"),
    "slack-token": Kind(make=_shape("xoxb-{DIGITS:11}-{DIGITS:12}-{ALNUM:24}"), name="slack_token"),
    "slack-webhook": Kind(
        make=_shape("https://hooks.slack.com/services/T{UPPER:8}/B{UPPER:8}/{ALNUM:24}"),
        name="webhook",
        secret="services/(.*)",
    ),
    "stripe": Kind(make=_shape("sk_live_{ALNUM:24}"), name="stripe_key"),
    "google-api": Kind(make=_shape("AIza{URL:35}"), name="google_key"),
    "openai": Kind(make=_shape("sk-proj-{URL:74}T3BlbkFJ{URL:74}"), name="openai_key"),
    "openai-legacy": Kind(make=_shape("sk-{ALNUM:20}T3BlbkFJ{ALNUM:20}"), name="openai_key"),
    "anthropic": Kind(make=_shape("sk-ant-api03-{URL:93}AA"), name="anthropic_key"),
    "hugging-face": Kind(make=_shape("hf_{LETTERS:34}"), name="hf_token"),
    "npm": Kind(make=_shape("npm_{ALNUM:36}"), name="npm_token"),
    "pypi": Kind(make=_shape("pypi-AgEIcHlwaS5vcmc{URL:80}"), name="pypi_token"),
    "sendgrid": Kind(make=_shape("SG.{URL:22}.{URL:43}"), name="sendgrid_key"),
    "twilio": Kind(make=_shape("SK{HEX:32}"), name="twilio_key"),
    "jwt": Kind(make=_jwt, name="id_token"),
    "private-key": Kind(make=_private_key, name="private_key"),
    "database-url": Kind(make=_database_url, name="database_url", secret=":([^:@]+)@"),
    "digitalocean": Kind(make=_shape("dop_v1_{HEX:64}"), name="do_token"),
    "discord": Kind(make=_shape("MT{ALNUM:22}.G{ALNUM:5}.{URL:38}"), name="discord_token"),
    "telegram": Kind(make=_shape("6{DIGITS:9}:AA{URL:33}"), name="telegram_token"),
    "mailgun": Kind(make=_shape("key-{HEX:32}"), name="mailgun_key"),
    "shopify": Kind(make=_shape("shpat_{HEX:32}"), name="shopify_token"),
    "api-key": Kind(make=_shape("{ALNUM:32}"), name="api_key", is_generic=True),
    "hex64": Kind(make=_shape("{HEX:64}"), name="signing_secret", is_generic=True),
    "base64": Kind(
        make=lambda rng: base64.b64encode(rng.randbytes(48)).decode(),
        name="encryption_key",
        is_generic=True,
    ),
    "weak-password": Kind(make=_weak_password, name="password", is_generic=True),
}


def _assign(name: str, value: str) -> str:
    return f'{name} = """{value}"""\n' if "\n" in value else f'{name} = "{value}"\n'


def _call(name: str, value: str) -> str:
    escaped = value.replace("\n", "\\n")
    return f'client = connect(region, "{escaped}", timeout=3)\n'


def _json(name: str, value: str) -> str:
    return json.dumps({name: value, "retries": 3}, indent=2) + "\n"


def _comment(name: str, value: str) -> str:
    return f"# {name}: {value}\n" if "\n" not in value else f"# {value}\n".replace("\n", "\n# ")


def _yaml(name: str, value: str) -> str:
    if "\n" in value:
        return f"{name}: |\n  " + value.replace("\n", "\n  ") + "\n"
    return f"{name}: {value}\n"


CONTEXTS: dict[str, tuple[str, Callable[[str, str], str]]] = {
    "assign": ("python", _assign),
    "call": ("python", _call),
    "json": ("json", _json),
    "comment": ("python", _comment),
    "yaml": ("yaml", _yaml),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A secret in its place."""

    kind: str
    context: str
    language: str
    value: str
    secret: str
    """The part of the value that nobody may see."""
    text: bytes


def is_left(secret: str, text: bytes) -> bool:
    """Whether eight bytes in a row of a secret, or all of a shorter one, are still in a text."""
    lines = [line.encode() for line in secret.split("\n") if not line.startswith("-----")]
    return any(
        line[place : place + 8] in text for line in lines for place in range(max(1, len(line) - 7))
    )


def plant(values: int = 4, seed: int = 0, name: str = "") -> Iterator[Planted]:
    """Yield every kind in every context, so many values each.

    Args:
        values: how many values of each kind and context.
        seed: of the values.
        name: what every variable is called; empty for a name that fits.
    """
    for kind, row in KINDS.items():
        for context, (language, write) in CONTEXTS.items():
            for number in range(values):
                value = row.make(random.Random(f"{seed} {kind} {context} {number}"))
                yield Planted(
                    kind=kind,
                    context=context,
                    language=language,
                    value=value,
                    secret=re.search(row.secret, value)[1],
                    text=write(name or row.name, value).encode(),
                )


LINES = {  # around a planted value in quotes
    "python": ("import os\n\n\ndef f(a: int = 1):\n    return call(a, key={})\n", '"{}"'),
    "java": ("class A {{ void f() {{ g.call(1, {}); }} }}\n", '"{}"'),
    "javascript": ("export const f = (a) => call(a, {{ key: {} }});\n", "'{}'"),
    "go": ("package a\n\nfunc f() error {{\n\treturn Call(1, {})\n}}\n", '"{}"'),
    "rust": ("fn f() -> u8 {{\n    call(1, {})\n}}\n", '"{}"'),
    "cpp": ("int f() {{ return call(1, {}); }}\n", '"{}"'),
    "ruby": ("def f(a)\n  call(a, key: {})\nend\n", "'{}'"),
    "php": ("<?php\nfunction f($a) {{ return call($a, {}); }}\n", "'{}'"),
    "json": ('{{"a": [1, {}], "b": {{"c": null}}}}\n', '"{}"'),
}
PERSONAL = (
    "jane.doe@acme.io", "10.20.30.40", "2a00:1450:4001:81b::200e", "https://wiki.corp.internal/x",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Code that is full of secrets and personal data."""

    language: str
    text: bytes
    personal: tuple[str, ...]
    """Personal data in it."""


def make_mixture(rng: random.Random) -> Mixture:
    """Write up to four secrets, up to two pieces of personal data and two plain words into code."""
    language = rng.choice(sorted(LINES))
    code, quote = LINES[language]
    kinds = rng.choices(sorted({*KINDS} - {"private-key"}), k=rng.randrange(5))
    personal = rng.sample(PERSONAL, k=rng.randrange(3))
    values = [*(KINDS[kind].make(rng) for kind in kinds), *personal, "plain words"]
    rng.shuffle(values)
    lines = [code.format(quote.format(value)) for value in values]
    text = "[" + ",".join(lines) + "]\n" if language == "json" else "".join(lines)
    return Mixture(language=language, text=text.encode(), personal=tuple(personal))
