"""An exponential moving average of the trained weights, kept in fp32."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_NEVER_AVERAGED = frozenset(
    {"pos_embed"}
)  # a position table: the same in every checkpoint, so upstream leaves it alone
_CHUNK = 64  # parameters cast at once: bounds the fp32 copies that a bf16 model needs


class Ema:
    """Average every parameter that is trained: average <- decay * average + (1 - decay) * weight.

    Frozen parameters are kept as they were at the start, as upstream does, or left out with `trained_only`: beside
    adapters they are the whole model. Works on DTensor shards, since all operations are element-wise.
    """

    def __init__(self, module: nn.Module, decay: float, *, trained_only: bool = False) -> None:
        self.decay = decay
        self.averages: dict[str, Tensor] = {
            name: p.detach().float().clone()
            for name, p in module.named_parameters()
            if p.requires_grad or not trained_only
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages towards the module's weights by one update."""
        trained = [
            (self.averages[name], p.detach())
            for name, p in module.named_parameters()
            if p.requires_grad and name not in _NEVER_AVERAGED
        ]
        for start in range(0, len(trained), _CHUNK):
            averages, weights = zip(*trained[start : start + _CHUNK], strict=True)
            torch._foreach_lerp_(averages, [w.float() for w in weights], 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages under the module's own parameter names (fp32, not copied)."""
        return dict(self.averages)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy averages in; names and shapes must be those of `state_dict`."""
        for name, average in self.averages.items():
            average.copy_(state[name])
