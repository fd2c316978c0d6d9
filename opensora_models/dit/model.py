"""The DiT denoiser (Peebles and Xie 2023, "Scalable Diffusion Models with Transformers") of Open-Sora 1.x."""

from collections.abc import Mapping
from math import prod
from typing import ClassVar

from torch import Tensor, nn

from opensora_models.dit.weights import COMPUTED_KEYS, LIKELY_CAUSES, as_own
from opensora_models.layers.adaln_zero import (
    AdaLNBlock,
    AdaLNFinalLayer,
    embed_vector,
    start_adaln_zero,
    vector_embedder,
)
from opensora_models.layers.embedders import TimestepEmbedder
from opensora_models.layers.latent_patches import PatchEmbed, patch_grid, unpatchify
from opensora_models.layers.position_tables import coordinates, sincos_1d, sincos_2d
from opensora_models.layers.published_weights import StateDict
from opensora_models.layers.recompute import Recompute
from opensora_models.layers.widths import check_widths
from schemas.denoiser.dit import DiTConfig


class DiT(nn.Module):
    """A transformer whose blocks attend over all tokens of a clip at once.

    State-dict keys are those of the published checkpoints, without their position tables. Weights start as DiT's: every
    block is the identity, and the output zero.
    """

    conditions: ClassVar[frozenset[str]] = frozenset({"text_BLD", "labels_B", "drop_B"})
    computed_keys: ClassVar[tuple[str, ...]] = COMPUTED_KEYS
    likely_causes = LIKELY_CAUSES

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        check_widths(config.hidden_size, config.num_heads)
        self.config = config
        dim = config.hidden_size
        self.x_embedder = PatchEmbed(config.in_channels, dim, config.patch_size)
        self.t_embedder = TimestepEmbedder(dim)
        self.y_embedder = vector_embedder(
            config.condition, dim, config.caption_channels, has_null=config.class_dropout_prob > 0
        )
        self.blocks = nn.ModuleList(
            AdaLNBlock(dim, config.num_heads, int(dim * config.mlp_ratio)) for _ in range(config.depth)
        )
        out_channels = config.in_channels * (2 if config.learn_sigma else 1)
        self.final_layer = AdaLNFinalLayer(dim, prod(config.patch_size) * out_channels)
        self.recompute = Recompute()
        self.recomputed = range(0)
        start_adaln_zero(self)

    @property
    def units(self) -> list[nn.Module]:
        """The blocks in order."""
        return list(self.blocks)

    def as_own(self, state: Mapping[str, Tensor]) -> StateDict:
        """Return published weights, of classes too where this model takes texts, as this model's."""
        return as_own(state, self.config.condition)

    def set_grad_checkpointing(self, first: int, second: int = 0, every: int = 1, how: Recompute | None = None) -> None:
        """Recompute activations in the backward pass: of the `first` blocks, every n-th. There is no second stack."""
        self.recompute = how or Recompute()
        self.recomputed = range(0, first, every)

    def forward(
        self,
        x_BCTHW: Tensor,
        timesteps_B: Tensor,
        text_BLD: Tensor | None = None,
        labels_B: Tensor | None = None,
        drop_B: Tensor | None = None,
    ) -> Tensor:
        """Return the noise, and with `learn_sigma` the variance's logits after it (B, C_out, T, H, W).

        Timesteps are 0..1000. `text_BLD` is a pooled vector as one token, for `condition = "text"`; `labels_B` are for
        `label_N`, N itself being the null class. Rows with `drop_B` true have the learned null condition.
        Raises ValueError where the model's condition is missing, or another one is given.
        """
        cond_BD = self.t_embedder(timesteps_B) + embed_vector(self.y_embedder, text_BLD, labels_B, drop_B)
        x_BTSD = self.x_embedder(x_BCTHW)
        x_BTSD = x_BTSD + self._positions(x_BCTHW).to(x_BTSD.dtype)

        x_B1ND = x_BTSD.flatten(1, 2)[:, None]
        for i, block in enumerate(self.blocks):
            x_B1ND = self.recompute(block, x_B1ND, cond_BD) if i in self.recomputed else block(x_B1ND, cond_BD)

        out_BTSV = self.final_layer(x_B1ND.reshape(x_BTSD.shape), cond_BD)
        return unpatchify(out_BTSV, self.config.patch_size, x_BCTHW.shape[2:])

    def _positions(self, x_BCTHW: Tensor) -> Tensor:
        """Return the tables of space and time, added (T, S, D) or, without time, (S, D).

        Upstream's table is that of a square; other frames have the same plain coordinates here.
        """
        dim = self.config.hidden_size
        frames, rows, columns = patch_grid(x_BCTHW.shape[2:], self.config.patch_size)
        space_SD = sincos_2d(dim, rows, columns, device=x_BCTHW.device)
        if self.config.no_temporal_pos_emb:
            return space_SD
        return space_SD + sincos_1d(dim, coordinates(frames, device=x_BCTHW.device))[:, None]
