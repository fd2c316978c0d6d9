"""Reading, loading and saving weights: strictly, atomically, and with an explanation where they do not fit."""

import json
import os
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from opensora_models.hub import SUFFIXES, how_to_get, local_path
from schemas.errors import OsoraError

SINGLE_FILE = "model.safetensors"
FOLDER_FILES = tuple(
    f"{folder}{name}{suffix}"
    for folder in ("", "model/", "vae/")
    for name in (SINGLE_FILE, "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
    for suffix in ("", ".index.json")
)
"""What a folder of weights may hold; the first one found counts."""
SHOWN_KEYS = 4
StateDict = dict[str, Tensor]


@runtime_checkable
class KnowsOthers(Protocol):
    """A module whose published weights, or those of a model it can start from, lie in a file in another way."""

    def as_own(self, state: Mapping[str, Tensor]) -> StateDict:
        """Return such weights as the module's."""


def load_weights(
    module: nn.Module,
    path: str | Path,
    *,
    allow_missing: Iterable[str] = (),
    rename: Callable[[str], str] | None = None,
) -> None:
    """Load the weights at `path` into `module`, each key and shape accounted for.

    `path` is a .safetensors, .pt, .pth or .bin file, a folder with model.safetensors or an index and its shards, or the name
    of a model in the local hub cache.
    `allow_missing` are globs of keys that may keep the module's own values; `rename` maps the file's keys to the module's.
    Raises OsoraError where the file is missing, damaged, or does not fit; the message names the likely recipe key.
    """
    state = read_weights(path)
    if rename is not None:
        state = {rename(key): tensor for key, tensor in state.items()}
    if isinstance(module, KnowsOthers):
        state = module.as_own(state)
    fit_weights(module, state, path, allow_missing=allow_missing)


def fit_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path, *, allow_missing: Iterable[str] = ()
) -> None:
    """Copy `state` into `module`, in the module's dtypes; the same strictness and errors as `load_weights`."""
    check_fit(module, state, source, allow_missing=allow_missing)
    own = module.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        _materialise(module, own, state)
    else:
        module.load_state_dict(state, strict=False)


def check_fit(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path, *, allow_missing: Iterable[str] = ()
) -> None:
    """Raise OsoraError, with the explanation, where `state` is not what `module` holds; the module may be on meta."""
    misfit = compare(module.state_dict(), state, allow_missing)
    if misfit:
        raise OsoraError(misfit.explain(source, getattr(type(module), "likely_causes", ())))


def _materialise(module: nn.Module, own: StateDict, state: Mapping[str, Tensor]) -> None:
    left = [key for key, tensor in own.items() if tensor.is_meta and key not in state]
    if left:
        raise OsoraError(f"{left[0]} is on the meta device and the weights lack it: build the model on a real device.")
    fitting = {key: tensor.to(own[key].dtype) for key, tensor in state.items()}
    module.load_state_dict(fitting, strict=False, assign=True)


@dataclass(frozen=True)
class Misfit:
    """How a state dict differs from what a module expects."""

    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # key -> (module's shape, file's shape)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def explain(self, source: str | Path, causes: Iterable[tuple[str, str]] = ()) -> str:
        """Return the message: what differs, grouped by prefix, and which recipe keys are the likely cause."""
        lines = [f"{source}: the weights do not fit the model."]
        lines += _grouped("missing from the file", self.missing)
        lines += _grouped("in the file but not in the model", self.unexpected)
        if self.reshaped:
            lines.append(f"  {len(self.reshaped)} of another shape:")
            for key, (ours, theirs) in list(self.reshaped.items())[:SHOWN_KEYS]:
                lines.append(f"    {key}: the model has {ours}, the file {theirs}")
        if keys := self.likely_keys(causes):
            lines.append(
                f"  Likely cause: {', '.join(f'`{key}`' for key in keys)} in the recipe. Set it to what the file has."
            )
            if self.missing and not self.unexpected and not self.reshaped and keys[0].startswith("model."):
                globs = sorted({f"{key.split('.', 1)[0]}.*" for key in self.missing})
                lines.append(f"  To train what is missing anew: model.allow_missing = {json.dumps(globs)}.")
        else:
            lines.append("  Check that `from_pretrained` names weights of this family.")
        return "\n".join(lines)

    def likely_keys(self, causes: Iterable[tuple[str, str]]) -> list[str]:
        """Return the recipe keys whose patterns fit a difference.

        Patterns are searched in lines such as `missing cond_in.weight` and `shape[1] img_in.weight` (the axis that
        differs). A pattern that fits explains its line or, where it has a group, every key that starts with that group,
        and later patterns are not tried on those. One wrong width changes many shapes: its pattern explains them all.
        """
        lines = [f"missing {key}" for key in self.missing] + [f"unexpected {key}" for key in self.unexpected]
        lines += [
            f"shape[{axis}] {key}"
            for key, (ours, theirs) in self.reshaped.items()
            for axis in range(max(len(ours), len(theirs)))
            if ours[axis : axis + 1] != theirs[axis : axis + 1]
        ]
        found: list[str] = []
        for pattern, key in causes:
            fits = [match for line in lines if (match := re.search(pattern, line))]
            if not fits:
                continue
            found += [key] if key not in found else []
            explained = tuple({match[1] if match.re.groups else match.string.split(" ", 1)[1] for match in fits})
            about_shapes = any(match.string.startswith("shape") for match in fits)
            lines = [
                line
                for line in lines
                if not line.split(" ", 1)[1].startswith(explained) and not (about_shapes and line.startswith("shape"))
            ]
        return found


def compare(own: Mapping[str, Tensor], state: Mapping[str, Tensor], allow_missing: Iterable[str] = ()) -> Misfit:
    """Return how `state` differs from `own`; keys that match a glob of `allow_missing` may be absent from it."""
    globs = tuple(allow_missing)
    missing = [key for key in own if key not in state and not any(fnmatchcase(key, glob) for glob in globs)]
    unexpected = [key for key in state if key not in own]
    shapes = {key: (tuple(own[key].shape), tuple(state[key].shape)) for key in own if key in state}
    return Misfit(missing, unexpected, {key: pair for key, pair in shapes.items() if pair[0] != pair[1]})


def _grouped(title: str, keys: list[str]) -> list[str]:
    """Group by the key up to its first number: `double_blocks.` has 20 entries."""
    groups = Counter(re.split(r"\d", key, maxsplit=1)[0] if re.search(r"\d", key) else key for key in keys)
    lines = [f"  {len(keys)} {title}:"] if keys else []
    for prefix, count in groups.most_common(SHOWN_KEYS):
        examples = [key for key in keys if key.startswith(prefix)][:2]
        lines.append(f"    {', '.join(examples)}" + (f", ... ({count} like these)" if count > len(examples) else ""))
    if len(groups) > SHOWN_KEYS:
        lines.append(f"    ... and {len(groups) - SHOWN_KEYS} more groups")
    return lines


def read_weights(path: str | Path, *, device: str = "cpu") -> StateDict:
    """Return the state dict of a file, of a folder's shards, or of a model in the local hub cache (`owner/name`).

    Raises OsoraError if it cannot be read.
    """
    source, path = path, local_path(path)
    if path.is_dir():
        return _read_folder(path, device)
    if not path.is_file():
        raise OsoraError(f"{source}: {how_to_get(source)}")
    with explained_damage(path):
        if path.suffix == ".safetensors":
            return load_file(path, device=device)
        if path.suffix in SUFFIXES:
            loaded = torch.load(path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path))
            return _unwrapped(loaded, path)
    raise OsoraError(
        f"{path}: weights are .safetensors, .pt, .pth or .bin files, not {path.suffix or 'without suffix'}."
    )


def _read_folder(folder: Path, device: str) -> StateDict:
    files, promised = weight_files(folder)
    state: StateDict = {}
    for file in files:
        state.update(read_weights(file, device=device))
    if absent := sorted(set(promised) - state.keys()):
        raise OsoraError(
            f"{folder}: the index names {len(absent)} keys that no shard has, {absent[0]} first. Fetch it again."
        )
    return state


def weight_files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files that hold the weights at `path`, and the keys that an index promises (none without an index).

    In a folder the first of `FOLDER_FILES` counts: osora's and transformers' names, diffusers', and those of ColossalAI's
    sharded checkpoints, also below `model/`, and below `vae/`, where diffusers keeps a pipeline's autoencoder. Raises
    OsoraError where there is none, or the index is no index.
    """
    if not path.is_dir():
        return [path], []
    found = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
    if found is None:
        raise OsoraError(f"{path}: has none of {', '.join(FOLDER_FILES)}. Name the weights' file itself.")
    if found.suffix != ".json":
        return [found], []
    with explained_damage(found):
        weight_map: dict[str, str] = json.loads(found.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise OsoraError(f"{found}: shard {shard!r} is not a file name. Shards lie beside their index.")
    return [found.parent / shard for shard in shards], list(weight_map)


@contextmanager
def explained_damage(path: Path) -> Iterator[None]:
    """Turn what readers raise on a damaged file into an error that says so."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise OsoraError(
            f"{path}: holds more than tensors, or is damaged; only plain weights are read. {error}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise OsoraError(f"{path}: cannot be read as weights; fetch or save it again. {error}") from error


def _unwrapped(loaded: object, path: Path) -> StateDict:
    """Training scripts like to wrap a state dict as {"state_dict": ...}, or keep an average beside it and no other."""
    for wrapping in ("state_dict", "ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapping), dict):
            loaded = loaded[wrapping]
    if isinstance(loaded, dict) and all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        return loaded
    raise OsoraError(f"{path}: expected a state dict, key -> tensor (or one under `state_dict`), found something else.")


def save_weights(state: Mapping[str, Tensor], path: str | Path, max_shard_bytes: int | None = None) -> list[Path]:
    """Write `state` as safetensors, complete or not at all, and return the files written.

    `path` is the .safetensors file. Above `max_shard_bytes` it becomes numbered shards and an index, written last.
    Raises OsoraError where the disk refuses; what was at `path` before is then still there.
    """
    path = Path(path)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    shards = _shards(tensors, max_shard_bytes)
    index = path.with_name(f"{path.name}.index.json")
    if len(shards) == 1:
        _write(path, lambda aside: save_file(tensors, aside, metadata={"format": "pt"}))
        index.unlink(missing_ok=True)
        return [path]
    weight_map: dict[str, str] = {}
    written = []
    for number, shard in enumerate(shards, 1):
        target = path.with_name(f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}")
        _write(target, lambda aside, shard=shard: save_file(shard, aside, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(shard, target.name)
        written.append(target)
    total = sum(tensor.nbytes for tensor in tensors.values())
    table = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
    _write(index, lambda aside: aside.write_text(table, encoding="utf-8"))
    path.unlink(missing_ok=True)
    return [*written, index]


def _shards(tensors: StateDict, max_bytes: int | None) -> list[StateDict]:
    """Fill shards in order; a tensor larger than a shard has one of its own."""
    shards: list[StateDict] = [{}]
    size = 0
    for key, tensor in tensors.items():
        if max_bytes is not None and shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][key] = tensor
        size += tensor.nbytes
    return shards


def write_whole(path: Path, data: bytes) -> None:
    """Write `data`, complete or not at all. Raises OsoraError where the disk refuses."""
    _write(path, lambda aside: aside.write_bytes(data))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, bring it to the disk, then take the name."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, SafetensorError) as error:
        raise OsoraError(f"{path}: cannot be written. {error}. Free some space, or choose another folder.") from error
    finally:
        aside.unlink(missing_ok=True)
