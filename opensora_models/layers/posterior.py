"""The Gaussian that the encoder describes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals over raw latents, before shift and scale; `moments` holds means, then log variances."""

    moments: Tensor  # (B, 2 * latent_channels, t, h, w)

    @property
    def mean(self) -> Tensor:
        """The means (B, latent_channels, t, h, w)."""
        return self.moments.chunk(2, 1)[0]

    @property
    def logvar(self) -> Tensor:
        """The log variances, kept within [-30, 20] so that their exponentials stay finite."""
        return self.moments.chunk(2, 1)[1].clamp(-30.0, 20.0)

    @property
    def std(self) -> Tensor:
        """The standard deviations."""
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw latents; the noise is drawn in fp32 where the generator lives, so that devices agree on it."""
        mean = self.mean
        noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return mean + self.std * noise.to(mean)

    def kl(self) -> Tensor:
        """Return the divergence from a unit normal for each item of the batch (B,), summed over all else (VAE, appendix B)."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=(1, 2, 3, 4))
