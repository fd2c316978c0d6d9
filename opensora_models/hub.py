"""Weights by their names on the Hugging Face hub, as far as the local cache has them: nothing is downloaded unasked."""

from pathlib import Path

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""What files of weights are called."""


def local_path(source: str | Path) -> Path:
    """Return the file or folder that `source` means: a path, or else the cached snapshot of the model of that name.

    What is neither comes back as a path, where nothing is; `how_to_get` says what to do about it.
    """
    path = Path(source).expanduser()
    if path.exists() or not _may_be_on_the_hub(source):
        return path
    from huggingface_hub import snapshot_download  # takes a tenth of a second, and paths need none of it

    try:
        return Path(snapshot_download(str(source), local_files_only=True))
    except (OSError, ValueError):
        return path


def how_to_get(source: str | Path) -> str:
    """Return what to do about weights that are not here, as the last sentences of an error."""
    if not _may_be_on_the_hub(source):
        return "no such file or folder. Set `from_pretrained` to weights that exist."
    return (
        "no such file or folder, and no model of this name in the local hub cache. "
        f"Download it with `hf download {source}`, or set `from_pretrained` to weights that exist."
    )


def _may_be_on_the_hub(source: str | Path) -> bool:
    """Names are `owner/name`; files are called after what is in them."""
    name = str(source)
    a_path = name.startswith((".", "~", "/")) or name.endswith(("/", *SUFFIXES))
    return name.count("/") == 1 and not a_path
