"""The generated parts of the README: recipe keys, filters, languages and model families.

`python -m finetune.reference` writes them anew; a test holds the README to them.
"""

import ast
import inspect
import itertools
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from fim import FORMATS, LANGUAGES
from finetune.corpus.filters import RULES
from finetune.recipe import corpus as recipe_corpus
from finetune.recipe import filters as recipe_filters
from finetune.recipe import model as recipe_model
from finetune.recipe import schema as recipe_module
from finetune.recipe import train as recipe_train
from finetune.recipe.schema import Recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the generated parts of the README given, by default the one beside the packages."""
    given = sys.argv[1:] if arguments is None else arguments
    path = Path(given[0]) if given else Path(__file__).parents[1] / "README.md"
    path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def fill(text: str) -> str:
    """Return a page with everything between `<!-- begin: NAME -->` and `<!-- end: NAME -->` new."""
    for name, part in generated_parts().items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        assert text.count(begin) == text.count(end) == 1, name
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
    return text


def generated_parts() -> dict[str, str]:
    """Return each generated part by the name in its markers."""
    return {
        "languages": _language_table(),
        "families": _family_table(),
        "filters": _filter_table(),
        "recipe": "\n".join(_sections(Recipe, "", field_docstrings())).strip(),
    }


def field_docstrings() -> dict[tuple[str, str], str]:
    """Return the string under each field of a recipe, by class and field."""
    rooms = (recipe_module, recipe_corpus, recipe_filters, recipe_model, recipe_train)
    modules = map(inspect.getsource, rooms)
    found = {}
    for node in itertools.chain.from_iterable(ast.parse(source).body for source in modules):
        body = node.body if isinstance(node, ast.ClassDef) else []
        for statement, below in itertools.pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[node.name, ast.unparse(statement.target)] = " ".join(text.split())
    return found


def _sections(kind: Any, where: str, texts: dict[tuple[str, str], str]) -> Iterator[str]:
    """Yield the lines of a section, then those of the sections in it."""
    hints = typing.get_type_hints(kind)
    inner = {name: part for name, hint in hints.items() if (part := _section_of(hint))}
    summary = inspect.getdoc(kind).splitlines()[0] if kind is not Recipe else ""
    rows = [
        (f"`{field.name}`", _default(field), texts[kind.__name__, field.name])
        for field in fields(kind)
        if (kind.__name__, field.name) in texts
    ]
    if where:
        yield f"\n**`{where}`**: {summary}\n"
    if rows:
        yield from table(("key", "default", "meaning"), rows)
    for name, part in inner.items():
        listed = "[]" if typing.get_origin(hints[name]) is tuple else ""
        yield from _sections(part, f"{where}.{name}{listed}".lstrip("."), texts)


def _section_of(hint: Any) -> Any:
    """Return the dataclass a field holds, one or many of, or `None`."""
    kinds = (hint, *typing.get_args(hint))
    return next((kind for kind in kinds if is_dataclass(kind)), None)


def _default(field: Field) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "required"
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if value != "" else '""'


def _language_table() -> str:
    rows = [
        (row.title, f"`{name}`", " ".join(f"`{f}`" for f in (*row.extensions, *row.filenames)))
        for name, row in LANGUAGES.items()
    ]
    return "\n".join(table(("language", "name", "files"), rows))


def _family_table() -> str:
    rows = [
        (
            f"`{name}`",
            ", ".join(row.trained) if row.fim_trained else "refused",
            ", ".join(order for order in row.orders if order not in row.trained) or "-",
            row.verified,
            row.source,
        )
        for name, row in FORMATS.items()
    ]
    head = ("family", "trained on", "on request", "verified", "source of the row")
    return "\n".join(table(head, rows))


def _filter_table() -> str:
    rows = [
        (", ".join(f"`{name}`" for name in rule.names), _summary(rule.check), rule.source)
        for rule in RULES
    ]
    return "\n".join(table(("reason", "what it does", "source"), rows))


def _summary(function: Any) -> str:
    return inspect.getdoc(function).splitlines()[0].rstrip(".")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        cells = (cell.replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
