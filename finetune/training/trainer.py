"""TRL's trainer, less what is wrong for packs of FIM samples."""

import dataclasses
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.optim.lr_scheduler import LRScheduler
from torch.serialization import register_package
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from fim import IGNORE_INDEX, FimError
from finetune.progress import say
from finetune.training.checkpoint import checkpoint_bytes, save_weights
from finetune.training.guards import (
    Stopped,
    catch_signals,
    check_room,
    fail_together,
    find_spike,
    hold_back_writes,
    leave_at_once,
    stop_if_one_failed,
    sum_over_processes,
)
from finetune.training.held_out import HeldOut, measure
from finetune.training.losses import add_loss

# transformers 5.17 resumes each of several processes on a CPU with an optimizer that is loaded onto
# `cpu:0`, `cpu:1`, ..., names that torch.load does not know; 5.23 loads it onto `cpu`.
register_package(
    11, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
)


class PackTrainer(SFTTrainer):
    """TRL's trainer on packs as they are, in their order, with a weight for the end token."""

    def __init__(
        self, *, end_id: int, end_token_weight: float, skip_spikes: float = 0.0,
        held_out: HeldOut | None = None,
        schedule: Callable[[torch.optim.Optimizer, int], LRScheduler] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        trained = [(p, p.data) for p in kwargs["model"].parameters() if p.requires_grad]
        config = kwargs["model"].config.get_text_config()
        routed = {name: value for name, value in vars(config).items() if "router" in name}
        super().__init__(**kwargs)
        for parameter, data in trained:  # TRL rounds an adapter on a 4-bit base to bfloat16, and
            parameter.data = data  # updates of a learning rate of 1e-4 are lost in its 8 bits
        for name, value in routed.items():  # it has them return what its loss needs, ours does not
            setattr(config, name, value)
        self.held_out = held_out
        self.schedule = schedule
        self.skip_spikes = skip_spikes
        if skip_spikes and self.is_deepspeed_enabled:  # it takes its step within the backward pass
            self.skip_spikes = 0.0
            say(
                "train.skip_spikes: DeepSpeed has changed the weights by the time a spike is "
                "known, so none is skipped; accelerate_configs/fsdp2.yaml skips them"
            )
        # labels are counted over a whole step, whatever the model's own loss could take
        self.model_accepts_loss_kwargs = True
        if self.is_fsdp_enabled:
            _keep_wide_losses(self.accelerator.state.fsdp_plugin)
        self.signals: list[int] = []
        self.step_loss: Any = 0.0
        self.spike: str | None = None
        self.stopped_at = self.saved_at = -1
        self.write_errors: list[BaseException] = []
        self.end_id = end_id
        self.end_token_weight = end_token_weight
        add_loss(self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean negative log-likelihood of the labeled tokens, the end token weighted."""
        targets = inputs["labels"][0, 1:]
        weights = torch.where(targets == self.end_id, self.end_token_weight, 1.0)
        outputs = model(**inputs, token_weights=weights, use_cache=False)
        count = (
            (targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
        )
        loss = outputs.loss / torch.as_tensor(count).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; a signal ends it after the step at hand, with a checkpoint.

        Raises:
            FimError: a loss or a gradient is no number, or the disk is full.
            Stopped: a signal came before the last step; the next run goes on after it.
        """
        first = self.is_world_process_zero()
        with catch_signals() as self.signals:
            output = super().train(*args, **kwargs)
        skipped = sum("skipped" in line for line in self.state.log_history)
        if skipped:
            steps = f"{skipped} of {self.state.global_step} steps"
            say(f"skipped {steps} as spikes; log.jsonl names them")
        if self.saved_at == self.stopped_at < self.state.max_steps and self.stopped_at > 0:
            number = signal.Signals((self.signals or [signal.SIGTERM])[0])
            stopped = Stopped(
                f"stopped by {number.name} after step {self.stopped_at} of {self.state.max_steps}; "
                "run again to go on", number,
            )  # fmt: skip
            raise stopped if first else SystemExit(stopped.exit_code)
        return output

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run a micro-step, and add up the loss of the step."""
        loss = super().training_step(*args, **kwargs)
        self.step_loss = self.step_loss + loss
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Decide what becomes of a step before the weights change; all processes decide alike."""
        norm = super()._get_grad_norm(*args, **kwargs)
        stop = float(bool(self.signals))
        mine = [float(self.step_loss), float(0.0 if norm is None else norm), stop, 1.0]
        self.step_loss = 0.0
        *values, stop, processes = sum_over_processes(mine, self.args.device)
        loss, grad_norm = (value / processes for value in values)
        self._stop_unless_finite({"loss": loss, "gradient norm": grad_norm})
        self.spike = find_spike(self.state.log_history, loss, grad_norm, self.skip_spikes)
        if self.spike:
            self.optimizer.zero_grad(set_to_none=True)  # without gradients a step changes nothing
        if stop:
            self.stopped_at = self.state.global_step + 1
            self.control.should_save = self.control.should_training_stop = True
        return norm

    def _stop_unless_finite(self, values: dict[str, float]) -> None:
        for what, value in values.items():
            if not math.isfinite(value):
                step = self.state.global_step + 1
                self.log({"stopped": f"step {step}: the {what} is {value}"})
                fail_together(
                    f"step {step}: the {what} is {value}; "
                    "lower train.learning_rate or resume from the last checkpoint",
                    self.is_world_process_zero(),
                )

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Name a skipped step where its loss is logged."""
        if self.spike and "loss" in logs:
            logs["skipped"] = self.spike
            say(f"step {self.state.global_step}: skipped, {self.spike}")
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; where one process cannot, all stop, and it is deleted.

        Raises:
            FimError: the disk is full or fails.
        """
        first = self.is_world_process_zero()
        checkpoints = Path(self.args.output_dir)
        folder = checkpoints / f"checkpoint-{self.state.global_step}"
        needed = checkpoint_bytes(
            self.accelerator.unwrap_model(self.model), self.optimizer, self.state.global_step,
            self.accelerator.distributed_type.value,
        )  # fmt: skip
        self.write_errors.clear()
        with hold_back_writes(self.write_errors):
            folder.mkdir(parents=True, exist_ok=True)
            if first:
                check_room(checkpoints, needed)
        agreed = checkpoints, needed, first, self.args.device
        try:
            stop_if_one_failed(self.write_errors, *agreed)
            with hold_back_writes(self.write_errors):
                try:
                    super(SFTTrainer, self)._save_checkpoint(model, trial)  # TRL adds a card
                except (OSError, RuntimeError) as error:
                    # the others may be waiting in the midst of it: DeepSpeed writes between
                    # barriers, and what is no error of a file is one of gathering weights
                    gathers = self.is_fsdp_enabled and isinstance(error, RuntimeError)
                    if self.is_deepspeed_enabled or gathers:
                        leave_at_once([*self.write_errors, error][0], checkpoints, needed)
                    raise
                if first and self.state.best_model_checkpoint:  # a path
                    self.state.best_model_checkpoint = None
                    self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            stop_if_one_failed(self.write_errors, *agreed)
        except BaseException:
            if first:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self.saved_at = self.state.global_step

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write weights only: transformers adds a pickle of the arguments, which hold tokens."""
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            with hold_back_writes(self.write_errors):
                save_weights(model, state_dict, Path(output_dir or self.args.output_dir))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint without some of the weights; of tied ones it holds one.

        Raises:
            FimError: names the first that is missing.
        """
        if not load_result.missing_keys:
            return
        state = self.model.state_dict()
        loaded = {w.data_ptr() for name, w in state.items() if name not in load_result.missing_keys}
        for name in load_result.missing_keys:
            if state[name].data_ptr() not in loaded:
                raise FimError(f"{self.args.output_dir}: no {name} in the checkpoint; delete it")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the held-out losses; every process takes part, and nothing random is drawn."""
        spread = self.is_fsdp_enabled or self.is_deepspeed_enabled
        model = self.model_wrapped if spread else self.model
        was_training = model.training
        model.eval()
        with self.compute_loss_context_manager():
            losses = measure(
                self.held_out, model, self.args.process_index, self.args.world_size, self._add_up
            )
        model.train(was_training)
        metrics = {f"eval_{name}": loss for name, loss in losses.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _add_up(self, sums: torch.Tensor) -> torch.Tensor:
        return (
            self.accelerator.reduce(sums.to(self.args.device)) if self.args.world_size > 1 else sums
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        """Make the schedule that was given, once; without one, transformers'."""
        if self.schedule is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = self.schedule(optimizer or self.optimizer, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        """Packs were shuffled when they were made, epoch by epoch.

        Of n processes, process p takes batches p, p + n, p + 2n, ... so that a step sees the same
        packs as one process with n times `packs_per_step`; a last step that is short is filled up
        with the first packs.
        """
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine: TRL would report model type and hardware."""


def _keep_wide_losses(plugin: Any) -> None:
    """Let FSDP2 leave losses in float32; it would round what the model returns to bfloat16."""
    policy = plugin.mixed_precision_policy
    if getattr(policy, "output_dtype", None) is not None:
        plugin.mixed_precision_policy = dataclasses.replace(policy, output_dtype=None)
