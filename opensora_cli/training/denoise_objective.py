"""Training a denoiser: captions and clips to conditions and noisy latents, rectified-flow loss.

Legend: B batch, C latent channels, T latent frames, H W latent pixels, N image tokens, D features, L text tokens.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from opensora_cli.data.loader import Batch
from opensora_cli.distributed.process import DTYPES
from opensora_cli.training.draws import Draws, seeded_init
from opensora_cli.training.objective import Adversary, Loss
from opensora_models.build import build_autoencoder, build_denoiser, build_text_encoders
from opensora_models.diffusion.condition import pick_conditions, training_condition
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids
from opensora_models.diffusion.rectified_flow import add_noise, draw_times, drop_text, flow_loss, velocity_target
from opensora_models.weights import load_weights
from schemas.recipes import TrainRecipe


class DenoiserObjective:
    """A trained denoiser beside a frozen autoencoder and frozen text encoders."""

    adversary: Adversary | None = None

    def __init__(self, recipe: TrainRecipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        dtype = DTYPES[recipe.dtype]
        with seeded_init(recipe.seed), torch.device(device):
            self.module: nn.Module = build_denoiser(recipe.model)
            self.ae = build_autoencoder(recipe.ae)
        if recipe.model.from_pretrained:
            load_weights(self.module, recipe.model.from_pretrained)
        if recipe.ae.from_pretrained:
            load_weights(self.ae, recipe.ae.from_pretrained)
        self.module.float().train()
        if recipe.memory.grad_checkpoint:
            self.module.set_grad_checkpointing(*recipe.memory.grad_ckpt_settings)
        self.ae.to(dtype).eval().requires_grad_(False)
        self.text = build_text_encoders(recipe.text, dtype, device)
        self._null_t5_1LD, self._null_clip_1D = self.text.t5([""]), self.text.clip([""])

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the mean squared error of the velocity; see `Objective`."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            inputs, target_BND = self.prepare(batch, draws)
        yield Loss(flow_loss(self.module(**inputs), target_BND))

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
        txt_BLD, y_vec_BD = self._encode_text(batch.text, draws)
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
        video_BCTHW = batch.video.to(DTYPES[self.recipe.dtype])
        posterior = draws.generator("posterior")

        def encode(x_BCTHW: Tensor) -> Tensor:
            return self.ae.encode(x_BCTHW, generator=posterior).float()

        if not self.recipe.model.cond_embed:
            return encode(video_BCTHW), None
        stride = self.ae.strides[0]
        latent_frames = self.ae.latent_size(*video_BCTHW.shape[2:])[0]
        uniform_B = torch.rand(len(video_BCTHW), generator=draws.generator("condition"))
        names = pick_conditions(self.recipe.condition.weights(), uniform_B, latent_frames, time_stride=stride)
        return training_condition(video_BCTHW, names, encode, time_stride=stride, causal=self.ae.causal)

    def _encode_text(self, captions: list[str], draws: Draws) -> tuple[Tensor, Tensor]:
        """Return T5 tokens and CLIP vectors, some of them replaced by those of the empty caption."""
        ratio = self.recipe.dropout_ratio
        drop_t5_B = torch.rand(len(captions), generator=draws.generator("drop t5"))
        drop_clip_B = torch.rand(len(captions), generator=draws.generator("drop clip"))
        return (
            drop_text(self.text.t5(captions), self._null_t5_1LD, drop_t5_B, ratio.t5),
            drop_text(self.text.clip(captions), self._null_clip_1D, drop_clip_B, ratio.clip),
        )
