"""Rules that look at a file's name and its first lines: foreign, generated, tests, lock files."""

import re

from fim import Document
from finetune.corpus.entries import Reason
from finetune.recipe.filters import Filters

_HEAD_BYTES = 1_024
"""First bytes of a file, among which tools say that they wrote it."""
_TAIL_BYTES = 2_048

_VENDORED_FOLDERS = frozenset(
    "bower_components dist dist-packages extern external externals godeps flow-typed ace-builds "
    "node_modules site-packages vendor vendors __pycache__ __pypackages__ ckeditor mathjax "
    "third_party third-party thirdparty 3rdparty 3rd_party 3rd-party jspm_packages".split()
)
_VENDORED_TOP_FOLDERS = frozenset({"deps", "pods", "carthage", "debian"})  # plain words below
_VENDORED_FILES = re.compile(
    r"gradlew(\.bat)?|mvnw(\.cmd)?|mavenwrapperdownloader\.java|dotnet-install\.(ps1|sh)|"
    r"configure|config\.(guess|sub)|(ltmain|install-sh|missing|depcomp|ylwrap)(\.sh)?|"
    r"(aclocal|libtool|lt(options|sugar|version|~obsolete))\.m4|erlang\.mk|cpplint\.py|waf|"
    r"\.?pnp\.(c?js|loader\.mjs)|ppport\.h|html5shiv\.js|(pdf\.worker|fuelux|bootbox)\.js|"
    r"(jquery|bootstrap|angular|d3|modernizr|prototype|ember|raphael|mootools|knockout|tiny_mce)"
    r"(-[\w.-]*|\.(v?\d|min|slim|ui|effects|full|bundle|all)[\w.-]*)?\.(js|css|less|scss|styl)|"
    r"(font-?awesome|normalize|materialize|bulma|fontello|foundation|dojo|yui|react(-dom)?|vue)"
    r"([.-](v?\d[\w.]*|min|debug|slim|global|prod))+\.(js|css|less|scss|styl)"
)
_OWN_HIDDEN_FOLDERS = frozenset(
    ".github .gitlab .circleci .ci .buildkite .devcontainer .config .husky .storybook .vitepress"
    " .vuepress".split()
)


def vendored(document: Document, filters: Filters) -> Reason | None:
    """Drop files under third-party or hidden folders, and well-known third-party files.

    What linguist leaves out of its statistics though a team wrote it stays: tests' data, build
    files, `.d.ts` files, folders named `cache` or `env`.
    """
    if not filters.vendored:
        return None
    *folders, name = document.path.lower().split("/")
    if not _VENDORED_TOP_FOLDERS.isdisjoint(folders[:1]):
        return Reason(name="vendored", detail="folder of foreign code")
    for folder in folders:
        hidden = folder.startswith(".") and folder.strip(".")
        if folder in _VENDORED_FOLDERS or (hidden and folder not in _OWN_HIDDEN_FOLDERS):
            return Reason(name="vendored", detail="hidden folder" if hidden else "foreign folder")
    if _VENDORED_FILES.fullmatch(name):
        return Reason(name="vendored", detail="well-known foreign file")
    return None


_LOCK_FILES = re.compile(
    r"(package-lock|npm-shrinkwrap)\.json|pnpm-lock\.ya?ml|go\.(sum|work\.sum)|package\.resolved|"
    r"(yarn|poetry|pdm|uv|pixi|cargo|pipfile|gemfile|composer|flake|gopkg|glide|mix|bun|deno|esy|"
    r"pubspec|podfile|conan|mise|module\.bazel|paket|berksfile|\.terraform|stack\.yaml|rebar|"
    r"shard|buf)\.lock(b|\.hcl|\.json)?|packages\.lock\.json|conda-lock\.ya?ml|gradle\.lockfile"
)


def lock_files(document: Document, filters: Filters) -> Reason | None:
    """Drop what package managers write down: resolved versions and their hashes."""
    name = document.path.lower().rpartition("/")[2]
    return Reason(name="lock-file") if filters.locks and _LOCK_FILES.fullmatch(name) else None


_TEST_FOLDERS = frozenset("test tests testing __tests__ spec specs testdata e2e".split())
_TEST_FILES = re.compile(
    r"tests?\.\w+|conftest\.py|test_[^/]*\.\w+|[^/]*[._-](test|tests|spec|e2e|cy)\.\w+"
)
_TEST_CLASSES = re.compile(
    r"[^/]*[a-z0-9](Tests?|TestCase|IT|Spec)\.(java|kt|scala|groovy|cs|php|swift)"
)


def test_files(document: Document, filters: Filters) -> Reason | None:
    """Drop tests, by the names that test runners look for."""
    if not filters.tests:
        return None
    *folders, name = document.path.split("/")
    in_folder = any(folder.lower() in _TEST_FOLDERS for folder in folders)
    if in_folder or _TEST_FILES.fullmatch(name.lower()) or _TEST_CLASSES.fullmatch(name):
        return Reason(name="test", detail="folder of tests" if in_folder else "name of a test")
    return None


_GENERATED_FILES = re.compile(
    r".*_pb2(_grpc)?\.pyi?|.*\.pb(\.gw|\.validate)?\.(go|h|cc|swift)|.*\.twirp\.go|"
    r".*_(pb|grpc_pb|pb_service)\.(js|rb|d\.ts|ts)|.*\.(g|freezed|gr)(\.\w+)?\.dart|"
    r"zz_generated\..*|.*\.generated\.\w+|.*_generated\.(go|h|rs)|.*\.g(\.i)?\.(cs|vb)|"
    r".*\.designer\.(cs|vb)|.*\.(js|css)\.map|.*\.feature\.cs|.*\.zep\.(c|h|php)|.*_tlb\.pas|"
    r".*\.(nib|xcworkspacedata|xcuserstate|pbxproj)|cargo\.toml\.orig|moc_.*\.cpp|qrc_.*\.cpp"
)
_GENERATED_FOLDERS = frozenset({"__generated__", "htmlcov", "__snapshots__"})
_COMMENT_STARTS = (b"#", b"//", b"/*", b"*", b"--", b";", b"%", b"<!--", b'"""', b"'''", b"(*")
_GENERATED_LINE = re.compile(
    rb"""@generated\b
    | ^\W*(this\s+(\w+\s+){0,3}?(is|was|has\s+been)\s+)?(an?\s+)?
      (auto-?\s?|automatically\s+|machine[-\s])generated\b
    | ^\W*(this\s+(\w+\s+){0,3}?(is|was|has\s+been)\s+)?generated\s+(automatically\s+)?(by|from)\b
    | ^\W*this\s+is\s+a\s+generated\s+file\b
    | (?<!\bfor\s)(?<!\bof\s)(?<!\bin\s)(?<!\bfrom\s)(?<!\bwith\s)(?<!\bto\s)
      \b(code|file|class|source|parser)\s+((was|is|has\s+been)\s+)?
      (auto-?|automatically\s+)?generated\s+(by|from)\b
    | generated\s+by\s+the\s+protocol\s+buffer\s+compiler
    | \bmade\s+by\s+gnu\s+bison\b
    | ^\W*gimp\s+(rgb|rgba|header)\b.*\b(dump|format)\b
    | \bgenerated\s+code\s+-\s+do\s+not\s+modify\b
    | ^\W*<auto-generated\b
    | \bdo\s+not\s+(hand-?\s?)?(edit|modify)\s*
      ([.!*/\s-]*$|manually|by\s+hand|directly\b(?!\s+(from|in|on|within|by|while)\b)|this\s+file|[.;-])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_GENERATED_WORDS = (b"generated", b"edit", b"modify", b"made by", b"gimp")
_SOURCE_MAP = re.compile(rb"^/[*/][#@] sourceMappingURL=\S", re.MULTILINE)


def generated(document: Document, filters: Filters) -> Reason | None:
    """Drop files whose name, or a comment in whose first kilobyte, says a tool wrote them.

    Only comments count: a program that writes such headers holds them as strings.
    """
    if not filters.generated:
        return None
    *folders, name = document.path.lower().split("/")
    if _GENERATED_FILES.fullmatch(name) or not _GENERATED_FOLDERS.isdisjoint(folders):
        return Reason(name="generated", detail="name of a generated file")
    if _says_generated(document.text[:_HEAD_BYTES]):
        return Reason(name="generated", detail="its head says so")
    compiled = document.language in ("javascript", "css")
    if compiled and _SOURCE_MAP.search(document.text[-_TAIL_BYTES:]):
        return Reason(name="generated", detail="it names a source map")
    return None


def _says_generated(head: bytes) -> bool:
    lower = head.lower()
    if not any(word in lower for word in _GENERATED_WORDS):
        return False
    lines = (line.strip() for line in head.splitlines())
    return any(line.startswith(_COMMENT_STARTS) and _GENERATED_LINE.search(line) for line in lines)
