"""What a machine has, as far as recipes care; facts alone, gathered elsewhere."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A GPU that programs may use: its name, CUDA's compute capability, and bytes that are free now."""

    name: str
    capability: tuple[int, int]
    free: int


@dataclass(frozen=True)
class Need:
    """A batch that does not fit: what it is of, and the bytes that one process needs for it and can have."""

    what: str
    bytes: int
    usable: int


@dataclass(frozen=True)
class Machine:
    """One machine, and what a recipe would need of it."""

    gpus: tuple[Gpu, ...] = ()
    packages: frozenset[str] = frozenset()
    """Names of modules that can be imported."""
    backends: frozenset[str] = frozenset({"gloo"})
    """Ways of PyTorch's to send tensors between processes."""
    processes: int | None = None
    """Processes of the job: of its launcher, or one for every GPU; None on a machine that may start any number."""
    folder: str = "."
    """Where checkpoints go, or the nearest folder above it that is there."""
    disk: int = 0
    """Bytes that are free there."""
    checkpoint: int | None = None
    """Bytes of one checkpoint, about; None where the recipe saves none."""
    too_large: tuple[Need, ...] = ()
    """Batches that do not fit the memory that is free now."""
