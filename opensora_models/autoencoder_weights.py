"""Weights of an autoencoder: of a file, under whichever names its family is known by, or of its stages' files."""

from pathlib import Path

from torch import nn

from opensora_models.build import Autoencoder
from opensora_models.open_sora_vae.model import OpenSoraVAE
from opensora_models.weights import StateDict, fit_weights, read_weights


def load_autoencoder(ae: Autoencoder, path: str | Path | None) -> bool:
    """Load the weights at `path`, or without one those that the configuration's stages name; return whether there were any.

    Raises OsoraError where a file is missing, damaged, or does not fit.
    """
    if path is not None:
        _load(ae, path)
        return True
    if not isinstance(ae, OpenSoraVAE):
        return False
    stages = (
        (ae.spatial_vae.module, ae.config.vae_2d.from_pretrained),
        (ae.temporal_vae, ae.config.vae_temporal.from_pretrained),
    )
    named = [(module, source) for module, source in stages if source is not None]
    for module, source in named:
        _load(module, source)
    return bool(named)


def own_names(module: nn.Module, state: StateDict) -> StateDict:
    """Return the state under an autoencoder's own names, where its family is known by others too."""
    own_key = getattr(module, "own_key", str)
    return {own_key(key): tensor for key, tensor in state.items()}


def _load(module: nn.Module, path: str | Path) -> None:
    own = module.state_dict()
    decided = {key: own[key] for key in getattr(module, "from_config", ())}
    fit_weights(module, own_names(module, read_weights(path)) | decided, path)
