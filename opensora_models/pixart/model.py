"""The PixArt denoisers of Open-Sora 1.x: alpha (Chen et al. 2023), its multi-scale form, and Sigma (Chen et al. 2024)."""

from collections.abc import Mapping
from math import isqrt, prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from opensora_models.layers.embedders import CaptionEmbedder, SizeEmbedder, TimestepEmbedder
from opensora_models.layers.latent_attention import FinalLayer
from opensora_models.layers.latent_patches import PatchEmbed, patch_grid, unpatchify
from opensora_models.layers.position_tables import coordinates, sincos_1d, sincos_2d
from opensora_models.layers.published_weights import StateDict
from opensora_models.layers.recompute import Recompute
from opensora_models.layers.starting_weights import start_at_zero, start_linear, start_small
from opensora_models.layers.widths import check_widths
from opensora_models.pixart.blocks import Grid, PixArtBlock
from opensora_models.pixart.weights import COMPUTED_KEYS, LIKELY_CAUSES, from_published
from schemas.denoiser.pixart import PixArtConfig
from schemas.errors import OsoraError

SIZES = ("height_B", "width_B", "aspect_B")


class PixArt(nn.Module):
    """A transformer over all tokens of a clip that reads its text by cross attention; one network modulates all blocks.

    State-dict keys are those of the published checkpoints, without their position tables. Weights start as upstream's:
    no text gets through, and the output is zero. `conditions` of a model leave out the sizes unless it is `multi_scale`.
    """

    conditions: frozenset[str] = frozenset({"text_BLD", "text_mask_BL", "drop_B", *SIZES})
    computed_keys: ClassVar[tuple[str, ...]] = COMPUTED_KEYS
    likely_causes = LIKELY_CAUSES

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        check_widths(config.hidden_size, config.num_heads)
        _check_options(config)
        self.config = config
        dim = config.hidden_size
        self.x_embedder = PatchEmbed(config.in_channels, dim, config.patch_size)
        self.t_embedder = TimestepEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(config.caption_channels, dim, config.model_max_length)
        self.blocks = nn.ModuleList(_block(config, number) for number in range(config.depth))
        out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self.final_layer = FinalLayer(dim, prod(config.patch_size) * out_channels)
        self.csize_embedder = SizeEmbedder(dim // 3) if config.multi_scale else None
        self.ar_embedder = SizeEmbedder(dim // 3) if config.multi_scale else None
        if not config.multi_scale:
            self.conditions = self.conditions - set(SIZES)
        self.recompute = Recompute()
        self.recomputed = range(0)
        self._start()

    def as_own(self, state: Mapping[str, Tensor]) -> StateDict:
        """Return the weights of the published image models as this model's; the empty caption gets its length."""
        return from_published(state, self.config.model_max_length)

    @property
    def units(self) -> list[nn.Module]:
        """The blocks in order."""
        return list(self.blocks)

    def set_grad_checkpointing(self, first: int, second: int = 0, every: int = 1, how: Recompute | None = None) -> None:
        """Recompute activations in the backward pass: of the `first` blocks, every n-th. There is no second stack."""
        self.recompute = how or Recompute()
        self.recomputed = range(0, first, every)

    def forward(
        self,
        x_BCTHW: Tensor,
        timesteps_B: Tensor,
        text_BLD: Tensor,
        text_mask_BL: Tensor | None = None,
        drop_B: Tensor | None = None,
        height_B: Tensor | None = None,
        width_B: Tensor | None = None,
        aspect_B: Tensor | None = None,
    ) -> Tensor:
        """Return the noise, and with `pred_sigma` the variance's logits after it (B, C_out, T, H, W).

        Timesteps are 0..1000. Text tokens whose mask is false are as if they were not there; rows with `drop_B` true have
        the learned empty caption, under the same mask. A `multi_scale` model takes height and width in pixels, and
        height / width. Raises ValueError where a size is missing or superfluous.
        """
        time_BD = self.embed_time(timesteps_B, height_B, width_B, aspect_B)
        vectors_B6D = self.t_block(time_BD).unflatten(-1, (6, -1))
        text_BLD = self.y_embedder(text_BLD, drop_B)
        grid = patch_grid(x_BCTHW.shape[2:], self.config.patch_size)
        x_BTSD = self.x_embedder(x_BCTHW)
        x_BTSD = x_BTSD + self._positions(grid, x_BCTHW.device).to(x_BTSD.dtype)

        x_BND = x_BTSD.flatten(1, 2)
        for i, block in enumerate(self.blocks):
            if i in self.recomputed:
                x_BND = self.recompute(block, x_BND, text_BLD, vectors_B6D, text_mask_BL, grid)
            else:
                x_BND = block(x_BND, text_BLD, vectors_B6D, text_mask_BL, grid)

        out_BTSV = self.final_layer(x_BND.reshape(x_BTSD.shape), time_BD[:, None])
        return unpatchify(out_BTSV, self.config.patch_size, x_BCTHW.shape[2:])

    def embed_time(
        self, timesteps_B: Tensor, height_B: Tensor | None, width_B: Tensor | None, aspect_B: Tensor | None
    ) -> Tensor:
        """Return what modulates every block (B, D): time and, in a multi-scale model, the frame's size and shape."""
        time_BD = self.t_embedder(timesteps_B)
        sizes = [size_B for size_B in (height_B, width_B, aspect_B) if size_B is not None]
        if len(sizes) != (len(SIZES) if self.config.multi_scale else 0):
            needs = f"needs {', '.join(SIZES)}" if self.config.multi_scale else f"takes none of {', '.join(SIZES)}"
            raise ValueError(f"PixArt.forward: a model with `multi_scale = {self.config.multi_scale}` {needs}.")
        if self.csize_embedder is None or self.ar_embedder is None:
            return time_BD
        size_BD = self.csize_embedder(torch.stack(sizes[:2], 1))
        return time_BD + torch.cat([size_BD, self.ar_embedder(sizes[2][:, None])], -1)

    def _positions(self, grid: Grid, device: torch.device) -> Tensor:
        """Return the tables of space and time, added (T, S, D) or, without time, (S, D)."""
        config, (frames, rows, columns) = self.config, grid
        base = isqrt(rows * columns) if config.base_size == "auto" else config.base_size // config.patch_size[1]
        space_SD = sincos_2d(config.hidden_size, rows, columns, config.space_scale, base, device)
        if config.no_temporal_pos_emb:
            return space_SD
        return space_SD + sincos_1d(config.hidden_size, coordinates(frames, config.time_scale, device=device))[:, None]

    def _start(self) -> None:
        start_linear(self)
        start_small(self.t_block[1])
        start_at_zero(self.final_layer.linear, *(block.cross_attn.proj for block in self.blocks))
        if self.config.freeze == "text":
            for block in self.blocks:
                block.cross_attn.requires_grad_(False)


def _block(config: PixArtConfig, number: int) -> PixArtBlock:
    fewer = config.kv_compress_config
    compresses = number in fewer.kv_compress_layer and fewer.scale_factor > 1
    mlp_dim = int(config.hidden_size * config.mlp_ratio)
    return PixArtBlock(
        config.hidden_size,
        config.num_heads,
        mlp_dim,
        qk_norm=config.qk_norm,
        compression=fewer if compresses else None,
    )


def _check_options(config: PixArtConfig) -> None:
    if config.multi_scale and config.hidden_size % 3:
        raise OsoraError(
            f"model.hidden_size = {config.hidden_size} with model.multi_scale = true: height, width and shape of the frame "
            "have a third of it each. Use a multiple of 12, or set multi_scale to false."
        )
    beyond = [number for number in config.kv_compress_config.kv_compress_layer if not 0 <= number < config.depth]
    if beyond:
        raise OsoraError(
            f"model.kv_compress_config.kv_compress_layer has {beyond[0]}: blocks are counted from 0 to model.depth - 1 = "
            f"{config.depth - 1}. Leave it out."
        )
