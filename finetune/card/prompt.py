"""The part of a model card that is code: a prompt of each trained order, and how it is sent."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fim import ProvedFormat
from fim.formats import Text
from fim.repository import header_pieces
from finetune.recipe.schema import Recipe

BASE_FOLDER = "BASE_FOLDER"
"""Stands for a base that is on no hub."""
_ORDERS = {"psm": "prefix, suffix, middle (PSM)", "spm": "suffix, prefix, middle (SPM)"}


def is_hub_id(name: str) -> bool:
    """Whether a name reads `ORG/NAME`, as the hub spells it."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a card is written from."""

    to: str
    recipe: Recipe
    form: ProvedFormat
    manifest: Mapping[str, Any]
    tokens_trained: int | None
    """Up to the step whose weights are published; `None` if unknown."""
    stats: Mapping[str, Any]
    metrics: Mapping[str, Any]
    adapter: Mapping[str, Any]
    """What PEFT is told of the adapter; empty for full weights."""

    @property
    def full(self) -> bool:
        """Whether every weight was tuned."""
        return self.recipe.model.adapter == "full"

    @property
    def base(self) -> str:
        """Hub id or identity of the base; empty for a model from nothing."""
        return "" if self.recipe.model.scratch else str(self.manifest.get("base", ""))

    @property
    def base_place(self) -> str:
        """What a loader is given."""
        return self.base if is_hub_id(self.base) else BASE_FOLDER

    @property
    def positions(self) -> Mapping[str, Any]:
        """What an adapter's base must have other than its own configuration says."""
        theta = self.recipe.model.rope_theta
        if self.full or not theta:
            return {}
        plain = {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
        return self.manifest.get("positions", plain)

    @property
    def samples(self) -> Mapping[str, int]:
        """Samples of each order; without counts, the orders asked for."""
        weights = self.recipe.fim.orders or self.form.row.trained
        return self.stats.get("samples") or {name: 1 for name, share in weights.items() if share}

    @property
    def orders(self) -> list[str]:
        """Orders the model was tuned on."""
        return [order for order in ("psm", "spm") if self.samples.get(order)]


def prompt(facts: Facts) -> str:
    """Write the section that shows a prompt of each order, and where the model stops."""
    row, ids = facts.form.row, facts.form.ids
    stops = ", ".join(f"`{token}`" for token in row.stop if token in ids)
    if not facts.orders:
        return (
            "## Prompt\n\nTuned on code from left to right only, without fill-in-the-middle. "
            f"Stop at any of {stops}."
        )
    parts = [f"## Prompt\n\nFormat `{facts.form.name}`."]
    for order in facts.orders:
        count = facts.stats.get("samples", {}).get(order)
        shown = f", {count:,} samples" if count else ""
        parts.append(f"{_ORDERS[order]}{shown}:\n\n```text\n{_layout(facts, order)}\n```")
    parts.append(
        "The sentinels are token ids, each a single one. Encode prefix and suffix apart, without "
        "special tokens, and join the ids; no blank or newline stands around a sentinel. "
        f"The model ends with `{row.end}`; stop at any of {stops}."
    )
    if row.guarded:
        parts.append("The suffix is encoded without SentencePiece's leading blank.")
    if any("{comment}" in text for pieces in _path_header(facts) for _, text in pieces):
        parts.append("`{comment}` is the comment sign of the file's language.")
    return "\n\n".join(parts)


_Piece = tuple[str, str]
"""A part of a prompt: `("token", TOKEN)`, `("text", TEXT)`, `("prefix", "")`, `("suffix", "")`."""


def _path_header(facts: Facts) -> tuple[list[_Piece], list[_Piece]]:
    """What names the file, before the block and before the prefix, as `fim.encode` has it."""
    before, inside = header_pieces(facts.form, facts.recipe.fim.path_header)
    # few languages have an end to their comments
    return before, [(kind, text.replace("{end}", "")) for kind, text in inside]


def _pieces(facts: Facts, order: str) -> Iterator[_Piece]:
    """The prompt of an order, or of an autoregressive sample."""
    form, (before, inside) = facts.form, _path_header(facts)
    token_of = {token_id: token for token, token_id in form.ids.items()}
    yield from (("token", token_of[token_id]) for token_id in form.bos_ids)
    for part in form.layouts[order] if order else ("C", "P"):
        if isinstance(part, int):
            yield "token", token_of[part]
        elif isinstance(part, Text):
            yield "text", str(part)
        elif part == "C":
            yield from before
        elif part == "P":
            yield from [*inside, ("prefix", "")]
        elif part == "S":
            yield "suffix", ""


def _layout(facts: Facts, order: str) -> str:
    """The prompt of an order as text, its segments in braces."""
    return "".join(text or f"{{{kind}}}" for kind, text in _pieces(facts, order))


def use(facts: Facts) -> str:
    """Write the section that loads the model and completes a prompt of its first order."""
    order = facts.orders[0] if facts.orders else ""
    return "\n".join(
        [
            "## Use\n",
            "```python",
            "import torch",
            *([] if facts.full else ["from peft import PeftModel"]),
            f"from transformers import {', '.join(_classes(facts))}",
            "",
            *_loading(facts),
            f'tokenizer = AutoTokenizer.from_pretrained("{facts.to}")',
            f'stops = GenerationConfig.from_pretrained("{facts.to}")',
            "",
            'prefix, suffix = "def add(a, b):\\n    return ", "\\n"',
            "",
            "",
            "def text(part):",
            '    return tokenizer(part, add_special_tokens=False)["input_ids"]',
            "",
            "",
            *(_INNER if facts.form.row.guarded else ()),
            "token = tokenizer.convert_tokens_to_ids",
            "prompt = [",
            *(f"    {code}," for code in _prompt_code(facts, order)),
            "]",
            "ids = torch.tensor([prompt])",
            "output = model.generate(",
            "    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=stops,",
            "    max_new_tokens=64,",
            ")",
            "print(tokenizer.decode(output[0, len(prompt):], skip_special_tokens=True))",
            "```",
        ]
    )


def _classes(facts: Facts) -> list[str]:
    classes = ["AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig"]
    return ["AutoConfig", *classes] if facts.positions else classes


def _loading(facts: Facts) -> Iterator[str]:
    """The lines that load the model, its base with the positions it was trained with."""
    if facts.full:
        yield f'model = AutoModelForCausalLM.from_pretrained("{facts.to}", dtype="auto")'
        return
    revision = facts.recipe.model.revision
    place = f'"{facts.base_place}"' + (f', revision="{revision}"' if revision else "")
    if facts.positions:
        yield f"config = AutoConfig.from_pretrained({place})"
        yield f"config.get_text_config().update({dict(facts.positions)!r})"
        place += ", config=config"
    yield f'base = AutoModelForCausalLM.from_pretrained({place}, dtype="auto")'
    yield f'model = PeftModel.from_pretrained(base, "{facts.to}")'


_INNER = (
    "def inner(part):  # without SentencePiece's leading blank",
    '    return text("☺" + part)[len(text("☺")):]',
    "",
    "",
)


def _prompt_code(facts: Facts, order: str) -> Iterator[str]:
    """The ids of a prompt as Python expressions."""
    example = {"comment": "#", "path": "add.py", "title": "Python", "extension": ".py"}
    guarded, before = facts.form.row.guarded, "token"
    for kind, text in _pieces(facts, order):
        inner = guarded and (before == "text" or (kind == "suffix" and "S" in guarded))
        if kind == "token":
            yield f"token({_quoted(text)})"
        else:
            code = _quoted(text.format(**example)) if kind == "text" else kind
            yield f"*{'inner' if inner else 'text'}({code})"
        before = kind


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
