"""TRL's trainer, less what is wrong for packs of FIM samples."""

import math
from typing import Any

import torch
from trl import SFTTrainer

from fim import IGNORE_INDEX, FimError


class PackTrainer(SFTTrainer):
    """TRL's trainer on packs as they are, in their order, with a weight for the end token."""

    def __init__(self, *, end_id: int, end_token_weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.end_id = end_id
        self.end_token_weight = end_token_weight
        # TRL's head never forms all logits, which fill a GPU's memory; it computes in float32, and
        # on a CPU it takes a third longer than plain logits
        self.fused = self.args.device.type != "cpu"

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean negative log-likelihood of the labeled tokens, the end token weighted."""
        labels = inputs.pop("labels")
        targets = labels[0, 1:]
        if self.fused:
            outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
            log_probs = outputs.log_probs[0]  # 0 where the label is ignored
        else:
            outputs = model(**inputs, use_cache=False)
            log_probs = -torch.nn.functional.cross_entropy(
                outputs.logits[0, :-1], targets, ignore_index=IGNORE_INDEX, reduction="none"
            )
        weights = torch.where(targets == self.end_id, self.end_token_weight, 1.0).to(log_probs)
        count = (
            (targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
        )
        loss = -(log_probs * weights).sum() / torch.as_tensor(count).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run a step, and stop before a loss that is no number reaches the weights.

        Raises:
            FimError: the loss is NaN or infinite.
        """
        loss = super().training_step(*args, **kwargs)
        self._stop_unless_finite("loss", loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Stop before gradients that are no numbers reach the weights."""
        norm = super()._get_grad_norm(*args, **kwargs)
        self._stop_unless_finite("gradient norm", norm)
        return norm

    def _stop_unless_finite(self, what: str, value: Any) -> None:
        if value is not None and not math.isfinite(value):
            raise FimError(
                f"step {self.state.global_step + 1}: the {what} is {float(value)}; "
                "lower train.learning_rate or resume from the last checkpoint"
            )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure without a draw from the generator that dropout draws from."""
        with torch.random.fork_rng(devices=[]):  # a data loader draws a seed it does not need
            return super().evaluate(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        """Packs were shuffled when they were made, epoch by epoch.

        Of n processes, process p takes batches p, p + n, p + 2n, ... so that a step sees the same
        packs as one process with n times `packs_per_step`; a last step that is short is filled up
        with the first packs.
        """
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine: TRL would report model type and hardware."""
