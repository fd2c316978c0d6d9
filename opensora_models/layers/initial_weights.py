"""How the denoisers of Open-Sora 1.x start where no weights are loaded (DiT, section 3.2; PixArt-alpha, section 2.3)."""

from torch import nn

STD = 0.02


def start_linears(module: nn.Module) -> None:
    """Draw every linear layer below `module` by Xavier's rule; biases are zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_narrow(*layers: nn.Linear) -> None:
    """Draw the weights of embedding layers with a small spread."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=STD)


def start_at_zero(*layers: nn.Linear) -> None:
    """Let layers add nothing at first."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def start_patches(convolution: nn.Conv3d) -> None:
    """Draw the weights of a patch embedding as a linear layer's."""
    nn.init.xavier_uniform_(convolution.weight.data.flatten(1))
