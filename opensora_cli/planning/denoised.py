"""What planning asks of a denoiser, whatever its family."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from opensora_cli.planning.coded import Extent
from opensora_cli.planning.segments import Segment
from schemas.memory import MemoryConfig
from schemas.recipes import SampleRecipe, TrainRecipe


@dataclass(frozen=True)
class LatentClips:
    """A batch for a denoiser: clips, frames, rows and columns of their latents, and text tokens of each."""

    batch: int
    latents: Extent
    text: int


@dataclass(frozen=True)
class BlockCounts:
    """Numbers of the blocks that the schema does not state: weights that are trained, and matrices among them."""

    weights: int
    matrices: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one forward pass: matrix products with weights, and attention."""

    products: int
    attention: int

    @property
    def forward(self) -> int:
        """Both together."""
        return self.products + self.attention

    def of_one(self, clips: int) -> "Flops":
        """Return the work of one of so many equal clips."""
        return Flops(self.products // clips, self.attention // clips)

    def training(self, recomputed_products: int = 0, recomputed_attention: int = 0) -> int:
        """Return forward and backward: products twice more; attention 2.5 times, since its backward computes the scores anew."""
        return 3 * self.products + recomputed_products + self.attention * 7 // 2 + recomputed_attention


class DenoiserCosts(Protocol):
    """What a denoiser of one configuration costs in one precision; of sharing out, what one process has."""

    @property
    def largest_matrix(self) -> int:
        """Numbers of the largest matrix."""
        ...

    def image_tokens(self, latents: Extent) -> int:
        """Return the tokens of a clip, text left out."""
        ...

    def latent_numbers(self, latents: Extent) -> int:
        """Return how many numbers a clip's latents are."""
        ...

    def input_bytes(self, latents: Extent, text: int) -> int:
        """Return the bytes of a clip as training holds it: latents, noise, target, conditions, encoded text."""
        ...

    def segments(self, clips: LatentClips, trained: Mapping[str, BlockCounts], memory: MemoryConfig) -> list[Segment]:
        """Return the segments of a training step in order: input layers, every block, last layer."""
        ...

    def evaluating(self, clips: LatentClips) -> int:
        """Return what an evaluation without a backward pass takes beside weights and inputs, bytes."""
        ...

    def flops(self, clips: LatentClips) -> Flops:
        """Return the work of one of the clips, forward."""
        ...

    def flops_again(self, clips: LatentClips, memory: MemoryConfig) -> int:
        """Return the work of one of the clips in the blocks that are recomputed; none where products are kept."""
        ...


def text_tokens(recipe: TrainRecipe | SampleRecipe) -> int:
    """Return the text tokens of a clip: T5's, else one, which is a pooled vector or a class."""
    return recipe.text.t5.max_length if "t5" in recipe.model.texts else 1
