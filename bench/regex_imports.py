"""A second way to find imports, which shares no code with `finetune.corpus`: text and paths only.

It knows less, and less exactly: it is there so that the order is not judged by its own graph.
"""

import ast
import re
from collections import defaultdict
from posixpath import dirname, normpath

Edges = set[tuple[str, str]]


def find_imports(texts: dict[str, bytes], language: str, name: str) -> Edges:
    """Return (user, used) for the imports inside a package of a given name."""
    decoded = {path: text.decode("utf-8", "replace") for path, text in texts.items()}
    return FINDERS[language](decoded, name)


def _python(texts: dict[str, str], name: str) -> Edges:
    base = [name] if "__init__.py" in texts else []
    modules = {}
    for path in texts:
        parts = base + path.removesuffix(".py").removesuffix(".pyi").split("/")
        modules.setdefault(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)
    edges = set()
    for module, path in modules.items():
        package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        try:
            tree = ast.parse(texts[path])
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                start = ".".join([*above, *filter(None, [node.module])])
                start = start if node.level else node.module
                inner = [f"{start}.{alias.name}" for alias in node.names]
                names = [each if each in modules else start for each in inner]
            edges |= {(path, modules[each]) for each in names if each in modules}
    return edges


def _java(texts: dict[str, str], name: str) -> Edges:
    classes = {}
    for path, text in texts.items():
        package = re.search(r"^\s*package\s+([\w.]+)\s*;", text, re.M)
        classes[f"{package[1] if package else ''}.{path.rpartition('/')[2][:-5]}"] = path
    edges = set()
    for path, text in texts.items():
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        for found in re.findall(r"^import\s+(?:static\s+)?([\w.]+?)(?:\.\*)?\s*;", text, re.M):
            while found and found not in classes:
                found = found.rpartition(".")[0]
            edges |= {(path, classes[found])} if found else set()
    return edges


def _go(texts: dict[str, str], name: str) -> Edges:
    """Import paths that end with a folder's whole path; every file of the folder is used."""
    short = name.partition("-")[0]
    folders = defaultdict(list)
    for path, text in texts.items():
        package = re.search(r"^package (\w+)", text, re.M)
        if not path.endswith("_test.go") and package and package[1] != "main":
            folders[dirname(path)].append(path)
    modules = [re.sub(r".*?/src/", "", f"{folder}/") for folder in folders]
    ends = {module.strip("/"): folder for module, folder in zip(modules, folders, strict=True)}
    edges = set()
    for path, text in texts.items():
        text = re.sub(r"//.*", "", text.partition("\nfunc ")[0])
        blocks = re.findall(r"^import\s*(\([^)]*\)|[\w.]*\s*\"[^\"]*\")", text, re.M)
        for found in re.findall(r'"([^"\n]+)"', "".join(blocks)):
            found = found if found in ends else f"{name}/{found.rpartition(f'/{short}/')[2]}"
            if found in ends:
                edges |= {(path, used) for used in folders[ends[found]]}
    return edges


def _javascript(texts: dict[str, str], name: str) -> Edges:
    ends = ("", ".ts", ".tsx", ".d.ts", ".js", ".mjs", "/index.ts", "/index.d.ts", "/index.js")
    ts = any(path.endswith(".ts") for path in texts)
    edges = set()
    for path, text in texts.items():
        text = re.sub(r"^\s*(?:\*|//|/\*).*", "", text, flags=re.M)
        statements = re.findall(
            r"""^\s*(?:im|ex)port\b[^"'`;=(]*["'](\.[^"'\n]*)["']""", text, re.M
        )
        calls = re.findall(r"""\b(?:require|import)\s*\(\s*["'](\.[^"'\n]*)["']""", text)
        for found in [*statements, *calls]:
            start = normpath(f"{dirname(path)}/{found}").removeprefix("./")
            if ts:
                start = re.sub(r"\.js$", "", start) if f"{start[:-3]}.ts" in texts else start
            used = next((start + end for end in ends if start + end in texts), None)
            edges |= {(path, used)} if used else set()
    return edges


def _rust(texts: dict[str, str], name: str) -> Edges:
    """`mod a;`, and the paths that begin with `crate::` or, at the top, with `super::`."""
    edges = set()
    for path, text in texts.items():
        text = re.sub(r"//.*", "", text)
        folder, stem = dirname(path), path.rpartition("/")[2][:-3]
        inside = folder if stem in ("mod", "lib", "main") else f"{folder}/{stem}".lstrip("/")
        root = folder
        while root and not {f"{root}/lib.rs", f"{root}/main.rs"} & texts.keys():
            root = dirname(root)
        wanted = [
            (inside, found)
            for found in re.findall(r"^\s*(?:pub(?:\([a-z]+\))? )?mod (\w+);", text, re.M)
        ]
        starts = {"crate": root, "super": dirname(inside), "self": inside}
        for used in re.findall(r"^(?:pub(?:\([a-z]+\))? )?use ([^;]+);", text, re.M):
            wanted += [(starts[p[0]], "::".join(p[1:])) for p in _branches(used) if p[0] in starts]
        for used in re.findall(r"^\s+use (crate::[^;]*\{[^;]+);", text, re.M):
            wanted += [(root, "::".join(parts[1:])) for parts in _branches(used)]
        if root:
            wanted += [(root, found) for found in re.findall(r"(?<![\w$])crate::([\w:]+\w)", text)]
        for start, found in wanted:
            parts = [start, *found.split("::")]
            while parts:
                base = "/".join(filter(None, parts))
                places = (f"{base}.rs", f"{base}/mod.rs", f"{base}/lib.rs", f"{base}/main.rs")
                used = next((place for place in places if place in texts), None)
                if used:
                    edges.add((path, used))
                    break
                parts.pop()
    return edges


def _branches(tree: str) -> list[list[str]]:
    """Every path of `a::{b, c::{d, e as f}}`, as its parts."""
    done, pending = [], [re.sub(r"\s+as\s+\w+|\s+", "", tree)]
    while pending:
        text = pending.pop()
        inner = re.search(r"\{([^{}]*)\}", text)
        if inner:
            before, after = text[: inner.start()], text[inner.end() :]
            pending += [before + name + after for name in inner[1].split(",") if name]
        else:
            done.append(re.sub(r"::(?:self|\*)$", "", text).split("::"))
    return done


def _cpp(texts: dict[str, str], name: str) -> Edges:
    """Files beside the user, else the shortest path that ends so."""
    ends = defaultdict(list)
    for path in texts:
        ends[path.rpartition("/")[2]].append(path)
    edges = set()
    for path, text in texts.items():
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
        pattern = r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]'
        for quote, found in re.findall(pattern, text, re.M):
            beside = normpath(f"{dirname(path)}/{found}")
            tails = [p for p in ends[found.rpartition("/")[2]] if f"/{p}".endswith(f"/{found}")]
            if beside in texts and "/" not in found and quote == '"':
                edges.add((path, beside))
            elif tails and "/" in found:
                edges.add((path, min(tails, key=len)))
    return edges


FINDERS = {
    "python": _python, "java": _java, "go": _go, "typescript": _javascript,
    "javascript": _javascript, "rust": _rust, "cpp": _cpp,
}  # fmt: skip
