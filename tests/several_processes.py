"""`finetune.train` as `accelerate launch -m several_processes` runs it for `test_distributed`.

It writes the loss of every micro-step, which the log rounds to float32. And it runs FSDP2 on a CPU,
where Accelerate would turn it off: Accelerate is told that the processes have GPUs before it looks
whether FSDP was asked for, and takes its own way through torch's `fully_shard`, over gloo.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from finetune import train
from finetune.training import arguments
from finetune.training.trainer import PackTrainer


def recorded(training_step: Callable) -> Callable:
    """Add the loss of each micro-step to `losses_<process>` of the run folder."""

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        path = Path(self.args.output_dir).parent / f"losses_{self.args.process_index}"
        with open(path, "a") as file:
            file.write(f"{loss.item()!r}\n")
        return loss

    return step


def run_as_asked() -> None:
    """Let FSDP2 run on a CPU, where it is asked for."""
    make_arguments = arguments.training_arguments

    def pretend(*args: Any, **kwargs: Any) -> Any:
        made = make_arguments(*args, **kwargs)
        made.distributed_state.distributed_type = DistributedType.MULTI_GPU
        return made

    if "ACCELERATE_USE_FSDP" in os.environ:
        arguments.check_launch = lambda device: None
        train.training_arguments = pretend


def main() -> int:
    """Train, and say on stderr how the weights were spread."""
    save = train._save

    def tell(trainer: Any, *args: Any) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        units = sum(isinstance(module, FSDPModule) for module in model.modules())
        spread = all(isinstance(parameter, DTensor) for parameter in model.parameters())
        runs = trainer.accelerator.distributed_type.value
        sys.stderr.write(f"{runs}: {units} units, {spread=}\n")
        save(trainer, *args)

    run_as_asked()
    train._save = tell
    PackTrainer.training_step = recorded(PackTrainer.training_step)
    return train.main()


if __name__ == "__main__":
    sys.exit(main())
