"""What editors and servers send for a sample: a row a client, rendered by its own rules."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fim import ProvedFormat, Sample, content_tokenizer
from fim.formats import PSM, SPM_V1, Text, backend_of, control_tokens, tokenizer_bos
from fim.repository import named


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and what is to be completed."""

    model: str
    """Name, as a client sees it."""
    tokenizer: Any
    form: ProvedFormat
    sample: Sample
    order: str
    """The order the family is trained on most."""

    @property
    def prefix(self) -> str:
        """The text before the cursor."""
        return self.sample.prefix.decode()

    @property
    def suffix(self) -> str:
        """The text after the cursor."""
        return self.sample.suffix.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One row of `CLIENTS`."""

    send: Callable[[Case], list[int] | str]
    """The prompt's ids, or why there is none."""
    remedy: Callable[[Case], str]
    """What to set where they are not what was trained."""
    source: str
    """Where its rules were read."""


def trained_text(case: Case, prefix: str, suffix: str) -> str:
    """Spell out the family's own prompt, without BOS."""
    row, sample = case.form.row, case.sample
    spelled = {
        "PRE": row.prefix, "SUF": row.suffix, "MID": row.middle, "P": prefix, "S": suffix,
        "C": "", "M": "",
    }  # fmt: skip
    return "".join(
        named(part, sample.path, sample.language).decode()
        if isinstance(part, Text)
        else spelled.get(part, part)
        for part in row.orders[case.order]
    )


def _template(case: Case, prefix: str, suffix: str) -> str:
    """The family's own prompt as a client's template: SentencePiece's blanks are spelled out."""
    if not case.form.row.suffix.startswith("▁"):
        return trained_text(case, prefix, suffix)
    return trained_text(case, f" {prefix}", suffix).replace("▁", " ").removeprefix(" ")


def _local_bos(case: Case) -> tuple[int, ...]:
    """What llama.cpp and Ollama begin with: the tokenizer's own BOS, else its family's."""
    return tokenizer_bos(backend_of(case.tokenizer)) or case.form.bos_ids


def _as_text(case: Case, text: str) -> list[int]:
    """The ids that llama.cpp and Ollama give a prompt that comes as text.

    Sentinels that are pieces of SentencePiece (`▁<PRE>`) are found after a blank, and the text next
    to them gets none of its own.
    """
    pieces = [token for token in control_tokens(case.form.row) if token.startswith("▁")]
    bos = list(_local_bos(case))
    if not pieces:
        return [*bos, *case.tokenizer(text, add_special_tokens=False).input_ids]
    id_of = {token.replace("▁", " "): case.form.ids[token] for token in pieces}
    content = content_tokenizer(case.tokenizer)
    for part in re.split(f"({'|'.join(map(re.escape, id_of))})", " " + text):
        bos += [id_of[part]] if part in id_of else content.encode(part.encode(), guarded=True)
    return bos


def _by_name(model: str, templates: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The first words that are all in a model's name; they stand for a template."""
    lower = model.lower()
    return next(words for words in templates if all(word in lower for word in words))


_STABLE = "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"
_PIPES = "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
_DEEPSEEK = "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>"
_CODELLAMA = "<PRE> {prefix} <SUF>{suffix} <MID>"
_CODEGEEX = (
    "<|user|>\n###PATH:{path}\n###LANGUAGE:{title}\n###MODE:BLOCK\n<|code_suffix|>{suffix}"
    "<|code_prefix|>{prefix}<|code_middle|><|assistant|>\n"
)
_CONTINUE = {
    ("qwen", "coder"): _PIPES,
    ("granite", "4"): _PIPES,
    ("seed", "coder"): "<[fim-prefix]>{prefix}<[fim-suffix]>{suffix}<[fim-middle]>",
    ("starcoder",): _STABLE,
    ("star-coder",): _STABLE,
    ("starchat",): _STABLE,
    ("octocoder",): _STABLE,
    ("stable",): _STABLE,
    ("qwen",): _STABLE,
    ("codestral",): "[SUFFIX]{suffix}[PREFIX]{prefix}",
    ("codegemma",): _PIPES,
    ("codellama",): _CODELLAMA,
    ("deepseek",): _DEEPSEEK,
    ("codegeex",): _CODEGEEX,
    ("gpt",): "",
    ("claude",): "",
    ("granite3",): "",
    ("granite-3",): "",
    (): _STABLE,
}
"""Words of a model's name, and the prompt that Continue takes for it; empty where it has none."""
_CONTINUE_TEMPLATES = {("qwen", "coder"), ("codestral",)}
"""Those whose own template names files; with no other file to show it names none."""
_OLLAMA = {
    ("qwen2.5-coder",): _PIPES,
    ("codegemma",): _PIPES,
    ("codellama",): _CODELLAMA,
    ("codestral",): "[SUFFIX]{suffix}[PREFIX] {prefix}",
    ("deepseek-coder-v2",): _DEEPSEEK,
    ("starcoder2",): "<file_sep><fim_prefix>\n{prefix}<fim_suffix>{suffix}<fim_middle>"
    "<|end_of_text|>",
    (): "",
}
"""Words of a model's name, and its template in Ollama's library where that takes a suffix."""
_IDS = "send the prompt as token ids"
_INFILL = {  # names llama.cpp looks for in a vocabulary
    "PRE": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
            "<|code_prefix|>"),
    "SUF": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
            "<|code_suffix|>"),
    "MID": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
            "<|code_middle|>"),
    "REP": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "SEP": ("<|file_sep|>",),
}  # fmt: skip


def _continue(case: Case) -> list[int] | str:
    words = _by_name(case.model, _CONTINUE)
    if not _CONTINUE[words]:
        return "asks a chat model to fill a hole, by the model's name"
    header = named("\n{comment} {path}\n", case.sample.path, case.sample.language).decode()
    prefix = case.prefix if words in _CONTINUE_TEMPLATES else header + case.prefix
    return _as_text(case, _filled(case, _CONTINUE[words], prefix))


def _continue_remedy(case: Case) -> str:
    words = _by_name(case.model, _CONTINUE)
    used = _CONTINUE[words]
    template = _template(case, "{{{prefix}}}", "{{{suffix}}}")
    path = "train with fim.path_header=comment: it names the file in a comment"
    if template != used.replace("{", "{{{").replace("}", "}}}"):
        return f"autocompleteOptions.template: {template!r}; {path}"
    return _IDS if words in _CONTINUE_TEMPLATES else path


def _infill(case: Case, spm: bool) -> list[int] | str:
    backend = backend_of(case.tokenizer)
    token = {
        part: next((id for name in names if (id := backend.token_to_id(name)) is not None), None)
        for part, names in _INFILL.items()
    }
    if None in (token["PRE"], token["SUF"], token["MID"]):
        return "/infill answers 501: llama.cpp knows none of the FIM tokens"
    content = content_tokenizer(case.tokenizer)
    extra: list[int] = []
    if token["REP"] is not None:
        extra += [token["REP"], *content.encode(b"myproject\n")]
    if token["SEP"] is not None:
        extra += [token["SEP"], *content.encode(b"filename\n")]
    prefix = [token["PRE"], *content.encode(case.sample.prefix)]
    suffix = [token["SUF"], *content.encode(case.sample.suffix)]
    first, second = (suffix, prefix) if spm else (prefix, suffix)
    return [*extra, *_local_bos(case), *first, *second, token["MID"]]


def _infill_remedy(case: Case, spm: bool) -> str:
    row = case.form.row
    trained = {row.orders[order] for order in row.trained}
    known = all(token in _INFILL[part] for part, token in zip(
        ("PRE", "SUF", "MID"), (row.prefix, row.suffix, row.middle), strict=True
    ))  # fmt: skip
    names = {row.repo, row.file} & {*_INFILL["REP"], *_INFILL["SEP"]}
    if known and names and (SPM_V1 if spm else PSM) in trained:
        return "train with fim.path_header=family: it always names a repository and a file"
    if known and (PSM if spm else SPM_V1) in trained:
        return f"start llama-server with{'out' if spm else ''} --spm-infill"
    return f"{_IDS} to /completion"


def _ollama(case: Case) -> list[int] | str:
    template = _OLLAMA[_by_name(case.model, _OLLAMA)]
    if not template:
        return "by this name no template with .Suffix is known: 'does not support insert'"
    return _as_text(case, _filled(case, template, case.prefix))


def _ollama_remedy(case: Case) -> str:
    text = _template(case, "{{ .Prompt }}", "{{ .Suffix }}")
    return (
        f'TEMPLATE """{{{{- if .Suffix }}}}{text}{{{{- else }}}}{{{{ .Prompt }}}}{{{{- end }}}}"""'
    )


def _vllm(case: Case) -> list[int] | str:
    return case.tokenizer(trained_text(case, case.prefix, case.suffix)).input_ids


def _vllm_remedy(case: Case) -> str:
    return f"{_IDS}: as one text it is split, or begins, otherwise"


def _filled(case: Case, template: str, prefix: str) -> str:
    path = named("{path}\0{title}", case.sample.path, case.sample.language).decode()
    values = dict(zip(("path", "title"), path.split("\0"), strict=True))
    return template.format(prefix=prefix, suffix=case.suffix or "\n", **values)


CLIENTS = {
    "continue": Client(
        send=_continue,
        remedy=_continue_remedy,
        source="continuedev/continue core/autocomplete/templating, chosen by the model's name",
    ),
    "llama.cpp": Client(
        send=partial(_infill, spm=False),
        remedy=partial(_infill_remedy, spm=False),
        source="ggml-org/llama.cpp format_prompt_infill, llama-vocab.cpp",
    ),
    "llama.cpp --spm-infill": Client(
        send=partial(_infill, spm=True),
        remedy=partial(_infill_remedy, spm=True),
        source="ggml-org/llama.cpp format_prompt_infill, llama-vocab.cpp",
    ),
    "ollama": Client(
        send=_ollama,
        remedy=_ollama_remedy,
        source="templates of ollama.com/library, by the model's name; docs/template.md",
    ),
    "vllm": Client(
        send=_vllm,
        remedy=_vllm_remedy,
        source="vllm /v1/completions: it refuses `suffix`, so the caller spells the prompt",
    ),
}
