"""What the denoisers of Open-Sora 1.x are conditioned on, as vectors and tokens of the model's width.

B batch, F features, D width, L text tokens. No module draws random numbers: the caller says which rows are dropped.
"""

import math

import torch
from torch import Tensor, nn

from opensora_models.layers.latent_attention import Mlp

FEATURES = 256


def timestep_features(t_B: Tensor, dim: int = FEATURES, max_period: float = 10_000.0) -> Tensor:
    """Return sinusoidal features (B, dim) of any number, cosines first, in fp32; an odd `dim` ends with zeros (DDPM's)."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t_B.device)
    # Angles reach 1000 rad, so the last bit of a frequency shows: round exp once, and machines agree on it.
    frequencies = torch.exp((-math.log(max_period) * steps / half).double()).float()
    angles_BF = t_B.float()[:, None] * frequencies
    parts = [angles_BF.cos(), angles_BF.sin()]
    if dim % 2:
        parts.append(torch.zeros_like(angles_BF[:, :1]))
    return torch.cat(parts, -1)


class TimestepEmbedder(nn.Module):
    """A number's way to the model's width: sinusoidal features and two linear layers (DiT, section 3.2)."""

    def __init__(self, hidden: int, features: int = FEATURES) -> None:
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, t_B: Tensor) -> Tensor:
        """Return (B, hidden) in the weights' dtype; the features are fp32 whatever that is."""
        return self.mlp(timestep_features(t_B, self.features).to(self.mlp[0].weight.dtype))


class SizeEmbedder(TimestepEmbedder):
    """One `TimestepEmbedder` for each of several numbers (SDXL, section 2.2)."""

    def forward(self, sizes_BN: Tensor) -> Tensor:
        """Return (B, N * hidden): the embedded numbers one after the other."""
        return super().forward(sizes_BN.flatten()).unflatten(0, sizes_BN.shape).flatten(1)


class CaptionEmbedder(nn.Module):
    """Text tokens to the model's width; a dropped caption becomes the null one, which is part of the weights."""

    y_embedding: Tensor

    def __init__(self, in_channels: int, hidden: int, token_num: int) -> None:
        super().__init__()
        self.y_proj = Mlp(in_channels, hidden, hidden)
        self.register_buffer("y_embedding", torch.randn(token_num, in_channels) / in_channels**0.5)

    def forward(self, text_BLD: Tensor, drop_B: Tensor | None = None) -> Tensor:
        """Return (B, L, hidden). Rows with `drop_B` true are the null caption's first L tokens; masks do not change.

        Raises ValueError for more tokens than the null caption has.
        """
        length = text_BLD.shape[1]
        if length > len(self.y_embedding):
            raise ValueError(
                f"text_BLD has {length} tokens, and the null caption {len(self.y_embedding)}: "
                "encode text with the `model_max_length` of the model."
            )
        dtype = self.y_proj.fc1.weight.dtype  # the buffer's own stays as it is where weights are gathered in bf16
        text_BLD = text_BLD.to(dtype)
        if drop_B is not None:
            text_BLD = torch.where(drop_B[:, None, None], self.y_embedding[:length].to(dtype), text_BLD)
        return self.y_proj(text_BLD)


class LabelEmbedder(nn.Module):
    """A learned vector for each class and, where there is classifier-free guidance, one for no class at all."""

    def __init__(self, num_classes: int, hidden: int, has_null: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.has_null = has_null
        self.embedding_table = nn.Embedding(num_classes + has_null, hidden)

    def forward(self, labels_B: Tensor, drop_B: Tensor | None = None) -> Tensor:
        """Return (B, hidden); rows with `drop_B` true have no class. Raises ValueError where the table lacks that row."""
        if drop_B is not None:
            if not self.has_null:
                raise ValueError(
                    "drop_B was given, but the model has no null class: it was built without label dropout."
                )
            labels_B = torch.where(drop_B, self.num_classes, labels_B)
        return self.embedding_table(labels_B)
