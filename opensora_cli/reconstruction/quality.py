"""Reconstructing a batch and measuring it, clip by clip."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from opensora_cli.sampling.generate import Autoencoder
from opensora_cli.sampling.saving import Frames, to_frames
from opensora_models.clip_decoding import decode_clip
from opensora_models.quality import psnr, ssim
from opensora_models.vae_loss.lpips import Lpips


@dataclass(frozen=True)
class Quality:
    """PSNR in dB, SSIM, and LPIPS where its weights are at hand."""

    psnr_db: float
    ssim: float
    lpips: float | None

    def metrics(self) -> dict[str, float]:
        """Return what was measured, by name."""
        values = {"psnr_db": self.psnr_db, "ssim": self.ssim, "lpips": self.lpips}
        return {name: value for name, value in values.items() if value is not None}


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, video_BCTHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Return clips encoded to the posterior's mean and decoded again, float32, clamped to [-1, 1]."""
    latents_BCTHW = autoencoder.encode(video_BCTHW.to(dtype))
    reconstruction_BCTHW = decode_clip(autoencoder, latents_BCTHW, video_BCTHW.shape[2])
    return reconstruction_BCTHW.float().clamp(-1, 1)


@torch.no_grad()
def measure(reconstruction_BCTHW: Tensor, video_BCTHW: Tensor, lpips: Lpips | None) -> list[Quality]:
    """Return the quality of each clip; LPIPS is the mean over its frames."""
    distances: list[float | None] = [None] * len(video_BCTHW)
    if lpips is not None:
        pairs = zip(reconstruction_BCTHW, video_BCTHW, strict=True)
        distances = [_lpips(lpips, clip_CTHW, original_CTHW) for clip_CTHW, original_CTHW in pairs]
    ratios = psnr(reconstruction_BCTHW, video_BCTHW).tolist()
    similarities = ssim(reconstruction_BCTHW, video_BCTHW).tolist()
    return [Quality(*values) for values in zip(ratios, similarities, distances, strict=True)]


def _lpips(lpips: Lpips, clip_CTHW: Tensor, original_CTHW: Tensor) -> float:
    """Go frame by frame: VGG16's features of a long clip would not fit."""
    frames = zip(clip_CTHW.unbind(1), original_CTHW.unbind(1), strict=True)
    return float(torch.cat([lpips(one_CHW[None], other_CHW[None]) for one_CHW, other_CHW in frames]).mean())


def mean_quality(qualities: Iterable[Quality]) -> Quality:
    """Return the mean over clips. Raises ValueError without any."""
    found = list(qualities)
    if not found:
        raise ValueError("the mean of no clips")
    distances = [one.lpips for one in found if one.lpips is not None]
    return Quality(
        psnr_db=sum(one.psnr_db for one in found) / len(found),
        ssim=sum(one.ssim for one in found) / len(found),
        lpips=sum(distances) / len(distances) if distances else None,
    )


def side_by_side(video_CTHW: Tensor, reconstruction_CTHW: Tensor) -> Tensor:
    """Return a clip (3, T, H, 2W) with the original on the left and the reconstruction on the right."""
    return torch.cat([video_CTHW.float(), reconstruction_CTHW.float()], dim=3)


def grid(video_CTHW: Tensor, reconstruction_CTHW: Tensor, columns: int) -> Frames:
    """Return one picture (H, W, 3): evenly spaced frames in a row, originals above reconstructions."""
    frames = video_CTHW.shape[1]
    picked = [round(place) for place in np.linspace(0, frames - 1, min(columns, frames)).tolist()]
    pair = torch.stack([video_CTHW[:, picked].cpu().float(), reconstruction_CTHW[:, picked].cpu().float()])
    picture: Frames = to_frames(rearrange(pair, "pair c t h w -> c 1 (pair h) (t w)"))[0]
    return picture
