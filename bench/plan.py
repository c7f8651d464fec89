"""What `sfim plan` predicts against what training takes: memory and checkpoints, on a CPU.

    python bench/plan.py [--cases NAME ...] [--keep] [--json]

Each case trains three steps of a random Qwen2 in a process of its own, in float32. Measured is the
most that is resident while it trains (`VmHWM`, set back before the first step), less what the same
process holds after it has trained a tiny model. What is freed is given back, as in every training
where memory is short; with `--keep` it is kept after two steps, as where there is plenty: quicker,
and in more memory than planned. Last are seconds of processor time.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WIDE = {"hidden_size": 768, "num_layers": 6, "num_heads": 8, "intermediate_size": 2048}
LONG = {"hidden_size": 256, "num_layers": 6, "num_heads": 4, "intermediate_size": 704}
TINY = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
CASES = {  # what dominates: (shape, tokens of a pack, overrides)
    "weights": (WIDE, 256, ["model.adapter=lora"]),
    "optimizer": (WIDE, 256, ["model.adapter=full"]),
    "optimizer, checkpointing": (
        WIDE, 256, ["model.adapter=full", "train.gradient_checkpointing=true"],
    ),
    "activations": (LONG, 4096, ["model.adapter=lora"]),
    "activations, full": (LONG, 4096, ["model.adapter=full"]),
    "activations, checkpointing": (
        LONG, 4096, ["model.adapter=lora", "train.gradient_checkpointing=true"],
    ),
    "activations, DoRA": (LONG, 4096, ["model.adapter=dora"]),
    "activations, loss on MIDDLE": (LONG, 4096, ["model.adapter=full", "fim.loss=middle"]),
}  # fmt: skip


def make_recipe(folder: Path, shape: dict[str, int], length: int) -> Path:
    """Write a recipe, its packs, and a random base of a shape; returns the recipe."""
    from finetune.prepare import prepare
    from finetune.recipe.file import read_recipe
    from finetune.samples.tokenizer import load_tokenizer
    from finetune.training.scratch import make_model

    values = {
        "name": "scratch",
        "runs": str(folder / "runs"),
        "model": {"adapter": "full", "scratch": {"vocab_size": 4096, **shape}},
        "corpus": {"sources": [{"folder": str(ROOT / "fim")}], "split": {"eval_rate": 0}},
        "fim": {"max_length": length},
        "train": {"epochs": 1, "max_tokens": 4 * length, "save_steps": 2},
        "evaluate": {"items": 0},
    }
    path = folder / "scratch.json"
    path.write_text(json.dumps(values))
    recipe = read_recipe(path)
    prepare(recipe)
    tokenizer = load_tokenizer(str(recipe.folder / "tokenizer"))
    base = folder / "base"
    make_model(recipe.model.scratch, tokenizer, length).save_pretrained(base)
    tokenizer.save_pretrained(base)
    path = folder / "recipe.json"
    path.write_text(json.dumps({**values, "name": "tuned", "model": {"name": str(base)}}))
    return path


def train_case(tiny: str, path: str, overrides: list[str], keep: bool) -> dict[str, float]:
    """Plan and train, in this process; returns predicted and measured bytes, and seconds."""
    from finetune.plan.estimate import make_plan
    from finetune.prepare import prepare
    from finetune.recipe.file import read_recipe

    first, recipe = read_recipe(tiny, overrides), read_recipe(path, overrides)
    for each in (first, recipe):
        prepare(each)
    plan = make_plan(recipe, gpus=0)
    _make_trainer(first, keep).train()
    gc.collect()
    idle = _status("VmRSS")
    trainer = _make_trainer(recipe, keep)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    seconds = time.process_time()
    trainer.train()
    seconds = time.process_time() - seconds
    folder = recipe.folder / "checkpoints" / "checkpoint-2"
    return {
        "predicted": plan["asked"]["total"],
        "measured": _status("VmHWM") - idle,
        "predicted_checkpoint": plan["asked"]["checkpoint"],
        "measured_checkpoint": sum(file.stat().st_size for file in folder.iterdir()),
        "seconds": seconds,
    }


def _make_trainer(recipe: Any, keep: bool) -> Any:
    from finetune.train import make_trainer
    from finetune.training.host_memory import KeepFreed

    trainer, *_ = make_trainer(recipe)
    if not keep:
        trainer.remove_callback(KeepFreed)
    return trainer


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return 1024 * int(line.split()[1])


def main() -> None:
    """Measure the cases, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--train", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train_case(*options.train[:2], options.train[2:], options.keep)))
        return
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    sys.path.insert(0, str(ROOT))
    found, recipes = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.cases:
            shape, length, overrides = CASES[name]
            for size, sizes in ((0, TINY), (length, shape)):
                if size not in recipes:
                    folder = Path(scratch) / str(size)
                    folder.mkdir()
                    recipes[size] = str(make_recipe(folder, sizes, size or 256))
            own = [recipes[0], recipes[length], f"name=run{len(found)}", *overrides]
            keep = ["--keep"] if options.keep else []
            command = [sys.executable, __file__, *keep, "--train", *own]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            if not options.json:
                _print(name, found[name])
    if options.json:
        print(json.dumps(found))


def _print(name: str, row: dict[str, float]) -> None:
    mib = {key: value / 2**20 for key, value in row.items()}
    print(
        f"{name:27} memory {mib['predicted']:7.1f} predicted {mib['measured']:7.1f} measured "
        f"{row['predicted'] / row['measured'] - 1:+6.1%}   checkpoint "
        f"{mib['predicted_checkpoint']:6.1f} {mib['measured_checkpoint']:6.1f} MiB "
        f"{row['predicted_checkpoint'] / row['measured_checkpoint'] - 1:+6.1%}   "
        f"{row['seconds']:5.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
