"""Training a denoiser: captions and clips to conditions and noisy latents, rectified-flow loss.

Legend: B batch, C latent channels, T latent frames, H W latent pixels, N image tokens, D features, L text tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from opensora_cli.data.cache.inputs import CachedInputs, CachedText
from opensora_cli.data.loader import Batch
from opensora_cli.distributed.colossal import shard_t5
from opensora_cli.distributed.process import DTYPES
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.training.clock import DeviceClock
from opensora_cli.training.draws import Draws
from opensora_cli.training.objective import Adversary, Loss
from opensora_cli.training.trained_denoiser import trained_denoiser
from opensora_models.build import Autoencoder, build_text_encoders
from opensora_models.diffusion.condition import condition_of_latents, pick_conditions, training_condition
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids
from opensora_models.diffusion.rectified_flow import add_noise, draw_times, drop_text, flow_loss, velocity_target
from opensora_models.float8_training import train_in_float8
from opensora_models.layers.recompute import Recompute
from opensora_models.lora import set_dropout_key
from schemas.recipes import TrainRecipe

if TYPE_CHECKING:
    from opensora_models.text.encoders import TextEncoders


@dataclass(frozen=True)
class Encoded:
    """What frozen models make of a batch: clean `latents` (B, C, T, H, W), the visual `condition` (B, 1 + C, T, H, W) if
    the denoiser takes one, T5's `tokens` (B, L, D) and CLIP's `vector` (B, D).
    """

    latents: Tensor
    condition: Tensor | None
    tokens: Tensor
    vector: Tensor

    def to(self, device: torch.device) -> "Encoded":
        """Return it on a device."""
        condition = None if self.condition is None else self.condition.to(device)
        return Encoded(self.latents.to(device), condition, self.tokens.to(device), self.vector.to(device))


class DenoiserObjective:
    """A trained denoiser beside a frozen autoencoder and frozen text encoders."""

    adversary: Adversary | None = None

    def __init__(self, recipe: TrainRecipe, device: torch.device, cached: CachedInputs | None = None) -> None:
        self.recipe = recipe
        self.device = device
        self.encoding: DeviceClock | None = DeviceClock(device)
        module = trained_denoiser(recipe, device)
        self.module: nn.Module = module.train()
        memory = recipe.memory
        if memory.fp8_linear:
            train_in_float8(self.module, device)
        if memory.grad_checkpoint:
            module.set_grad_checkpointing(*memory.grad_ckpt_settings, memory.grad_ckpt_every, Recompute.of(memory))
        self.ae = self._frozen_autoencoder(device if recipe.dataset.encodes_clips else torch.device("meta"))
        self.text: TextEncoders | None = None
        if recipe.dataset.encodes_text:
            self.text = build_text_encoders(recipe.text, DTYPES[recipe.dtype], device)
            if recipe.parallel.engine == "colossalai" and recipe.text.t5.shardformer:
                self.text.t5.model = shard_t5(self.text.t5.model)
        null = cached.captions([""]).to(device) if cached and cached.text else self.features([""])
        self._null_t5_1LD, self._null_clip_1D = null.t5, null.clip
        self._counts_hits = cached is not None and cached.encode_misses

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the mean squared error of the velocity; see `Objective`."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            inputs, target_BND = self.prepare(batch, draws)
        set_dropout_key(self.module, draws.generator("adapter dropout").initial_seed())
        yield Loss(flow_loss(self.module(**inputs), target_BND), self._hits(batch))

    def losses_in_parts(self, batch: Batch, draws: Draws, parts: int) -> Iterator[Loss]:
        """Yield the same loss as shares of it, one for so many parts of the batch; together they are the whole."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            inputs, target_BND = self.prepare(batch, draws)
        metrics = self._hits(batch)
        for rows in torch.arange(len(target_BND)).tensor_split(parts):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            share = len(rows) / len(target_BND)
            of_part = {name: tensor[part] for name, tensor in inputs.items()}
            yield Loss(share * flow_loss(self.module(**of_part), target_BND[part]), metrics)
            metrics = {}

    def prepare(self, batch: Batch, draws: Draws) -> tuple[dict[str, Tensor], Tensor]:
        """Return the denoiser's inputs and the velocity it should give, all on the device."""
        assert self.encoding is not None
        with self.encoding.running():
            encoded = self.encode(batch, draws)
        size, (frames, height, width) = len(encoded.latents), encoded.latents.shape[2:]
        patch = self.recipe.model.patch_size
        t_B = draw_times(
            draws.generator("times"), size, latent_frames=frames, height=height, width=width, patch_size=patch
        ).to(self.device)
        return self.noised(encoded, t_B, draws)

    def encode(self, batch: Batch, draws: Draws, *, drop_captions: bool = True) -> Encoded:
        """Return what does not depend on the time; captions are left out as often as the recipe says, or never."""
        x_0_BCTHW, cond_BCTHW = self._encode(batch, draws)
        features = batch.features or self.features(batch.text)
        txt_BLD, y_vec_BD = self._dropped(features, draws) if drop_captions else (features.t5, features.clip)
        return Encoded(x_0_BCTHW, cond_BCTHW, txt_BLD, y_vec_BD)

    def noised(self, encoded: Encoded, t_B: Tensor, draws: Draws) -> tuple[dict[str, Tensor], Tensor]:
        """Return the denoiser's inputs at the times `t_B`, and the velocity it should give."""
        recipe, patch = self.recipe, self.recipe.model.patch_size
        size, (frames, height, width) = len(encoded.latents), encoded.latents.shape[2:]
        x_0_BND = pack(encoded.latents, patch)
        noise_BND = torch.randn(x_0_BND.shape, generator=draws.generator("noise")).to(self.device)
        inputs = {
            "img_BND": add_noise(x_0_BND, noise_BND, t_B, recipe.diffusion.sigma_min),
            "img_ids_BN3": image_ids(frames, height, width, patch, batch=size, device=self.device),
            "txt_BLD": encoded.tokens,
            "txt_ids_BL3": text_ids(encoded.tokens.shape[1], batch=size, device=self.device),
            "timesteps_B": t_B,
            "y_vec_BD": encoded.vector,
        }
        if encoded.condition is not None:
            inputs["cond_BND"] = pack(encoded.condition, patch)
        if recipe.model.guidance_embed:
            inputs["guidance_B"] = torch.full((size,), recipe.diffusion.guidance, device=self.device)
        return inputs, velocity_target(x_0_BND, noise_BND, recipe.diffusion.sigma_min)

    @contextmanager
    def with_autoencoder(self) -> Iterator[None]:
        """Have the autoencoder's weights inside, also where a run from caches goes without them."""
        kept = self.ae
        if next(self.ae.parameters()).is_meta:
            self.ae = self._frozen_autoencoder(self.device)
        try:
            yield
        finally:
            self.ae = kept

    @contextmanager
    def with_text_encoders(self) -> Iterator[None]:
        """Have the text encoders inside, also where a run from caches goes without them."""
        kept = self.text
        if self.text is None:
            self.text = build_text_encoders(self.recipe.text, DTYPES[self.recipe.dtype], self.device)
        try:
            yield
        finally:
            self.text = kept

    def _frozen_autoencoder(self, device: torch.device) -> Autoencoder:
        recipe = self.recipe
        return frozen_autoencoder(
            recipe.ae, recipe.ae.from_pretrained, seed=recipe.seed, dtype=DTYPES[recipe.dtype], device=device
        )

    def _encode(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Return fp32 latents, and the visual condition if the denoiser takes one."""
        posterior, cached = draws.generator("posterior"), batch.latents

        def latents(moments_BMTHW: Tensor) -> Tensor:
            return self.ae.latents(moments_BMTHW, generator=posterior).float()

        def encode(x_BCTHW: Tensor) -> Tensor:
            return latents(self._moments(x_BCTHW))

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

    def _moments(self, x_BCTHW: Tensor) -> Tensor:
        """Encode clips; where memory runs out and the recipe allows it, each half by itself. Nothing is drawn here."""
        try:
            return self.ae.moments(x_BCTHW)
        except torch.OutOfMemoryError:
            if not self.recipe.memory.split_on_oom or len(x_BCTHW) == 1:
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return torch.cat([self._moments(half_BCTHW) for half_BCTHW in x_BCTHW.tensor_split(2)])

    def _dropped(self, features: CachedText, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return T5 tokens and CLIP vectors, some of them replaced by those of the empty caption."""
        ratio, size = self.recipe.dropout_ratio, len(features.clip)
        drop_t5_B = torch.rand(size, generator=draws.generator("drop t5"))
        drop_clip_B = torch.rand(size, generator=draws.generator("drop clip"))
        return (
            drop_text(features.t5, self._null_t5_1LD, drop_t5_B, ratio.t5),
            drop_text(features.clip, self._null_clip_1D, drop_clip_B, ratio.clip),
        )

    def features(self, captions: list[str]) -> CachedText:
        """Return what the text encoders make of captions."""
        assert self.text is not None, "captions are cached, and this batch came without their features"
        return CachedText(self.text.t5(captions), self.text.clip(captions))

    def _hits(self, batch: Batch) -> dict[str, Tensor]:
        """Return how much of the batch came from caches, where the rest is encoded: a run shows what it does."""
        if not self._counts_hits:
            return {}
        parts = {"latents_cached": batch.latents, "text_cached": batch.features}
        return {name: torch.tensor(float(part is not None), device=self.device) for name, part in parts.items()}
