"""Recipes as YAML: read strictly, with `section.key=value` overrides, and written back.

YAML would guess the type of a scalar: `ref: 0123456` an octal number, `2e-5` a string, `no` a
boolean. Here scalars stay as written and the fields of the dataclasses say what they are.
"""

import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.progress import first_line
from finetune.recipe.checks import did_you_mean
from finetune.recipe.presets import FILTER_PRESETS, PRESETS
from finetune.recipe.schema import Recipe, RecipeError

_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq",
         "tag:yaml.org,2002:map", None)  # fmt: skip
_NULLS = ("", "~", "null", "Null", "NULL")
_SCALARS = (str, int, float, bool)


class _Loader(yaml.SafeLoader):
    """Null, text, lists and mappings; nothing else, and no key twice."""

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: typing.ClassVar = {
        tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise RecipeError(f"line {line}: {key.value!r} is given twice; keep one")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


class _Text(str):
    """What stands after the `=` of an override: YAML only where a list or a mapping is wanted."""


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply `section.key=value` overrides.

    An empty value, `~` and `null` mean the default.

    Args:
        path: the YAML file.
        overrides: later ones win; list items go by number, as in
            `corpus.sources.0.git=../payments`. Text is taken as it stands, unless quoted.

    Raises:
        RecipeError: the file is missing or no YAML, or keys, types or values are wrong: all of
            them, one per line.
    """
    faults: list[str] = []
    recipe = None
    try:
        recipe = _make_recipe(_read_values(path), overrides, faults)
    except RecipeError as error:
        faults.append(str(error))
    if faults or recipe is None:
        raise RecipeError("\n".join(f"{path}: {fault}" for fault in faults))
    return recipe


def write_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that `read_recipe` reads back to an equal value."""
    # in ASCII: PyYAML writes U+0085 and its like as they are, and reads them back as line ends
    return yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _read_values(path: str | Path) -> dict[str, Any]:
    try:
        values = _parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{error.strerror or error}; give the path of a recipe") from None
    except UnicodeDecodeError:
        raise RecipeError("not a YAML file (no UTF-8 text)") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(f"expected a mapping of sections, got {_shown(values)[:60]}")
    return values


def _parse(text: str) -> Any:
    """Turn YAML into `None`, text, lists and mappings."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecipeError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RecipeError(f"not a YAML file ({line}{error.problem})") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise RecipeError(f"not a YAML file ({first_line(error)})") from None


def _make_recipe(
    values: dict[str, Any], overrides: Sequence[str], faults: list[str]
) -> Recipe | None:
    for override in overrides:
        try:
            _apply_override(values, override)
        except RecipeError as error:
            faults.append(str(error))
    _fill_preset(values, "fim", PRESETS)
    corpus = values.get("corpus")
    if isinstance(corpus, dict):
        _fill_preset(corpus, "filters", FILTER_PRESETS)
    return _convert_section(values, Recipe, "", faults)


def _fill_preset(values: dict[str, Any], name: str, presets: Mapping[str, dict]) -> None:
    """Give a section the values of its preset where it has none."""
    section = _settle(values.get(name), dict)
    preset = _settle(section.get("preset"), str) if isinstance(section, dict) else None
    if not isinstance(preset, str):
        return
    values[name] = section
    for key, value in presets.get(preset, {}).items():
        if section.get(key) in (None, *_NULLS):
            section[key] = _as_text(value)


def _as_text(value: object) -> Any:
    """A value as the file would have it: text, and mappings and lists of it."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    return [str(item) for item in value] if isinstance(value, tuple) else str(value)


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not key or not equals:
        raise RecipeError(f"{override!r}: expected section.key=value")
    parts = key.split(".")
    place: Any = values
    for depth, part in enumerate(parts, start=1):
        if isinstance(place, list):
            part = _index(place, part, key)
        elif not isinstance(place, dict):
            above = ".".join(parts[: depth - 1])
            raise RecipeError(f"{key}: {above} is a value and has no keys")
        if depth < len(parts):
            place = _enter(place, part)
        else:
            place[part] = _Text(text.strip())


def _index(items: list, part: str, key: str) -> int:
    if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(items)):
        raise RecipeError(f"{key}: expected a number below {len(items)}, got {part!r}")
    return int(part)


def _enter(place: Any, part: Any) -> Any:
    """Return what is at `part`, made a mapping if there is nothing yet."""
    value = place.get(part) if isinstance(place, dict) else place[part]
    value = _settle(value, dict)
    place[part] = {} if value is None else value
    return place[part]


def _convert(value: Any, kind: Any, where: str, faults: list[str]) -> Any:
    """Turn YAML data into `kind`; note what does not fit in `faults` and go on."""
    if is_dataclass(kind):
        return _convert_section(value, kind, where, faults)
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list):
            return _fault(faults, where, "a list", value)
        item = typing.get_args(kind)[0]
        return tuple(
            _convert(_settle(v, item), item, f"{where}[{i}]", faults) for i, v in enumerate(value)
        )
    if origin is dict:
        if not isinstance(value, dict):
            return _fault(faults, where, "a mapping", value)
        return {
            str(k): _convert(_settle(v, float), float, f"{where}.{k}", faults)
            for k, v in value.items()
        }
    return _convert_scalar(value, kind, where, faults)


def _convert_section(value: Any, kind: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        return _fault(faults, where, "a mapping", value)
    prefix = f"{where}." if where else ""
    known = {field.name: field for field in fields(kind) if field.init}
    before = len(faults)
    for key in value:
        if key not in known:
            faults.append(f"{prefix}{key}: unknown key{did_you_mean(str(key), known)}")
    arguments = dict(_convert_fields(value, kind, prefix, faults))
    for key, field in known.items():
        if key not in arguments and field.default is MISSING and field.default_factory is MISSING:
            faults.append(f"{prefix}{key}: required")
    if len(faults) > before:
        return None
    try:
        return kind(**arguments)
    except RecipeError as error:
        faults += str(error).splitlines()
        return None


def _convert_fields(
    value: dict[str, Any], kind: Any, prefix: str, faults: list[str]
) -> Iterator[tuple[str, Any]]:
    """Yield the fields that are given; those without a value keep their default."""
    for name, hint in typing.get_type_hints(kind).items():
        if isinstance(hint, types.UnionType):  # only with None, which is a default
            hint = typing.get_args(hint)[0]
        item = _settle(value.get(name), hint)
        if item is not None:
            yield name, _convert(item, hint, f"{prefix}{name}", faults)


def _settle(value: Any, kind: Any) -> Any:
    """Return what an override's text means for a field of this type."""
    if not isinstance(value, _Text):
        return value
    if value in _NULLS:
        return None
    if kind in _SCALARS and value[0] not in "'\"":
        return str(value)
    try:
        return _parse(value)
    except RecipeError:
        return str(value)


def _convert_scalar(value: Any, kind: Any, where: str, faults: list[str]) -> Any:
    if isinstance(value, str):
        if kind is str:
            return value
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        try:
            number = kind(value) if kind is not bool and value.isascii() else math.nan
            if math.isfinite(number):
                return number
        except (ValueError, OverflowError):
            pass
    way_out = "; quote it" if kind is str and value is not None else ""
    return _fault(faults, where, kind.__name__, value, way_out)


def _fault(faults: list[str], where: str, expected: str, value: Any, way_out: str = "") -> None:
    faults.append(f"{where}: expected {expected}, got {_shown(value)}{way_out}")


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
