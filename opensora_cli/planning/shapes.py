"""The shapes that a recipe works on: one for each (resolution, frames), at the aspect ratio with most pixels."""

from dataclasses import dataclass

from opensora_cli.data.buckets import Buckets
from opensora_cli.data.rules import rules_of
from opensora_cli.sampling.size import sample_size
from schemas.recipes import AnyRecipe, SampleRecipe, TrainRecipe, VaeSampleRecipe, VaeStatsRecipe, VaeTrainRecipe


@dataclass(frozen=True)
class ClipShape:
    """Clips of one size; `name` is the resolution, or what stands for it."""

    name: str
    frames: int
    height: int
    width: int
    batch_size: int

    @property
    def extent(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels."""
        return self.frames, self.height, self.width

    @property
    def pixels(self) -> int:
        """Pixels of a clip."""
        return self.frames * self.height * self.width


def shapes_of(recipe: AnyRecipe) -> list[ClipShape]:
    """Return the shapes of a recipe, in the order in which buckets are tried; for sampling the one size that is made."""
    if isinstance(recipe, SampleRecipe):
        height, width = sample_size(recipe.sampling, recipe.pixels_per_token)
        name = f"{height}x{width}" if recipe.sampling.resolution is None else recipe.sampling.resolution
        return [ClipShape(name, recipe.sampling.num_frames, height, width, recipe.sampling.batch_size)]
    return _bucket_shapes(recipe)


def _bucket_shapes(recipe: TrainRecipe | VaeTrainRecipe | VaeSampleRecipe | VaeStatsRecipe) -> list[ClipShape]:
    found = []
    buckets = Buckets(recipe.buckets, recipe.pixels_per_token, rules=rules_of(recipe.dataset))
    for level in buckets.levels:
        sizes = buckets.sizes(level.resolution).values()
        height, width = max(sizes, key=lambda size: size[0] * size[1])
        for frames in sorted(level.lengths):
            batch_size = recipe.buckets[level.resolution][frames][1]
            found.append(ClipShape(level.resolution, frames, height, width, batch_size))
    return found
