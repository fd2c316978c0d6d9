"""Training a denoiser of latents (Open-Sora 1.x): a caption or a class, and clips whose frames may be given.

Legend: B batch, C latent channels, T latent frames, H W latent pixels.
"""

import torch
from torch import Tensor

from opensora_cli.data.cache.inputs import CachedInputs
from opensora_cli.data.loader import Batch
from opensora_cli.training.denoise_objective import DenoiserObjective, Encoded, Noised, Tensors
from opensora_cli.training.draws import Draws
from opensora_models.conditions import PixelSize, clip_conditions, conditions_of, text_conditions
from opensora_models.diffusion.build import build_process
from opensora_models.diffusion.frame_masks import draw_frame_masks
from opensora_models.diffusion.process import ClipSize
from schemas.denoiser import LatentDenoiser
from schemas.recipes import TrainRecipe


class LatentObjective(DenoiserObjective):
    """The loss of the recipe's diffusion process over the frames that are not given."""

    def __init__(self, recipe: TrainRecipe, device: torch.device, cached: CachedInputs | None = None) -> None:
        super().__init__(recipe, device, cached)
        assert isinstance(recipe.model, LatentDenoiser)
        self.config = recipe.model
        self.process = build_process(recipe.diffusion)
        self.conditions = conditions_of(self.module)

    def draw_times(self, draws: Draws, encoded: Encoded) -> Tensor:
        """Draw times as the process does for clips of this size."""
        return self.process.draw_times(draws.generator("times"), len(encoded.latents), self._size(encoded)).to(
            self.device
        )

    def fixed_times(self, share: float, batch: int) -> Tensor:
        """Return that share of the process's time of pure noise."""
        return torch.full((batch,), share * self.process.noise_time, device=self.device)

    def encode(self, batch: Batch, draws: Draws, *, drop_captions: bool = True) -> Encoded:
        """Return clean latents, the text, which rows go without it (`drop_B`), and which frames are made (`x_mask_BT`)."""
        posterior, cached = draws.generator("posterior"), batch.latents
        moments = cached.moments if cached else self._moments(self._pixels(batch))
        x_0_BCTHW = self.ae.latents(moments, generator=posterior).float()
        size, frames = len(batch.rows), x_0_BCTHW.shape[2]
        given = clip_conditions(self._pixels_of(batch, x_0_BCTHW), batch.fps, self.device)
        if drop_captions and self.config.class_dropout_prob:
            dropped_B = torch.rand(size, generator=draws.generator("drop text")) < self.config.class_dropout_prob
            given["drop_B"] = dropped_B.to(self.device)
        if ratios := self.recipe.mask_ratios.ratios():
            made_BT = draw_frame_masks(ratios, size, frames, draws.generator("frames"))
            given["x_mask_BT"] = made_BT.to(self.device)
        return Encoded(x_0_BCTHW, batch.features or self.features(batch.text), given)

    def noised(self, encoded: Encoded, t_B: Tensor, draws: Draws) -> Noised:
        """Return the denoiser's inputs at the times `t_B`, and what its process compares the answer with."""
        x_0_BCTHW, made_BT = encoded.latents, encoded.given.get("x_mask_BT")
        noise_BCTHW = torch.randn(x_0_BCTHW.shape, generator=draws.generator("noise")).to(self.device)
        x_t_BCTHW = self.process.add_noise(x_0_BCTHW, noise_BCTHW, t_B, made_BT)
        known = {**encoded.given, **text_conditions(encoded.text)}
        inputs = {name: known[name] for name in self.conditions & known.keys()}
        truth = {"x_0": x_0_BCTHW, "x_t": x_t_BCTHW, "noise": noise_BCTHW, "t": t_B}
        if made_BT is not None:
            truth["made"] = made_BT
        return Noised({"x_BCTHW": x_t_BCTHW, "timesteps_B": t_B, **inputs}, truth)

    def judge(self, out: Tensor, truth: Tensors) -> Tensor:
        """Return the process's loss, the mean over the items."""
        clean, noisy, noise, t_B = (truth[name] for name in ("x_0", "x_t", "noise", "t"))
        return self.process.losses(out, clean, noisy, noise, t_B, truth.get("made")).mean()

    def _pixels_of(self, batch: Batch, x_0_BCTHW: Tensor) -> PixelSize:
        """Return the size of a batch's clips; cached ones have no pixels with them."""
        if not batch.latents:
            return PixelSize(*batch.video.shape[2:])
        _, rows, columns = self.ae.strides
        return PixelSize(batch.bucket.frames, x_0_BCTHW.shape[3] * rows, x_0_BCTHW.shape[4] * columns)

    def _size(self, encoded: Encoded) -> ClipSize:
        frames, height, width = (int(encoded.given[name][0]) for name in ("num_frames_B", "height_B", "width_B"))
        latent_frames, rows, columns = encoded.latents.shape[2:]
        return ClipSize(frames, height, width, latent_frames, rows * columns // self.config.patch_side**2)
