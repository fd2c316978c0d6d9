"""Batch sizes that fit: the largest for every length, written as a layer."""

from collections.abc import Callable, Mapping
from pathlib import Path

from opensora_cli.files import write_text
from opensora_cli.planning.plan import Plan
from opensora_cli.planning.shapes import ClipShape
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe
from schemas.resolve.literals import write_value

MOST = 1024
"""A batch larger than this is never suggested: memory is not what limits it."""


def suggest(plan: Plan) -> dict[tuple[str, int], int | None]:
    """Return the largest batch size that fits for each (resolution, frames); None where not even one clip does.

    With data, no more than the length's clips. Raises UsageError without a GPU, or for a kind without buckets.
    """
    limit = plan.target.usable
    if limit is None:
        raise UsageError("--suggest needs a limit: add --gpu NAME or --gpu-memory GIB.")
    if isinstance(plan.recipe, SampleRecipe):
        raise UsageError("--suggest writes batch sizes of buckets, and a sample recipe has none.")
    states = sum(plan.estimator.states.values())
    found: dict[tuple[str, int], int | None] = {}
    for one in plan.shapes:
        most = MOST if not one.clips else min(MOST, one.clips)
        size = largest_batch(_total(plan, one.shape, states), limit, most)
        found[one.shape.name, one.shape.frames] = size
    if not any(found.values()):
        raise OsoraError(
            f"no bucket fits {limit / 2**30:.1f} GiB, not even with one clip: {states / 2**30:.1f} GiB are states. Recompute "
            "blocks (memory.grad_checkpoint), share states out over more processes, or take a larger GPU."
        )
    return found


def largest_batch(total: Callable[[int], int], limit: int, most: int) -> int | None:
    """Return the largest batch size up to `most` whose total stays within the limit, None if there is none."""
    if total(1) > limit:
        return None
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= limit else (low, middle)
    return low


def write_layer(plan: Plan, sizes: Mapping[tuple[str, int], int | None], path: Path) -> None:
    """Write the batch sizes as a layer; keep probabilities stay. Lengths that do not fit are named and left alone."""
    assert not isinstance(plan.recipe, SampleRecipe)
    gpu = plan.target.gpu or f"{(plan.target.memory or 0) / 2**30:g} GiB"
    lines = [f"# Batch sizes for {gpu}, {plan.target.world_size} process(es), planned by osora."]
    for name, lengths in plan.recipe.buckets.items():
        lines += ["", f"[buckets.{write_value(name)}]"]
        for frames in sorted(lengths):
            size = sizes[name, frames]
            if size is None:
                lines.append(f"# {frames} frames do not fit, not even with one clip")
            else:
                lines.append(f"{frames} = {write_value([_chance(lengths[frames][0]), size])}")
    write_text(path, "\n".join(lines) + "\n")


def _chance(chance: float | tuple[float, float]) -> float | list[float]:
    return list(chance) if isinstance(chance, tuple) else chance


def _total(plan: Plan, shape: ClipShape, states: int) -> Callable[[int], int]:
    return lambda batch: states + plan.estimator.estimate(shape, batch).peak
