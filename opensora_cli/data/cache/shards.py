"""Shards of a cache: safetensors files that are complete or absent, with a checksum for every entry.

An entry has a name of 16 bytes and a few tensors, `<name in hex>.<part>` in its shard. The shard's metadata lists its
entries with their checksums, and the clips that could not be decoded, with the reason.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from opensora_cli.data.cache.contents import ID_BYTES
from opensora_cli.files import write_bytes
from schemas.errors import OsoraError

PATTERN = "shard-*.safetensors"
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself: names (n, 2) as pairs of words, checksums (n,), and unreadable clips."""

    names: Words
    checksums: Words
    unreadable: dict[str, str]


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Return 64 bits that tell the parts' names, types, shapes and bytes."""
    digest = blake2b(digest_size=8)
    for part, tensor in sorted(tensors.items()):
        digest.update(f"{part} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return int.from_bytes(digest.digest(), "little")


def read_header(path: Path) -> ShardHeader:
    """Return what a shard holds without reading its tensors. Raises OsoraError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        names = np.frombuffer(bytes.fromhex(metadata["names"]), dtype="<u8").reshape(-1, 2)
        checksums = np.frombuffer(bytes.fromhex(metadata["checksums"]), dtype="<u8")
        return ShardHeader(names, checksums, json.loads(metadata["unreadable"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise OsoraError(damaged(path, f"its header cannot be read ({error})")) from error


def damaged(path: Path, reason: str) -> str:
    """Return the message for a shard that is not what was written."""
    return f"{path}: {reason}. Remove that file and run `osora cache` again: it makes anew what the file held, and no more."


class ShardWriter:
    """Collects entries of one rank and writes a shard whenever there are enough bytes."""

    def __init__(self, folder: Path, rank: int, limit_bytes: int) -> None:
        self._folder = folder
        self._stem = f"shard-{rank:04d}"
        self._limit = limit_bytes
        self._number = len(list(folder.glob(f"{self._stem}-*.safetensors")))
        self._seen: set[bytes] = set()
        self._clear()

    def add(self, name: bytes, tensors: Mapping[str, Tensor]) -> None:
        """Take an entry; one that was taken before is left out. Raises OsoraError when the disk refuses."""
        if name in self._seen:
            return
        self._seen.add(name)
        own = {part: tensor.detach().cpu().contiguous() for part, tensor in tensors.items()}
        broken = [part for part, tensor in own.items() if not tensor.isfinite().all()]
        if broken:
            raise OsoraError(
                f"{self._folder}: {broken[0]} of an entry is not finite as {own[broken[0]].dtype}. Take another "
                "dataset.cached_dtype; if it is the recipe's own, the encoder's weights are broken."
            )
        self._checksums[name] = checksum(own)
        self._tensors |= {f"{name.hex()}.{part}": tensor for part, tensor in own.items()}
        self._bytes += sum(tensor.nbytes for tensor in own.values())
        if self._bytes >= self._limit:
            self.flush()

    def add_unreadable(self, name: bytes, reason: str) -> None:
        """Take note of a clip that is there and cannot be decoded."""
        self._unreadable[name.hex()] = reason

    def flush(self) -> None:
        """Write what has been collected, if anything. Raises OsoraError when the disk refuses; nothing is half-written."""
        if not self._checksums and not self._unreadable:
            return
        metadata = {
            "names": b"".join(self._checksums).hex(),
            "checksums": np.array(list(self._checksums.values()), dtype="<u8").tobytes().hex(),
            "unreadable": json.dumps(self._unreadable),
        }
        while (path := self._folder / f"{self._stem}-{self._number:06d}.safetensors").exists():
            self._number += 1
        try:
            write_bytes(path, save(self._tensors, metadata))
        except OsoraError as error:
            raise OsoraError(
                f"{error}. The shards before it are complete: make room and run `osora cache` again, it goes on from there."
            ) from error
        self._clear()

    def _clear(self) -> None:
        self._checksums: dict[bytes, int] = {}
        self._unreadable: dict[str, str] = {}
        self._tensors: dict[str, Tensor] = {}
        self._bytes = 0


def words(name: bytes) -> tuple[int, int]:
    """Return a name as the pair of words that headers and indexes hold."""
    half = ID_BYTES // 2
    return int.from_bytes(name[:half], "little"), int.from_bytes(name[half:], "little")
