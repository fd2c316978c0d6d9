"""Fetching published weights from the Hugging Face hub: the only place in osora that reaches a network for weights."""

from collections.abc import Sequence
from pathlib import Path

from schemas.errors import OsoraError

PUBLISHED = {
    "open-sora-v2": "hpcai-tech/Open-Sora-v2",
    "flux1-dev": "black-forest-labs/FLUX.1-dev",
    "dc-ae": "hpcai-tech/Open-Sora-v2-Video-DC-AE",
    "t5": "google/t5-v1_1-xxl",
    "clip": "openai/clip-vit-large-patch14",
}
"""Short name -> repository, for what the packaged recipes name."""
SAFE = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.md")
"""What is fetched unless asked otherwise: no pickled files."""


def download(name: str, to: Path, files: Sequence[str] = (), revision: str | None = None) -> Path:
    """Fetch a repository, or its files that fit the globs, below `to` and return the folder; what is there already stays.

    `name` is one of `PUBLISHED` or a repository's OWNER/NAME. Raises OsoraError with the reason when the hub refuses.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repository = PUBLISHED.get(name, name)
    if "/" not in repository:
        raise OsoraError(f"{name}: neither a repository (OWNER/NAME) nor one of {', '.join(PUBLISHED)}.")
    try:
        fetched = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(files or SAFE),
            local_dir=to / repository.rsplit("/", 1)[1],
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        raise OsoraError(
            f"cannot fetch {repository}: {reason}. Check the name and the network; a gated repository needs `hf auth login`."
        ) from error
    return Path(fetched)
