"""What workers read from caches in place of decoding clips, and what the main process gets in place of encoding them.

Legend: B batch, M moments (of a Gaussian autoencoder: means, then log variances), T latent frames, H W latent pixels,
L text tokens, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opensora_cli.data.cache.contents import latents_id, text_id
from opensora_cli.data.cache.keys import part_name
from opensora_cli.data.cache.reader import CacheReader
from opensora_cli.data.media import UnreadableClip
from opensora_models.diffusion.condition import Cut, possible_cuts
from schemas.condition import ConditionName
from schemas.errors import OsoraError

if TYPE_CHECKING:
    from opensora_cli.data.buckets import Shape
    from opensora_cli.data.dataset import ClipRequest

TEXT_PARTS = ("t5", "clip")
MASK = "t5_mask"
"""The part of a caption's entry that says which tokens count, where text.t5.masked is true."""
WHOLE = "clip"
"""The part of an entry that describes the whole window."""
Parts = dict[str, Tensor]


class NotCachedError(OsoraError):
    """A clip or caption has no entry; the text says which and why."""


@dataclass(frozen=True)
class CachedLatents:
    """A batch's moments by part: the whole windows (B, M, T, H, W), and the frames that conditions encode apart."""

    parts: Mapping[str, Tensor]

    @property
    def moments(self) -> Tensor:
        """Those of the whole windows (B, M, T, H, W)."""
        return self.parts[WHOLE]

    def of_cuts(self, cuts: Sequence[Cut]) -> Tensor:
        """Return the moments of frames encoded apart, in the order of `cuts`, which all have one length."""
        return torch.stack([self.parts[part_name(cut.frames, head=cut.head)][cut.item] for cut in cuts])


@dataclass(frozen=True)
class CachedText:
    """A batch's text features: T5 tokens (B, L, D) and CLIP's pooled vectors (B, D).

    With text.t5.masked also which tokens count, (B, L) bool.
    """

    t5: Tensor
    clip: Tensor
    t5_mask: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return what there is by what it is."""
        parts = {"t5": self.t5, "clip": self.clip}
        return parts if self.t5_mask is None else {**parts, MASK: self.t5_mask}

    def to(self, device: torch.device | str) -> "CachedText":
        """Return them on a device."""
        return CachedText(**{part: tensor.to(device) for part, tensor in self.tensors().items()})


@dataclass(frozen=True)
class CutPlan:
    """Which frames of a clip its conditions encode apart, and how many latent frames it becomes."""

    weights: Mapping[ConditionName, float]
    time_stride: int
    causal: bool

    def cuts(self, frames: int) -> tuple[tuple[int, bool], ...]:
        """Return every (frames, head) for a clip of so many frames, sorted."""
        latent_frames = (frames - 1) // self.time_stride + 1
        return possible_cuts(self.weights, latent_frames, time_stride=self.time_stride, causal=self.causal)

    def parts(self, frames: int) -> list[str]:
        """Return the parts of an entry for a clip of so many frames."""
        return [WHOLE, *(part_name(count, head=head) for count, head in self.cuts(frames))]


@dataclass(frozen=True)
class CachedInputs:
    """The caches that a recipe uses; a reader that is None leaves its part to the encoder."""

    latents: CacheReader | None
    text: CacheReader | None
    cut_plan: CutPlan
    dtype: torch.dtype
    """The recipe's precision, in which encoders would have answered."""
    encode_misses: bool
    """Whether what is not cached may be encoded; if not, no encoder is loaded."""

    def clip(self, clip: "ClipRequest", shape: "Shape") -> Parts:
        """Return a clip's moments, without a batch axis.

        Raises UnreadableClip as decoding it would, NotCachedError if it has no entry, OsoraError for a damaged cache.
        """
        assert self.latents is not None
        name = latents_id(clip, shape)
        if (reason := self.latents.unreadable(name)) is not None:
            raise UnreadableClip(clip.path, reason)
        parts = self.latents.read(name, self.cut_plan.parts(shape.frames))
        if parts is None:
            raise NotCachedError(
                f"row {clip.row}: {clip.path} is not in {self.latents.folder} with its present content, frames from "
                f"{clip.start} on, at {shape.height} x {shape.width}. Was the file replaced since? {_MEND}"
            )
        return {part: tensor.to(self.dtype) for part, tensor in parts.items()}

    def captions(self, texts: Sequence[str]) -> CachedText:
        """Return the features of captions. Raises NotCachedError if one has no entry, OsoraError for a damaged cache."""
        assert self.text is not None
        parts = (*TEXT_PARTS, MASK) if self.text.facts.get("text.t5.masked") else TEXT_PARTS
        found = []
        for text in texts:
            entry = self.text.read(text_id(text), parts)
            if entry is None:
                raise NotCachedError(f"the caption {text!r} is not in {self.text.folder}. {_MEND}")
            found.append(entry)
        together = {part: torch.stack([entry[part] for entry in found]) for part in parts}
        return CachedText(**together | {part: together[part].to(self.dtype) for part in TEXT_PARTS})


def stack_parts(entries: Sequence[Parts]) -> CachedLatents:
    """Return the entries of a batch as one."""
    return CachedLatents({part: torch.stack([entry[part] for entry in entries]) for part in entries[0]})


_MEND = 'Run `osora cache` again, or set dataset.on_cache_miss = "encode".'
