"""Every shipped hardware file loads in Accelerate, says how to use it, and says nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import launch as environments

from finetune.training.device import choose_device

CONFIGS = Path(__file__).parents[1] / "accelerate_configs"
EXPECTED = {  # distributed_type, mixed_precision, num_processes (-1: given on the command line)
    "cpu": ("NO", "no", 1),
    "cpu_2": ("MULTI_GPU", "no", 2),
    "single_gpu": ("NO", "bf16", 1),
    "ddp": ("MULTI_GPU", "bf16", -1),
    "fsdp2": ("FSDP", "bf16", -1),
    "deepspeed_zero3": ("DEEPSPEED", "bf16", -1),
    "multi_node": ("MULTI_GPU", "bf16", -1),
}
# Length, batch and learning rate belong to recipes: they change the result, hardware does not.
NOT_HARDWARE = ("batch", "learning", "epoch", "seed", "accumulation", "max_length")


def test_the_expected_files_are_the_shipped_files():
    assert {path.stem for path in CONFIGS.glob("*")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_config_loads_in_accelerate(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))

    found = (config.distributed_type.value, config.mixed_precision, config.num_processes)
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_config_opens_with_the_command_that_uses_it(name):
    command = (CONFIGS / f"{name}.yaml").read_text().splitlines()[0]

    assert command.startswith(
        f"# accelerate launch --config_file accelerate_configs/{name}.yaml "
    ), command
    assert command.endswith(" -m finetune.train RECIPE"), command
    assert ("--num_processes" in command) == (EXPECTED[name][2] == -1)


@pytest.mark.parametrize("name", EXPECTED)
def test_config_holds_hardware_only(name):
    text = yaml.safe_dump(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))

    assert [word for word in NOT_HARDWARE if word in text] == []


def test_fsdp2_asks_for_version_2_and_portable_checkpoints():
    config = load_config_from_file(str(CONFIGS / "fsdp2.yaml"))

    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"


STARTS = {  # launcher, processes on this machine, machines; "" where it starts a plain command
    "cpu": ("simple_launcher", "", 1),
    "cpu_2": ("multi_gpu_launcher", "2", 1),
    "single_gpu": ("simple_launcher", "", 1),
    "ddp": ("multi_gpu_launcher", "8", 1),
    "fsdp2": ("multi_gpu_launcher", "8", 1),
    "deepspeed_zero3": ("deepspeed_launcher", "8", 1),
    "multi_node": ("multi_gpu_launcher", "4", 2),
}
ON_EIGHT = ("--num_processes", "8")
FURTHER = {
    "ddp": ON_EIGHT,
    "fsdp2": ON_EIGHT,
    "deepspeed_zero3": ON_EIGHT,
    "multi_node": (*ON_EIGHT, "--machine_rank", "1", "--main_process_ip", "first.example"),
}
SAYS = {  # what the started processes read, of the variables that name a strategy
    "cpu": {"ACCELERATE_USE_CPU": "True"},
    "single_gpu": {"ACCELERATE_USE_CPU": "False"},
    "fsdp2": {
        "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
        "FSDP_SYNC_MODULE_STATES": "true", "FSDP_ACTIVATION_CHECKPOINTING": "false",
    },
    "deepspeed_zero3": {
        "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_config_starts_what_it_is_for(name, monkeypatch):
    for variable in ("ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(launch, "is_deepspeed_available", lambda: True)
    monkeypatch.setattr(environments, "is_port_in_use", lambda port: False)
    started = {}
    for launcher in ("simple_launcher", "multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(
            launch, launcher, lambda args, name=launcher: started.update({name: args})
        )
    config = ["--config_file", str(CONFIGS / f"{name}.yaml"), *FURTHER.get(name, ())]

    launch.launch_command(
        launch.launch_command_parser().parse_args([*config, "-m", "finetune.train", "recipe.yaml"])
    )

    launcher, processes, machines = STARTS[name]
    ((started_by, args),) = started.items()
    if launcher == "multi_gpu_launcher":
        environment = environments.prepare_multi_gpu_env(args)
    elif launcher == "deepspeed_launcher":
        environment = environments.prepare_deepspeed_cmd_env(args)[1]
    else:
        environment = environments.prepare_simple_launcher_cmd_env(args)[1]
    found = (started_by, getattr(args, "nproc_per_node", ""), args.num_machines)
    assert found == (launcher, processes, machines)
    asked = {
        key: environment[key]
        for key in environment
        if key.startswith(("ACCELERATE_USE_", "ACCELERATE_DEEPSPEED_")) or key in SAYS["fsdp2"]
    }
    assert asked == SAYS.get(name, {})
    assert environment["ACCELERATE_MIXED_PRECISION"] == EXPECTED[name][1]


@pytest.mark.slow
def test_cpu_2_starts_two_processes_that_know_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "probe.py").write_text(
        "import pathlib\n"
        "from accelerate import Accelerator\n"
        "here = Accelerator(cpu=True)\n"
        "text = f'{here.num_processes} {here.distributed_type.value}'\n"
        "pathlib.Path(f'rank_{here.process_index}').write_text(text)\n"
        "here.end_training()\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch"]

    done = subprocess.run(
        [*launch, "--config_file", CONFIGS / "cpu_2.yaml", "-m", "probe"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_text() for path in tmp_path.glob("rank_*")}
    assert written == {"rank_0": "2 MULTI_CPU", "rank_1": "2 MULTI_CPU"}


@pytest.mark.parametrize(
    ("asked", "has_gpu", "runs_on"),
    [("", True, "cuda"), ("", False, "cpu"), ("true", True, "cpu"), ("False", True, "cuda")],
)
def test_a_machine_with_a_gpu_is_a_cpu_where_accelerate_is_told_so(
    asked, has_gpu, runs_on, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    if not asked:
        monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)

    assert choose_device().type == runs_on
