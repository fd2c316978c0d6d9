"""Reading entries: by name, each compared with its checksum before it is used."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from opensora_cli.data.cache.index import MANIFEST, Index, open_index, read_manifest
from opensora_cli.data.cache.keys import CacheKey, Facts, differences
from opensora_cli.data.cache.shards import checksum, damaged
from schemas.errors import OsoraError

_OPEN_SHARDS = 64


class CacheReader:
    """The entries of one folder. It is sent to workers as a path: each maps index and shards into memory for itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_manifest(folder)
        self.facts: Facts = manifest["facts"]
        self.passes: list[dict[str, Any]] = manifest["passes"]
        self._index_name: str = manifest["index"]
        self._shards: list[str] = manifest["shards"]
        self._unreadable: dict[str, str] = manifest["unreadable"]
        self._open: OrderedDict[int, Any] = OrderedDict()
        open_index(folder, self._index_name, check=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_index": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state["_index"]
        self.__dict__ |= state

    @cached_property
    def _index(self) -> Index:
        return open_index(self.folder, self._index_name, check=False)

    def __len__(self) -> int:
        return len(self._index)

    def unreadable(self, name: bytes) -> str | None:
        """Return why a clip could not be decoded when the cache was made; None for one that could, or is unknown."""
        return self._unreadable.get(name.hex())

    def read(self, name: bytes, parts: Sequence[str]) -> dict[str, Tensor] | None:
        """Return the parts of an entry, None if there is no such entry. Raises OsoraError, naming the shard, for damage."""
        found = self._index.find(name)
        if found is None:
            return None
        shard, wanted = found
        path = self.folder / self._shards[shard]
        try:
            file = self._shard(shard)
            tensors = {part: file.get_tensor(f"{name.hex()}.{part}") for part in parts}
        except (SafetensorError, OSError) as error:
            raise OsoraError(damaged(path, f"entry {name.hex()} cannot be read ({error})")) from error
        if checksum(tensors) != wanted:
            raise OsoraError(damaged(path, f"entry {name.hex()} has other bytes than were written"))
        return tensors

    def _shard(self, number: int) -> Any:
        """Open a shard, or find it among the ones used last."""
        file = self._open.pop(number, None)
        if file is None:
            file = safe_open(self.folder / self._shards[number], framework="pt")
        self._open[number] = file
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return file


def find_cache(cache: Path, key: CacheKey) -> CacheReader:
    """Return the entries made with the key's facts. Raises OsoraError that says which facts of the ones there differ."""
    folder = key.folder(cache)
    if (folder / MANIFEST).is_file():
        return CacheReader(folder)
    if folder.is_dir():
        raise OsoraError(f"{folder}: the cache is not complete. Run `osora cache` again, it goes on where it stopped.")
    others = [read_manifest(path.parent) for path in sorted((cache / key.kind).glob(f"*/{MANIFEST}"))]
    if not others:
        raise OsoraError(f"{cache} has no cached {key.kind}. `osora cache` with this recipe makes them.")
    lines = min((differences(other["facts"], key.facts) for other in others), key=len)
    raise OsoraError(
        "\n  ".join([f"the {key.kind} in {cache} were made in another way:", *lines])
        + "\nSet these back, or run `osora cache` with this recipe: it keeps what is there."
    )


def check_pass(reader: CacheReader, wanted: Mapping[str, Any], windows: int) -> None:
    """Raise OsoraError unless everything that the pass asks for was looked at when the cache was made."""
    if any(done["facts"] == wanted and done["windows"] >= windows for done in reader.passes):
        return
    nearest = min(reader.passes, key=lambda done: len(differences(done["facts"], wanted)))
    lines = differences(nearest["facts"], wanted) or [
        f"dataset.cached_windows: cached with {nearest['windows']}, the recipe has {windows}"
    ]
    raise OsoraError(
        "\n  ".join([f"{reader.folder} may lack entries, it was filled for other data:", *lines])
        + "\nRun `osora cache` with this recipe: it adds what is missing and keeps what is there."
    )
