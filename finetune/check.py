"""`sfim check`: what a model's tokenizer proves, what will be trained, and what clients send."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import product
from pathlib import Path
from typing import Any

from fim import FimError, ProvedFormat, Sample, content_tokenizer, encode, encode_prompt
from fim.formats import backend_of, control_tokens, families_named, resolve_format, tokenizer_bos
from finetune.clients import CLIENTS, Case, Client
from finetune.recipe.schema import Model
from finetune.samples.tokenizer import load_or_refuse, load_tokenizer, model_hint

SAMPLE = {
    "document_id": "check", "repo": "acme", "path": "src/shapes.py", "language": "python",
    "prefix": b"def area(width, height):\n    return ", "middle": b"width * height",
    "suffix": b"\n\n\nprint(area(2, 3))\n", "sampler": "node", "kind": "binary_operator",
    "context_split": 0.5,
}  # fmt: skip
_WINDOW = 2_048


def check(model: str, format_name: str = "auto", revision: str = "") -> dict[str, Any]:
    """Prove a model's format and compare what is trained with what clients send.

    Args:
        model: hub id or folder.
        format_name: row of `FORMATS`, or `"auto"`.
        revision: commit of a hub model.

    Returns:
        What `sfim check --json` prints.

    Raises:
        FimError: the tokenizer cannot be had or proves no row, or the model mixes the samples of a
            pack.
    """
    tokenizer = load_tokenizer(model, revision)
    refuse_base(Model(name=model, revision=revision))
    hint = model_hint(model)
    try:
        form = resolve_format(tokenizer, format_name, hint)
    except FimError as error:
        raise FimError(f"{model}: {error}") from None
    row = form.row
    samples = {order: Sample(order=order, **SAMPLE) for order in row.orders}
    rendered = {
        order: encode(sample, form, tokenizer, max_length=_WINDOW).input_ids.tolist()
        for order, sample in samples.items()
    }
    order = max(row.trained, key=lambda name: row.trained[name])
    case = Case(
        model=Path(model).name, tokenizer=tokenizer, form=form, sample=samples[order], order=order
    )
    return {
        "model": model,
        "format": form.name,
        "fim_trained": row.fim_trained,
        "verified": row.verified,
        "source": row.source,
        "proof": {token: form.ids[token] for token in [*control_tokens(row), row.end]},
        "bos": [tokenizer.convert_ids_to_tokens(token) for token in form.bos_ids],
        "end": row.end,
        "document_end": row.document_end,
        "stop": {token: form.ids[token] for token in row.stop if token in form.ids},
        "eos": tokenizer.eos_token,
        "orders": {
            name: {
                "weight": row.trained.get(name, 0.0),
                "text": visible(tokenizer, ids),
                "ids": ids,
            }
            for name, ids in rendered.items()
        },
        "warnings": list(_warnings(form, tokenizer, hint)),
        "clients": {name: _compared(client, case) for name, client in CLIENTS.items()},
    }


def refuse_base(model: Model) -> None:
    """Refuse a base that is known to mix the samples of a pack, before anything is prepared.

    Nothing is said of a tokenizer alone, or of a config that cannot be had: whoever loads the model
    says that.

    Raises:
        FimError: its samples would see each other; says why.
    """
    from transformers import AutoConfig

    try:
        config = load_or_refuse(
            lambda: AutoConfig.from_pretrained(
                model.name, revision=model.revision or None, trust_remote_code=False
            ),
            model.name,
        )
    except FimError:
        return
    from finetune.training.isolation import refuse_leaking  # torch

    refuse_leaking(config, model.attention)


def _warnings(form: ProvedFormat, tokenizer: Any, hint: str) -> list[str]:
    row, found = form.row, []
    if row.untrained:
        found.append(
            f"{form.name} was not trained on FIM: {row.untrained}; tuning is refused without "
            "model.allow_untrained_fim=true"
        )
    if form.name not in families_named(hint):
        found.append(
            f"neither name nor config says {form.name}: its tokens are there, but no vocabulary "
            "shows whether a model was trained on FIM, and in which order"
        )
    if row.verified == "memory":
        found.append(f"not everything in the row could be looked up: {row.source}")
    if tokenizer.eos_token != row.end:
        found.append(
            f"the tokenizer's eos is {tokenizer.eos_token!r}, a MIDDLE ends with {row.end!r}: "
            f"stop at ids {', '.join(map(str, form.stop_ids))}"
        )
    own = tokenizer_bos(backend_of(tokenizer))
    if own != form.bos_ids:
        spelled = [
            "".join(tokenizer.convert_ids_to_tokens(list(ids))) or "nothing"
            for ids in (own, form.bos_ids)
        ]
        found.append(f"the tokenizer begins a text with {spelled[0]}, training with {spelled[1]}")
    return found


def _compared(client: Client, case: Case) -> dict[str, Any]:
    """A client's prompt against the nearest of those that can be trained."""
    sent = client.send(case)
    result: dict[str, Any] = {"source": client.source}
    if isinstance(sent, str):
        return result | {
            "sends": None,
            "reason": sent,
            "same": False,
            "remedy": client.remedy(case),
        }
    nearest, order, path_header = max(
        (
            (encode_prompt(
                Sample(order=order, **SAMPLE), case.form, case.tokenizer, max_length=_WINDOW,
                max_new_tokens=1, path_header=path_header,
            ), order, path_header)
            for order, path_header in product(case.form.row.trained, ("none", "comment", "family"))
        ),
        key=lambda ours: SequenceMatcher(None, sent, ours[0], autojunk=False).ratio(),
    )  # fmt: skip
    differences = _differences(sent, nearest, case.tokenizer)
    return result | {
        "sends": visible(case.tokenizer, sent),
        "ids": sent,
        "nearest": {"order": order, "path_header": path_header},
        "same": not differences,
        "differences": differences,
        "remedy": client.remedy(case) if differences else "",
    }


def _differences(
    sent: Sequence[int], trained: Sequence[int], tokenizer: Any
) -> list[dict[str, str]]:
    """The places where two prompts differ, as text."""
    matcher = SequenceMatcher(None, sent, trained, autojunk=False)
    found = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        sides = {"sent": sent[a:b], "trained": trained[c:d]}
        texts = {side: visible(tokenizer, ids) for side, ids in sides.items()}
        if texts["sent"] == texts["trained"]:  # the same text in other tokens, or a lone blank
            texts = {
                side: "".join(tokenizer.convert_ids_to_tokens(list(ids)))
                for side, ids in sides.items()
            }
        found.append(texts)
    return found


def visible(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of ids with control tokens spelled out, first blanks kept."""
    content = content_tokenizer(tokenizer)
    parts: list[str] = []
    run: list[int] = []
    for token in [*ids, None]:
        if token is not None and token not in content.control_ids:
            run.append(token)
            continue
        if run:
            parts.append(content.decode(run, guarded=bool(parts) or len(run) < len(ids)))
            run = []
        if token is not None:
            parts.append(tokenizer.convert_ids_to_tokens(token))
    return "".join(parts)


def check_summary(result: dict[str, Any]) -> str:
    """Write a check for a terminal."""
    lines = [
        f"{result['model']}: {result['format']} ({result['verified']}: {result['source']})",
        "",
    ]
    lines += [f"  {token:24} {token_id}" for token, token_id in result["proof"].items()]
    stops = "  ".join(f"{token} {token_id}" for token, token_id in result["stop"].items())
    lines += ["", f"  begins   {''.join(result['bos']) or 'with nothing'}"]
    lines += [f"  ends     {result['end']}", f"  stop at  {stops}", f"  eos      {result['eos']}"]
    for name, order in result["orders"].items():
        trained = f"trained, weight {order['weight']:g}" if order["weight"] else "on request"
        lines += ["", f"{name} ({trained})", *_indented(order["text"])]
        lines.append(f"  ids {' '.join(map(str, order['ids']))}")
    for name, client in result["clients"].items():
        lines += ["", f"{name}: {_verdict(client)}"]
        for difference in client.get("differences", ()):
            lines.append(
                f"  sends {difference['sent']!r} where training has {difference['trained']!r}"
            )
        if client["remedy"]:
            lines.append(f"  way out: {client['remedy']}")
    lines += [""] * bool(result["warnings"])
    lines += [f"warning: {text}" for text in result["warnings"]]
    return "\n".join(lines)


def _verdict(client: dict[str, Any]) -> str:
    if client["sends"] is None:
        return f"sends no FIM prompt: {client['reason']}"
    nearest = client["nearest"]
    trained = f"{nearest['order']} with fim.path_header={nearest['path_header']}"
    return f"sends what is trained as {trained}" if client["same"] else f"differs from {trained}"


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
