"""Training speed, memory, kernels and equality on one GPU; `bench/gpu_train.sh` runs it.

    python bench/gpu_train.py [--tiny] [CASE ...]

Models have the sizes of real ones and random weights, samples random ids of lognormal lengths
(median 600 tokens, at most 4,096), so nothing is downloaded. Tokens per second are real tokens
after three warm-up steps; `limit` is what 790 TFLOP/s of dense bfloat16 would allow for this model
and these lengths; the attention kernels are those that the profiler sees in the first step.
A case that is named runs in this process; without a name each runs in one of its own, and a figure
is printed as soon as it is there. `--tiny` puts sizes a CPU can train in their place, to see that
the script works.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

VOCABULARY = 151_936
PEAK_FLOPS = 790e12
"""Of one H200 in bfloat16: what dense products of matrices reach, a fifth below the data sheet."""
WARM = 3
LONGEST = 4_096
TIMEOUT_SECONDS = 150
"""Of one case: a kernel that hangs must not cost the figures of the others."""


def qwen(hidden: int, inner: int, layers: int, heads: int, key_heads: int) -> dict[str, Any]:
    """Sizes as in the config.json of a Qwen2.5-Coder."""
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": key_heads,
        "vocab_size": VOCABULARY, "max_position_embeddings": 32_768, "rope_theta": 1e6,
        "tie_word_embeddings": hidden < 3_000,
    }  # fmt: skip


SHAPES = {
    "0.5B": qwen(896, 4_864, 24, 14, 2),
    "1.5B": qwen(1_536, 8_960, 28, 12, 2),
    "7B": qwen(3_584, 18_944, 28, 28, 4),
    "tiny": qwen(64, 128, 2, 4, 2) | {"vocab_size": 512},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measured run."""

    shape: str
    adapter: str
    kind: str = "blocks"
    checkpointing: bool = False
    capacity: int = 8_192
    steps: int = 20


CASES = {  # the most asked for first
    "7B-lora": Case(shape="7B", adapter="lora"),
    "1.5B-lora": Case(shape="1.5B", adapter="lora"),
    "1.5B-lora-trl-blocks": Case(shape="1.5B", adapter="lora", kind="trl_blocks"),
    "1.5B-lora-padded": Case(shape="1.5B", adapter="lora", kind="padded", steps=10),
    "7B-full": Case(shape="7B", adapter="full", checkpointing=True, steps=10),
    "1.5B-full": Case(shape="1.5B", adapter="full"),
    "1.5B-lora-32k": Case(shape="1.5B", adapter="lora", capacity=32_768, steps=8),
    "1.5B-lora-32k-dense": Case(
        shape="1.5B", adapter="lora", kind="dense", capacity=32_768, steps=8
    ),
    "1.5B-lora-trl": Case(shape="1.5B", adapter="lora", kind="trl"),
}
GOALS = (  # what is divided by what (nothing: tokens per second), floor, goal
    ("7B-lora", "", 9_300, 12_000),
    ("7B-full", "", 4_100, 5_400),
    ("1.5B-lora", "", 35_000, 47_000),
    ("1.5B-full", "", 24_000, 32_000),
    ("1.5B-lora", "1.5B-lora-padded", 1.8, 2.3),
    ("1.5B-lora-32k", "1.5B-lora-32k-dense", 1.6, 2.0),
    ("1.5B-lora", "1.5B-lora-trl-blocks", 1.0, 1.05),  # the same kernels
)


def measure(name: str, tiny: bool) -> dict[str, Any]:
    """Run one case in this process."""
    from train_cases import AttentionKernels, lognormal_samples, make_model, run

    case = CASES[name]
    shape, capacity, steps, warm = case.shape, case.capacity, case.steps, WARM
    if tiny:
        shape, capacity, steps, warm = "tiny", 512, 9, 1
    cuda = torch.cuda.is_available()
    model = make_model(SHAPES[shape], case.adapter, torch.bfloat16 if cuda else torch.float32)
    vocab_size, longest = SHAPES[shape]["vocab_size"], min(LONGEST, capacity // 2)
    samples = list(lognormal_samples((warm + steps) * capacity, vocab_size, longest))
    kernels = AttentionKernels()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(
            case.kind, model, make_tokenizer(), samples,
            capacity=capacity, folder=folder, warm=warm, checkpointing=case.checkpointing,
            watch=[kernels],
        )  # fmt: skip
    rate = figures["tokens"] / figures["wall"]
    return {
        "rate": rate,
        "limit": rate / limit(model, samples, case),
        "gigabytes": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
        "kernels": kernels.names,
    }


def limit(model: Any, samples: list[np.ndarray], case: Case) -> float:
    """Tokens a second at peak FLOP/s: w * matmul parameters + c * 2 * layers * width * context."""
    config = model.config
    matmul = sum(
        p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "lora_" not in name
    )
    if not config.tie_word_embeddings:
        matmul -= model.get_input_embeddings().weight.numel()
    lengths = np.array([len(ids) for ids in samples], dtype=float)
    context = case.capacity if case.kind == "dense" else (lengths**2).sum() / lengths.sum()
    passes = (4 if case.adapter == "lora" else 6) + 2 * case.checkpointing
    attention = (3.5 + case.checkpointing) * 2 * config.num_hidden_layers * config.hidden_size
    return PEAK_FLOPS / (passes * matmul + attention * context)


def make_tokenizer() -> Any:
    """The smallest tokenizer a trainer accepts."""
    from finetune.samples.tokenizer import train_tokenizer

    return train_tokenizer([b"def add(first, second):\n    return first + second\n"] * 4, 300)


def same_packed_and_alone(tiny: bool) -> dict[str, float]:
    """Largest difference of a sample's logits, in a pack against alone, of the largest logit."""
    from train_cases import lognormal_samples, make_model

    samples = list(lognormal_samples(2_000, 500, 600))
    found = {}
    for dtype in (torch.float32, torch.bfloat16) if torch.cuda.is_available() else (torch.float32,):
        model = make_model(SHAPES["tiny" if tiny else "0.5B"], "full", dtype).eval()
        packed, alone = (_last_logits(model, chosen) for chosen in (samples, samples[-1:]))
        found[str(dtype)] = ((packed - alone).abs().max() / alone.abs().max()).item()
    return found


@torch.no_grad()
def _last_logits(model: Any, samples: list[np.ndarray]) -> torch.Tensor:
    from finetune.training.attention import BLOCKS
    from finetune.training.losses import collate

    model.set_attn_implementation(BLOCKS)
    ids = np.concatenate(samples)
    lengths = [len(sample) for sample in samples]
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": lengths}])
    del batch["labels"]
    batch = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
    return model(**batch, use_cache=False).logits[0, -lengths[-1] :].float()


def same_after_resuming(tiny: bool) -> dict[str, int]:
    """How many losses of steps 6 to 10 are the same after a save, in another trainer, to the bit.

    With the deterministic kernels of torch: those that are not add up in any order.
    """
    from train_cases import Losses, lognormal_samples, make_model, packed_trainer

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    sizes = SHAPES["tiny" if tiny else "0.5B"]
    samples = list(lognormal_samples(10_000, 500, 1_000))
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for resume in (False, True):
            dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
            model = make_model(sizes, "lora", dtype)
            callback = Losses()
            trainer = packed_trainer(
                "blocks", samples, 1_000, folder, callback,
                model=model, processing_class=make_tokenizer(), save_strategy="steps",
                save_steps=5,
            )  # fmt: skip
            trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-5" if resume else None)
            losses.append([loss.hex() for loss in callback.found][-5:])
    torch.use_deterministic_algorithms(False)
    equal = sum(first == second for first, second in zip(*losses, strict=True))
    return {"compared": len(losses[0]), "equal": equal}


CHECKS = {
    "logits of a sample, packed against alone": same_packed_and_alone,
    "losses after resuming": same_after_resuming,
}


def versions() -> str:
    """Interpreter, packages and device of these figures."""
    parts = [f"Python {platform.python_version()}"]
    for name in ("torch", "transformers", "trl", "peft", "accelerate"):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            parts.append(f"no {name}")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    return f"{', '.join(parts)}; {where}; {time.strftime('%Y-%m-%d')}"


def in_process(name: str, tiny: bool) -> dict[str, Any]:
    """Figures of a case or a check from a process of its own, or `{}` where it failed."""
    command = [sys.executable, __file__, *(["--tiny"] if tiny else []), name]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_SECONDS)
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, IndexError) as error:
        print(f"{name}: failed; its standard error says more ({type(error).__name__})")
        return {}


def show(name: str, figures: dict[str, Any]) -> None:
    print(
        f"{name:20} {figures['rate']:10,.0f} tokens/s  {figures['limit']:6.1%} of the limit  "
        f"{figures['gigabytes']:6.1f} GB  {', '.join(figures['kernels']) or 'no fused attention'}"
    )


def goal_lines(found: dict[str, dict[str, Any]], name: str) -> Iterator[str]:
    """The goals that this case was the last to be measured for."""
    for first, second, floor, goal in GOALS:
        sides = [found.get(side) for side in (first, second) if side]
        if name not in (first, second) or not all(sides):
            continue
        value = sides[0]["rate"] / (sides[1]["rate"] if second else 1)
        word = "goal met" if value >= goal else "floor met" if value >= floor else "MISSED"
        title = f"{first} / {second}" if second else first
        yield f"    {title:36} {value:10,.2f}  floor {floor:,}  goal {goal:,}  {word}"


def main(arguments: list[str]) -> int:
    tiny = "--tiny" in arguments
    if named := [name for name in arguments if name != "--tiny"]:
        for name in named:
            print(json.dumps(measure(name, tiny) if name in CASES else CHECKS[name](tiny)))
        return 0
    print(versions())
    found: dict[str, dict[str, Any]] = {}
    for name in CASES:
        found[name] = in_process(name, tiny)
        if found[name]:
            show(name, found[name])
        for line in goal_lines(found, name):
            if not tiny:  # the goals are of one H200
                print(line)
    for name in CHECKS:
        found[name] = in_process(name, tiny)
        print(f"{name}: {found[name]}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
