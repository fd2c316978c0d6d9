"""How many bytes a number takes where: the rules of autocast on each device (docs/decisions/004)."""

from dataclasses import dataclass
from typing import Literal

Device = Literal["cuda", "cpu"]
STATE = 4
"""Bytes of a trained weight, of its gradient, of each moment of AdamW and of its average: all fp32."""


@dataclass(frozen=True)
class Precision:
    """Bytes of the numbers in a forward pass.

    `matrix`: inputs and outputs of matrix products. `norm`: inputs and outputs of layer and group norms, which autocast
    computes in fp32 on CUDA and leaves alone on the CPU. `device` decides what the norms of queries and keys save.
    """

    matrix: int
    norm: int
    device: Device
    pads_in_fp32: bool = False
    """Autocast on the CPU pads in fp32, which on CUDA goes on in the dtype at hand."""

    @classmethod
    def of(cls, dtype: Literal["bf16", "fp32"], device: Device, *, autocast: bool = True) -> "Precision":
        """Return the sizes for a recipe's dtype; without autocast a module is in that dtype through and through."""
        matrix = 2 if dtype == "bf16" else 4
        lower = autocast and matrix != STATE
        return cls(matrix, STATE if lower and device == "cuda" else matrix, device, lower and device == "cpu")

    @property
    def casts(self) -> int:
        """Bytes of the copy that autocast makes of every matrix, kept for the backward pass; 0 where none is made."""
        return 0 if self.matrix == STATE else self.matrix
