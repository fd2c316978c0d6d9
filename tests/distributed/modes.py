"""Every way to spread the tiny denoiser over processes, and how one process does the same work."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Mode:
    """A `[parallel]` table, and the settings of the recipe that go with it."""

    world_size: int
    parallel: dict[str, object]
    clips: int
    """Processes that see different clips: one process does as many micro-batches an update."""
    fused: bool = False
    accumulation: int = 1
    recompute: bool = False
    lora: bool = False
    dtype: Literal["fp32", "bf16"] = "fp32"
    family: Literal["mmdit", "stdit", "stdit2", "stdit3"] = "mmdit"

    @property
    def tolerance(self) -> float:
        """The greatest difference from one process; in bf16 gathered norms are rounded too, and tables that modulate."""
        if self.dtype == "fp32":
            return 1e-5
        return 2e-3 if self.family == "mmdit" else 5e-3


def _hybrid(stage: int = 0, **sizes: object) -> dict[str, object]:
    return {"plugin": "hybrid", "zero_stage": stage, **sizes}


RING = {"sequence_parallelism_mode": "ring_attn"}
MODES = {
    "ddp-2": Mode(2, {"plugin": "ddp"}, 2),
    "zero1-2": Mode(2, {"plugin": "zero1"}, 2, accumulation=2),
    "zero2-2": Mode(2, {"plugin": "zero2"}, 2),
    "zero2-2-bf16": Mode(2, {"plugin": "zero2"}, 2, dtype="bf16"),
    "fsdp-2": Mode(2, {"plugin": "fsdp", "overlap_allgather": True}, 2, recompute=True),
    "ulysses-2": Mode(2, _hybrid(sp_size=2), 1),
    "ulysses-2-fused": Mode(2, _hybrid(sp_size=2), 1, fused=True, recompute=True),
    "ring-2": Mode(2, _hybrid(sp_size=2, **RING), 1),
    "tensor-2": Mode(2, _hybrid(tp_size=2), 1),
    "tensor-2-fused": Mode(2, _hybrid(tp_size=2), 1, fused=True, recompute=True),
    "ddp-2-lora": Mode(2, {"plugin": "ddp"}, 2, lora=True),
    "zero2-2-lora": Mode(2, {"plugin": "zero2"}, 2, lora=True),
    "fsdp-2-lora": Mode(2, {"plugin": "fsdp"}, 2, lora=True, recompute=True),
    "ulysses-2-lora": Mode(2, _hybrid(sp_size=2), 1, lora=True),
    "ddp-4": Mode(4, {"plugin": "ddp", "reduce_bucket_size_in_m": 1}, 4),
    "zero3-4": Mode(4, {"plugin": "zero3"}, 4),
    "hybrid-sharding-4": Mode(4, {"plugin": "zero2", "shard_size": 2}, 4),
    "hybrid-sharding-ulysses-4": Mode(4, _hybrid(2, sp_size=2, shard_size=2), 2),
    "ulysses-4": Mode(4, _hybrid(sp_size=4), 1),
    "ring-4": Mode(4, _hybrid(sp_size=4, **RING), 1, recompute=True),
    "tensor-4": Mode(4, _hybrid(tp_size=4), 1),
    "zero2-ulysses-4": Mode(4, _hybrid(2, sp_size=2), 2),
    "zero3-tensor-4": Mode(4, _hybrid(3, tp_size=2), 2),
    "tensor-ring-zero1-4": Mode(4, _hybrid(1, tp_size=2, sp_size=2, **RING), 1, accumulation=2),
    "tensor-ulysses-4": Mode(4, _hybrid(tp_size=2, sp_size=2), 1),
    "stdit3-ddp-2": Mode(2, {"plugin": "ddp"}, 2, family="stdit3"),
    "stdit3-fsdp-2": Mode(2, {"plugin": "fsdp", "overlap_allgather": True}, 2, recompute=True, family="stdit3"),
    "stdit3-zero2-2-bf16": Mode(2, {"plugin": "zero2"}, 2, dtype="bf16", family="stdit3"),
    "stdit3-ulysses-2": Mode(2, _hybrid(sp_size=2), 1, recompute=True, family="stdit3"),
    "stdit3-ring-2": Mode(2, _hybrid(sp_size=2, **RING), 1, family="stdit3"),
    "stdit2-ulysses-2": Mode(2, _hybrid(sp_size=2), 1, family="stdit2"),
    "stdit-ring-2": Mode(2, _hybrid(sp_size=2, **RING), 1, recompute=True, family="stdit"),
    "stdit3-ulysses-4": Mode(4, _hybrid(sp_size=4), 1, family="stdit3"),
    "stdit3-ring-4": Mode(4, _hybrid(sp_size=4, **RING), 1, family="stdit3"),
    "stdit3-zero3-ulysses-4": Mode(4, _hybrid(3, sp_size=2), 2, recompute=True, family="stdit3"),
}
COLOSSALAI = {
    f"colossalai-{name}": replace(mode, parallel={**mode.parallel, "engine": "colossalai"})
    for name, mode in {
        "ddp-2": Mode(2, {"plugin": "ddp", "static_graph": True}, 2),
        "ddp-accumulating-2": Mode(2, {"plugin": "ddp", "reduce_bucket_size_in_m": 1}, 2, accumulation=2),
        "hybrid-2": Mode(2, _hybrid(), 2),
        "ulysses-2-fused": Mode(2, _hybrid(sp_size=2), 1, fused=True, recompute=True),
        "tensor-2": Mode(2, _hybrid(tp_size=2), 1),
        "tensor-4": Mode(4, _hybrid(tp_size=2), 2, recompute=True),
    }.items()
}
"""What ColossalAI can do on a CPU; `make colossalai-test` runs them."""
TESTED = [
    *("ddp-2", "zero1-2", "zero2-2", "zero2-2-bf16", "fsdp-2", "ulysses-2-fused", "ring-2", "tensor-2-fused"),
    *("ddp-2-lora", "fsdp-2-lora"),
    *("hybrid-sharding-ulysses-4", "zero3-tensor-4", "tensor-ring-zero1-4"),
    *("stdit3-fsdp-2", "stdit3-ring-2", "stdit3-zero3-ulysses-4"),
]
"""What the test suite runs; `benchmarks/parallel_equality.py` runs all."""
RELOADED = ["ddp-2", "fsdp-2", "tensor-2-fused", "stdit3-fsdp-2"]
"""Whose checkpoints are loaded by one process, and one process's by them."""
