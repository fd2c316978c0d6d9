"""Clips that are not on this machine's disks: `s3://`, `hf://`, `https://` and whatever else fsspec knows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from urllib.parse import urlsplit

from opensora_cli.data.media import UnreadableClip
from schemas.errors import UsageError

INSTALL = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
"""protocol -> the package that fsspec needs for it."""


def protocol_of(path: str) -> str | None:
    """Return the protocol of a remote path (s3 of `s3://bucket/a.mp4`), None for a path on this machine."""
    name, mark, _ = path.partition("://")
    return name if mark and name.isalnum() else None


def require_protocol(protocol: str) -> None:
    """Raise UsageError, with what to install, if paths of this protocol cannot be read."""
    if find_spec("fsspec") is None:
        more = f" {INSTALL[protocol]}" if protocol in INSTALL else ""
        raise UsageError(f"{protocol}:// paths are read through fsspec: pip install fsspec{more}")
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UsageError(
            f"{protocol}:// paths: {error}. To read them: pip install {INSTALL.get(protocol, f'a package for {protocol}')}"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{protocol}://: fsspec knows no such protocol. Known to work: s3://, gs://, hf://, https://; files on this "
            "machine have plain paths."
        ) from error


@contextmanager
def local_copy(path: str, folder: Path) -> Iterator[str]:
    """Copy a remote file into `folder`, yield the copy's path and remove it. Raises UnreadableClip."""
    import fsspec

    suffix = PurePosixPath(urlsplit(path).path).suffix
    with NamedTemporaryFile(dir=folder, suffix=suffix) as copy:
        try:
            with fsspec.open(path, "rb") as file:
                shutil.copyfileobj(file, copy, 1 << 20)
        except FileNotFoundError as error:
            raise UnreadableClip(path, "No such file or directory") from error
        copy.flush()
        yield copy.name
