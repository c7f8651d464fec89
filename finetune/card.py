"""The model card of a run: what it was made from and how it is used, without anyone's names."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fim import ProvedFormat
from fim.formats import Text
from fim.repository import header_pieces
from finetune.adapters import ADAPTERS
from finetune.card_servers import servers
from finetune.model import read_run, tuned_folder
from finetune.recipe import Recipe
from finetune.report import METRICS
from finetune.store import MANIFEST, read_json
from finetune.tokenizer import load_format, load_tokenizer

BASE_FOLDER = "BASE_FOLDER"
"""Stands for a base that is on no hub."""
_ORDERS = {"psm": "prefix, suffix, middle (PSM)", "spm": "suffix, prefix, middle (SPM)"}


def is_hub_id(name: str) -> bool:
    """Whether a name reads `ORG/NAME`, as the hub spells it."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a card is written from."""

    to: str
    recipe: Recipe
    form: ProvedFormat
    manifest: Mapping[str, Any]
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
    def samples(self) -> Mapping[str, int]:
        """Samples of each order; without counts, the orders asked for."""
        weights = self.recipe.fim.orders or self.form.row.trained
        return self.stats.get("samples") or {name: 1 for name, share in weights.items() if share}

    @property
    def orders(self) -> list[str]:
        """Orders the model was tuned on."""
        return [order for order in ("psm", "spm") if self.samples.get(order)]


def model_card(run: Path, to: str = "ORG/NAME") -> str:
    """Write the README.md of a trained run; equal runs give equal text.

    It holds numbers of the training data only: no repository, path or line of code.

    Args:
        run: a trained run folder; what else is missing is said to be missing.
        to: hub repository the loading example names.

    Raises:
        FimError: no run folder, not trained, or its tokenizer does not prove the format.
    """
    recipe = read_run(run)
    folder = tuned_folder(recipe)
    tokenizer = load_tokenizer(str(folder))
    facts = _Facts(
        to=to,
        recipe=recipe,
        form=load_format(tokenizer, recipe.model),
        manifest=read_json(folder / MANIFEST),
        stats=_read(run / "packs" / "stats.json"),
        metrics=_read(run / "metrics.json"),
        adapter=_read(folder / "adapter_config.json"),
    )
    sections = (
        _head, _prompt, _use, _servers, _data, _settings, _results, _privacy, _versions
    )  # fmt: skip
    return "\n\n".join([_front_matter(facts), *(section(facts) for section in sections)]) + "\n"


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _front_matter(facts: _Facts) -> str:
    values: dict[str, Any] = {"library_name": "transformers" if facts.full else "peft"}
    if is_hub_id(facts.base):
        values["base_model"] = facts.base
        values["base_model_relation"] = "finetune" if facts.full else "adapter"
    values["pipeline_tag"] = "text-generation"
    tags = ["code", "fill-in-the-middle", "structured-fim", "sfim"]
    values["tags"] = tags if facts.full else [*tags, "lora"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _head(facts: _Facts) -> str:
    what = "model" if facts.full else "adapter"
    if is_hub_id(facts.base):
        revision = facts.recipe.model.revision
        base = f"`{facts.base}`" + (f" at revision `{revision}`" if revision else "")
    elif "@sha256:" in facts.base:
        name, _, digest = facts.base.partition("@sha256:")
        base = f"`{name}`, a local model whose weights have the SHA-256 `{digest}`"
    else:
        base = "a local model"
    if facts.recipe.model.scratch:
        made = "A model trained from random weights"
    elif facts.full:
        made = f"All weights of {base}, tuned"
    else:
        made = f"A {ADAPTERS[facts.recipe.model.adapter].label} adapter for {base}"
    return (
        f"# Structured FIM {what}\n\n{made}. It completes code at the cursor and was tuned with "
        "structured fill-in-the-middle: the spans to fill follow the syntax tree of the file."
    )


def _prompt(facts: _Facts) -> str:
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


def _path_header(facts: _Facts) -> tuple[list[_Piece], list[_Piece]]:
    """What names the file, before the block and before the prefix, as `fim.encode` has it."""
    before, inside = header_pieces(facts.form, facts.recipe.fim.path_header)
    # few languages have an end to their comments
    return before, [(kind, text.replace("{end}", "")) for kind, text in inside]


def _pieces(facts: _Facts, order: str) -> Iterator[_Piece]:
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


def _layout(facts: _Facts, order: str) -> str:
    """The prompt of an order as text, its segments in braces."""
    return "".join(text or f"{{{kind}}}" for kind, text in _pieces(facts, order))


def _use(facts: _Facts) -> str:
    order = facts.orders[0] if facts.orders else ""
    place, head = facts.base_place, ["import torch"]
    revision = facts.recipe.model.revision
    if facts.full:
        place, revision, load = facts.to, "", ["model = base"]
    else:
        head.append("from peft import PeftModel")
        load = [f'model = PeftModel.from_pretrained(base, "{facts.to}")']
    at = f', revision="{revision}"' if revision else ""
    return "\n".join(
        [
            "## Use\n",
            "```python",
            *head,
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
            "",
            f'base = AutoModelForCausalLM.from_pretrained("{place}"{at}, dtype="auto")',
            *load,
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


_INNER = (
    "def inner(part):  # without SentencePiece's leading blank",
    '    return text("☺" + part)[len(text("☺")):]',
    "",
    "",
)


def _prompt_code(facts: _Facts, order: str) -> Iterator[str]:
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


def _servers(facts: _Facts) -> str:
    return servers(facts.to, facts.base_place, facts.recipe.model, facts.adapter)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(facts: _Facts) -> str:
    stats = facts.stats
    if not stats:
        return "## Training data\n\nNot recorded."
    languages = stats.get("languages", {})
    samples = {name: number for name, number in facts.samples.items() if number}
    rows = [
        ("files kept", _number(stats.get("documents", {}).get("kept"))),
        ("of these held out", _number(stats.get("held_out", {}).get("documents"))),
        ("bytes of source", _number(stats.get("bytes"))),
        ("files by language", ", ".join(f"{name} {n:,}" for name, n in languages.items())),
        ("samples", ", ".join(f"{name} {n:,}" for name, n in samples.items())),
        ("tokens", _number(stats.get("tokens"))),
        ("packs", _number(stats.get("packs"))),
        ("share of each pack filled", _percent(stats.get("utilisation"))),
    ]
    return (
        "## Training data\n\nNumbers only: repositories, paths and code are not published.\n\n"
        + _table(("", ""), [row for row in rows if row[1]])
    )


def _settings(facts: _Facts) -> str:
    model, fim, train = facts.recipe.model, facts.recipe.fim, facts.recipe.train
    config = facts.adapter
    adapter = [] if facts.full else [
        ("rank", str(config["r"])),
        ("alpha", f"{config['lora_alpha']:g}"),
        ("dropout", str(config["lora_dropout"])),
        ("modules", ", ".join(f"`{name}`" for name in config["target_modules"])),
        ("continues", _adapter_name(model.adapter_from)),
        ("trained sentinels", "yes" if config["trainable_token_indices"] else ""),
    ]  # fmt: skip
    rows = [
        *adapter,
        ("rotary base", f"{model.rope_theta:g}" if model.rope_theta else ""),
        ("learning rate", f"{train.learning_rate:g}, {train.scheduler}"),
        ("epochs", str(train.epochs)),
        ("token limit", _number(train.max_tokens) if train.max_tokens else "none"),
        ("optimizer steps", _number(facts.manifest.get("steps"))),
        ("pack length", f"{fim.max_length:,} tokens"),
        ("packs per step and process", str(train.packs_per_step * train.gradient_accumulation)),
        ("loss on", {"all": "every token", "middle": "the middle and its end"}[fim.loss]),
        ("share of FIM windows", f"{fim.fim_rate:g}"),
        ("span samplers", ", ".join(f"{name} {w:g}" for name, w in fim.samplers.items() if w)),
        ("seeds", f"data {fim.seed}, training {train.seed}"),
    ]
    return "## Hyperparameters\n\n" + _table(("", ""), [row for row in rows if row[1]])


def _adapter_name(place: str) -> str:
    """A hub id; of a folder only that it was one."""
    if not place:
        return ""
    return f"`{place}`" if is_hub_id(place) and not Path(place).exists() else "a local adapter"


def _results(facts: _Facts) -> str:
    base, tuned, paired = (facts.metrics.get(key, {}) for key in ("base", "adapter", "paired"))
    rows = [
        (
            f"{metric.label} ({'lower' if metric.lower_is_better else 'higher'} is better)",
            _value(base.get(name), metric.share),
            _value(tuned.get(name), metric.share),
            *_interval(paired.get(name) or {}, metric.share),
        )
        for name, metric in METRICS.items()
        if tuned.get(name) is not None
    ]
    if not rows:
        return "## Results\n\nThis model was not evaluated."
    files = f" in {_number(tuned['files'])} files" if "files" in tuned else ""
    return (
        f"## Results\n\n{_number(tuned.get('n')) or 'Some'} held-out places{files}, the same for "
        "the base and the tuned model. Differences of shares are percentage points. The intervals "
        "are bootstraps that resample files; one that holds 0 decides nothing.\n\n"
        + _table(("", "base", "tuned", "difference", "95 % interval"), rows)
    )


def _interval(paired: Mapping[str, Any], share: bool) -> tuple[str, str]:
    difference, low, high = (
        _value(paired.get(key), share, sign="+") for key in ("difference", "low", "high")
    )
    return difference, f"{low} to {high}" if "-" not in (low, high) else "-"


def _value(value: Any, share: bool, sign: str = "") -> str:
    """A share as percent, a loss in nats; a dash for what is missing."""
    if not isinstance(value, int | float):
        return "-"
    return f"{100 * value:{sign}.1f} %" if share else f"{value:{sign}.4f}"


def _privacy(facts: _Facts) -> str:
    return (
        "## Privacy\n\nThis model was tuned on code that may be private. It can have memorized "
        "parts of it and give them away to whoever may prompt it; how much was not measured. "
        "Grant access as you would to the code itself."
    )


def _versions(facts: _Facts) -> str:
    versions = facts.manifest.get("versions", {})
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"## Versions\n\n{shown or 'Not recorded.'}"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else ""


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else ""
