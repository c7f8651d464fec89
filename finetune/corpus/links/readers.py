"""From the nodes that a query of `link_queries` captured to the names they stand for."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import tree_sitter

Import = tuple[str, bool]
"""What is imported, and whether that happens late: not when the file is loaded."""
MAX_LEVELS = 16
"""How far up from an import is looked for the function or module that it is in."""
MAX_TEXT = 4_000
"""Bytes of a node that are read; more of the inside of a macro."""
_MACRO_TEXT = 65_536


def all_names(uses: Counter[str], imports: Sequence[Import]) -> Counter[str]:
    return uses


def _text(node: tree_sitter.Node | None, text: bytes, most: int = MAX_TEXT) -> str:
    if node is None:
        return ""
    end = min(node.end_byte, node.start_byte + most)
    return text[node.start_byte : end].decode("utf-8", "replace")


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _parents(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """Yield what is above a node that does not begin its line, the nearest first."""
    parent = node.parent if node.start_point.column else None
    for _ in range(MAX_LEVELS):
        if parent is None:
            return
        yield parent
        parent = parent.parent


def _is_inside(node: tree_sitter.Node, kinds: frozenset[str]) -> bool:
    return any(parent.type in kinds for parent in _parents(node))


def capitals(uses: Counter[str], imports: Sequence[Import]) -> Counter[str]:
    return Counter({name: count for name, count in uses.items() if name[:1].isupper()})


_PYTHON_NAMES = 50
"""Most names in one import; the others make further ones."""
_PYTHON_FUNCTION = frozenset({"function_definition"})

_TYPE_CHECKING = re.compile(rb"if\s+(typing\.|t\.)?TYPE_CHECKING\b")


def read_python_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`a.b` for `import a.b`, `..a:b,c` for `from ..a import b, c`."""
    is_late = _is_inside(node, _PYTHON_FUNCTION) or _is_for_types(node, text)
    names = [
        _squeeze(_text(name.child_by_field_name("name") or name, text))
        for name in node.children_by_field_name("name")
    ]
    if node.type == "import_statement":
        yield from ((name, is_late) for name in names)
    else:
        module = _squeeze(_text(node.child_by_field_name("module_name"), text))
        for start in range(0, max(1, len(names)), _PYTHON_NAMES):
            yield f"{module}:{','.join(names[start : start + _PYTHON_NAMES]) or '*'}", is_late


def _is_for_types(node: tree_sitter.Node, text: bytes) -> bool:
    above = node.parent and node.parent.parent if node.start_point.column else None
    return above is not None and bool(_TYPE_CHECKING.match(text, above.start_byte))


def read_java_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`a.b.C`, `a.b.*`; of a static import, `a.b.C.member`."""
    words = _text(node, text).removesuffix(";").split()[1:]
    yield _squeeze("".join(word for word in words if word != "static")), False


def read_kotlin_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`a.b.C`, `a.b.*`, `a.b.function`; the name after `as` is left out."""
    name = re.split(r"\sas\s", _text(node, text))[0].removesuffix(";")
    yield _squeeze(name.removeprefix("import")), False


def read_csharp_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`A.B` for `using A.B;`, `using static A.B;` and `using Name = A.B;`."""
    names = node.named_children
    yield _squeeze(_text(names[-1] if names else None, text)), False


def read_php_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    r"""`A\B\C` for classes and functions, `./x.php` for files."""
    if node.type == "namespace_use_declaration":
        whole = re.sub(r"\s+as\s+\w+", "", _text(node, text).strip().removesuffix(";"))
        names = re.sub(r"\b(use|function|const)\s+", "", whole)
        prefix, _, rest = names.rpartition("{")
        for name in rest.rstrip("} \t\r\n").split(","):
            yield _squeeze(prefix + name).strip("\\"), False
    elif node.type == "qualified_name":
        if node.parent is None or node.parent.type != "namespace_use_clause":
            yield _squeeze(_text(node, text)).strip("\\"), True
    elif found := re.search(
        r"""(__DIR__|dirname\(__FILE__\))?[\s.(]*["']([^"'$]+)["']""", _text(node, text)
    ):
        path = found[2].lstrip("/") if found[1] else found[2]
        yield (path if path.startswith(".") else f"./{path}"), False


def read_go_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`a/b`, with the file's own name for it before a blank: `name a/b`."""
    path = _text(node.child_by_field_name("path"), text).strip('`"')
    yield f"{_text(node.child_by_field_name('name'), text)} {path}".strip(), False


def go_package_name(imported: str) -> str:
    """Return what a file calls a package that it imports, `yaml` for `gopkg.in/yaml.v2`."""
    alias, _, path = imported.rpartition(" ")
    parts = [part for part in path.split("/") if not re.fullmatch(r"v\d+", part)] or [path]
    return alias or parts[-1].partition(".")[0].removeprefix("go-")


def go_names(uses: Counter[str], imports: Sequence[Import]) -> Counter[str]:
    """Leave out methods and fields: `a.B` stays where `a` is an imported package."""
    packages = {go_package_name(name) for name, _ in imports}
    kept = ((n, c) for n, c in uses.items() if "." not in n or n.partition(".")[0] in packages)
    return Counter(dict(kept))


_RUST_PATH_PARTS = frozenset(
    {"scoped_identifier", "scoped_use_list", "use_as_clause", "use_list", "use_wildcard"}
)
_RUST_PATH = re.compile(rb'#\[\s*path\s*=\s*"([^"]+)"')
_RUST_ITEM = re.compile(
    r"\bmod\s+(\w+)\s*;|\buse\s+([\w:]+)(?:\{([\w:,\s]*)\})?|(?<![\w$])(crate::\w+(?:::\w+)*)"
)
_RUST_INLINE = re.compile(rb"\w+(?:\s*::\s*\w+)*")


def read_rust_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`crate::a::B` for a `use`, `mod a` for a module in a file of its own, `file a.rs`.

    What stands in modules within the file is named as seen from the file.
    """
    if node.type == "mod_item":
        name = _text(node.child_by_field_name("name"), text)
        path = _rust_attribute_path(node, text)
        if node.child_by_field_name("body") is None:
            parts = [*_inner_modules(node, text), name]
            yield (f"file {path}" if path else "mod " + "::".join(parts)), True
    elif node.type == "token_tree":
        yield from _rust_in_macro(_text(node, text, _MACRO_TEXT))
    elif node.type == "extern_crate_declaration":
        yield _text(node.child_by_field_name("name"), text), False
    elif node.type == "use_declaration":
        inner = _inner_modules(node, text)
        for path in _rust_paths(node.child_by_field_name("argument"), text):
            if seen := _from_file(path, inner):
                yield seen, False
    elif not _is_in_use(node):
        path = _RUST_INLINE.match(text, node.start_byte)[0].decode("utf-8", "replace")
        inner = _inner_modules(node, text) if path.startswith("super") else []
        if seen := _from_file(_squeeze(path), inner):
            yield seen, True


def _rust_attribute_path(node: tree_sitter.Node, text: bytes) -> str:
    before = node.prev_named_sibling
    while before is not None and before.type == "attribute_item":
        if found := _RUST_PATH.match(text, before.start_byte):
            return found[1].decode("utf-8", "replace")
        before = before.prev_named_sibling
    return ""


def _rust_in_macro(tokens: str) -> Iterator[Import]:
    """What a macro that passes its items on declares; a macro's inside is not parsed."""
    if not any(word in tokens for word in ("mod ", "use ", "crate::")):  # most macros
        return
    for module, path, names, inline in _RUST_ITEM.findall(tokens):
        if module:
            yield f"mod {module}", True
        elif path:
            yield from ((path + _squeeze(name), False) for name in names.split(","))
        else:
            yield inline, True


def _is_in_use(node: tree_sitter.Node) -> bool:
    above = next((p for p in _parents(node) if p.type not in _RUST_PATH_PARTS), None)
    return above is not None and above.type == "use_declaration"


def _inner_modules(node: tree_sitter.Node, text: bytes) -> list[str]:
    """Names of the modules around a node that are written out in the file."""
    modules = [parent for parent in _parents(node) if parent.type == "mod_item"]
    return [_text(module.child_by_field_name("name"), text) for module in reversed(modules)]


def _from_file(path: str, inner: list[str]) -> str:
    """A path as the file's own module sees it; empty where it stays in an inner module."""
    parts = path.removeprefix("::").split("::")
    for _ in inner:
        if parts[0] == "self":
            return ""
        if parts[0] != "super":
            break
        parts = parts[1:] if parts[1:2] == ["super"] else ["self", *parts[1:]]
    return "::".join(parts)


def _rust_paths(node: tree_sitter.Node | None, text: bytes) -> Iterator[str]:
    """Every path of a tree of `use` lists."""
    pending = [(node, "")]
    while pending:
        node, prefix = pending.pop()
        if node is None:
            continue
        if node.type == "use_list":
            pending += [(child, prefix) for child in reversed(node.named_children)]
        elif node.type == "scoped_use_list":
            path = _squeeze(_text(node.child_by_field_name("path"), text))
            pending.append((node.child_by_field_name("list"), f"{prefix}{path}::"))
        elif node.type == "use_as_clause":
            pending.append((node.child_by_field_name("path"), prefix))
        elif node.type == "self" and prefix:
            yield prefix.removesuffix("::")
        elif not node.is_extra:
            yield prefix + _squeeze(_text(node, text))


_JS_FUNCTION = frozenset(
    {"function_declaration", "function_expression", "arrow_function", "method_definition",
     "generator_function_declaration"}
)  # fmt: skip


def read_javascript_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """The quoted path, `./a`; for types only and inside functions it is late."""
    if node.type == "call_expression":
        function = _text(node.child_by_field_name("function"), text)
        path = node.child_by_field_name("arguments").named_child(0)
        if function in ("require", "import"):
            yield _text(path, text)[1:-1], function == "import" or _is_inside(node, _JS_FUNCTION)
        return
    path = node.child_by_field_name("source")
    if path is None and (clause := node.named_child(0)) is not None:
        path = clause.child_by_field_name("source")
    if path is not None:
        is_type = re.match(rb"(im|ex)port\s+type\b", text[node.start_byte : node.start_byte + 24])
        yield _text(path, text)[1:-1], bool(is_type)


_INCLUDE = re.compile(rb"#[ \t]*(?:include|include_next|import)[ \t]*([\"<][^\">\n]+[\">])")


def read_c_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """The path with its quotes or angle brackets."""
    if found := _INCLUDE.match(text, node.start_byte):
        yield found[1].decode("utf-8", "replace"), False


def read_ruby_import(node: tree_sitter.Node, text: bytes) -> Iterator[Import]:
    """`a/b`; `./a` where it is relative to the file; what is loaded by need is late."""
    method = _text(node.child_by_field_name("method"), text)
    path = node.child_by_field_name("arguments").named_children[-1]
    name = _text(path, text)[1:-1]
    if method == "require_relative":
        yield f"./{name}", False
    elif method in ("require", "load", "autoload"):
        yield name, method == "autoload"
