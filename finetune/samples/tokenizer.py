"""Tokenizers: loaded, proved, trained, and saved without the path they came from."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fim import FORMATS, FimError, ProvedFormat, content_tokenizer, resolve_format
from finetune.recipe.schema import Model, Recipe
from finetune.samples.fast_tokenizer import speed_up
from finetune.store import fingerprint, read_json, sha256_file, write_json

T = TypeVar("T")
_EXPECTED = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError)
_ROW = FORMATS["qwen2.5-coder"]
_PAD = "<|fim_pad|>"
CONTROL_TOKENS = (_ROW.end, _ROW.prefix, _ROW.middle, _ROW.suffix, _PAD, _ROW.repo, _ROW.file)
"""Added tokens of a tokenizer trained here: Qwen2.5-Coder's."""
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files one of which a folder with a tokenizer has."""
_PIECES = (  # Qwen2's pre-tokenizer (tokenizer.json of Qwen2.5-Coder)
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_tokenizer(name: str, revision: str = "") -> Any:
    """Load a fast tokenizer from a folder or the hub.

    Raises:
        FimError: it cannot be had; says why in one line.
    """
    from transformers import AutoTokenizer

    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in _FILES):
        raise FimError(f"{name}: no tokenizer.json in it; copy the base model's there")
    return load_or_refuse(
        lambda: AutoTokenizer.from_pretrained(
            name, revision=revision or None, trust_remote_code=False
        ),
        name,
    )


def load_or_refuse(load: Callable[[], T], name: str) -> T:
    """Run a loader of transformers and turn its many errors into one line.

    Raises:
        FimError: the loader failed.
    """
    try:
        return load()
    except Exception as error:
        # tokenizers raises bare Exceptions, the hub library kinds of its own for a config.json that
        # contradicts itself; anything else is a fault of ours
        of_hub = type(error).__module__.startswith("huggingface_hub")
        if type(error) is not Exception and not of_hub and not isinstance(error, _EXPECTED):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FimError(
            f"model {name!r}: {lines[0].rstrip('.')}; give a hub id you can reach or a folder with "
            "config.json, tokenizer.json and safetensors"
        ) from None


def load_run_tokenizer(recipe: Recipe) -> tuple[Any, ProvedFormat]:
    """Load the tokenizer of a run, prove its format, and let it encode as fast as it may.

    Raises:
        FimError: it cannot be had, has no format, or its family is not trained on FIM.
    """
    scratch = recipe.model.scratch
    name = str(recipe.folder / "tokenizer") if scratch else recipe.model.name
    tokenizer = load_tokenizer(name, recipe.model.revision)
    form = load_format(tokenizer, recipe.model)
    speed_up(tokenizer, recipe.model.tokenizer, _own_texts(recipe.folder / "corpus"))
    return tokenizer, form


def _own_texts(corpus: Path) -> Iterator[bytes]:
    """Some files of a run's corpus, where it has one already."""
    from pyarrow import parquet

    path = corpus / "documents.parquet"
    if not path.is_file():
        return
    with parquet.ParquetFile(path) as file:
        if file.num_row_groups:
            texts = file.read_row_group(0, columns=["text"])["text"].to_pylist()
            yield from texts[:: max(1, len(texts) // 64)]


def load_format(tokenizer: Any, model: Model) -> ProvedFormat:
    """Prove the recipe's format on a tokenizer.

    Raises:
        FimError: no proof, several that differ, or the family is known not to be trained on FIM.
    """
    form = resolve_format(tokenizer, model.format, hint=model_hint(model.name))
    if form.row.untrained and not model.allow_untrained_fim:
        raise FimError(
            f"{form.name} was not trained on FIM: {form.row.untrained}; tune a base that was, or "
            "set model.allow_untrained_fim=true"
        )
    return form


def model_hint(name: str) -> str:
    """Return what a model's name and, in a folder, its config say of its family."""
    config = Path(name) / "config.json"
    known = read_json(config) if name and config.is_file() else {}
    words = [name, str(known.get("_name_or_path") or "")]
    types = [str(known.get("model_type") or ""), *(known.get("architectures") or ())]
    return " ".join([*(Path(word).name for word in words), *types])


def tokenizer_identity(model: Model) -> str:
    """Digits that change when the tokenizer of a recipe changes."""
    file = Path(model.name) / "tokenizer.json"
    if file.is_file():
        return sha256_file(file)
    return fingerprint(model.name, model.revision, repr(model.scratch))


def bytes_per_token(texts: Iterable[bytes], tokenizer: Any) -> float:
    """Measure how many bytes of some texts one token holds."""
    content = content_tokenizer(tokenizer)
    num_bytes = num_tokens = 0
    for text in texts:
        part = text[:65_536].decode(errors="ignore").encode()
        num_bytes += len(part)
        num_tokens += len(content.encode(part))
    return num_bytes / max(1, num_tokens)


def train_tokenizer(texts: Iterable[bytes], vocab_size: int) -> Any:
    """Train a byte-level BPE with Qwen's pieces and FIM sentinels.

    Args:
        texts: UTF-8 source files.
        vocab_size: entries, the 256 bytes and the sentinels included.

    Returns:
        A `transformers` fast tokenizer.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_ROW.end, pad_token=_PAD,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer without the path it was loaded from."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {k: v for k, v in read_json(path).items() if k not in ("name_or_path", "is_local")}
    write_json(path, config)
