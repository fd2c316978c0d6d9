"""How good a reconstruction is: PSNR and SSIM, clip by clip."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

RANGE = 2.0
"""Of pixels in [-1, 1]."""
WINDOW, DEVIATION = 11, 1.5
STABLE_MEAN, STABLE_VARIANCE = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2


def psnr(x_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """Return each clip's peak signal-to-noise ratio in dB, (B,), for pixels in [-1, 1]; equal clips give 126 dB."""
    error_B = (x_BCTHW.float() - target_BCTHW.float()).square().mean(dim=(1, 2, 3, 4)).clamp(min=1e-12)
    return 10 * (RANGE**2 / error_B).log10()


def ssim(x_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """Return each clip's structural similarity, (B,), the mean over frames and channels, for pixels in [-1, 1].

    Gaussian window of 11 pixels, whole windows only; smaller pictures have a smaller window (Wang et al. 2004, section III.B).
    """
    batch = len(x_BCTHW)
    x, y = (rearrange(clip.float(), "b c t h w -> (b c t) 1 h w") for clip in (x_BCTHW, target_BCTHW))
    window = _gaussian(min(WINDOW, *x.shape[-2:]), x.device)
    mean_x, mean_y = _blurred(x, window), _blurred(y, window)
    variance_x = _blurred(x * x, window) - mean_x**2
    variance_y = _blurred(y * y, window) - mean_y**2
    covariance = _blurred(x * y, window) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + STABLE_MEAN) / (mean_x**2 + mean_y**2 + STABLE_MEAN)
    structure = (2 * covariance + STABLE_VARIANCE) / (variance_x + variance_y + STABLE_VARIANCE)
    return (luminance * structure).view(batch, -1).mean(dim=1)


def _gaussian(size: int, device: torch.device) -> Tensor:
    places = torch.arange(size, device=device) - (size - 1) / 2
    weights = torch.exp(-(places**2) / (2 * DEVIATION**2))
    return weights / weights.sum()


def _blurred(x_N1HW: Tensor, window: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x_N1HW, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
