"""The STDiT3 denoiser of Open-Sora 1.2."""

from collections.abc import Mapping
from itertools import chain
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from opensora_models.layers.embedders import CaptionEmbedder, SizeEmbedder, TimestepEmbedder
from opensora_models.layers.latent_attention import FinalLayer, by_frame, rotation
from opensora_models.layers.latent_patches import PatchEmbed, Tokens, patch_grid, same, unpatchify
from opensora_models.layers.position_tables import resolution_table
from opensora_models.layers.recompute import Recompute
from opensora_models.layers.starting_weights import start_at_zero, start_small, start_xavier
from opensora_models.layers.widths import check_widths
from opensora_models.stdit3.blocks import Block, spatial_block, temporal_block
from opensora_models.stdit3.weights import COMPUTED_KEYS, LIKELY_CAUSES, as_own
from schemas.denoiser.stdit3 import STDiT3Config


class STDiT3(nn.Module):
    """A transformer over latents whose spatial and temporal blocks take turns; time has rotary positions.

    State-dict keys are those of the published checkpoints. Temporal blocks start as the identity, so that an image model's
    weights give an image model at first. `tokens_in` and `tokens_out` stand around the blocks.
    """

    likely_causes = LIKELY_CAUSES
    computed_keys: ClassVar[tuple[str, ...]] = COMPUTED_KEYS
    conditions: ClassVar[frozenset[str]] = frozenset(
        {"text_BLD", "text_mask_BL", "drop_B", "x_mask_BT", "fps_B", "height_B", "width_B"}
    )

    def __init__(self, config: STDiT3Config) -> None:
        super().__init__()
        check_widths(config.hidden_size, config.num_heads, pairs=True)
        self.config = config
        dim, heads, depth = config.hidden_size, config.num_heads, config.depth
        mlp_dim = int(dim * config.mlp_ratio)
        self.x_embedder = PatchEmbed(config.in_channels, dim, config.patch_size)
        self.t_embedder = TimestepEmbedder(dim)
        self.fps_embedder = SizeEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(config.caption_channels, dim, config.model_max_length)
        self.spatial_blocks = nn.ModuleList(spatial_block(dim, heads, mlp_dim, config.qk_norm) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(temporal_block(dim, heads, mlp_dim, config.qk_norm) for _ in range(depth))
        self.final_layer = FinalLayer(dim, config.output_channels * prod(config.patch_size))
        self.tokens_in: Tokens = same
        self.tokens_out: Tokens = same
        self.recompute = Recompute()
        self.recomputed_spatial, self.recomputed_temporal = range(0), range(0)
        self._start()
        if config.freeze_y_embedder:
            self.y_embedder.requires_grad_(False)

    @property
    def units(self) -> list[nn.Module]:
        """The blocks, in the order in which they are evaluated."""
        return list(chain.from_iterable(zip(self.spatial_blocks, self.temporal_blocks, strict=True)))

    def set_grad_checkpointing(self, first: int, second: int, every: int = 1, how: Recompute | None = None) -> None:
        """Recompute activations in the backward pass: of `first` spatial and `second` temporal blocks, every n-th."""
        self.recompute = how or Recompute()
        self.recomputed_spatial, self.recomputed_temporal = range(0, first, every), range(0, second, every)

    def as_own(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return published weights, or an image model's, as this model's; what those lack stays for `allow_missing`."""
        return as_own(state, self.config.model_max_length)

    def forward(
        self,
        x_BCTHW: Tensor,
        timesteps_B: Tensor,
        *,
        text_BLD: Tensor,
        fps_B: Tensor,
        height_B: Tensor,
        width_B: Tensor,
        text_mask_BL: Tensor | None = None,
        drop_B: Tensor | None = None,
        x_mask_BT: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C_out, T, H, W) for latents at `timesteps_B` in [0, 1000], 1000 being noise.

        C_out is twice `in_channels` with `pred_sigma`. Times and sizes stay fp32 in a bf16 model. `x_mask_BT` has an entry for
        each frame of patches: a frame with false is given, and modulated as at time 0. All clips of a batch have the size of
        the first (`height_B`, `width_B`, in pixels). Raises ValueError for more text tokens than `model_max_length`.
        """
        config, size = self.config, x_BCTHW.shape[2:]
        frames, rows, columns = patch_grid(size, config.patch_size)
        x_BTSD = self.x_embedder(x_BCTHW)
        x_BTSD = x_BTSD + self.positions(rows, columns, height_B, width_B).to(x_BTSD.dtype)
        fps_BD = self.fps_embedder(fps_B[:, None])
        cond_B1D = (self.t_embedder(timesteps_B) + fps_BD)[:, None]
        given_B1D = (self.t_embedder(torch.zeros_like(timesteps_B)) + fps_BD)[:, None]
        cond_BF6D = self.t_block(by_frame(cond_B1D, given_B1D, x_mask_BT)).unflatten(-1, (6, -1))
        text_BLD = self.y_embedder(text_BLD, drop_B)
        rotation_T1K2 = rotation(frames, config.hidden_size // config.num_heads, x_BTSD.device)

        x_BTSD = self.tokens_in(x_BTSD)
        for i, (spatial, temporal) in enumerate(zip(self.spatial_blocks, self.temporal_blocks, strict=True)):
            x_BTSD = self._run(spatial, i in self.recomputed_spatial, x_BTSD, text_BLD, text_mask_BL, cond_BF6D)
            x_BTSD = self._run(
                temporal, i in self.recomputed_temporal, x_BTSD, text_BLD, text_mask_BL, cond_BF6D, rotation_T1K2
            )
        patches_BTSV = self.tokens_out(self.final_layer(x_BTSD, cond_B1D, given_B1D, x_mask_BT))
        return unpatchify(patches_BTSV, config.patch_size, size)

    def positions(self, rows: int, columns: int, height_B: Tensor, width_B: Tensor) -> Tensor:
        """Return the position table (S, D) of a frame of so many patches, fp32: stretched to the first clip's resolution."""
        return resolution_table(self.config.hidden_size, rows, columns, height_B, width_B, self.config.input_sq_size)

    def _run(self, block: Block, again: bool, *inputs: Tensor | None) -> Tensor:
        return self.recompute(block, *inputs) if again else block(*inputs)

    def _start(self) -> None:
        start_xavier(self)
        start_small(self.fps_embedder.mlp[0])
        start_at_zero(self.fps_embedder.mlp[2])
        for block in self.temporal_blocks:
            start_at_zero(block.attn.proj, block.cross_attn.proj, block.mlp.fc2)
