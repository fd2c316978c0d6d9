"""How the transformers of Open-Sora 1.x begin: the pieces of upstream's scheme, which goes back to DiT's published code."""

from torch import nn

from opensora_models.layers.embedders import CaptionEmbedder, TimestepEmbedder
from opensora_models.layers.latent_patches import PatchEmbed

SMALL_STD = 0.02


def start_linear(model: nn.Module) -> None:
    """Draw linear layers and patch embeddings as Xavier's, without bias, and small ones for time, sizes and captions."""
    start_xavier(model)
    for module in model.modules():
        if isinstance(module, PatchEmbed):  # as the linear map that it is
            nn.init.xavier_uniform_(module.proj.weight.flatten(1))
    for module in model.modules():
        if isinstance(module, TimestepEmbedder):
            start_small(module.mlp[0], module.mlp[2])
        elif isinstance(module, CaptionEmbedder):
            start_small(module.y_proj.fc1, module.y_proj.fc2)


def start_xavier(model: nn.Module) -> None:
    """Draw linear layers by Xavier's rule, without bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def start_small(*layers: nn.Module) -> None:
    """Draw weights from N(0, 0.02)."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=SMALL_STD)


def start_at_zero(*layers: nn.Module) -> None:
    """Set weights and biases to zero: what the layers add is nothing at first."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
