"""What a file of weights holds, without reading the weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

from opensora_models.hub import how_to_get, local_path
from opensora_models.weights import explained_damage, read_weights, weight_files
from schemas.errors import OsoraError

SAFETENSORS_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
}
"""Bytes of an element by its name in the file's header; every other type has one."""
TORCH_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class TensorHeader:
    """A tensor's shape, element type (as safetensors names it) and file."""

    shape: tuple[int, ...]
    dtype: str
    file: Path

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.count * SAFETENSORS_BYTES.get(self.dtype, 1)


def read_headers(path: str | Path) -> dict[str, TensorHeader]:
    """Return key -> header of the weights at `path`, whatever `read_weights` reads, in the file's order.

    Of safetensors only the header is read; a .pt file is opened on the meta device. Raises OsoraError as `read_weights`.
    """
    source, path = path, local_path(path)
    if not path.exists():
        raise OsoraError(f"{source}: {how_to_get(source)}")
    files, promised = weight_files(path)
    headers: dict[str, TensorHeader] = {}
    for file in files:
        headers |= _safetensors(file) if file.suffix == ".safetensors" else _torch(file)
    _complete(path, promised, headers)
    return headers


def _safetensors(file: Path) -> dict[str, TensorHeader]:
    with explained_damage(file), safe_open(file, framework="pt") as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
        return {key: TensorHeader(tuple(s.get_shape()), s.get_dtype(), file) for key, s in slices.items()}


def _torch(file: Path) -> dict[str, TensorHeader]:
    state = read_weights(file, device="meta")
    return {key: TensorHeader(tuple(t.shape), TORCH_NAMES.get(t.dtype, str(t.dtype)), file) for key, t in state.items()}


def _complete(path: Path, promised: Iterable[str], headers: dict[str, TensorHeader]) -> None:
    if absent := sorted(set(promised) - headers.keys()):
        raise OsoraError(f"{path}: the index names {len(absent)} keys that no shard has, {absent[0]} first.")
