"""Fetching published weights from the Hugging Face hub: the only place in osora that reaches a network for weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import OsoraError

SAFE = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.md")
"""What is fetched unless asked otherwise: no pickled files."""


@dataclass(frozen=True)
class Published:
    """A repository that packaged recipes name, what they use of it, and whether they look for it in the hub's cache."""

    repository: str
    files: tuple[str, ...] = SAFE
    in_cache: bool = False


PUBLISHED = {
    "open-sora-v2": Published("hpcai-tech/Open-Sora-v2"),
    "flux1-dev": Published("black-forest-labs/FLUX.1-dev", ("flux1-dev.safetensors", "ae.safetensors")),
    "dc-ae": Published("hpcai-tech/Open-Sora-v2-Video-DC-AE"),
    "t5": Published("google/t5-v1_1-xxl", in_cache=True),
    "clip": Published("openai/clip-vit-large-patch14", in_cache=True),
}


def download(name: str, to: Path, files: Sequence[str] = (), revision: str | None = None) -> Path:
    """Fetch a repository, or its files that fit the globs, and return the folder; what is there already stays.

    `name` is one of `PUBLISHED`, whose files go to where packaged recipes look for them: right into `to`, or into the hub's
    cache; or a repository's OWNER/NAME, which gets a folder of its own below `to`. Raises OsoraError with the reason when the
    hub refuses.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if name not in PUBLISHED and "/" not in name:
        raise OsoraError(f"{name}: neither a repository (OWNER/NAME) nor one of {', '.join(PUBLISHED)}.")
    known = PUBLISHED.get(name)
    repository, safe = (known.repository, known.files) if known else (name, SAFE)
    folder = to if known else to / name.rsplit("/", 1)[1]
    try:
        fetched = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(files or safe),
            local_dir=None if known and known.in_cache else folder,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        raise OsoraError(
            f"cannot fetch {repository}: {reason}. Check the name and the network; a gated repository needs `hf auth login`."
        ) from error
    return Path(fetched)
