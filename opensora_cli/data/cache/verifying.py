"""Reading a whole cache back: `osora cache --verify`."""

from pathlib import Path

from rich.console import Console
from safetensors import SafetensorError, safe_open

from opensora_cli.data.cache.index import open_index, read_manifest
from opensora_cli.data.cache.keys import cache_folder, latents_key, text_key
from opensora_cli.data.cache.opening import MEMO
from opensora_cli.data.cache.reader import find_cache
from opensora_cli.data.cache.shards import checksum, damaged, read_header
from opensora_cli.data.cache.weight_files import WeightFiles
from opensora_cli.progress import JobProgress
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe


def verify_cache(recipe: TrainRecipe, *, latents: bool, text: bool, console: Console) -> int:
    """Read back the caches that fit a recipe and print every damaged shard; return the exit code, 1 if there is one.

    Raises OsoraError where there is no such cache.
    """
    cache = cache_folder(recipe)
    files = WeightFiles(cache / MEMO)
    keys = [*([latents_key(recipe, files)] if latents else ()), *([text_key(recipe, files)] if text else ())]
    found: list[str] = []
    for key in keys:
        folder = find_cache(cache, key).folder
        with JobProgress(f"verify {key.kind}", len(read_manifest(folder)["shards"]), console=console) as display:
            found += damaged_shards(folder, display)
    for message in found:
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    return 1 if found else 0


def damaged_shards(folder: Path, display: JobProgress) -> list[str]:
    """Compare every entry of a cache with its checksum; return a message for each shard that is not what was written.

    Raises OsoraError when the manifest or the index is damaged itself.
    """
    manifest = read_manifest(folder)
    index = open_index(folder, manifest["index"], check=True)
    found = []
    for number, shard in enumerate(manifest["shards"]):
        rows = index.table[:, index.table[2] == number]
        wanted = {(high, low): value for high, low, _, value in rows.T.tolist()}
        try:
            _check(folder / shard, wanted, manifest["unreadable"])
        except OsoraError as error:
            found.append(str(error))
        display.advance(f"{len(found)} damaged")
    return found


def _check(path: Path, wanted: dict[tuple[int, int], int], unreadable: dict[str, str]) -> None:
    header = read_header(path)
    listed = {(high, low): value for (high, low), value in zip(header.names.tolist(), header.checksums, strict=True)}
    if listed != wanted or not header.unreadable.items() <= unreadable.items():
        raise OsoraError(damaged(path, "its header lists other entries than the index"))
    try:
        with safe_open(path, framework="pt") as file:
            parts: dict[str, list[str]] = {}
            for key in file.keys():  # noqa: SIM118 - no dict
                name, _, part = key.partition(".")
                parts.setdefault(name, []).append(part)
            for (high, low), value in wanted.items():
                name = (high.to_bytes(8, "little") + low.to_bytes(8, "little")).hex()
                tensors = {part: file.get_tensor(f"{name}.{part}") for part in parts.get(name, ())}
                if checksum(tensors) != value:
                    raise OsoraError(damaged(path, f"entry {name} has other bytes than were written"))
    except (SafetensorError, OSError) as error:
        raise OsoraError(damaged(path, f"it cannot be read ({error})")) from error
