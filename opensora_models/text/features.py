"""What text encoders make of captions, by name.

Legend: B captions, L tokens, D features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextFeatures:
    """The parts that a denoiser takes of a batch of captions; its config names them in `texts`.

    t5 (B, L, D) T5's tokens, t5_mask (B, L) bool, true where a token is one of the caption's, clip (B, D) CLIP's pooled
    vector, labels (B,) int64 classes.
    """

    parts: Mapping[str, Tensor]

    def __getitem__(self, part: str) -> Tensor:
        return self.parts[part]

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def to(self, device: torch.device | str) -> Self:
        """Return them on a device."""
        return type(self)({name: part.to(device) for name, part in self.parts.items()})

    def rows(self, start: int, stop: int) -> Self:
        """Return those of some captions in a row."""
        return type(self)({name: part[start:stop] for name, part in self.parts.items()})

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """Return the captions of several batches as one."""
        return cls({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
