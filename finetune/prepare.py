"""Sources to packs: collect, filter, deduplicate, split, sample, encode, pack, write."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fim import LANGUAGES, FimError, ProvedFormat
from fim.formats import families_named
from fim.languages import has_grammar
from finetune.corpus.build import (
    corpus_fingerprint,
    count_documents,
    document_ids,
    read_documents,
    source_commits,
    without_refs,
    write_corpus,
)
from finetune.corpus.sources.clones import strip_credentials
from finetune.corpus.split import MIN_EVAL_BYTES
from finetune.progress import progress
from finetune.recipe.corpus import Corpus
from finetune.recipe.file import read_recipe, write_recipe
from finetune.recipe.schema import Fim, Recipe
from finetune.run_sources import (
    cache_folder,
    expand_corpus,
    fetch_sources,
    new_run_folder,
    warn,
)
from finetune.samples.anneal import Decay, count_decay, plan_decay
from finetune.samples.packs import write_packs
from finetune.samples.sampling import Refused, Shard, encode_documents
from finetune.samples.tokenizer import (
    bytes_per_token,
    load_format,
    load_run_tokenizer,
    load_tokenizer,
    model_hint,
    save_tokenizer,
    tokenizer_identity,
    train_tokenizer,
)
from finetune.store import (
    MANIFEST,
    fingerprint,
    is_done,
    is_leftover,
    library_versions,
    make_run_folder,
    read_json,
    stage_folder,
    write_json,
    write_manifest,
    write_text,
)

_CORPUS_LIBRARIES = (
    "sfim", "tree-sitter", "kingfisher-secret-scanner", "rensa", "scikit-learn", "networkx",
)  # fmt: skip
"""What decides which files are kept, what is left of them, and their order."""
_MEASURED_DOCUMENTS = 64
_FREE_KEYS = frozenset(
    f"model.{key}"
    for key in (
        "adapter", "attention", "dtype", "lora_r", "lora_alpha", "lora_dropout", "lora_targets",
        "tokenizer", "adapter_from", "train_sentinels", "rope_theta",
    )
)  # fmt: skip
"""Keys of `model` that change no pack, and so may change in a run folder."""


def prepare(recipe: Recipe) -> dict[str, Any]:
    """Build `corpus/` and `packs/` of a run; what is already built from the same input stays.

    A run folder is left only where the sources, the tokenizer and the folder have proved usable.

    Returns:
        The counts that `sfim prepare --json` prints.

    Raises:
        FimError: a source, the tokenizer or the run folder is not usable.
    """
    check_run_folder(recipe)
    corpus = fetch_sources(recipe)
    sources = sources_fingerprint(recipe, corpus)
    made_from = _packs_fingerprint(recipe, sources)
    packs = recipe.folder / "packs"
    if is_done(packs, made_from) and _has_stages_before(recipe, sources):
        stats = read_json(packs / "stats.json")
        write_run_recipe(recipe)
    else:
        check_checkpoints(recipe, made_from)
        stats = _make_packs(recipe, corpus, sources, made_from)
    _warn_of_nothing_held_out(recipe, stats["held_out"]["documents"])
    return stats


def _make_packs(recipe: Recipe, expanded: Corpus, sources: str, made_from: str) -> dict[str, Any]:
    started = time.monotonic()
    if not recipe.model.scratch:  # refused before the corpus is read, which may take long
        load_format(load_tokenizer(recipe.model.name, recipe.model.revision), recipe.model)
    corpus = _build_corpus(recipe, expanded, sources)
    documents = count_documents(corpus)
    without_grammar = _warn_of_no_grammar(documents["languages"])
    tokenizer, form = _load_tokenizer(recipe, corpus)
    _warn_of_what_is_new(recipe, form)
    recipe = replace(recipe, fim=_resolved_fim(recipe, form, tokenizer, corpus))
    refused = Refused()
    with stage_folder(recipe.folder / "packs") as folder:
        decay = plan_decay(recipe.train, corpus, recipe.fim.seed)
        train = _write_side(folder, "train", recipe, recipe.train.epochs, refused, decay)
        if documents["held_out"]["documents"]:
            _write_side(folder, "eval", recipe, 1, refused)
        stats = {
            **documents,
            **train,
            "seconds": round(time.monotonic() - started, 3),
            "redrawn": dict(refused.redrawn),
            "lost": dict(refused.lost),
            "fallback": dict(refused.fallback),
            "without_grammar": without_grammar,
            "format": form.name,
            "orders": recipe.fim.orders,
            "window_bytes": recipe.fim.window_bytes,
        }
        if decay:
            stats["decay"] = count_decay(folder / "train", decay)
        write_json(folder / "stats.json", stats)
        write_manifest(folder, made_from, content=train["content"])
    return stats


def check_run_folder(recipe: Recipe) -> None:
    """Refuse a run folder whose packs come from another recipe.

    Raises:
        FimError: the folder holds another recipe's packs; names the first key that differs.
    """
    folder, path = recipe.folder, recipe.folder / "recipe.yaml"
    if not path.exists():
        left = list(folder.iterdir()) if folder.exists() else []
        if not all(is_leftover(each) or each == cache_folder(recipe) for each in left):
            raise FimError(f"{folder}: not empty and no run; give another name=")
        return
    if not (folder / "packs" / MANIFEST).exists():
        return
    old, new = _comparable(read_recipe(path)), _comparable(recipe)
    differing = [key for key in new if old.get(key) != new[key]]
    if differing:
        raise FimError(
            f"{folder}: holds the run of another recipe ({differing[0]} differs); "
            "give another name= or delete the folder"
        )


def check_checkpoints(recipe: Recipe, made_from: str) -> None:
    """Refuse to replace packs that a started training reads.

    Raises:
        FimError: there are checkpoints, and the packs would be others; names the ways out.
    """
    manifest = recipe.folder / "packs" / MANIFEST
    started = any((recipe.folder / "checkpoints").glob("checkpoint-*"))
    if not started or not manifest.exists() or read_json(manifest).get("made_from") == made_from:
        return
    raise FimError(
        f"{recipe.folder}: the sources, train.epochs, sfim or a grammar changed since its "
        "checkpoints; give another name=, or set the git sources' ref to the commit in "
        "corpus/manifest.json ('commits'), or delete checkpoints/"
    )


def write_run_recipe(recipe: Recipe) -> None:
    """Write an accepted recipe to `recipe.yaml` of its run, unless it stands there already.

    What a URL says before `@` is left out.
    """
    sources = tuple(replace(s, git=strip_credentials(s.git)) for s in recipe.corpus.sources)
    shown = replace(recipe, corpus=replace(recipe.corpus, sources=sources))
    path, text = recipe.folder / "recipe.yaml", write_recipe(shown)
    if not path.is_file() or path.read_bytes() != text.encode():
        make_run_folder(recipe.folder)
        write_text(path, text)


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """The keys that two recipes of one run folder must agree on."""
    sections = {
        "model": asdict(recipe.model),
        # another ref may be the same commit; the fingerprint knows
        "corpus": asdict(without_refs(_content_of(recipe.corpus))),
        "fim": asdict(recipe.fim),
    }
    keys = {f"{name}.{key}": value for name, s in sections.items() for key, value in s.items()}
    return {key: value for key, value in keys.items() if key not in _FREE_KEYS}


def _content_of(corpus: Corpus) -> Corpus:
    """The section without what does not change its output."""
    return replace(corpus, workers=0)


def prepare_fingerprint(recipe: Recipe) -> str:
    """Digits that change when anything the packs depend on changes; the network is not asked."""
    sources = sources_fingerprint(recipe, expand_corpus(recipe))
    return _packs_fingerprint(recipe, sources)


def _packs_fingerprint(recipe: Recipe, sources: str) -> str:
    identity = tokenizer_identity(recipe.model)
    versions = corpus_versions(recipe, "tokenizers")
    train = recipe.train
    mix = (train.decay_rate, train.anneal_sources, train.anneal_languages)
    anneal = mix if train.has_anneal else ()
    return fingerprint(sources, asdict(recipe.fim), train.epochs, identity, versions, *anneal)


def sources_fingerprint(recipe: Recipe, expanded: Corpus) -> str:
    """Digits that change when the corpus section or a source changes.

    Args:
        recipe: the run.
        expanded: its corpus section, see `expand_corpus`.

    Raises:
        FimError: a source does not exist.
    """
    return corpus_fingerprint(_content_of(recipe.corpus), expanded)


def corpus_stage(recipe: Recipe, sources: str) -> str:
    """Digits that change when anything the corpus depends on changes.

    Args:
        recipe: the run.
        sources: see `sources_fingerprint`.
    """
    return fingerprint(sources, recipe.fim.seed, corpus_versions(recipe))


def corpus_versions(recipe: Recipe, *others: str) -> dict[str, str]:
    """Return the versions of what a corpus depends on, grammars included, and of `others`."""
    filters = recipe.corpus.filters
    grammars = (row.distribution for row in LANGUAGES.values())
    names = {*_CORPUS_LIBRARIES, *grammars, *others}
    if filters.ruff or filters.ruff_fix or filters.ruff_format:
        names.add("ruff")
    return {name: version for name, version in library_versions().items() if name in names}


def _has_stages_before(recipe: Recipe, sources: str) -> bool:
    """Whether what the packs were made from is still there, for the stages after them."""
    tokenizer = recipe.folder / "tokenizer" / "tokenizer.json"
    return is_done(recipe.folder / "corpus", corpus_stage(recipe, sources)) and (
        recipe.model.scratch is None or tokenizer.is_file()
    )


def _load_tokenizer(recipe: Recipe, corpus: Path) -> tuple[Any, ProvedFormat]:
    if recipe.model.scratch:
        texts = (document.text for document in read_documents(corpus, "train"))
        trained = train_tokenizer(texts, recipe.model.scratch.vocab_size)
        with stage_folder(recipe.folder / "tokenizer") as folder:
            save_tokenizer(trained, folder)
    return load_run_tokenizer(recipe)


def _build_corpus(recipe: Recipe, expanded: Corpus, sources: str) -> Path:
    """Make `corpus/` unless it is made, and accept the recipe."""
    folder = recipe.folder / "corpus"
    made_from = corpus_stage(recipe, sources)
    if is_done(folder, made_from):
        write_run_recipe(recipe)
        return folder
    cache = cache_folder(recipe)
    commits = source_commits(recipe.corpus, cache)
    with new_run_folder(recipe.folder), stage_folder(folder) as fresh:
        write_corpus(
            fresh, expanded, recipe.fim.seed, cache, corpus_versions(recipe),
            progress=lambda items: progress(items, "reading files"),
        )  # fmt: skip
        write_run_recipe(recipe)
        write_manifest(fresh, made_from, commits=commits)
    return folder


def _warn_of_what_is_new(recipe: Recipe, form: ProvedFormat) -> None:
    """Say what the base may not have been trained on; one that was made here has seen it."""
    made_here = (Path(recipe.model.name).parent / "recipe.yaml").is_file()
    if made_here or recipe.model.scratch:
        return
    new = [order for order in recipe.fim.orders if order not in form.row.trained]
    if new:
        known = ", ".join(form.row.trained)
        warn(f"{form.name} was trained on {known}; {', '.join(new)} is new to it (fim.orders)")
    said = recipe.model.format == form.name
    if not said and form.name not in families_named(model_hint(recipe.model.name)):
        warn(
            f"neither the base's name nor its config says {form.name}; its tokenizer has those "
            "tokens, but only its maker knows whether it was trained on FIM (model.format)"
        )


def _warn_of_no_grammar(languages: dict[str, int]) -> dict[str, int]:
    """Say in which languages no MIDDLE can follow the syntax; return their files."""
    found = {
        name: number for name, number in languages.items()
        if LANGUAGES[name].is_code and not has_grammar(name)
    }  # fmt: skip
    if found:
        installable = any(LANGUAGES[name].distribution for name in found)
        warn(
            f"no grammar for {', '.join(found)} ({sum(found.values())} files), so their spans are "
            "random" + ("; run: pip install 'sfim[languages]'" if installable else "")
        )
    return found


def _warn_of_nothing_held_out(recipe: Recipe, held_out: int) -> None:
    """Say before the training that nothing will measure it."""
    if recipe.evaluate.items and not held_out:
        warn(
            "no file is held out, so nothing will be evaluated; raise corpus.split.eval_rate or "
            f"lower corpus.split.min_files (files under {MIN_EVAL_BYTES} bytes are never held "
            "out), or set evaluate.items=0"
        )


def _resolved_fim(recipe: Recipe, form: ProvedFormat, tokenizer: Any, corpus: Path) -> Fim:
    """The recipe's `fim` section with its automatic values filled in."""
    window = recipe.fim.window_bytes
    if not window:
        chosen = document_ids(corpus, "train")[:_MEASURED_DOCUMENTS]
        texts = (document.text for document in read_documents(corpus, "train", set(chosen)))
        window = max(256, int(recipe.fim.max_length * bytes_per_token(texts, tokenizer)))
    return replace(
        recipe.fim,
        window_bytes=window,
        orders=recipe.fim.orders or dict(form.row.trained),
    )


def _write_side(
    folder: Path, side: str, recipe: Recipe, epochs: int, refused: Refused,
    decay: Decay | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Sample, encode, pack and write one side of the corpus, and count what came out."""
    corpus = recipe.folder / "corpus"
    documents = progress(
        read_documents(corpus, side), f"encoding ({side})", len(document_ids(corpus, side))
    )

    def shards() -> Iterator[Shard]:
        for shard in encode_documents(documents, recipe, epochs, decay):
            refused.update(shard.refused)
            yield shard

    last = decay.epochs.stop if decay else epochs
    return write_packs(folder / side, shards(), recipe.fim, last)
