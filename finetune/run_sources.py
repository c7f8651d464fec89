"""Where the sources of a run are on this machine, and the folder it is made in."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fim import FimError
from finetune.corpus.sources.clones import is_url
from finetune.corpus.sources.read import expand_sources
from finetune.progress import warn
from finetune.recipe.corpus import Corpus
from finetune.recipe.schema import Recipe
from finetune.store import make_run_folder


def cache_folder(recipe: Recipe) -> Path:
    """Where a run keeps its clones and what it knows of files, for its next `prepare`."""
    return recipe.folder / "cache"


def expand_corpus(recipe: Recipe, fetch: bool = False, is_told: bool = False) -> Corpus:
    """Return the section with one source per place; see `expand_sources`.

    What a glob matches and is left out is said on stderr where that `is_told`.

    Raises:
        FimError: nothing matches, or a URL is not cloned and `fetch` is False.
    """
    empty: list[str] = []
    sources = expand_sources(recipe.corpus.sources, cache_folder(recipe), fetch, empty.append)
    for place in empty if is_told else ():
        warn(f"{place}: no commit yet; left out")
    return replace(recipe.corpus, sources=sources)


def fetch_sources(recipe: Recipe) -> Corpus:
    """Clone and update what URLs name; read the clones of an earlier run where that fails."""
    if not any(is_url(source.git) for source in recipe.corpus.sources):
        return expand_corpus(recipe, is_told=True)
    with new_run_folder(recipe.folder):
        try:
            return expand_corpus(recipe, fetch=True, is_told=True)
        except FimError as error:
            try:
                corpus = expand_corpus(recipe, is_told=True)
            except FimError:
                _delete_empty_clones(recipe)
                raise error from None
            warn(f"{error}; its clone from an earlier run is read")
            return corpus


def _delete_empty_clones(recipe: Recipe) -> None:
    clones = cache_folder(recipe) / "clones"
    if clones.is_dir() and not any(clones.glob("*/.git")):
        shutil.rmtree(clones)
        with suppress(OSError):  # not empty
            clones.parent.rmdir()


@contextmanager
def new_run_folder(folder: Path) -> Iterator[None]:
    """Make a run folder, and take it away again if the block fails and nothing is in it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_run_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()
        raise
