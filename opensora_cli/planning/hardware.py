"""Memory of the GPUs that recipes are planned for."""

import os

from schemas.errors import UsageError

GIB = 2**30
GPUS: dict[str, float] = {
    "h200": 139.8,
    "h100": 79.1,
    "a100-80gb": 79.1,
    "a100-40gb": 39.4,
    "l40s": 44.4,
    "rtx4090": 23.5,
}
"""name -> GiB that a program can see: what is sold as 80 GB is 79.1 GiB of it. `cpu` stands for this machine's memory."""

BF16_FLOPS: dict[str, float] = {
    "H200": 989.4e12,
    "H100 PCIe": 756.4e12,
    "H100 NVL": 835.5e12,
    "H100": 989.4e12,
    "A100": 311.9e12,
    "L40S": 362.1e12,
    "RTX 4090": 165.2e12,
}
"""Part of a GPU's name -> dense bf16 FLOPs a second with fp32 sums, by NVIDIA's data sheets; the first that fits counts."""

CONTEXT = GIB
"""Bytes that CUDA's context and its libraries take before the first tensor."""
FRAGMENTATION = 0.03
"""Share of a GPU's memory that the caching allocator cannot use: blocks never fit exactly."""


def memory_of(name: str) -> int:
    """Return the bytes of a named device. Raises UsageError with the names there are."""
    if name == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if name not in GPUS:
        raise UsageError(f"--gpu {name}: one of {', '.join(GPUS)} or cpu, or give the size with --gpu-memory GIB.")
    return int(GPUS[name] * GIB)


def usable(memory: int, device: str) -> int:
    """Return what of the memory tensors can have."""
    return memory if device == "cpu" else max(0, int(memory * (1 - FRAGMENTATION)) - CONTEXT)


def bf16_flops(name: str) -> float | None:
    """Return the dense bf16 FLOPs a second of a GPU, by the name that CUDA gives it; None for one that is not listed."""
    return next((flops for part, flops in BF16_FLOPS.items() if part in name), None)
