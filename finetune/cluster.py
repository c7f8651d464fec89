"""The study of files on a cluster: datatrove's executors run slices of them side by side.

Every task reads the list of all files and studies its slice into a cache of its own in the run
folder, which all machines must see; the next `prepare` merges them and does the rest.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fim import FimError
from finetune.corpus.cache import SLICES, Damaged, delete_cache, open_cache
from finetune.corpus.collect import study_slice
from finetune.corpus.study import StudySettings
from finetune.prepare import check_run_folder, corpus_versions
from finetune.recipe.corpus import SOURCE_KINDS, Corpus
from finetune.recipe.schema import Recipe
from finetune.run_sources import cache_folder, fetch_sources, new_run_folder

try:
    from datatrove.pipeline.base import PipelineStep
except ImportError:
    PipelineStep = object

EXECUTORS = ("local", "ray", "slurm")
"""Of datatrove; `slurm` only hands the tasks over, the others wait for them."""


class StudySlice(PipelineStep):
    """Studies the files of one rank; a task that is killed goes on where it was when it is redone.

    Nothing else goes through the pipeline.
    """

    name = "study"
    type = "sfim"

    def __init__(
        self, corpus: Corpus, seed: int, cache: Path, versions: Mapping[str, str],
        known: Collection[bytes] = (),
    ) -> None:  # fmt: skip
        """Take what `write_corpus` takes, with expanded sources: no URL, and so no password.

        `known` are the keys of the files that need no study.
        """
        super().__init__()
        self.corpus = corpus
        self.seed = seed
        self.cache = cache
        self.versions = dict(versions)
        self.known = known

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Study the files of a rank; give what was given."""
        made_with = StudySettings.of(self.corpus, self.seed).digits(self.versions)
        try:
            place = self.cache / SLICES / f"{rank}-of-{world_size}"
            with open_cache(place, made_with, self.known) as cache:
                study_slice(self.corpus, self.seed, cache, rank, world_size)
        except FimError as error:
            raise FimError(str(error)) from None
        except Exception as error:  # the executor's log would show the variables of every frame
            raise FimError(f"task {rank}: {type(error).__name__}; run it again") from None
        yield from data or ()


def study_on_cluster(
    recipe: Recipe, executor: str, tasks: int, options: Mapping[str, str] | None = None
) -> bool:
    """Study the files of a recipe in so many tasks.

    Args:
        recipe: of the run, whose folder and sources all machines see.
        executor: one of `EXECUTORS`.
        tasks: slices of the files.
        options: more arguments of the executor, as `partition` and `time` for Slurm.

    Returns:
        Whether the tasks are done; False where they were handed over.

    Raises:
        FimError: a source, the run folder or an option is not usable, or a task failed.
    """
    check_run_folder(recipe)
    corpus = fetch_sources(recipe)
    folder = cache_folder(recipe).absolute()
    versions, seed = corpus_versions(recipe), recipe.fim.seed
    arguments = {name: _plain(value) for name, value in (options or {}).items()}
    # merging the slices deletes them, whoever does it
    make, logs = _load_executor(executor), folder / SLICES / "logs"
    with new_run_folder(recipe.folder):
        known = _known(folder, StudySettings.of(corpus, seed).digits(versions))
        step = StudySlice(_absolute(corpus), seed, folder, versions, known)
        try:
            runner = make(
                [step], tasks=tasks, logging_dir=str(logs), skip_completed=False, **arguments
            )
        except TypeError as error:
            raise FimError(f"--executor {executor}: {error}; correct --option") from None
        _run(runner, executor)
    if executor == "slurm":
        return False
    shutil.rmtree(logs, ignore_errors=True)
    return True


def _known(folder: Path, made_with: str) -> frozenset[bytes]:
    """Return the keys of what earlier runs and tasks found out."""
    if not folder.is_dir():
        return frozenset()
    try:
        with open_cache(folder, made_with) as cache:
            return cache.keys()
    except Damaged:
        delete_cache(folder)
        return frozenset()


def _run(runner: Any, executor: str) -> None:
    try:
        runner.run()
    except (FimError, OSError):  # one line already
        raise
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        raise FimError(
            f"--executor {executor}: {type(error).__name__}: {line}; see what it printed above, "
            "and correct --option"
        ) from None


def _load_executor(name: str) -> Callable[..., Any]:
    try:
        if name == "local":
            from datatrove.executor.local import LocalPipelineExecutor as Executor
        elif name == "ray":
            import ray  # noqa: F401
            from datatrove.executor.ray import RayPipelineExecutor as Executor
        else:
            from datatrove.executor.slurm import SlurmPipelineExecutor as Executor
    except ImportError:
        raise FimError("--executor needs the extra; run: pip install 'sfim[scale]'") from None
    return Executor


def _absolute(corpus: Corpus) -> Corpus:
    """Say paths in full: tasks may run in another folder."""

    def full(path: str) -> str:
        return os.path.abspath(path) if path and os.path.exists(path) else path

    sources = tuple(
        replace(source, **{kind: full(getattr(source, kind)) for kind in SOURCE_KINDS})
        for source in corpus.sources
    )
    benchmarks = tuple(map(full, corpus.benchmarks))
    return replace(corpus, sources=sources, benchmarks=benchmarks, workers=corpus.workers or 1)


def _plain(value: str) -> str | int | float:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
