"""`osora vae-stats`: mean and deviation of raw latents, and the scale and shift that make them a unit Gaussian."""

from collections.abc import Iterable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from opensora_cli.distributed.process import DTYPES, pick_device
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.progress import JobProgress
from opensora_cli.reconstruction.clips import open_clips
from opensora_cli.sampling.weights import find_weights
from opensora_cli.supported import check_supported
from opensora_cli.training.draws import keyed_generator
from schemas.autoencoder import AutoencoderConfig, DCAEConfig, OpenSoraVAEConfig, VAETemporalConfig
from schemas.autoencoder.open_sora_vae import ByChannel
from schemas.errors import OsoraError
from schemas.recipes import VaeStatsRecipe
from schemas.resolve import Resolved


class RunningMoments:
    """Mean and variance of each channel of latents that come batch by batch; float64, two numbers a channel.

    Batches are put together as in Chan, Golub and LeVeque 1979, so that a large mean costs no precision.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        """Latent pixels of each channel so far."""
        self.mean_C = torch.zeros(channels, dtype=torch.float64)
        self._squares_C = torch.zeros(channels, dtype=torch.float64)

    def add(self, z_BCTHW: Tensor) -> None:
        """Take in a batch of latents."""
        values_CN = z_BCTHW.detach().cpu().double().transpose(0, 1).flatten(1)
        count = values_CN.shape[1]
        mean_C = values_CN.mean(dim=1)
        total = self.count + count
        step_C = mean_C - self.mean_C
        self._squares_C += (values_CN - mean_C[:, None]).square().sum(dim=1) + step_C**2 * (self.count * count / total)
        self.mean_C += step_C * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The variance of each channel (of the latents seen, not an estimate for others)."""
        return self._squares_C / self.count

    @property
    def overall(self) -> tuple[float, float]:
        """Mean and standard deviation of all channels together."""
        mean = self.mean_C.mean()
        variance = self.variance.mean() + (self.mean_C - mean).square().mean()
        return float(mean), float(variance.sqrt())


def raw_latents(config: AutoencoderConfig, z_BCTHW: Tensor) -> Tensor:
    """Return latents as they were before the recipe's scale and shift."""
    z_BCTHW = z_BCTHW.double()
    match config:
        case DCAEConfig():
            return z_BCTHW * config.scaling_factor
        case OpenSoraVAEConfig():
            return z_BCTHW * _by_channel(config.scale) + _by_channel(config.shift)
        case VAETemporalConfig():
            return z_BCTHW
        case _:
            return z_BCTHW / config.scale_factor + config.shift_factor


def _by_channel(values: ByChannel) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1, 1)


def scaling_lines(config: AutoencoderConfig, moments: RunningMoments) -> list[str]:
    """Return the lines of a recipe that give latents unit deviation and, where the family has a shift, mean zero.

    Of each channel by itself, where the family can; of none, where it has no scale.
    """
    mean, deviation = moments.overall
    match config:
        case DCAEConfig():
            return ["[ae]", f"scaling_factor = {deviation:.6g}"]
        case OpenSoraVAEConfig():
            means, deviations = moments.mean_C.tolist(), moments.variance.sqrt().tolist()
            return ["[ae]", f"shift = {_row(means)}", f"scale = {_row(deviations)}"]
        case VAETemporalConfig():
            return []
        case _:
            return ["[ae]", f"scale_factor = {1 / deviation:.6g}", f"shift_factor = {mean:.6g}"]


def _row(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:.6f}' for value in values)}]"


def run_statistics(resolved: Resolved, *, console: Console, ema: bool = False) -> RunningMoments:
    """Encode a recipe's clips, show the latents' moments by channel, and print the lines for a recipe.

    Latents are drawn as in training. Raises OsoraError, before any model is built, for whatever is wrong.
    """
    recipe = resolved.recipe
    assert isinstance(recipe, VaeStatsRecipe)
    check_supported(recipe)
    device = pick_device(recipe.device)
    if recipe.ae.from_pretrained is None:
        raise OsoraError("ae.from_pretrained is not set: the latents of random weights say nothing. Name the weights.")
    weights = find_weights(recipe.ae.from_pretrained, "ae.from_pretrained", ema=ema)
    loader = open_clips(recipe, console, device)
    autoencoder = frozen_autoencoder(recipe.ae, weights, seed=recipe.seed, dtype=DTYPES[recipe.dtype], device=device)
    moments = RunningMoments(autoencoder.latent_channels)
    wanted = min(recipe.num_samples or loader.plan(0).used_rows, loader.plan(0).used_rows)
    done = 0
    with JobProgress("measuring latents", wanted, console=console) as progress, torch.no_grad():
        for number, batch in enumerate(loader.epoch(0)):
            for row, path, reason in batch.bad:
                progress.note(f"row {row} was skipped: {path}: {reason}")
            video_BCTHW = batch.video[: wanted - done].to(device, DTYPES[recipe.dtype])
            generator = keyed_generator("posterior", recipe.seed, number)
            moments.add(raw_latents(recipe.ae, autoencoder.encode(video_BCTHW, generator)))
            done += len(video_BCTHW)
            progress.advance(steps=len(video_BCTHW))
            if done == wanted:
                break
    console.print(as_table(moments))
    for line in scaling_lines(recipe.ae, moments):
        console.print(line, markup=False, highlight=False)
    return moments


def as_table(moments: RunningMoments) -> Table:
    """Return mean and deviation of every channel, and of all together."""
    table = Table(title=f"raw latents, {moments.count:,} of each channel")
    for name in ("channel", "mean", "deviation"):
        table.add_column(name, justify="right")
    for channel, (mean, variance) in enumerate(zip(moments.mean_C.tolist(), moments.variance.tolist(), strict=True)):
        table.add_row(str(channel), f"{mean:.4f}", f"{variance**0.5:.4f}")
    table.add_section()
    table.add_row("all", *(f"{value:.4f}" for value in moments.overall))
    return table
