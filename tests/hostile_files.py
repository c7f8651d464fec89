"""Files that nobody should have to read, for `test_hostile.py` and `bench/hostile.py`."""

import gzip
import json
import os
import random
import socket
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fim import FORMATS

EXTENSIONS = ("py", "js", "ts", "java", "go", "rs", "c", "cpp", "cs", "rb", "php", "sh")
CODE = b"def add(first, second):\n    total = first + second\n    return total\n\n\nadd(1, 2)\n"
SCRIPT = b"function add(a, b) {\n  return a + b;\n}\n\nconsole.log(add(1, 2));\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12345\n" % (b"0" * 64)
_WORDS = (
    "if", "else", "{", "}", "(", ")", "[", "]", "<", ">", ";", ":", ",", ".", "=", "==", "def",
    "class", "return", "for", "while", "x", "y1", "12", '"', "'", "`", "//", "/*", "*/", "#",
    "\n", "\t", "\n    ", "fn", "func", "public", "->", "=>", "&&", "@", "\\", "$", "?", "!",
    "<?php",
)  # fmt: skip


def hostile_contents(scale: int = 100_000) -> dict[str, bytes]:
    """Return contents by file name.

    Args:
        scale: how deep they nest; the longest line has 500 times as many bytes.
    """
    return {
        **_encodings(),
        **_characters(scale),
        **_shapes(scale),
        **_sizes(scale),
        **_other_formats(),
        **_control_tokens(),
        **_noise(scale),
        **_names(),
    }


def _encodings() -> dict[str, bytes]:
    accents = "name = 'Größe é 日本 😀'\nprint(name)\n"
    return {
        "bom.py": b"\xef\xbb\xbf" + CODE,
        "bom_only.py": b"\xef\xbb\xbf",
        "bom_twice.py": b"\xef\xbb\xbf\xef\xbb\xbf" + CODE,
        "bom_inside.py": CODE + b"\xef\xbb\xbf" + CODE,
        "utf16_le.py": b"\xff\xfe" + accents.encode("utf-16-le"),
        "utf16_be.py": b"\xfe\xff" + accents.encode("utf-16-be"),
        "utf16_no_mark.py": accents.encode("utf-16-le"),
        "utf16_odd.py": b"\xff\xfe" + accents.encode("utf-16-le") + b"x",
        "utf32_le.py": b"\xff\xfe\0\0" + accents.encode("utf-32-le"),
        "utf32_be.py": b"\0\0\xfe\xff" + accents.encode("utf-32-be"),
        "utf7.py": accents.encode("utf-7"),
        "latin1.py": "name = 'Größe é'\n".encode("latin-1"),
        "windows1252.py": b"name = '\x93quoted\x94 \x80'\n",
        "shift_jis.py": "name = '日本語'\n".encode("shift_jis"),
        "gbk.py": "name = '编码'\n".encode("gbk"),
        "ebcdic.py": CODE.decode().encode("cp037"),
        "decomposed.py": "na\u0308me = 'e\u0301 o\u0308 \u1100\u1161'\nprint(1)\n".encode(),
    }


def _characters(scale: int) -> dict[str, bytes]:
    def text(inside: str) -> bytes:
        return f"first = '{inside}'\nsecond = first + '{inside}'\nprint(second)\n".encode()

    return {
        "cr_only.py": CODE.replace(b"\n", b"\r"),
        "crlf.py": CODE.replace(b"\n", b"\r\n"),
        "crcrlf.py": CODE.replace(b"\n", b"\r\r\n"),
        "lfcr.py": CODE.replace(b"\n", b"\n\r"),
        "mixed_ends.py": b"a = 1\r\nb = 2\nc = 3\rd = 4\n\n\r",
        "no_last_newline.py": CODE.rstrip(),
        "nul_first.py": b"\0" + CODE,
        "nul_far.py": CODE * 200 + b"\0" + CODE,
        "nul_last.py": CODE * 200 + b"\0",
        "only_nuls.py": b"\0" * 1_000,
        "control_characters.py": text("".join(map(chr, [*range(1, 10), *range(14, 32), 127]))),
        "c1_controls.py": text("".join(map(chr, range(0x80, 0xA0)))),
        "escape_codes.py": text("\x1b]0;owned\x07\x1b[2J\x1b[31m"),
        "form_feed.py": CODE.replace(b"\n\n", b"\n\x0c\n"),
        "vertical_tab.py": CODE.replace(b"    ", b"\x0b\t"),
        "line_separators.js": "var a = 'x\u2028y\u2029z';\u2028var b = 2;\u0085\n".encode(),
        "bidi.py": text("\u202e\u2066 /* \u2069 \u200f"),
        "zero_width.py": text("\u200b\u200c\u200d\u2060\ufeff"),
        "noncharacters.py": text("\ufffe\uffff\U0001ffff\U0010ffff\ufdd0"),
        "private_use.py": text("\ue000\U000f0000"),
        "surrogates.py": b"a = '\xed\xa0\x80\xed\xb0\x80'\n",
        "surrogate_pair.py": b"a = '\xed\xa0\xbd\xed\xb8\x80'\n",
        "overlong.py": b"a = '\xc0\x80 \xe0\x80\xaf'\n",
        "beyond_unicode.py": b"a = '\xf5\x80\x80\x80 \xf4\x90\x80\x80'\n",
        "cut_character.py": "a = '日".encode()[:-1],
        "lone_continuation.py": b"a = '\x80\xbf'\n",
        "combining.py": text("e" + "\u0301" * min(900, scale)),
        "joined_emoji.py": text("👩\u200d👩\u200d👧👍🏽🇩🇪"),
        "right_to_left.py": text("שלום עולם"),
        "sentencepiece_blank.py": text("\u2581\u2581x\u2581"),
        "guard.py": text("☺☺"),
        "byte_pieces.py": text("<0x0A><0x00><unk>"),
        "replacement.py": text("\ufffd\ufffd"),
        "no_break_space.py": "x\u00a0=\u00a01\u3000\n".encode(),
    }


def _shapes(scale: int) -> dict[str, bytes]:
    few = scale // 10
    return {
        "empty.py": b"",
        "newline.py": b"\n",
        "newlines.py": b"\n" * scale,
        "blank.py": b" ",
        "tabs.py": b"\t" * 500,
        "one_letter.py": b"x",
        "one_brace.c": b"{",
        "comment_only.py": b"# nothing here",
        "deep_parens.py": b"x = " + b"(" * scale + b"1" + b")" * scale + b"\n",
        "deep_lists.json": b"[" * scale + b"]" * scale,
        "deep_braces.js": b"{" * scale + b"}" * scale,
        "deep_lines.js": b"{\n" * scale + b"}\n" * scale,
        "deep_lines.py": b"x = [\n" + b"[\n" * scale + b"],\n" * scale + b"]\n",
        "deep_calls.go": b"package a\nvar x = " + b"f(\n" * few + b")" * few + b"\n",
        "deep_tags.html": b"<div>\n" * few + b"</div>\n" * few,
        "deep_generics.java": b"class A { " + b"L<\n" * few + b"B" + b">" * few + b" x; }\n",
        "deep_blocks.c": b"int main() {\n" + b"if (1) {\n" * few + b"}\n" * few + b"}\n",
        "deep_else.js": b"if (a) { b(); } else\n" * few + b"c();\n",
        "deep_indent.py": b"".join(b" " * i + b"if x:\n" for i in range(900)) + b" " * 900 + b"y\n",
        "deep_minus.py": b"x = " + b"-" * scale + b"1\n",
        "deep_sum.py": b"x = " + b"1 +\\\n" * scale + b"1\n",
        "deep_lambda.py": b"x = " + b"lambda: \\\n" * few + b"1\n",
        "deep_pointers.c": b"int " + b"*\n" * few + b"p;\n",
        "deep_brackets.cs": b"class A { int x = " + b"a[\n" * few + b"0" + b"]" * few + b"; }\n",
        "open_parens.py": b"(\n" * scale,
        "open_braces.java": b"{\n" * few,
        "open_tags.html": b"<a>\n" * few,
        "closed_only.js": b")\n}\n]\n" * few,
        "open_string.py": b"x = '''" + b"text\n" * few,
        "open_comment.c": b"/* " + b"text\n" * few,
        "open_template.js": b"x = `${`${" * 300 + b"\n" * 10,
        "open_heredoc.sh": b"cat <<END\n" + b"text\n" * few,
        "many_heredocs.sh": b"cat <<A <<B <<C\n" * 300,
        "open_raw_string.rs": b'let x = r#####"text\n' * 300,
        "conflict.py": b"<<<<<<< HEAD\na = 1\n=======\na = 2\n>>>>>>> other\n" + CODE,
        "macros.c": b"#define A(x) x##x\n#if A\n#else\n" * 500,
        "other_language.py": SCRIPT * 20,
        "prose.java": b"This is no program at all, it is a letter.\n" * 50,
        "template.html": b"{% for a in b %}<p>{{ a }}</p>{% endfor %}\n" * 100,
        "script_in_page.php": b"<html><?php if ($a): ?><p><?= $b ?></p><?php endif ?></html>\n"
        * 50,
    }


def _sizes(scale: int) -> dict[str, bytes]:
    long = 500 * scale
    return {
        "long_list.py": b"x = [" + b"1," * (long // 2) + b"]\n",
        "long_string.py": b"x = '" + b"a" * long + b"'\n",
        "long_comment.js": b"// " + b"a b " * (long // 4),
        "long_name.py": b"a" * (10 * scale) + b" = 1\n",
        "tokens_on_a_line.js": b"a;" * (10 * scale),
        "words_on_a_line.py": b"x = " + b"a b " * (5 * scale),
        "many_lines.py": b"x = 1\n" * (2 * scale),
        "many_functions.py": b"def f():\n    return 1\n" * (scale // 4),
        "many_siblings.json": b"[\n" + b"1,\n" * (2 * scale) + b"1]\n",
        "one_kib_lines.py": b"x = '" + b"a" * 990 + b"'\n" + CODE * 100,
        "blanks_before.py": b"if x:\n" + b" " * (5 * scale) + b"y()\n",
        "far_apart.py": b"a = 1\n" + b" \n" * (2 * scale) + b"b = 2\n",
    }


def _other_formats() -> dict[str, bytes]:
    cell = {"cell_type": "code", "source": ["x = 1\n"], "outputs": [], "metadata": {}}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    packed = gzip.compress(CODE * 100)
    return {
        "pointer.py": POINTER,
        "pointer_cut.py": POINTER[:60],
        "notebook.ipynb": json.dumps(notebook).encode(),
        "notebook_broken.ipynb": b'{"cells": [',
        "notebook_upper.IPYNB": json.dumps(notebook).encode(),
        "archive.py": packed,
        "archive_cut.py": packed[: len(packed) // 2],
        "compressed.js": zlib.compress(SCRIPT * 100),
        "program.c": b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<8H", *range(8)) * 100,
        "picture.js": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
        "document.py": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        "table.parquet.py": b"PAR1" + bytes(100) + b"PAR1",
        "bundle.min.js": b"!function(){" + b"var a=1;" * 1_000 + b"}();",
        "bundle.js": b"!function(){" + b"var a=1;" * 100 + b"}();\n",
        "package-lock.json": b'{"lockfileVersion": 3}\n',
        "made_pb2.py": b"# Generated by the protocol buffer compiler.  DO NOT EDIT!\n" + CODE,
        "marked.py": b"# @generated\n" + CODE,
        "vendor/library.py": CODE + b"# library\n",
        "node_modules/a/index.js": SCRIPT + b"// library\n",
        "shebang": b"#!/usr/bin/env python3\n" + CODE,
        "shebang_only": b"#!",
        "shebang_bytes": b"#!/usr/bin/\xff\xfe\n",
        "shebang_long": b"#!/usr/bin/env " + b"x" * 5_000,
        "shared.h": b"#include <vector>\nnamespace a { class B { public: int c; }; }\n",
        "shared_noise.h": bytes(range(1, 128)) * 50,
        "shared.m": b"@interface A\n@end\n",
        "shared.pl": b"#!/usr/bin/perl\nuse strict;\nmy $x = 1;\n",
        "plain": b"nothing to be known by\n",
        "data.csv": b"a,b\n1,2\n" * 100,
        "copy_1.py": CODE + b"# copy\n",
        "copy_2.py": CODE + b"# copy\n",
    }


def _control_tokens() -> dict[str, bytes]:
    """Every family's own tokens: as strings, bare, cut in two, and as names."""
    files = {}
    for name, row in FORMATS.items():
        known = (row.prefix, row.suffix, row.middle, row.end, row.document_end, *row.stop)
        tokens = [token for token in dict.fromkeys((*known, row.bos, row.file, row.repo)) if token]
        quoted = "".join(f"t{i} = {token!r} + {token[:3]!r}\n" for i, token in enumerate(tokens))
        bare = " ".join(tokens)
        text = f"# {bare}\n{quoted}def {bare}(x):\n    return '{bare}{bare}'\n{bare}"
        files[f"tokens_{name}.py"] = text.encode() + CODE
        files[f"tokens_{name}.js"] = f"// {bare}\nconst a = `{bare}`;\n".encode() + SCRIPT
    return files


def _noise(scale: int) -> dict[str, bytes]:
    rng = random.Random(0)
    files = {}
    for extension in EXTENSIONS:
        files[f"bytes.{extension}"] = rng.randbytes(scale)
        letters = rng.choices(" \n\t" + "".join(map(chr, range(33, 127))), k=scale)
        files[f"letters.{extension}"] = "".join(letters).encode()
        files[f"words.{extension}"] = " ".join(rng.choices(_WORDS, k=scale)).encode()
        files[f"characters.{extension}"] = "".join(
            chr(rng.choice((rng.randrange(32, 0x3000), rng.randrange(0x10000, 0x1FFFF), 10)))
            for _ in range(scale // 4)
        ).encode()
    return files


def _names() -> dict[str, bytes]:
    names = (
        "with space.py", "quote'\"name.py", "back\\slash.py", "-rf.py", "--help", "$(touch x).py",
        "`id`.py", "{comment}.py", "{path}{0}.py", "%s%d%n.py", "percent%2F.py", "semi;colon.py",
        "star*.py", "[a-z].py", "~.py", "...py", ".py", "no_end.", "trailing .py", "tab\tname.py",
        "new\nline.py", "cr\rname.py", "escape\x1b[31m.py", "bell\x07.py", "\u202egnp.py",
        "line\u2028separator.py", "Größe.py", "Gro\u0308ße.py", "日本語.py", "😀.py", "UPPER.PY",
        "upper.py", "con.py", "nul.js", "a" * 240 + ".py", "deep/" * 40 + "file.py",
        "<|fim_prefix|>.py", "▁<PRE>.py", "[a", ":(top).py",
        ":!x.py", "#.py", "a,b.py", "a=b.py", "null.yaml", "C:drive.py",
    )  # fmt: skip
    return {name: CODE + f"# file {i}\n".encode() for i, name in enumerate(names)}


BYTE_NAMES = (b"latin\xe9.py", b"broken\xff\xfe.py", b"cut\xe6\x97.py", b"surrogate\xed\xa0\x80.py")
"""Names that are no UTF-8."""


def write_hostile(folder: Path, contents: dict[str, bytes]) -> None:
    """Write contents by name, and the names that are no text."""
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in BYTE_NAMES:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(CODE + name.hex().encode())


def add_links(folder: Path) -> None:
    """Add symbolic links: a loop, one into nothing, one out of the folder, one to itself."""
    for name, target in (
        ("loop_a.py", "loop_b.py"), ("loop_b.py", "loop_a.py"), ("self.py", "self.py"),
        ("dangling.py", "nothing.py"), ("outside.py", "/etc/passwd"), ("above.py", "../../x.py"),
        ("folder_loop", "."), ("linked.py", "bom.py"),
    ):  # fmt: skip
        os.symlink(target, folder / name)


def add_devices(folder: Path) -> None:
    """Add what no repository can hold: a pipe that nobody writes, a socket, a locked folder."""
    os.mkfifo(folder / "pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.py"))
    (folder / "locked").mkdir()
    (folder / "locked" / "inside.py").write_bytes(CODE)
    os.chmod(folder / "locked", 0)


def commit_hostile(folder: Path) -> None:
    """Make a repository of a folder, with a submodule that is nowhere."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str) -> None:
        names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false")
        command = ["git", "-C", str(folder), *names, *words]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    git("init", "-q")
    git("add", "-A", "-f")
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},modules/nowhere")
    git("commit", "-qm", "all of it")


def count_files(folder: Path) -> int:
    """Count what `prepare` must account for in a folder, without following links."""
    total = 0
    for place, folders, files in os.walk(folder):
        total += len(files) + sum(os.path.islink(os.path.join(place, name)) for name in folders)
        locked = [name for name in folders if not os.access(os.path.join(place, name), os.R_OK)]
        total += len(locked)
    return total


def count_committed(folder: Path) -> int:
    """Count the entries of a repository's last commit."""
    listing = subprocess.run(
        ["git", "-C", str(folder), "ls-tree", "-r", "-z", "HEAD"], check=True, capture_output=True
    )
    return listing.stdout.count(b"\0")


def mutate(text: bytes, rng: random.Random) -> bytes:
    """Return a file with one to four things done to it that editors and networks do to files."""
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(MUTATIONS)(text, rng)
    return text


def _place(text: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(text) + 1)
    return start, min(len(text), start + rng.randrange(1, 200))


def _cut(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _drop(text: bytes, rng: random.Random) -> bytes:
    start, end = _place(text, rng)
    return text[:start] + text[end:]


def _repeat(text: bytes, rng: random.Random) -> bytes:
    start, end = _place(text, rng)
    return text[:end] + text[start:end] * rng.randrange(1, 50) + text[end:]


def _insert(text: bytes, rng: random.Random) -> bytes:
    start, _ = _place(text, rng)
    return text[:start] + rng.choice(_INSERTS) * rng.choice((1, 1, 2, 40)) + text[start:]


def _flip(text: bytes, rng: random.Random) -> bytes:
    if not text:
        return text
    place = rng.randrange(len(text))
    return text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :]


def _swap(text: bytes, rng: random.Random) -> bytes:
    lines = text.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def _retype(text: bytes, rng: random.Random) -> bytes:
    old, new = rng.sample((b"\n", b"\r\n", b"\r", b"\t", b" ", b"    ", b"{", b"(", b'"', b";"), 2)
    return text.replace(old, new, rng.choice((1, 5, -1)))


_INSERTS = (
    b"(", b"{", b"[", b'"', b"'", b"`", b"/*", b"*/", b"//", b"#", b"<", b"\0", b"\r", b"\xff",
    b"\xed\xa0\x80", "é日😀".encode(), "\u2028".encode(), "\u202e".encode(), b"\xef\xbb\xbf",
    b"<|fim_prefix|>", b"<fim_suffix>", "<｜fim▁hole｜>".encode(), "▁<PRE>".encode(), b"</s>",
    b"<|endoftext|>", b"\x1b[31m", b"<<<<<<< HEAD\n", b"    ", b"\n" * 30, b"\\",
)  # fmt: skip
MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _drop, _repeat, _insert, _flip, _swap, _retype,
)  # fmt: skip


def mutated_files(
    originals: list[tuple[str, bytes]], number: int, seed: int
) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of mutated files, each original as often as the others.

    Args:
        originals: extension and content.
        number: files to make.
        seed: of every choice.
    """
    rng = random.Random(seed)
    for i in range(number):
        extension, text = originals[i % len(originals)]
        yield f"mutated/{i % 100}/{i}.{extension}", mutate(text, rng)
