"""Leaving out most blocks of a step in which they would add about what they added before.

How much the first block changes the image tokens tells how far the rest would be from its last result (First-Block Cache,
a variant of TeaCache, arXiv 2411.19108): where that change is near the one of the last full pass, what the other blocks
added then is added again. B rows, N image tokens, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RowName = tuple[str, int]
"""A guidance branch, and the number of the sample."""
Rest = Callable[[list[int]], Tensor]
"""From rows of the batch to their image tokens behind the last block."""


@dataclass(frozen=True)
class _Seen:
    """What a full pass did to the image tokens of a row (N, D): its first block, and all the others."""

    first: Tensor
    others: Tensor


class StepCache:
    """What the last full pass of every row did, for the steps of one batch; rows are known by names.

    A row goes through all blocks where the change by the first block is off by more than `threshold`, as a share (L1).
    `reused` counts for every name how often it did not.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.reused: dict[RowName, int] = {}
        self._seen: dict[RowName, _Seen] = {}
        self._names: Sequence[RowName] = ()
        self._in_full = False

    def expect(self, names: Sequence[RowName], *, in_full: bool) -> None:
        """Say which rows come next, and whether all of them have to go through every block."""
        self._names, self._in_full = names, in_full

    def __call__(self, before_BND: Tensor, after_BND: Tensor, rest: Rest) -> Tensor:
        """Return the image tokens behind the last block, from those around the first one."""
        change_BND = after_BND - before_BND
        fresh = self._fresh(change_BND)
        out_BND = torch.empty_like(after_BND)
        if fresh:
            made = rest(fresh)
            for at, row in enumerate(fresh):
                out_BND[row] = made[at]
                self._seen[self._names[row]] = _Seen(change_BND[row].clone(), made[at] - after_BND[row])
        for row in sorted({*range(len(self._names))} - {*fresh}):
            name = self._names[row]
            out_BND[row] = after_BND[row] + self._seen[name].others
            self.reused[name] = self.reused.get(name, 0) + 1
        return out_BND

    def _fresh(self, change_BND: Tensor) -> list[int]:
        """Return the rows that have to go through all blocks; the device is waited for once."""
        known = [row for row, name in enumerate(self._names) if name in self._seen and not self._in_full]
        if not known:
            return list(range(len(self._names)))
        offs = []
        for row in known:
            first_ND = self._seen[self._names[row]].first
            offs.append((change_BND[row] - first_ND).abs().float().mean() / first_ND.abs().float().mean())
        near = {row for row, off in zip(known, torch.stack(offs).tolist(), strict=True) if off <= self.threshold}
        return [row for row in range(len(self._names)) if row not in near]
