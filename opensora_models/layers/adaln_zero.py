"""What DiT and Latte are made of: blocks with adaLN-Zero (DiT, section 3.2), and one vector as their condition.

B batch, G sequences of a clip (1, its frames, or the places in a frame), L tokens of a sequence, D width.
"""

from einops import rearrange
from torch import Tensor, nn

from opensora_models.layers.embedders import CaptionEmbedder, LabelEmbedder
from opensora_models.layers.latent_attention import Mlp, SelfAttention, modulate
from opensora_models.layers.latent_patches import PatchEmbed
from opensora_models.layers.starting_weights import start_at_zero, start_linear


class AdaLNBlock(nn.Module):
    """Self attention and an MLP, each shifted, scaled and gated by the block's own map of the condition."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.attn = SelfAttention(dim, heads)
        self.mlp = Mlp(dim, mlp_dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x_BGLD: Tensor, cond_BD: Tensor) -> Tensor:
        """Return (B, G, L, D); a token sees those of its own sequence."""
        vectors = self.adaLN_modulation(cond_BD)[:, None, None].chunk(6, -1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors
        attended = self.attn(modulate(x_BGLD, shift, scale).flatten(0, 1)).view_as(x_BGLD)
        x_BGLD = x_BGLD + gate * attended
        return x_BGLD + mlp_gate * self.mlp(modulate(x_BGLD, mlp_shift, mlp_scale))


class AdaLNFinalLayer(nn.Module):
    """Norm, shifted and scaled by a map of the condition, and the projection to the values of a patch."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x_BTSD: Tensor, cond_BD: Tensor) -> Tensor:
        """Return (B, T, S, out_dim)."""
        shift, scale = self.adaLN_modulation(cond_BD)[:, None, None].chunk(2, -1)
        return self.linear(modulate(x_BTSD, shift, scale))


def vector_embedder(condition: str, hidden: int, caption_channels: int, has_null: bool) -> nn.Module:
    """Return the embedder of `condition`: of a pooled text, or of one of N classes (`label_N`)."""
    if condition == "text":
        return CaptionEmbedder(caption_channels, hidden, token_num=1)
    return LabelEmbedder(int(condition.removeprefix("label_")), hidden, has_null)


def embed_vector(
    embedder: nn.Module, text_BLD: Tensor | None, labels_B: Tensor | None, drop_B: Tensor | None
) -> Tensor:
    """Return the embedded pooled text, which is one token, or class (B, D).

    Raises ValueError where the model's condition is missing, or another one is given.
    """
    wants = "text_BLD" if isinstance(embedder, CaptionEmbedder) else "labels_B"
    if (text_BLD is not None) != (wants == "text_BLD") or (labels_B is not None) != (wants == "labels_B"):
        raise ValueError(f"the model's `condition` takes {wants}, and that alone of text_BLD and labels_B: pass it.")
    if text_BLD is None:
        return embedder(labels_B, drop_B)
    return rearrange(embedder(text_BLD, drop_B), "b 1 d -> b d")


def start_adaln_zero(model: nn.Module) -> None:
    """Draw weights as DiT does (section 3.2 and its published code): every block is the identity, and the output zero."""
    start_linear(model)
    for module in model.modules():
        if isinstance(module, PatchEmbed):
            nn.init.zeros_(module.proj.bias)
        elif isinstance(module, AdaLNBlock):
            start_at_zero(module.adaLN_modulation[1])
        elif isinstance(module, AdaLNFinalLayer):
            start_at_zero(module.adaLN_modulation[1], module.linear)
