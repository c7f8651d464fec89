"""The `sfim` command: one function per verb, heavy imports inside."""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fim import FORMATS, LANGUAGES, FimError

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # not each retry; how they end is told
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_SHOWN = 5
"""Samples shown where only their kind or language is given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0 done, 1 failed or refused (one line on stderr says where, what and the way out), 2 usage.
    """
    options = _parse(arguments)
    try:
        options.verb(options)
    except FimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        print(
            f"error: {error.filename}: {reason}" if error.filename else f"error: {reason}",
            file=sys.stderr,
        )
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; overrides may stand before or after options."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    if rest and (wrong or not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(wrong or rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="sfim", description="Fine-tune code completion on your own repositories."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: Any, text: str, *positional: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=verb)
        for argument in positional:
            sub.add_argument(argument.lower(), metavar=argument)
        if "RECIPE" in positional:
            sub.add_argument("overrides", nargs="*", default=[], metavar="section.key=value")
        return sub

    def add_json(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--json", action="store_true", help="print one JSON object, nothing else")

    add_json(add("run", run, "prepare, train, evaluate and report", "RECIPE"))
    sub = add("prepare", prepare, "turn repositories into packs", "RECIPE")
    sub.add_argument("--show", type=_count, default=0, metavar="N", help="print N samples")
    sub.add_argument(
        "--kind", default="", help="show only this node type, construct, sampler or order"
    )
    sub.add_argument("--language", default="", help="show only this language")
    sub.add_argument(
        "--executor", choices=("local", "ray", "slurm"), default="",
        help="of datatrove, which studies slices of the files in tasks (extra `scale`)",
    )  # fmt: skip
    sub.add_argument("--tasks", type=_count, default=0, metavar="N", help="tasks of the executor")
    sub.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="argument of the executor, as partition=cpu and time=04:00:00 of slurm",
    )  # fmt: skip
    add_json(sub)
    sub = add("plan", plan, "memory, disk, steps and hours, before anything is spent", "RECIPE")
    sub.add_argument("--gpus", type=_count, metavar="N", help="0: the CPU; default: those here")
    sub.add_argument("--memory", type=_above_0, default=0.0, metavar="GIB", help="of each device")
    add_json(sub)
    add("train", train, "train on the packs, one process", "RECIPE")
    add_json(add("audit", audit, "derive every sample of a run again", "RUN"))
    add_json(add("evaluate", evaluate, "base against adapter on held-out spans", "RECIPE"))
    sub = add("outliers", outliers, "files whose loss under the base is far off", "RECIPE")
    sub.add_argument("--worst", type=_count, default=10, metavar="N", help="files shown per side")
    sub.add_argument(
        "--threshold", type=_above_0, default=3.5, metavar="Z",
        help="modified z-score of the log loss in its language beyond which a file is listed (3.5)",
    )  # fmt: skip
    sub.add_argument(
        "--max-loss", type=_above_0, default=0.0, metavar="NATS",
        help="list files above so many nats per token as well (refact: 3.0)",
    )  # fmt: skip
    add_json(sub)
    add("report", report, "write one self-contained report.html", "RUN")
    sub = add("complete", complete, "what the model writes at a place", "RUN", "FILE:LINE:COLUMN")
    sub.add_argument("--max-new-tokens", type=_count, default=0, metavar="N")
    add("merge", merge, "merge the adapter into a copy of its base", "RUN", "OUT")
    sub = add("push", push, "upload the result to a private hub repository", "RUN")
    sub.add_argument("--to", required=True, metavar="ORG/NAME")
    sub.add_argument("--public", action="store_true", help="allow a repository all can read")
    sub = add("scan", scan, "secrets in files and folders; fails if there are any")
    sub.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, git repositories")
    sub.add_argument("--personal", action="store_true", help="personal data too")
    sub.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB",
        help="leave out these paths inside the folders, tests/** for one; may be given again",
    )  # fmt: skip
    add_json(sub)
    sub = add("check", check, "what a model's tokenizer proves, and what clients send", "MODEL")
    sub.add_argument("--format", default="auto", metavar="NAME", help="row of `sfim formats`")
    add_json(sub)
    add_json(add("formats", formats, "model families and their sentinels"))
    add_json(add("languages", languages, "languages and their constructs"))
    return parser


def run(options: argparse.Namespace) -> None:
    """Make a whole run; stages that are done are skipped."""
    recipe = _recipe(options)
    from finetune.check import refuse_base
    from finetune.prepare import prepare as make_packs
    from finetune.show import prepare_summary

    if recipe.model.name:
        refuse_base(recipe.model)
    stats = make_packs(recipe)
    _say(prepare_summary(stats), options)
    from finetune.train import train as train_model

    folder = train_model(recipe)
    metrics = None
    if recipe.evaluate.items:
        from finetune.evaluate import evaluate as measure
        from finetune.report.table import results_table

        metrics = measure(recipe)
        _say("\n" + results_table(metrics) + "\n", options)
    from finetune.report.page import write_report

    page = write_report(recipe.folder)
    if options.json:
        print(json.dumps({"stats": stats, "metrics": metrics, "report": str(page)}))
    else:
        print(f"{folder}\n{page}")


def prepare(options: argparse.Namespace) -> None:
    """Turn sources into packs."""
    if (options.tasks or options.option) and not options.executor:
        raise FimError("--tasks and --option belong to --executor; give one, or leave them out")
    recipe = _recipe(options)
    if options.executor and not _study_elsewhere(recipe, options):
        text = "handed over; when the tasks are done, run 'sfim prepare' without --executor"
        print(json.dumps({"handed_over": max(1, options.tasks)}) if options.json else text)
        return
    from finetune.prepare import prepare as make_packs
    from finetune.show import prepare_summary

    stats = make_packs(recipe)
    if options.json:
        print(json.dumps(stats))
        return
    print(prepare_summary(stats))
    if number := options.show or _SHOWN * bool(options.kind or options.language):
        from finetune.show import show_samples

        color = sys.stdout.isatty()
        for text in show_samples(recipe.folder, number, options.kind, options.language, color):
            print("\n" + text)


def _study_elsewhere(recipe: Any, options: argparse.Namespace) -> bool:
    """Study the files in tasks of an executor; tell whether they are done."""
    from finetune.cluster import study_on_cluster

    arguments = dict(option.partition("=")[::2] for option in options.option)
    return study_on_cluster(recipe, options.executor, max(1, options.tasks), arguments)


def audit(options: argparse.Namespace) -> None:
    """Check every sample of a run against its document and the grammar."""
    from finetune.audit.samples import audit as check_run
    from finetune.audit.samples import audit_summary

    run = _run(options)
    result = check_run(run)
    print(json.dumps(result) if options.json else audit_summary(result))
    if broken := sum(result["violations"].values()):
        raise FimError(f"{run}: {broken} violations; prepare it again, or report them")


def plan(options: argparse.Namespace) -> None:
    """Predict what a run takes."""
    recipe = _recipe(options)
    from finetune.plan.estimate import make_plan, plan_summary

    predicted = make_plan(recipe, options.gpus, options.memory)
    print(json.dumps(predicted) if options.json else plan_summary(predicted))


def train(options: argparse.Namespace) -> None:
    """Train in this process."""
    recipe = _recipe(options)
    from finetune.train import train as train_model

    print(train_model(recipe))


def evaluate(options: argparse.Namespace) -> None:
    """Measure base and adapter."""
    recipe = _recipe(options)
    from finetune.evaluate import evaluate as measure
    from finetune.report.table import results_table

    metrics = measure(recipe)
    print(json.dumps(metrics) if options.json else results_table(metrics))


def outliers(options: argparse.Namespace) -> None:
    """List training files that the base finds far harder or easier than their like."""
    recipe = _recipe(options)
    from finetune.outliers import find_outliers, outliers_summary

    found = find_outliers(recipe, options.threshold, options.max_loss)
    print(json.dumps(found) if options.json else outliers_summary(found, options.worst))


def report(options: argparse.Namespace) -> None:
    """Write the report of a run."""
    from finetune.report.page import write_report

    run = _run(options)
    if not (run / "recipe.yaml").is_file():
        raise FimError(f"{run}: no run folder (no recipe.yaml); give one like runs/quickstart")
    print(write_report(run))


def complete(options: argparse.Namespace) -> None:
    """Print a completion, and nothing after it."""
    from finetune.complete import complete_at

    place = getattr(options, "file:line:column")
    print(complete_at(_run(options), place, options.max_new_tokens).text, end="")


def merge(options: argparse.Namespace) -> None:
    """Write a merged model."""
    from finetune.publish import merge as merge_adapter

    print(merge_adapter(_run(options), Path(options.out)))


def push(options: argparse.Namespace) -> None:
    """Upload the result."""
    from finetune.publish import push as upload

    print(upload(_run(options), options.to, public=options.public))


def scan(options: argparse.Namespace) -> None:
    """Print where secrets are, never the secrets."""
    from finetune.scan import scan as find_places
    from finetune.scan import scan_summary

    result = find_places(options.paths, options.personal, options.exclude)
    print(json.dumps(result) if options.json else scan_summary(result))
    if found := len(result["findings"]):
        places = "1 finding" if found == 1 else f"{found:,} findings"
        raise FimError(f"{places}; take them out of the files, and change the secrets")


def check(options: argparse.Namespace) -> None:
    """Prove a model's format and compare what is trained with what clients send."""
    from finetune.check import check as check_model
    from finetune.check import check_summary

    result = check_model(options.model, options.format)
    print(json.dumps(result, ensure_ascii=False) if options.json else check_summary(result))


def formats(options: argparse.Namespace) -> None:
    """Print the model families."""
    rows = {
        name: {
            "orders": list(row.orders),
            "trained": row.trained,
            "sentinels": {"prefix": row.prefix, "suffix": row.suffix, "middle": row.middle},
            "bos": row.bos,
            "end": row.end,
            "stop": list(row.stop),
            "fim_trained": row.fim_trained,
            "untrained": row.untrained,
            "verified": row.verified,
            "source": row.source,
        }
        for name, row in FORMATS.items()
    }
    if options.json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for name, row in rows.items():
        orders = "+".join(row["trained"]) if row["fim_trained"] else "refused"
        sentinels = "  ".join(filter(None, row["sentinels"].values()))
        print(f"{name:18} {orders:8} {row['verified']:7} {sentinels}  end {row['end']}")


def languages(options: argparse.Namespace) -> None:
    """Print the languages."""
    rows = {
        name: {
            "extensions": list(row.extensions),
            "constructs": list(row.construct_names),
            "by_default": row.by_default,
            "grammar": row.version,
        }
        for name, row in LANGUAGES.items()
    }
    if options.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        missing = LANGUAGES[name].distribution and not row["grammar"]
        hint = "" if row["by_default"] else "  (only if corpus.filters.languages names it)"
        hint += "  (for its grammar: pip install 'sfim[languages]')" if missing else ""
        print(f"{name:16} {' '.join(row['extensions'])}{hint}")


def _recipe(options: argparse.Namespace) -> Any:
    from finetune.recipe.file import read_recipe

    return read_recipe(options.recipe, options.overrides)


def _run(options: argparse.Namespace) -> Path:
    """The run folder, whose name is the run's: `.` has none."""
    return Path(os.path.abspath(options.run))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, got {text!r}")
    return int(text)


def _above_0(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _say(text: str, options: argparse.Namespace) -> None:
    if not options.json:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
