"""What the training benchmarks share: samples, trainers of five kinds, and one run of each.

`blocks` is this project's trainer on packs, `trl` is TRL's SFTTrainer with its packing and the
attention it would take on this machine, `trl_blocks` the same with our attention, `padded` is
SFTTrainer on rows of eight samples, padded to the longest; `dense` is ours with attention over the
whole pack, as if it were one sample: what block-diagonal attention saves.
"""

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, TrainerCallback
from trl import SFTConfig, SFTTrainer

from fim import pack_lengths
from finetune.training.attention import BLOCKS
from finetune.training.losses import collate
from finetune.training.trainer import PackTrainer

PADDED_BATCH = 8


def make_model(sizes: dict[str, Any], adapter: str, dtype: torch.dtype) -> PreTrainedModel:
    """A Qwen2 of these sizes with seeded random weights, and LoRA of rank 16 on all its layers."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(Qwen2Config(**sizes))
    finally:
        torch.set_default_dtype(torch.float32)
    if adapter == "lora":
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        model = get_peft_model(model, config)
    return model


def packs_of(samples: Sequence[np.ndarray], capacity: int) -> list[dict[str, Any]]:
    """Lay whole samples side by side, shuffled; the first label of each is ignored."""
    bins = pack_lengths([len(ids) for ids in samples], capacity)
    return [_pack([samples[i] for i in bins[j]]) for j in _shuffled(len(bins))]


def _pack(samples: Sequence[np.ndarray]) -> dict[str, Any]:
    labels = [np.concatenate([[-100], ids[1:]]) for ids in samples]
    return {
        "input_ids": np.concatenate(samples).tolist(),
        "labels": np.concatenate(labels).tolist(),
        "seq_lengths": [len(ids) for ids in samples],
    }


def _shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count)


class Losses(TrainerCallback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.found.append(logs["loss"])


class Clock(TrainerCallback):
    """Times steps: those of `warm` are left out."""

    def __init__(self, warm: int) -> None:
        self.warm, self.wall, self.cpu = warm, 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.warm:
            _wait()
            self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _wait()
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu


class AttentionKernels(TrainerCallback):
    """Profiles the first step, and keeps the names of the attention kernels it launches."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            cuda = torch.cuda.is_available()
            self._profile = profile(
                activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]
            )
            self._profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            self._profile.stop()
            names = {re.split("[<(]", event.key)[0] for event in self._profile.key_averages()}
            self.names = sorted(name for name in names if re.search("(?i)flash|fmha|sdpa", name))
            del self._profile


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(
    kind: str,
    model: PreTrainedModel,
    tokenizer: Any,
    samples: Sequence[np.ndarray],
    *,
    capacity: int,
    folder: str,
    warm: int = 0,
    checkpointing: bool = False,
    watch: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train one pass over the samples, while the callbacks of `watch` look on.

    Returns:
        `tokens` trained on after the first `warm` steps, `wall` and `cpu` seconds, `dropped` tokens
        that the trainer was given and did not train on.
    """
    clock = Clock(warm)
    make = packed_trainer if kind in ("blocks", "dense") else _by_trl
    trainer = make(
        kind, samples, capacity, folder, clock,
        model=model, processing_class=tokenizer, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    for callback in watch:
        trainer.add_callback(callback)
    trainer.train()
    row_tokens = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    first = warm * trainer.args.per_device_train_batch_size
    return {
        "tokens": sum(row_tokens[first:]),
        "wall": clock.wall,
        "cpu": clock.cpu,
        "dropped": sum(len(ids) for ids in samples) - sum(row_tokens),
    }


def _settings(folder: str, **more: Any) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "output_dir": folder, "per_device_train_batch_size": 1, "num_train_epochs": 1,
        "learning_rate": 1e-4, "bf16": cuda, "use_cpu": not cuda, "report_to": "none",
        "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True,
        "logging_steps": 1, "train_sampling_strategy": "sequential", "packing": False,
        "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True},
    } | more  # fmt: skip


def packed_trainer(
    kind: str, samples: Sequence[np.ndarray], capacity: int, folder: str,
    callback: TrainerCallback, *, model: PreTrainedModel, processing_class: Any, **more: Any,
) -> PackTrainer:  # fmt: skip
    """This project's trainer on packs of the samples; `more` goes to its arguments."""
    rows = packs_of(samples, capacity)
    if kind == "dense":
        rows = [row | {"seq_lengths": [len(row["input_ids"])]} for row in rows]
    _set_attention(model, BLOCKS)
    return PackTrainer(
        end_id=-1, end_token_weight=1.0, args=SFTConfig(**_settings(folder, **more)),
        train_dataset=Dataset.from_list(rows), data_collator=collate, model=model,
        processing_class=processing_class, callbacks=[callback],
    )  # fmt: skip


def _by_trl(
    kind: str, samples: Sequence[np.ndarray], capacity: int, folder: str,
    callback: TrainerCallback, *, model: PreTrainedModel, processing_class: Any, **more: Any,
) -> SFTTrainer:  # fmt: skip
    order = _shuffled(len(samples))
    rows = Dataset.from_dict({"input_ids": [samples[i].tolist() for i in order]})
    stock = "flash_attention_2" if _has_flash() else "sdpa"
    _set_attention(model, BLOCKS if kind == "trl_blocks" else stock)
    if kind in ("trl", "trl_blocks"):
        more |= {"packing": True, "max_length": capacity, "dataset_kwargs": {}}
    else:
        more |= {"per_device_train_batch_size": PADDED_BATCH}
    return SFTTrainer(
        args=SFTConfig(**_settings(folder, **more)), train_dataset=rows, model=model,
        processing_class=processing_class, callbacks=[callback],
    )  # fmt: skip


def _set_attention(model: PreTrainedModel, name: str) -> None:
    getattr(model, "get_base_model", lambda: model)().set_attn_implementation(name)


def _has_flash() -> bool:
    from importlib.util import find_spec

    return torch.cuda.is_available() and find_spec("flash_attn") is not None


def lognormal_samples(tokens: int, vocab_size: int, longest: int) -> Iterator[np.ndarray]:
    """Samples of random ids, their lengths lognormal (median 600, sigma 1), `tokens` in all."""
    rng = np.random.default_rng(0)
    while tokens > 0:
        length = int(np.clip(rng.lognormal(np.log(600), 1.0), 8, longest))
        tokens -= length
        yield rng.integers(0, vocab_size, length)
