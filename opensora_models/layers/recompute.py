"""Trading time for memory in pyramids of blocks that know nothing of it."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_stages(coder: nn.Module) -> int:
    """Let every stage of an encoder or decoder (the members of its module lists) recompute its activations; return how many.

    What lies outside the stages keeps its activations: a gradient at the last convolution alone recomputes nothing.
    """
    stages = [stage for child in coder.children() if isinstance(child, nn.ModuleList) for stage in child]
    for stage in stages:
        # No random numbers are drawn inside: there is no generator state to bring back.
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False, preserve_rng_state=False)
    return len(stages)
