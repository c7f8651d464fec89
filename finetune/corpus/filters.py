"""What is kept and why not: each rule gives a reason or None, and each reason is counted."""

import re
from collections.abc import Callable
from functools import cache

import fim
from fim import Document, FimError, Syntax
from fim.languages import LANGUAGES, has_grammar
from finetune.corpus.sources import File, Skip
from finetune.recipe_corpus import Filters

HEAD_BYTES = 1_024
BINARY_BYTES = 8_192
"""git's own rule: a NUL among so many first bytes makes a file binary."""
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
LFS_MARK = b"version https://git-lfs.github.com/spec/v1"

_DEPTH_STEP = 4_096
"""Bytes between the places at which the depth of a tree is looked at."""

Rule = Callable[[Document, Filters], str | None]


def to_document(file: File) -> Document | Skip:
    """Turn a file into a document if it is UTF-8 text in a known language; nothing is stripped."""
    language = ""
    reason = _unreadable_as_text(file)
    if reason is None:
        language = file.language or fim.detect_language(file.path, file.data) or ""
        if language not in LANGUAGES:
            reason = "unsupported-language"
    if reason is not None:
        return Skip(repo=file.repo, path=file.path, reason=reason, num_bytes=len(file.data))
    return Document(
        repo=file.repo,
        path=file.path,
        language=language,
        text=file.data,
        revision=file.revision,
        committed_at=file.committed_at,
        licence=file.licence,
        weight=file.weight,
    )


def _unreadable_as_text(file: File) -> str | None:
    if not file.data.strip():
        return "empty"
    if file.data.startswith(LFS_MARK) and len(file.data) < 1_024:
        return "lfs-pointer"
    if file.path.lower().endswith(".ipynb"):
        return "notebook"  # JSON, and its outputs hold private data
    if file.data.startswith(UTF_16_MARKS):
        return "not-utf-8"  # before the next rule: UTF-16 is full of NULs
    if b"\0" in file.data[:BINARY_BYTES]:
        return "binary"
    try:
        file.data.decode()
    except UnicodeDecodeError:
        return "not-utf-8"
    return None


def check_document(document: Document, filters: Filters) -> str | None:
    """Return the reason of the first rule that objects, or None."""
    return next(filter(None, (rule(document, filters) for rule in RULES)), None)


@cache
def kept_languages(filters: Filters) -> frozenset[str]:
    """Return the rows of `LANGUAGES` whose files are kept."""
    usual = (name for name, row in LANGUAGES.items() if row.by_default)
    return frozenset(filters.languages or usual)


def other_language(document: Document, filters: Filters) -> str | None:
    """Drop files in a language that was not asked for."""
    return None if document.language in kept_languages(filters) else "other-language"


def too_small(document: Document, filters: Filters) -> str | None:
    """Drop files below `min_bytes`."""
    return "too-small" if len(document.text) < filters.min_bytes else None


def too_large(document: Document, filters: Filters) -> str | None:
    """Drop files above `max_bytes`."""
    return "too-large" if len(document.text) > filters.max_bytes else None


_VENDORED_FOLDERS = frozenset(
    "bower_components dist dist-packages extern external godeps "
    "node_modules site-packages vendor vendors __pycache__ __pypackages__ "
    "third_party third-party thirdparty 3rdparty 3rd_party 3rd-party".split()
)
_VENDORED_TOP_FOLDERS = frozenset({"deps", "pods", "carthage"})  # plain words further down
_VENDORED_FILES = re.compile(
    r"gradlew(\.bat)?|mvnw(\.cmd)?|ltmain\.sh|config\.(guess|sub)|install-sh|\.?pnp\.c?js|"
    r"(jquery|bootstrap|angular|d3|modernizr|prototype|ember|raphael)([.-][\w.-]*)?\.(js|css)"
)
_KEPT_HIDDEN_FOLDERS = frozenset({".github", ".gitlab", ".circleci", ".ci", ".devcontainer"})


def vendored(document: Document, filters: Filters) -> str | None:
    """Drop files under third-party or hidden folders, and well-known third-party files.

    Source:
        The commonest entries of linguist's `lib/linguist/vendor.yml`.
    """
    *folders, name = document.path.lower().split("/")
    strange = not _VENDORED_TOP_FOLDERS.isdisjoint(folders[:1]) or any(
        folder in _VENDORED_FOLDERS
        or (folder.startswith(".") and folder.strip(".") and folder not in _KEPT_HIDDEN_FOLDERS)
        for folder in folders
    )
    if filters.vendored and (strange or _VENDORED_FILES.fullmatch(name)):
        return "vendored"
    return None


_GENERATED_FILES = re.compile(
    r".*_pb2(_grpc)?\.pyi?|.*\.pb(\.gw)?\.(go|h|cc|swift)|.*_pb\.(js|rb|d\.ts)|.*\.g(\.\w+)?\.dart|"
    r"zz_generated\..*|.*\.(designer|g|g\.i)\.(cs|vb)|.*[.-]min\.(js|css)|.*\.(js|css)\.map|"
    r".*\.feature\.cs|(package-lock|npm-shrinkwrap)\.json|"
    r"(yarn|poetry|pdm|uv|cargo|pipfile|gemfile|composer|flake|gopkg|glide|mix|bun|deno)\.lock|"
    r"pnpm-lock\.ya?ml|go\.sum"
)
_COMMENT_STARTS = (b"#", b"//", b"/*", b"*", b"--", b";", b"%", b"<!--", b'"""', b"'''", b"(*")
_GENERATED_LINE = re.compile(
    rb"""@generated\b
    | ^\W*(this\s+(\w+\s+){0,3}?(is|was|has\s+been)\s+)?(an?\s+)?
      (auto-?\s?|automatically\s+|machine[-\s])generated\b
    | ^\W*(this\s+(\w+\s+){0,3}?(is|was|has\s+been)\s+)?generated\s+(automatically\s+)?(by|from)\b
    | \b(code|file|class|source)\s+((was|is|has\s+been)\s+)?
      (auto-?|automatically\s+)?generated\s+(by|from)\b
    | generated\s+by\s+the\s+protocol\s+buffer\s+compiler
    | \bmade\s+by\s+gnu\s+bison\b
    | \bdo\s+not\s+(hand-?\s?)?(edit|modify)\s*
      ([.!*/\s-]*$|manually|by\s+hand|directly|this\s+file|[.;-])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MINIFIED = {"javascript": 110.0, "css": 110.0}
"""Languages and the mean line length in bytes past which linguist calls a file minified."""


def generated(document: Document, filters: Filters) -> str | None:
    """Drop files whose name, or a comment in whose first kilobyte, says a tool wrote them.

    Only comments count: a program that writes such headers holds them as strings.

    Source:
        The well-known rules of linguist's `lib/linguist/generated.rb`.
    """
    if not filters.generated:
        return None
    if _GENERATED_FILES.fullmatch(document.path.lower().rpartition("/")[2]):
        return "generated"
    lines = (line.strip() for line in document.text[:HEAD_BYTES].splitlines())
    if any(line.startswith(_COMMENT_STARTS) and _GENERATED_LINE.search(line) for line in lines):
        return "generated"
    limit = _MINIFIED.get(document.language)
    if limit is not None and len(document.text) / (document.text.count(b"\n") + 1) > limit:
        return "generated"
    return None


def long_lines(document: Document, filters: Filters) -> str | None:
    """Drop files of data rather than code: one very long line, or long lines throughout.

    Prose is not judged: its paragraphs are often one line each.

    Source:
        Chen et al. 2021 (Codex), arXiv 2107.03374, section 3.1.
    """
    if not LANGUAGES[document.language].is_code:
        return None
    lengths = [len(line) for line in re.split(r"\r\n?|\n", document.text.decode())]
    if max(lengths) > filters.max_line_length:
        return "long-lines"
    return "long-mean-line" if sum(lengths) / len(lengths) > filters.max_mean_line_length else None


def syntax(document: Document, filters: Filters) -> str | None:
    """Drop files that are not what their language says, nest deep, or cannot be parsed in time.

    Prose is not judged, nor is a language whose grammar does not exist or is not installed.
    """
    if not LANGUAGES[document.language].is_code or not has_grammar(document.language):
        return None
    try:
        parsed = fim.parse(document.text, document.language)
    except FimError:
        return "parse-timeout"
    if fim.error_rate(parsed) > filters.max_error_rate:
        return "syntax-errors"
    return "too-deep" if _is_deeper(parsed, filters.max_depth) else None


def _is_deeper(parsed: Syntax, most: int) -> bool:
    """Whether so many nodes lie in each other, looked at in places that no deep nest fits between.

    What is asked of a tree costs a step per level: files of a hundred thousand never end.
    """
    for byte in range(0, len(parsed.text), _DEPTH_STEP):
        cursor, depth = parsed.root.walk(), 0
        while depth <= most and cursor.goto_first_child_for_byte(byte) is not None:
            depth += 1
        if depth > most:
            return True
    return False


RULES: tuple[Rule, ...] = (
    other_language,
    too_small,
    too_large,
    vendored,
    generated,
    long_lines,
    syntax,  # last: it costs more than all others together
)
