"""The blocks of a denoiser, in order."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class HasUnits(Protocol):
    """A module that knows its blocks, as every denoiser does."""

    @property
    def units(self) -> list[nn.Module]:
        """The blocks, in order."""


def units_of(denoiser: nn.Module) -> list[nn.Module]:
    """Return the modules whose weights are gathered, moved and compiled together: every denoiser has its `units`."""
    assert isinstance(denoiser, HasUnits)
    return denoiser.units
