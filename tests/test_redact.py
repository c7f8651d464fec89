"""What was found is replaced by placeholders, and the result holds nothing that could be found."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_secrets import KINDS, is_left, make_mixture, plant

import fim
from finetune.corpus.privacy.personal import find_personal
from finetune.corpus.privacy.redact import redact
from finetune.corpus.privacy.search import find_secrets
from finetune.recipe.corpus import Secrets

ALL = Secrets()
PLACEHOLDER = re.compile(rb"REDACTED_[A-Z]+_\d+(?:_X+)?")


@pytest.mark.parametrize("name", ["", "setting"], ids=["fitting names", "one name for all"])
def test_nothing_of_a_planted_secret_is_left_and_the_code_still_parses(name):
    checked = 0
    for item in plant(values=1, seed=1, name=name):
        redacted = redact(item.text, item.language, ALL)

        if redacted.kinds:
            checked += 1
            assert redacted.reason is None, item
            assert not is_left(item.secret, redacted.text), item
            assert find_secrets(redacted.text) == []
            before = fim.parse(item.text, item.language)
            assert before.has_error >= fim.parse(redacted.text, item.language).has_error, item
    assert checked > 0.97 * 5 * len(KINDS)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**9))
def test_any_mixture_is_clean_afterwards(seed):
    mixture = make_mixture(random.Random(seed))

    redacted = redact(mixture.text, mixture.language, ALL)

    assert redacted.reason is None
    assert find_secrets(redacted.text) == []
    assert find_personal(redacted.text) == []
    assert redact(redacted.text, mixture.language, ALL).text == redacted.text
    assert b"plain words" in redacted.text
    assert not any(value.encode() in redacted.text for value in mixture.personal)
    had_error = fim.parse(mixture.text, mixture.language).has_error
    assert had_error or not fim.parse(redacted.text, mixture.language).has_error


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=400), st.sampled_from(sorted(KINDS)), st.integers(0, 99))
def test_any_bytes_around_a_secret_are_kept(noise, kind, seed):
    value = KINDS[kind].make(random.Random(seed)).encode()
    text = b"\n" + noise + b'\npassword = "%s"\n' % value

    redacted = redact(text, "", Secrets(personal="keep"))

    assert find_secrets(redacted.text) == []
    parts = [re.escape(part) for part in PLACEHOLDER.split(redacted.text)]
    assert re.fullmatch(b".*".join(parts), text, re.DOTALL)


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("letter", ["\u00e9", "\u65e5", "\U0001f600"])
def test_a_name_too_long_for_its_rule_leaves_no_half_of_a_character(letter, shift):
    text = f"/* @author J{'o' * shift}hn X{letter * 90} */".encode()

    redacted = redact(text, "", ALL).text

    assert redacted.startswith(b"/* @author REDACTED_NAME_1")
    assert redacted.decode().rstrip(f" */{letter}") == "/* @author REDACTED_NAME_1"


def test_one_value_has_one_placeholder_and_another_has_another():
    one, two = (KINDS["github-classic"].make(random.Random(n)).encode() for n in range(2))
    text = b'a = "%s"\nb = "%s"\nc = f("%s")\nd = "%s" + "%s"\n' % (one, two, one, one[:9], one[9:])

    redacted = redact(text, "python", ALL)

    first, second = (b"REDACTED_KEY_%d_" % n + b"X" * 25 for n in (1, 2))
    assert redacted.text == b'a = "%s"\nb = "%s"\nc = f("%s")\nd = "%s"\n' % (
        first,
        second,
        first,
        first,
    )
    assert set(redacted.kinds) <= {"github-pat", "github-token"}


def test_a_secret_is_also_taken_where_nothing_tells_it_is_one():
    text = b'password = "tiger$lily9"\nassert answer(1) == "tiger$lily9"\n# tiger$lily9x\n'

    redacted = redact(text, "python", ALL)

    assert redacted.text == (
        b'password = "REDACTED_PASSWORD_1"\nassert answer(1) == "REDACTED_PASSWORD_1"\n'
        b"# tiger$lily9x\n"
    )


@pytest.mark.parametrize(("size", "length"), [(16, 14), (24, 20), (45, 40), (90, 80), (400, 80)])
def test_a_placeholder_is_of_the_length_class_of_its_key(size, length):
    key = "".join(
        random.Random(size).choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLM23456789", k=size)
    )
    text = f'api_key = "{key}"\n'.encode()

    (placeholder,) = PLACEHOLDER.findall(redact(text, "python", ALL).text)

    assert len(placeholder) == length


def test_types_of_placeholders_and_what_is_around_them():
    text = (
        b"# Copyright (c) 2020 Jane Doe <jane@acme.io>\n"
        b'url = "https://wiki.corp.internal/team/%s"\n'
        b'db = "postgres://app:Zk3Vq9Wm2@10.1.2.3:5432/orders"\n'
    )

    redacted = redact(text, "python", ALL)

    assert redacted.text == (
        b"# Copyright (c) 2020 REDACTED_NAME_1 <REDACTED_EMAIL_1>\n"
        b'url = "https://REDACTED_HOST_1/team/%s"\n'
        b'db = "postgres://app:REDACTED_PASSWORD_1@REDACTED_IP_1:5432/orders"\n'
    )
    assert redacted.kinds == (
        "person", "email", "internal-host", "generic-credential-uri", "ip-address",
    )  # fmt: skip


SECRET, MAIL = b'password = "hunter2!"\n', b'mail = "jane@acme.io"\n'


@pytest.mark.parametrize(
    ("choices", "text", "reason"),
    [
        ({}, b"a = 1\n", ""),
        ({"secrets": "keep", "personal": "keep"}, SECRET + MAIL, ""),
        ({"secrets": "drop"}, SECRET, "secret 1 password"),
        ({"secrets": "drop"}, MAIL.replace(b"jane@acme.io", b"x"), ""),
        ({"personal": "drop"}, MAIL * 2, "personal 2 email"),
        ({"personal": "drop", "secrets": "keep"}, SECRET, ""),
    ],
)
def test_what_is_dropped_and_what_is_kept_as_it_is(choices, text, reason):
    redacted = redact(text, "python", Secrets(**choices))

    assert redacted.text == text
    found = redacted.reason
    assert (f"{found.name} {found.detail}" if found else "") == reason


def test_a_file_that_redaction_would_break_is_dropped():
    label = b"AA" + b"Zk3Vq9Wm2Xc7Bn4Lp8Rt6Ys1Dd5Ff7Gg2"
    text = b"int f(int a) { switch (a) { case 1234567890:%s(); } return 1; }\n" % label

    redacted = redact(text, "c", ALL)

    assert redacted.reason.name == "secret"
    assert redacted.reason.detail == "1 telegram-token cannot be taken out of the code"
    assert redacted.text == text
    assert redact(text, "", ALL).reason is None


def test_a_file_in_which_something_is_still_found_is_dropped(monkeypatch):
    first = find_secrets(SECRET)
    monkeypatch.setattr("finetune.corpus.privacy.redact.find_secrets", lambda text: first)

    redacted = redact(SECRET, "python", ALL)

    assert redacted.reason.detail == "1 password, still found after redaction"
    assert redacted.kinds == ("password",)


def test_output_does_not_depend_on_the_process():
    script = (
        "import sys; from finetune.corpus.privacy.redact import redact\n"
        "from finetune.recipe.corpus import Secrets\n"
        "text = sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(redact(text, 'python', Secrets()).text)"
    )
    text = b"".join(item.text for item in plant(values=1) if item.language == "python") + MAIL

    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            input=text,
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            cwd=Path(__file__).parents[1],
        ).stdout
        for seed in ("1", "2")
    }

    assert outputs == {redact(text, "python", ALL).text}
    assert len(PLACEHOLDER.findall(outputs.pop())) > 3 * len(KINDS) - 5


def test_a_placeholder_is_no_control_text_of_a_model():
    text = redact(b"".join(item.text for item in plant(values=1)), "", ALL).text
    sentinels = {form.prefix for form in fim.FORMATS.values()} - {""}

    assert len(sentinels) > 5
    assert PLACEHOLDER.search(text)
    assert not any(mark.encode() in text for mark in sentinels)
    assert b"<|" not in text


def test_a_file_full_of_secrets_is_dropped():
    text = b"".join(b'password = "hunter%d!"\n' % number for number in range(2_001))

    redacted = redact(text, "python", ALL)

    assert redacted.reason.name == "secret"
    assert redacted.reason.detail == "2001 password, 2,001 of them"
    assert redact(text[: len(text) // 2], "python", ALL).reason is None
