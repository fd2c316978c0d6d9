"""The PixArt denoisers of Open-Sora 1.x: alpha (Chen et al. 2023), its multi-scale form, and Sigma (Chen et al. 2024)."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost
from schemas.denoiser.latent import LatentDenoiser

Sampling = Literal["conv", "ave", "uniform", "uniform_every"]


class KVCompression(Schema):
    """Fewer keys and values in some blocks' self attention (PixArt-Sigma, section 3.3)."""

    sampling: Sampling = Field(
        "conv",
        description="How tokens become fewer: a learned convolution (`conv`), each square's first token (`ave`, `uniform`), "
        "or every n-th token in reading order (`uniform_every`).",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )
    scale_factor: int = Field(
        2,
        ge=1,
        description="Tokens per side that become one (uniform_every: tokens in all).",
        json_schema_extra=cost("breaks_resume", "changes_memory", "changes_numerics"),
    )
    kv_compress_layer: tuple[int, ...] = Field(
        (),
        description="Blocks that compress, counted from 0.",
        json_schema_extra=cost("breaks_resume", "changes_memory", "changes_numerics"),
    )


class PixArtConfig(LatentDenoiser):
    """A DiT with text by cross attention and one modulation network for all blocks.

    The defaults are PixArt-alpha XL/2; key names are upstream's. PixArtMS is `multi_scale`; PixArt-Sigma may have
    `qk_norm` and a `kv_compress_config`.
    """

    type: Literal["pixart"] = Field("pixart", description="The model family.")
    pred_sigma: bool = Field(
        True,
        description="Whether the model also predicts a variance: the output has twice the latent channels.",
        json_schema_extra=cost("breaks_resume"),
    )
    model_max_length: int = Field(
        120, ge=1, description="Tokens of the learned empty caption.", json_schema_extra=cost("breaks_resume")
    )
    no_temporal_pos_emb: bool = Field(
        False,
        description="Whether tokens are told their place within a frame alone, as fits single pictures.",
        json_schema_extra=cost("changes_numerics"),
    )
    space_scale: float = Field(
        1.0,
        gt=0,
        description="Divides the tokens' rows and columns, so that larger frames keep the coordinates of smaller ones.",
        json_schema_extra=cost("changes_numerics"),
    )
    time_scale: float = Field(
        1.0, gt=0, description="Divides the tokens' frame numbers.", json_schema_extra=cost("changes_numerics")
    )
    base_size: Literal["auto"] | int = Field(
        "auto",
        description="Latent pixels per side of the frames that have plain coordinates; auto: a square as large as the frame.",
        json_schema_extra=cost("changes_numerics"),
    )
    multi_scale: bool = Field(
        False,
        description="Whether the frame's size and shape modulate the blocks (PixArtMS); hidden_size must be a multiple of 3.",
        json_schema_extra=cost("breaks_resume"),
    )
    qk_norm: bool = Field(
        False,
        description="Whether self attention normalises queries and keys (PixArt-Sigma).",
        json_schema_extra=cost("breaks_resume"),
    )
    kv_compress_config: KVCompression = Field(
        KVCompression.model_construct(), description="Which blocks have fewer keys and values (PixArt-Sigma)."
    )
    freeze: Literal["none", "text"] = Field(
        "none",
        description="What does not train: `text` keeps the cross attention as it is.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )

    @property
    def output_channels(self) -> int:
        """Channels of the answer."""
        return self.in_channels * (2 if self.pred_sigma else 1)
