"""The STDiT2 denoiser of Open-Sora 1.1."""

from collections.abc import Mapping
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from opensora_models.layers.embedders import CaptionEmbedder, SizeEmbedder, TimestepEmbedder
from opensora_models.layers.latent_attention import FinalLayer, by_frame, rotation
from opensora_models.layers.latent_patches import PatchEmbed, Tokens, patch_grid, same, unpatchify
from opensora_models.layers.position_tables import resolution_table
from opensora_models.layers.recompute import Recompute
from opensora_models.layers.starting_weights import start_at_zero, start_linear, start_small, start_xavier
from opensora_models.layers.widths import check_widths
from opensora_models.stdit2.blocks import Block
from opensora_models.stdit2.weights import COMPUTED_KEYS, LIKELY_CAUSES, as_own
from schemas.denoiser.stdit2 import STDiT2Config
from schemas.errors import OsoraError


class STDiT2(nn.Module):
    """A transformer over latents of any size, length and frame rate, all of which are conditions.

    State-dict keys are those of the published checkpoints. Attention along time starts as the identity, so that an image
    model's weights give an image model at first. `tokens_in` and `tokens_out` stand around the blocks.
    """

    likely_causes = LIKELY_CAUSES
    computed_keys: ClassVar[tuple[str, ...]] = COMPUTED_KEYS
    conditions: ClassVar[frozenset[str]] = frozenset(
        {"text_BLD", "text_mask_BL", "drop_B", "x_mask_BT"}
        | {"fps_B", "height_B", "width_B", "num_frames_B", "aspect_B"}
    )

    def __init__(self, config: STDiT2Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        dim, heads = config.hidden_size, config.num_heads
        mlp_dim = int(dim * config.mlp_ratio)
        self.x_embedder = PatchEmbed(config.in_channels, dim, config.patch_size)
        self.t_embedder = TimestepEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.t_block_temp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.y_embedder = CaptionEmbedder(config.caption_channels, dim, config.model_max_length)
        self.csize_embedder = SizeEmbedder(dim // 3)
        self.ar_embedder = SizeEmbedder(dim // 3)
        self.fl_embedder = SizeEmbedder(dim)
        self.fps_embedder = SizeEmbedder(dim)
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_dim, config.qk_norm, config.qk_norm_legacy) for _ in range(config.depth)
        )
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
        fps_B: Tensor,
        height_B: Tensor,
        width_B: Tensor,
        num_frames_B: Tensor,
        aspect_B: Tensor,
        text_mask_BL: Tensor | None = None,
        drop_B: Tensor | None = None,
        x_mask_BT: Tensor | None = None,
    ) -> Tensor:
        """Return (B, C_out, T, H, W) for latents at `timesteps_B` in [0, 1000], 1000 being noise.

        C_out is twice `in_channels` with `pred_sigma`. Times and sizes (pixels, pixel frames, height / width) stay fp32 in a
        bf16 model. `x_mask_BT` has an entry for each frame of patches: a frame with false is given, and modulated as at
        time 0. Raises ValueError for more text tokens than `model_max_length`.
        """
        config, size = self.config, x_BCTHW.shape[2:]
        frames, rows, columns = patch_grid(size, config.patch_size)
        x_BTSD = self.x_embedder(x_BCTHW)
        table_SD = resolution_table(config.hidden_size, rows, columns, height_B, width_B, config.input_sq_size)
        x_BTSD = x_BTSD + table_SD.to(x_BTSD.dtype)
        time_B1D = self.t_embedder(timesteps_B)[:, None]
        zero_B1D = self.t_embedder(torch.zeros_like(timesteps_B))[:, None]
        sizes = [self.csize_embedder(torch.stack([height_B, width_B], 1)), self.ar_embedder(aspect_B[:, None])]
        size_B1D = torch.cat(sizes, -1)[:, None]
        length_B1D = (self.fl_embedder(num_frames_B[:, None]) + self.fps_embedder(fps_B[:, None]))[:, None]
        by_size_BFD = by_frame(time_B1D + size_B1D, zero_B1D + size_B1D, x_mask_BT)
        by_length_BFD = by_frame(time_B1D + length_B1D, zero_B1D + length_B1D, x_mask_BT)
        inputs = (
            self.y_embedder(text_BLD, drop_B),
            text_mask_BL,
            self.t_block(by_size_BFD).unflatten(-1, (6, -1)),
            self.t_block_temp(by_length_BFD).unflatten(-1, (3, -1)),
            rotation(frames, config.hidden_size // config.num_heads, x_BTSD.device),
        )

        x_BTSD = self.tokens_in(x_BTSD)
        for i, block in enumerate(self.blocks):
            x_BTSD = self.recompute(block, x_BTSD, *inputs) if i in self.recomputed else block(x_BTSD, *inputs)
        # The published weights were trained so: the size counts here for given frames alone.
        patches_BTSV = self.tokens_out(self.final_layer(x_BTSD, time_B1D, zero_B1D + size_B1D, x_mask_BT))
        return unpatchify(patches_BTSV, config.patch_size, size)

    def _start(self) -> None:
        start_linear(self)
        start_small(self.t_block[1], self.t_block_temp[1])
        for sizes in (self.csize_embedder, self.ar_embedder, self.fl_embedder, self.fps_embedder):
            start_xavier(sizes)
        start_at_zero(self.final_layer.linear)
        for block in self.blocks:
            start_at_zero(block.attn_temp.proj, block.cross_attn.proj)


def _check(config: STDiT2Config) -> None:
    check_widths(config.hidden_size, config.num_heads, pairs=True)
    if config.hidden_size % 3:
        raise OsoraError(
            f"model.hidden_size = {config.hidden_size}: height, width and their ratio take a third each. Use a multiple of 3."
        )
