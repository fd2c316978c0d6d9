"""Proof: ColossalAI's ZeRO trains what one process trains, on the GPUs of this machine; one of them is enough.

    python -m benchmarks.colossalai_gpu

Needs a GPU and `make colossalai`. Trains ten updates of the tiny denoiser in fp32 with every mode, one process a GPU, and in one
process with PyTorch's own engine. Prints the greatest differences of losses, gradient norms, weights, averages and moments,
and whether HybridAdam's kernels loaded. Exit code 1 where a difference is above 1e-5, or a checkpoint does not open in the
other engine.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from opensora_cli.distributed.process import Process, leave, start_process
from opensora_cli.training.boosted import BoostedOptimizer
from schemas.parallel import ParallelConfig
from tests.distributed import jobs
from tests.distributed.modes import Mode
from tests.distributed.train_tiny import trainer_of

TOLERANCE = 1e-5
ENGINE = {"engine": "colossalai"}


def modes(count: int) -> dict[str, Mode]:
    """Return every mode of the engine that so many GPUs have."""
    found = {
        "ddp": Mode(count, ENGINE | {"plugin": "ddp", "static_graph": True}, count),
        "zero1": Mode(count, ENGINE | {"plugin": "zero1"}, count, accumulation=2),
        "zero1-late": Mode(count, ENGINE | {"plugin": "zero1", "overlap_allgather": True}, count),
        "zero2": Mode(count, ENGINE | {"plugin": "zero2"}, count, accumulation=2),
    }
    for size in (2, 4):
        if count % size == 0:
            hybrid = ENGINE | {"plugin": "hybrid"}
            found[f"tensor-{size}"] = Mode(count, hybrid | {"tp_size": size}, count // size)
            found[f"zero2-ulysses-{size}"] = Mode(count, hybrid | {"zero_stage": 2, "sp_size": size}, count // size)
    return found


def alone(mode: Mode) -> Mode:
    """Return PyTorch's own engine in one process that does a mode's work."""
    return replace(mode, world_size=1, parallel={}, clips=1, accumulation=mode.clips * mode.accumulation)


def train_all(out: Path) -> None:
    """Train every mode, as one process of the job that was started."""
    process = start_process("cuda", ParallelConfig())
    for name, mode in modes(process.world_size).items():
        trainer = trainer_of(out / name, mode, process)
        trainer.fit()
        if process.is_main and isinstance(trainer.state.optimizer, BoostedOptimizer):
            print(f"{name}: stepped by {trainer.state.optimizer.kind}", flush=True)
    leave()


def open_in_one(checkpoints: Path, target: Path, mode: Mode, process: Process) -> bool:
    """Load a run's checkpoint in one process, save it again, and return whether it is the same."""
    trainer = trainer_of(target, mode, process)
    (checkpoint,) = sorted((checkpoints / "checkpoints").glob("step-*"))
    progress = trainer.checkpoints.load(checkpoint, trainer.state)
    trainer.checkpoints.save(progress, trainer.state)
    trainer.checkpoints.wait()
    return jobs.same_state(target, checkpoints)


def main() -> int:
    if len(sys.argv) > 1:
        train_all(Path(sys.argv[1]))
        return 0
    count, wrong = torch.cuda.device_count(), 0
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        job = jobs.start(count, "-m", "benchmarks.colossalai_gpu", out)
        output, errors = job.communicate()
        print(output, errors, sep="")
        if job.returncode:
            return 1
        one = Process(0, 1, torch.device("cuda", 0))
        for name, mode in modes(count).items():
            trainer_of(out / f"{name}-alone", alone(mode), one).fit()
            found = jobs.differences(out / name, out / f"{name}-alone")
            opens = open_in_one(out / name, out / f"{name}-opened", alone(mode), one)
            wrong += max(found.values()) > TOLERANCE or not opens
            print(f"{name} on {count} GPUs: {found}, opens in PyTorch's engine: {opens}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
