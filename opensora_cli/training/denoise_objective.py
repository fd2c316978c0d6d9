"""Training a denoiser: captions and clips to conditions and noisy latents, rectified-flow loss.

Legend: B batch, C latent channels, T latent frames, H W latent pixels, N image tokens, D features, L text tokens.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from opensora_cli.data.cache.inputs import CachedInputs, CachedText
from opensora_cli.data.loader import Batch
from opensora_cli.distributed.colossal import shard_t5
from opensora_cli.distributed.process import DTYPES
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.training.draws import Draws, seeded_init
from opensora_cli.training.objective import Adversary, Loss
from opensora_models.build import build_denoiser, build_text_encoders
from opensora_models.diffusion.condition import condition_of_latents, pick_conditions, training_condition
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids
from opensora_models.diffusion.rectified_flow import add_noise, draw_times, drop_text, flow_loss, velocity_target
from opensora_models.weights import load_weights
from schemas.recipes import TrainRecipe

if TYPE_CHECKING:
    from opensora_models.text.encoders import TextEncoders


class DenoiserObjective:
    """A trained denoiser beside a frozen autoencoder and frozen text encoders."""

    adversary: Adversary | None = None

    def __init__(self, recipe: TrainRecipe, device: torch.device, cached: CachedInputs | None = None) -> None:
        self.recipe = recipe
        self.device = device
        with seeded_init(recipe.seed), torch.device(device):
            self.module: nn.Module = build_denoiser(recipe.model)
        if recipe.model.from_pretrained:
            load_weights(self.module, recipe.model.from_pretrained, allow_missing=recipe.model.allow_missing)
        self.module.float().train()
        if recipe.memory.grad_checkpoint:
            self.module.set_grad_checkpointing(*recipe.memory.grad_ckpt_settings)
        self.ae = frozen_autoencoder(
            recipe.ae,
            recipe.ae.from_pretrained,
            seed=recipe.seed,
            dtype=DTYPES[recipe.dtype],
            device=device if recipe.dataset.encodes_clips else torch.device("meta"),
        )
        self.text: TextEncoders | None = None
        if recipe.dataset.encodes_text:
            self.text = build_text_encoders(recipe.text, DTYPES[recipe.dtype], device)
            if recipe.parallel.engine == "colossalai" and recipe.text.t5.shardformer:
                self.text.t5.model = shard_t5(self.text.t5.model)
        null = cached.captions([""]).to(device) if cached and cached.text else self._features([""])
        self._null_t5_1LD, self._null_clip_1D = null.t5, null.clip
        self._counts_hits = cached is not None and cached.encode_misses

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the mean squared error of the velocity; see `Objective`."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            inputs, target_BND = self.prepare(batch, draws)
        yield Loss(flow_loss(self.module(**inputs), target_BND), self._hits(batch))

    def prepare(self, batch: Batch, draws: Draws) -> tuple[dict[str, Tensor], Tensor]:
        """Return the denoiser's inputs and the velocity it should give, all on the device."""
        recipe, patch = self.recipe, self.recipe.model.patch_size
        x_0_BCTHW, cond_BCTHW = self._encode(batch, draws)
        size, (frames, height, width) = len(x_0_BCTHW), x_0_BCTHW.shape[2:]
        t_B = draw_times(
            draws.generator("times"), size, latent_frames=frames, height=height, width=width, patch_size=patch
        ).to(self.device)
        x_0_BND = pack(x_0_BCTHW, patch)
        noise_BND = torch.randn(x_0_BND.shape, generator=draws.generator("noise")).to(self.device)
        txt_BLD, y_vec_BD = self._encode_text(batch, draws)
        inputs = {
            "img_BND": add_noise(x_0_BND, noise_BND, t_B, recipe.diffusion.sigma_min),
            "img_ids_BN3": image_ids(frames, height, width, patch, batch=size, device=self.device),
            "txt_BLD": txt_BLD,
            "txt_ids_BL3": text_ids(txt_BLD.shape[1], batch=size, device=self.device),
            "timesteps_B": t_B,
            "y_vec_BD": y_vec_BD,
        }
        if cond_BCTHW is not None:
            inputs["cond_BND"] = pack(cond_BCTHW, patch)
        if recipe.model.guidance_embed:
            inputs["guidance_B"] = torch.full((size,), recipe.diffusion.guidance, device=self.device)
        return inputs, velocity_target(x_0_BND, noise_BND, recipe.diffusion.sigma_min)

    def _encode(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Return fp32 latents, and the visual condition if the denoiser takes one."""
        posterior, cached = draws.generator("posterior"), batch.latents

        def latents(moments_BMTHW: Tensor) -> Tensor:
            return self.ae.latents(moments_BMTHW, generator=posterior).float()

        def encode(x_BCTHW: Tensor) -> Tensor:
            return latents(self.ae.moments(x_BCTHW))

        video_BCTHW = batch.video.to(DTYPES[self.recipe.dtype])
        if not self.recipe.model.cond_embed:
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

    def _encode_text(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return T5 tokens and CLIP vectors, some of them replaced by those of the empty caption."""
        ratio = self.recipe.dropout_ratio
        drop_t5_B = torch.rand(len(batch.text), generator=draws.generator("drop t5"))
        drop_clip_B = torch.rand(len(batch.text), generator=draws.generator("drop clip"))
        features = batch.features or self._features(batch.text)
        return (
            drop_text(features.t5, self._null_t5_1LD, drop_t5_B, ratio.t5),
            drop_text(features.clip, self._null_clip_1D, drop_clip_B, ratio.clip),
        )

    def _features(self, captions: list[str]) -> CachedText:
        assert self.text is not None, "captions are cached, and this batch came without their features"
        return CachedText(self.text.t5(captions), self.text.clip(captions))

    def _hits(self, batch: Batch) -> dict[str, Tensor]:
        """Return how much of the batch came from caches, where the rest is encoded: a run shows what it does."""
        if not self._counts_hits:
            return {}
        parts = {"latents_cached": batch.latents, "text_cached": batch.features}
        return {name: torch.tensor(float(part is not None), device=self.device) for name, part in parts.items()}
