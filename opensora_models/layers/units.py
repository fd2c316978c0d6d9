"""The blocks of a denoiser, in order."""

from torch import nn


def units_of(denoiser: nn.Module) -> list[nn.Module]:
    """Return the modules whose weights are gathered, moved and compiled together: every denoiser has its `units`."""
    units = denoiser.units
    assert isinstance(units, list)
    return units
