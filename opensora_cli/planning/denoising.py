"""The cost of a denoiser, by whichever way there is for its family."""

from opensora_cli.planning.denoised import DenoiserCosts
from opensora_cli.planning.mmdit import MMDiTCounter
from opensora_cli.planning.mmdit_costs import MMDiTCosts
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.traced_costs import TracedCosts
from schemas.denoiser import DenoiserConfig, MMDiTConfig


def denoiser_costs(
    config: DenoiserConfig, precision: Precision, *, tensor: int = 1, sequence: int = 1, fp8: bool = False
) -> DenoiserCosts:
    """Return what a denoiser costs: MMDiT's by formulas from its blocks, the others' by running their own code.

    `tensor` processes share out features, `sequence` processes tokens; `fp8`: products of blocks are in 8 bits. Tensor
    parallelism and 8 bits are MMDiT's alone.
    """
    if isinstance(config, MMDiTConfig):
        return MMDiTCosts(MMDiTCounter(config, precision, tensor, fp8), sequence)
    return TracedCosts(config, precision, sequence)
