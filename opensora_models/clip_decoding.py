"""Latents to clips of a known length."""

from typing import Protocol

from torch import Tensor

from opensora_models.open_sora_vae.model import OpenSoraVAE
from opensora_models.open_sora_vae.temporal import VAETemporal


class Decodes(Protocol):
    """What is used of an autoencoder."""

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        """Return pixels."""
        ...


def decode_clip(autoencoder: Decodes, z_BCTHW: Tensor, num_frames: int) -> Tensor:
    """Return the first `num_frames` frames of what latents stand for.

    Families that fill clips up in front have to know the number, or the frames that filled up would be among them.
    Raises OsoraError where such a family makes another number of latents of so many frames.
    """
    if isinstance(autoencoder, OpenSoraVAE | VAETemporal):
        return autoencoder.decode(z_BCTHW, num_frames)
    return autoencoder.decode(z_BCTHW)[:, :, :num_frames]
