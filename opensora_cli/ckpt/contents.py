"""What a path holds: weights, a checkpoint of a run, or a run; read from headers alone."""

import json
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from opensora_cli.sampling.weights import newest_checkpoint
from opensora_cli.training.checkpoint import ADAPTERS, complete_checkpoints
from opensora_models.adapter import DOWN, adapter_file, is_adapter
from opensora_models.recognise import described, recognise
from opensora_models.weight_headers import TensorHeader, read_headers
from schemas.errors import OsoraError
from schemas.resolve.literals import write_document

Headers = dict[str, TensorHeader]


def contents(path: Path) -> dict[str, Any]:
    """Return what is at `path` as plain values, for a program to read. Raises OsoraError where it holds no weights."""
    weights = _weights(path)
    headers = read_headers(weights)
    shapes = {key: header.shape for key, header in headers.items()}
    found = recognise(shapes)
    return {
        "path": str(path),
        "weights": str(weights),
        "family": _adapter(shapes) or described(shapes),
        "tensors": len(headers),
        "parameters": sum(header.count for header in headers.values()),
        "bytes": sum(header.nbytes for header in headers.values()),
        "files": len({header.file for header in headers.values()}),
        "dtypes": dict(Counter(header.dtype for header in headers.values())),
        "modules": _modules(headers),
        "recipe": {found.table: found.config} if found else {},
        **_of_run(path),
    }


def key_lines(path: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Yield a line for every tensor whose key fits the glob. Raises OsoraError where none does."""
    headers = read_headers(_weights(path))
    chosen = {key: header for key, header in headers.items() if fnmatchcase(key, pattern)}
    if not chosen:
        raise OsoraError(f"{path}: no key fits {pattern!r}; the first is {next(iter(headers), 'absent: it is empty')}.")
    width = max(map(len, chosen))
    for key, header in chosen.items():
        yield "plain", f"{key:{width}}  {header.dtype:5} {list(header.shape)}"


def content_lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the report for a person."""
    yield "title", found["path"]
    for name, text in (
        ("weights", found["weights"]),
        ("family", found["family"]),
        ("size", f"{found['parameters']:,} parameters in {found['tensors']} tensors, {_size(found['bytes'])}"),
        ("dtypes", ", ".join(f"{dtype} x{count}" for dtype, count in found["dtypes"].items())),
        ("files", str(found["files"])),
        *((name, found[name]) for name in ("kind", "updates", "checkpoints") if name in found),
    ):
        yield "plain", f"  {name:12}{text}"
    yield "title", "parameters by module"
    for module, count in found["modules"].items():
        yield "plain", f"  {module:24}{count:>16,}"
    if found["recipe"]:
        yield "title", "what a recipe must say to load them"
        for line in write_document(found["recipe"]).strip().splitlines():
            yield "note", f"  {line}"


def _weights(path: Path) -> Path:
    if (path / "checkpoints").is_dir():
        path = newest_checkpoint(path)
    if (path / ADAPTERS["model"]).is_dir():
        path = path / ADAPTERS["model"]
    return adapter_file(path) if is_adapter(path) else path


def _adapter(shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Return the ranks of an adapter, and how many layers it changes; None for whole weights."""
    ranks = [shape[0] for key, shape in shapes.items() if key.endswith(DOWN)]
    if not ranks:
        return None
    return f"adapter of rank {', '.join(map(str, sorted(set(ranks))))} for {len(ranks)} layers (a sample recipe's [adapters])"


def _of_run(path: Path) -> dict[str, Any]:
    """Return what a run folder or a checkpoint says beyond its weights."""
    if (path / "checkpoints").is_dir():
        names = [checkpoint.name for checkpoint in complete_checkpoints(path / "checkpoints")]
        lock = next((line for line in _lines(path / "recipe.lock.toml") if line.startswith("kind")), "")
        return {"kind": lock.partition("=")[2].strip(' "'), "checkpoints": ", ".join(names)}
    if (path / "progress.json").is_file():
        try:
            return {"updates": json.loads("".join(_lines(path / "progress.json")))["update"]}
        except (ValueError, KeyError) as error:
            raise OsoraError(f"{path / 'progress.json'}: damaged. Use another checkpoint of the run.") from error
    return {}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OsoraError(f"{file}: cannot be read. {error}") from error


def _modules(headers: Headers) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for key, header in headers.items():
        counts[key.split(".", 1)[0]] += header.count
    return dict(counts)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"
