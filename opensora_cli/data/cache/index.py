"""The index of a cache: where every entry is, and what its bytes have to be; written when a pass is complete.

`manifest.json` names the shards, the index file and the passes that were made; it takes the place of an older one in
one step, so a reader meets one whole state or the other. The index is sorted by name and read through a memory map.
"""

import json
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from opensora_cli.data.cache.keys import CacheKey, Facts, canonical
from opensora_cli.data.cache.shards import PATTERN, Words, read_header, words
from opensora_cli.files import write_bytes, write_text
from schemas.errors import OsoraError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Index:
    """Entries sorted by name: four rows of words, namely both halves of the name, the shard's number, the checksum."""

    table: Words

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def find(self, name: bytes) -> tuple[int, int] | None:
        """Return (shard number, checksum) of an entry, or None."""
        high, low = words(name)
        place = int(np.searchsorted(self.table[0], np.uint64(high)))
        while place < len(self) and int(self.table[0, place]) == high:
            if int(self.table[1, place]) == low:
                return int(self.table[2, place]), int(self.table[3, place])
            place += 1
        return None


@dataclass(frozen=True)
class Collected:
    """What the shards of a folder hold together."""

    shards: tuple[str, ...]
    index: Index
    unreadable: dict[str, str]

    def __contains__(self, name: bytes) -> bool:
        return name.hex() in self.unreadable or self.index.find(name) is not None


def collect(folder: Path) -> Collected:
    """Read the headers of every complete shard. Raises OsoraError for a damaged one."""
    shards = tuple(path.name for path in sorted(folder.glob(PATTERN)))
    rows: list[Words] = []
    unreadable: dict[str, str] = {}
    for number, shard in enumerate(shards):
        header = read_header(folder / shard)
        where = np.full(len(header.checksums), number, dtype=np.uint64)
        rows.append(np.stack([header.names[:, 0], header.names[:, 1], where, header.checksums]))
        unreadable |= header.unreadable
    table = np.concatenate(rows, axis=1) if rows else np.zeros((4, 0), dtype=np.uint64)
    return Collected(shards, Index(np.ascontiguousarray(table[:, np.lexsort(table[1::-1])])), unreadable)


def write_index(folder: Path, key: CacheKey, done: Facts, windows: int) -> Collected:
    """Collect the shards and write index and manifest, which then also lists the pass `done`.

    Raises OsoraError when the disk refuses; the manifest of before is then still good.
    """
    collected = collect(folder)
    before = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    passes = [old for old in before["passes"] if old["facts"] != done] if before else []
    data = BytesIO()
    np.save(data, collected.index.table, allow_pickle=False)
    index = f"index-{blake2b(data.getvalue(), digest_size=16).hexdigest()}.npy"
    write_bytes(folder / index, data.getvalue())
    body = {
        "facts": key.facts,
        "entries": len(collected.index),
        "index": index,
        "shards": collected.shards,
        "unreadable": collected.unreadable,
        "passes": [*passes, {"facts": done, "windows": windows}],
    }
    write_text(folder / MANIFEST, json.dumps({"checksum": _digest(body), **body}, indent=1) + "\n")
    in_use = {index, before["index"]} if before else {index}
    for old in folder.glob("index-*.npy"):
        if old.name not in in_use:  # a run that reads the state of before may still open its index
            old.unlink()
    return collected


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a cache's manifest. Raises OsoraError for a damaged one."""
    path = folder / MANIFEST
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        intact = body.pop("checksum") == _digest(body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OsoraError(f"{path}: cannot be read ({error}). {_MEND}") from error
    if not intact:
        raise OsoraError(f"{path}: is not what was written. {_MEND}")
    return body


def open_index(folder: Path, name: str, *, check: bool) -> Index:
    """Map a cache's index into memory; with `check` after comparing its bytes. Raises OsoraError for a damaged one."""
    path = folder / name
    try:
        if check and f"index-{blake2b(path.read_bytes(), digest_size=16).hexdigest()}.npy" != name:
            raise OsoraError(f"{path}: is not what was written. {_MEND}")
        return Index(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise OsoraError(f"{path}: cannot be read ({error}). {_MEND}") from error


_MEND = "Remove it and run `osora cache` again: it is made anew from the shards."


def _digest(body: object) -> str:
    return blake2b(canonical(body), digest_size=16).hexdigest()
