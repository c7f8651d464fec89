"""What packs change is the speed: on unpacked samples TRL's trainer and ours learn the same."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from finetune.training.attention import BLOCKS
from finetune.training.losses import collate
from finetune.training.trainer import PackTrainer

STEPS, BATCH = 50, 4
END_ID = 0


class Losses(TrainerCallback):
    """The loss of every step, as it is."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.found.append(logs["loss"])


def samples(vocab_size: int) -> list[dict[str, list[int]]]:
    """Samples of 5 to 40 tokens; the label of a first token has nothing to predict it."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(STEPS * BATCH * 2):
        ids = [*rng.integers(1, vocab_size, int(rng.integers(5, 40))).tolist(), END_ID]
        ignored = int(rng.integers(1, 4))  # as much as a header
        rows.append({"input_ids": ids, "labels": [-100] * ignored + ids[ignored:]})
    return rows


def arguments(folder: Any) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=2, learning_rate=1e-2, lr_scheduler_type="cosine",
        warmup_steps=5, weight_decay=0.1, logging_steps=1, bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True,
        train_sampling_strategy="sequential", packing=False, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip


def plain_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any) -> torch.Tensor:
    """The loss TRL has by default, which its fused head computes in float32."""
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch


def losses_of(trainer: SFTTrainer) -> list[float]:
    callback = Losses()
    trainer.add_callback(callback)
    trainer.train()
    assert len(callback.found) >= STEPS
    return callback.found[:STEPS]


@pytest.mark.filterwarnings("ignore:.*compute_loss_func.*")
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_loss_curve_of_unpacked_samples_is_that_of_trl(
    tmp_path, tiny_model, tiny_tokenizer, adapter
):
    tokenizer = tiny_tokenizer("qwen2.5-coder")
    model = tiny_model("qwen2", len(tokenizer)).to(torch.float64)
    if adapter == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    rows = samples(len(tokenizer))

    theirs = SFTTrainer(
        model=copy.deepcopy(model), args=arguments(tmp_path / "trl"), processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows), compute_loss_func=plain_loss,
    )  # fmt: skip
    model.set_attn_implementation(BLOCKS)
    ours = PackTrainer(
        end_id=END_ID, end_token_weight=1.0, model=model, args=arguments(tmp_path / "ours"),
        processing_class=tokenizer, data_collator=collate,
        train_dataset=Dataset.from_list(
            [row | {"seq_lengths": [len(row["input_ids"])]} for row in rows]
        ),
    )  # fmt: skip
    expected, found = losses_of(theirs), losses_of(ours)

    assert len(set(expected)) == STEPS
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
