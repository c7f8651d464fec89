"""The model card of a run: what it was made from and how it is used, without anyone's names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune.card.prompt import Facts, is_hub_id, prompt, use
from finetune.card.servers import servers
from finetune.metrics import FEW_FILES
from finetune.model import read_run, tuned_folder
from finetune.recipe.model import ADAPTERS
from finetune.report.page import METRICS
from finetune.samples.tokenizer import load_format, load_tokenizer
from finetune.store import MANIFEST, read_json
from finetune.training.step_log import LOG, read_log


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
    manifest = read_json(folder / MANIFEST)
    last = manifest.get("steps", 0)  # whose weights are kept
    seen = [line.get("tokens", 0) for line in read_log(run / LOG) if line.get("step", 0) <= last]
    facts = Facts(
        to=to,
        recipe=recipe,
        form=load_format(tokenizer, recipe.model),
        manifest=manifest,
        tokens_trained=max(seen, default=0) or None,
        stats=_read(run / "packs" / "stats.json"),
        metrics=_read(run / "metrics.json"),
        adapter=_read(folder / "adapter_config.json"),
    )
    sections = (
        _head, prompt, use, _servers, _data, _settings, _results, _privacy, _versions
    )  # fmt: skip
    return "\n\n".join([_front_matter(facts), *(section(facts) for section in sections)]) + "\n"


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _front_matter(facts: Facts) -> str:
    values: dict[str, Any] = {"library_name": "transformers" if facts.full else "peft"}
    if is_hub_id(facts.base):
        values["base_model"] = facts.base
        values["base_model_relation"] = "finetune" if facts.full else "adapter"
    values["pipeline_tag"] = "text-generation"
    tags = ["code", "fill-in-the-middle", "structured-fim", "sfim"]
    values["tags"] = tags if facts.full else [*tags, "lora"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _head(facts: Facts) -> str:
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
        made = f"A {ADAPTERS[facts.recipe.model.adapter]} adapter for {base}"
    return (
        f"# Structured FIM {what}\n\n{made}. It completes code at the cursor and was tuned with "
        "structured fill-in-the-middle: the spans to fill follow the syntax tree of the file."
    )


def _servers(facts: Facts) -> str:
    return servers(facts.to, facts.base_place, facts.adapter, facts.positions)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(facts: Facts) -> str:
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
        ("samples prepared", ", ".join(f"{name} {n:,}" for name, n in samples.items())),
        ("tokens prepared", _number(stats.get("tokens"))),
        ("tokens trained on", _number(facts.tokens_trained)),
        ("packs prepared", _number(stats.get("packs"))),
        ("share of each pack filled", _percent(stats.get("utilisation"))),
    ]
    return (
        "## Training data\n\nNumbers only: repositories, paths and code are not published.\n\n"
        + _table(("", ""), [row for row in rows if row[1]])
    )


def _settings(facts: Facts) -> str:
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


def _results(facts: Facts) -> str:
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
        "are bootstraps that resample files; one that holds 0 decides nothing, and fewer than "
        f"{FEW_FILES} files have none.\n\n"
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


def _privacy(facts: Facts) -> str:
    return (
        "## Privacy\n\nThis model was tuned on code that may be private. It can have memorized "
        "parts of it and give them away to whoever may prompt it; how much was not measured. "
        "Grant access as you would to the code itself."
    )


def _versions(facts: Facts) -> str:
    versions = facts.manifest.get("versions", {})
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"## Versions\n\n{shown or 'Not recorded.'}"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else ""


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else ""
