"""Training a denoiser of packed latents (MMDiT): T5's tokens and CLIP's vector, a visual condition beside the clip.

Legend: B batch, C latent channels, M moments, T latent frames, H W latent pixels, N image tokens, L text tokens, D features.
"""

import torch
from torch import Tensor

from opensora_cli.data.cache.inputs import CachedInputs
from opensora_cli.data.loader import Batch
from opensora_cli.training.denoise_objective import DenoiserObjective, Encoded, Noised, Tensors
from opensora_cli.training.draws import Draws
from opensora_models.diffusion.condition import condition_of_latents, pick_conditions, training_condition
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids
from opensora_models.diffusion.rectified_flow import add_noise, draw_times, drop_text, flow_loss, velocity_target
from opensora_models.text.features import TextFeatures
from schemas.denoiser import MMDiTConfig
from schemas.diffusion import DiffusionConfig
from schemas.recipes import TrainRecipe


class TokenObjective(DenoiserObjective):
    """Rectified flow over tokens: the mean squared error of the velocity."""

    def __init__(self, recipe: TrainRecipe, device: torch.device, cached: CachedInputs | None = None) -> None:
        super().__init__(recipe, device, cached)
        assert isinstance(recipe.model, MMDiTConfig) and isinstance(recipe.diffusion, DiffusionConfig)
        self.config = recipe.model
        self.diffusion = recipe.diffusion
        self._null = self._empty_caption()

    def draw_times(self, draws: Draws, encoded: Encoded) -> Tensor:
        """Draw logit-normal times, shifted as sampling shifts a clip of this size."""
        size, (frames, height, width) = len(encoded.latents), encoded.latents.shape[2:]
        extent = {"latent_frames": frames, "height": height, "width": width}
        return draw_times(draws.generator("times"), size, **extent, patch_size=self.config.patch_size).to(self.device)

    def fixed_times(self, share: float, batch: int) -> Tensor:
        """Return the share: time 1 is noise."""
        return torch.full((batch,), share, device=self.device)

    def encode(self, batch: Batch, draws: Draws, *, drop_captions: bool = True) -> Encoded:
        """Return clean latents, the visual `condition` (B, 1 + C, T, H, W) if the denoiser takes one, and the text."""
        x_0_BCTHW, cond_BCTHW = self._encode(batch, draws)
        features = batch.features or self.features(batch.text)
        text = self._dropped(features, draws) if drop_captions else features
        return Encoded(x_0_BCTHW, text, {} if cond_BCTHW is None else {"condition": cond_BCTHW})

    def noised(self, encoded: Encoded, t_B: Tensor, draws: Draws) -> Noised:
        """Return the denoiser's inputs at the times `t_B`, and the velocity it should give."""
        config, patch, tokens_BLD = self.config, self.config.patch_size, encoded.text["t5"]
        size, (frames, height, width) = len(encoded.latents), encoded.latents.shape[2:]
        x_0_BND = pack(encoded.latents, patch)
        noise_BND = torch.randn(x_0_BND.shape, generator=draws.generator("noise")).to(self.device)
        inputs = {
            "img_BND": add_noise(x_0_BND, noise_BND, t_B, self.diffusion.sigma_min),
            "img_ids_BN3": image_ids(frames, height, width, patch, batch=size, device=self.device),
            "txt_BLD": tokens_BLD,
            "txt_ids_BL3": text_ids(tokens_BLD.shape[1], batch=size, device=self.device),
            "timesteps_B": t_B,
            "y_vec_BD": encoded.text["clip"],
        }
        if "condition" in encoded.given:
            inputs["cond_BND"] = pack(encoded.given["condition"], patch)
        if config.guidance_embed:
            inputs["guidance_B"] = torch.full((size,), self.diffusion.guidance, device=self.device)
        return Noised(inputs, {"velocity": velocity_target(x_0_BND, noise_BND, self.diffusion.sigma_min)})

    def judge(self, out: Tensor, truth: Tensors) -> Tensor:
        """Return the mean squared error of the velocity."""
        return flow_loss(out, truth["velocity"])

    def _encode(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Return fp32 latents, and the visual condition if the denoiser takes one."""
        posterior, cached = draws.generator("posterior"), batch.latents

        def latents(moments_BMTHW: Tensor) -> Tensor:
            return self.ae.latents(moments_BMTHW, generator=posterior).float()

        def encode(x_BCTHW: Tensor) -> Tensor:
            return latents(self._moments(x_BCTHW))

        video_BCTHW = self._pixels(batch)
        if not self.config.cond_embed:
            return latents(cached.moments) if cached else encode(video_BCTHW), None
        stride, causal = self.ae.strides[0], self.ae.causal
        latent_frames = cached.moments.shape[2] if cached else self.ae.latent_size(*video_BCTHW.shape[2:])[0]
        uniform_B = torch.rand(len(batch.rows), generator=draws.generator("condition"))
        names = pick_conditions(self.recipe.condition.weights(), uniform_B, latent_frames, time_stride=stride)
        if cached:
            return condition_of_latents(
                latents(cached.moments),
                names,
                lambda cuts: latents(cached.of_cuts(cuts)),
                time_stride=stride,
                causal=causal,
            )
        return training_condition(video_BCTHW, names, encode, time_stride=stride, causal=causal)

    def _dropped(self, features: TextFeatures, draws: Draws) -> TextFeatures:
        """Return the features, some of T5's tokens and some of CLIP's vectors replaced by those of the empty caption."""
        ratio, size = self.recipe.dropout_ratio, len(features)
        drop_t5_B = torch.rand(size, generator=draws.generator("drop t5"))
        drop_clip_B = torch.rand(size, generator=draws.generator("drop clip"))
        t5_BLD = drop_text(features["t5"], self._null["t5"], drop_t5_B, ratio.t5)
        return TextFeatures(
            {"t5": t5_BLD, "clip": drop_text(features["clip"], self._null["clip"], drop_clip_B, ratio.clip)}
        )
