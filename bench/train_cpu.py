"""Training on one core: packs with block-diagonal attention against TRL's packing and padding.

    python bench/train_cpu.py [ROUNDS [TOKENS [MAX_LENGTH]]]

A tiny Qwen2 is trained on the same samples three ways, each in a process of its own, in turn,
ROUNDS (3) times over TOKENS (100,000) in packs of MAX_LENGTH (8,192, the default of a recipe):
useful tokens per second of processor time, and the most memory above that of the process before it
trained (Linux only). Once the samples are structured FIM samples of the standard library, whose
modules are long: most packs hold one sample or two, and no packing can save much on those. Once
their lengths are lognormal (median 600, sigma 1), as where files are smaller. Then block-diagonal
against dense causal attention at 8,192 tokens, and what TRL's defaults leave out of the library's.
"""

import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "vocab_size": 2_048,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}  # fmt: skip
KINDS = ("blocks", "trl", "padded")


def make_samples(folder: Path, num_tokens: int, max_length: int) -> dict[str, list[int]]:
    """Write both sets of samples and the tokenizer; return the samples' lengths."""
    from train_cases import lognormal_samples

    samples = {
        "library": library_samples(folder, num_tokens, max_length),
        "lognormal": list(lognormal_samples(num_tokens, SIZES["vocab_size"], max_length)),
    }
    for name, ids in samples.items():
        np.savez(folder / f"{name}.npz", *ids)
    return {name: [len(sample) for sample in ids] for name, ids in samples.items()}


def library_samples(folder: Path, num_tokens: int, max_length: int) -> list[np.ndarray]:
    """Make structured FIM samples of Python's own modules, and save their tokenizer."""
    import fim
    from finetune.samples.tokenizer import save_tokenizer, train_tokenizer

    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in library.rglob("*.py") if "-packages" not in str(path))
    np.random.default_rng(0).shuffle(files)
    texts = [text for text in map(Path.read_bytes, files) if text and is_utf8(text)]
    tokenizer = train_tokenizer(texts[:300], SIZES["vocab_size"])
    form = fim.resolve_format(tokenizer)
    ids: list[np.ndarray] = []
    for number, text in enumerate(texts):
        document = fim.Document(repo="stdlib", path=f"{number}.py", language="python", text=text)
        drawn = fim.make_samples(
            document, fim.SpanPolicy(), window_bytes=3 * max_length, fim_rate=0.7,
            orders={"psm": 0.5, "spm": 0.5}, seed=0, epoch=0,
        )  # fmt: skip
        for sample in drawn:
            tokens = fim.encode(
                sample, form, tokenizer, max_length=max_length, loss="all", context=()
            )
            ids.append(tokens.input_ids)
        if sum(map(len, ids)) >= num_tokens:
            break
    save_tokenizer(tokenizer, folder)
    return ids


def is_utf8(text: bytes) -> bool:
    try:
        return bool(text.decode())
    except UnicodeDecodeError:
        return False


def train(kind: str, of: str, folder: Path, max_length: int) -> dict[str, float]:
    """Be the process that trains one way on one set of samples."""
    import torch
    from train_cases import make_model, run
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    with np.load(folder / f"{of}.npz") as stored:
        samples = [stored[name] for name in stored.files]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = make_model(SIZES, "lora", torch.float32)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    idle = resident("VmRSS")
    figures = run(
        kind, model, tokenizer, samples, capacity=max_length, folder=str(folder / "out" / kind)
    )
    return figures | {"peak": resident("VmHWM") - idle}


def resident(name: str) -> float:
    """Megabytes of this process: `VmRSS` now, `VmHWM` at most since it was set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3


def in_process(kind: str, of: str, folder: Path, max_length: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--train", kind, of, str(folder), str(max_length)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def attention_ratio(length: int = 8_192, segments: int = 9) -> tuple[float, float]:
    """Seconds of block-diagonal and of dense causal attention, forward and backward."""
    import torch

    from finetune.training.attention import block_attention

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(64, length - 64), segments - 1, replace=False))
    edges = {"blocks": [0, *cuts.tolist(), length], "dense": [0, length]}
    query, key, value = (torch.randn(1, 4, length, 64, requires_grad=True) for _ in range(3))
    seconds: dict[str, list[float]] = {"blocks": [], "dense": []}
    for _ in range(3):
        for name, at in edges.items():
            cu_seq_lens = torch.tensor(at, dtype=torch.int32)
            longest = int(cu_seq_lens.diff().max())
            started = time.process_time()
            output, _ = block_attention(
                torch.nn.Module(), query, key, value, None,
                cu_seq_lens_q=cu_seq_lens, max_length_q=longest,
            )  # fmt: skip
            output.sum().backward()
            seconds[name].append(time.process_time() - started)
    return statistics.median(seconds["blocks"]), statistics.median(seconds["dense"])


def left_out_by_default(lengths: list[int]) -> str:
    """What TRL's default `max_length` cuts off the end of these samples."""
    from trl import SFTConfig

    limit = SFTConfig.__dataclass_fields__["max_length"].default
    cut = [length - limit for length in lengths if length > limit]
    return (
        f"TRL's default max_length of {limit:,} cuts the end of {len(cut):,} of {len(lengths):,} "
        f"samples, {sum(cut):,} of {sum(lengths):,} tokens ({sum(cut) / sum(lengths):.1%})"
    )


def compare(of: str, folder: Path, rounds: int, max_length: int) -> None:
    """Train every way on one set of samples, in turn, and print the ratios."""
    figures: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            figures[kind].append(in_process(kind, of, folder, max_length))
    rate, peak = {}, {}
    for kind, runs in figures.items():
        rate[kind] = statistics.median(run["tokens"] / run["cpu"] for run in runs)
        peak[kind] = statistics.median(run["peak"] for run in runs)
        print(
            f"{kind:7} {rate[kind]:7,.0f} useful tokens per second of processor time, "
            f"{peak[kind]:6,.0f} MB above the idle process, {runs[0]['dropped']:,} tokens dropped"
        )
    for kind in ("trl", "padded"):
        print(
            f"blocks / {kind}: {rate['blocks'] / rate[kind]:.2f} times the tokens per second, "
            f"{peak['blocks'] / peak[kind]:.2f} of the memory"
        )


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--train"]:
        kind, of, folder, max_length = arguments[1:]
        print(json.dumps(train(kind, of, Path(folder), int(max_length))))
        return
    rounds, num_tokens, max_length = [*map(int, arguments), *(3, 100_000, 8_192)[len(arguments) :]]
    with tempfile.TemporaryDirectory() as place:
        lengths = make_samples(Path(place), num_tokens, max_length)
        for of, each in lengths.items():
            print(
                f"{of}: {len(each):,} samples, {sum(each):,} tokens, median "
                f"{statistics.median(each):,.0f}, longest {max(each):,}; packs of {max_length:,}, "
                "one thread, float32",
                flush=True,
            )
            compare(of, Path(place), rounds, max_length)
    blocks, dense = attention_ratio()
    print(f"attention at 8,192 tokens of 9 samples: {blocks:.2f} s in blocks, {dense:.2f} s dense, "
          f"ratio {blocks / dense:.3f}")  # fmt: skip
    print(left_out_by_default(lengths["library"]))


if __name__ == "__main__":
    main(sys.argv[1:])
