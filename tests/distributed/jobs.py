"""Jobs of several processes for tests, and what they leave behind."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.cli.conftest import REPOSITORY, environment
from tests.distributed.modes import MODES, Mode
from tests.distributed.train_tiny import train_alone

LAUNCH = """
import sys
from opensora_cli.distributed.launch import Launcher, free_port
from opensora_cli.distributed.nodes import Nodes, SeveralNodes
processes, machines, meeting, *command = sys.argv[1:]
nodes = SeveralNodes(int(machines), meeting, free_port()) if meeting else Nodes(free_port())
sys.exit(Launcher(command, int(processes), nodes).run())
"""


def start(processes: int, *command: object, machines: int = 1, meeting: str = "") -> "subprocess.Popen[str]":
    """Start `python COMMAND` as so many processes of one job, on one of so many machines."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(processes), str(machines), meeting, sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(processes: int, *command: object) -> None:
    job = start(processes, *command)
    output, errors = job.communicate()
    assert job.returncode == 0, output + errors


def train(processes: int, out: Path, *tasks: str, every: int = 1000) -> None:
    run(processes, "-m", "tests.distributed.train_tiny", out, every, *tasks)


def reference(out: Path, mode: Mode) -> Path:
    """Return the folder of one process's run that does the same work; it is trained once for all modes that share it."""
    kind = f"{mode.family}{'-fused' * mode.fused}{'-lora' * mode.lora}-{mode.dtype}"
    folder = out / f"alone-{mode.clips * mode.accumulation}-{kind}"
    if not folder.exists():
        train_alone(folder, mode)
    return folder


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def state(run: Path) -> dict[str, Tensor]:
    """Return weights, average and optimizer of a run's last checkpoint."""
    last = max((run / "checkpoints").glob("step-*"))
    return {name: tensor for file in (last / "state").glob("*.safetensors") for name, tensor in load_file(file).items()}


def differences(run: Path, alone: Path) -> dict[str, float]:
    """Return the greatest differences of losses, gradient norms and states between two runs of ten updates."""
    ours, theirs = records(run), records(alone)
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(1, 11))
    found = {key: max(abs(a[key] - b[key]) for a, b in zip(ours, theirs, strict=True)) for key in ("loss", "grad_norm")}
    left, right = state(run), state(alone)
    assert left.keys() == right.keys()
    for part in ("model.", "ema.", "optim."):
        names = [name for name in left if name.startswith(part)]
        found[part] = max(float(_that_matters(name, left[name] - right[name], left).abs().max()) for name in names)
    return found


def _that_matters(name: str, change: Tensor, of: Mapping[str, Tensor]) -> Tensor:
    """Leave out the bias of keys that are not normalised: no softmax sees it, so Adam's steps are of rounding errors."""
    if change.dim() == 0:  # the count of steps
        return change
    if name.endswith("cross_attn.kv_linear.bias"):
        return change.chunk(2)[1]
    normalised = name.replace("qkv.bias", "q_norm.weight") in of
    if re.search(r"blocks\.\d+\.attn(_temp)?\.qkv\.bias$", name) and not normalised:
        return torch.cat(change.chunk(3)[::2])
    return change


def same_state(run: Path, other: Path) -> bool:
    left, right = state(run), state(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def of_size(names: list[str], processes: int) -> list[str]:
    return [name for name in names if MODES[name].world_size == processes]
