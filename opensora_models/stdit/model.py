"""The STDiT denoiser of Open-Sora 1.0."""

from collections.abc import Mapping
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from opensora_models.layers.embedders import CaptionEmbedder, TimestepEmbedder
from opensora_models.layers.latent_attention import FinalLayer
from opensora_models.layers.latent_patches import PatchEmbed, Tokens, patch_grid, same, unpatchify
from opensora_models.layers.position_tables import coordinates, sincos_1d, sincos_2d
from opensora_models.layers.recompute import Recompute
from opensora_models.layers.starting_weights import start_at_zero, start_linear, start_small
from opensora_models.layers.widths import check_widths
from opensora_models.stdit.blocks import GATE, Block
from opensora_models.stdit.weights import COMPUTED_KEYS, LIKELY_CAUSES, as_own
from schemas.denoiser.stdit import STDiTConfig


class STDiT(nn.Module):
    """A transformer over latents, with position tables for places and times.

    State-dict keys are those of the published checkpoints. Attention along time starts as the identity, so that an image
    model's weights give an image model at first. `tokens_in` and `tokens_out` stand around the blocks.
    """

    likely_causes = LIKELY_CAUSES
    computed_keys: ClassVar[tuple[str, ...]] = COMPUTED_KEYS
    conditions: ClassVar[frozenset[str]] = frozenset({"text_BLD", "text_mask_BL", "drop_B", "x_mask_BT"})

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__()
        check_widths(config.hidden_size, config.num_heads)
        self.config = config
        dim = config.hidden_size
        mlp_dim = int(dim * config.mlp_ratio)
        self.x_embedder = PatchEmbed(config.in_channels, dim, config.patch_size)
        self.t_embedder = TimestepEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(config.caption_channels, dim, config.model_max_length)
        self.blocks = nn.ModuleList(Block(dim, config.num_heads, mlp_dim) for _ in range(config.depth))
        self.final_layer = FinalLayer(dim, config.output_channels * prod(config.patch_size))
        self.tokens_in: Tokens = same
        self.tokens_out: Tokens = same
        self.recompute = Recompute()
        self.recomputed = range(0)
        self._start()

    @property
    def units(self) -> list[nn.Module]:
        """The blocks, in order."""
        return list(self.blocks)

    def set_grad_checkpointing(self, first: int, second: int, every: int = 1, how: Recompute | None = None) -> None:
        """Recompute activations in the backward pass: of `first` blocks, every n-th; there is no second stack."""
        self.recompute = how or Recompute()
        self.recomputed = range(0, first, every)

    def as_own(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return published weights, or an image model's, as this model's; what those lack stays for `allow_missing`."""
        return as_own(state, self.config.model_max_length)

    def forward(
        self,
        x_BCTHW: Tensor,
        timesteps_B: Tensor,
        *,
        text_BLD: Tensor,
        text_mask_BL: Tensor | None = None,
        drop_B: Tensor | None = None,
        x_mask_BT: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C_out, T, H, W) for latents at `timesteps_B` in [0, 1000], 1000 being noise.

        C_out is twice `in_channels` with `pred_sigma`. Times stay fp32 in a bf16 model. `x_mask_BT` has an entry for each
        frame of patches: a frame with false is given, and modulated as at time 0, but for the gate of attention along time.
        Raises ValueError for more text tokens than `model_max_length`.
        """
        config, size = self.config, x_BCTHW.shape[2:]
        frames, rows, columns = patch_grid(size, config.patch_size)
        x_BTSD, device = self.x_embedder(x_BCTHW), x_BCTHW.device
        table_SD = sincos_2d(config.hidden_size, rows, columns, config.space_scale, device=device)
        x_BTSD = x_BTSD + table_SD.to(x_BTSD.dtype)
        times_TD = sincos_1d(config.hidden_size, coordinates(frames, config.time_scale, device=device))
        time_B1D = self.t_embedder(timesteps_B)[:, None]
        zero_B1D = self.t_embedder(torch.zeros_like(timesteps_B))[:, None]
        time_B16D, zero_B16D = (self.t_block(vector_B1D).unflatten(-1, (6, -1)) for vector_B1D in (time_B1D, zero_B1D))
        cond_BF6D = time_B16D if x_mask_BT is None else torch.where(x_mask_BT[:, :, None, None], time_B16D, zero_B16D)
        inputs = (self.y_embedder(text_BLD, drop_B), text_mask_BL, cond_BF6D, time_B16D[:, :, GATE])

        x_BTSD = self.tokens_in(x_BTSD)
        for i, block in enumerate(self.blocks):
            more = (times_TD,) if i == 0 else ()
            again = i in self.recomputed
            x_BTSD = self.recompute(block, x_BTSD, *inputs, *more) if again else block(x_BTSD, *inputs, *more)
        patches_BTSV = self.tokens_out(self.final_layer(x_BTSD, time_B1D, zero_B1D, x_mask_BT))
        return unpatchify(patches_BTSV, config.patch_size, size)

    def _start(self) -> None:
        start_linear(self)
        start_small(self.t_block[1])
        start_at_zero(self.final_layer.linear)
        for block in self.blocks:
            start_at_zero(block.attn_temp.proj, block.cross_attn.proj)
