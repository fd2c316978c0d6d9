"""The peak of a training update: a walk over the segments of a model, forward and back.

Weights, moments and averages lie still. Activations pile up segment by segment; on the way back they go, while gradients
come. So the peak is not the sum of all parts, and it can lie at the end of the forward pass, inside a recomputed block,
or at the first segment when all gradients are there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from opensora_cli.planning.precision import STATE


@dataclass(frozen=True)
class Segment:
    """A stretch of a model: a block, or what is before or behind the blocks. Sizes in bytes but for `weights`."""

    name: str
    saved: int
    """What autograd saves for the backward pass."""
    inputs: int
    """What stays of it when the segment is recomputed."""
    recomputed: bool
    weights: int
    """How many numbers are trained in it, of which this process computes the gradient."""
    casts: int
    """Copies of matrices in the precision of the products."""
    working: int
    """What comes and goes while it is computed or differentiated."""
    products: int = 0
    """With recomputing: what stays on the device beside the inputs."""

    @property
    def kept(self) -> int:
        """Activations between its forward and its backward pass."""
        return self.inputs + self.products if self.recomputed else self.saved


@dataclass(frozen=True)
class Sharding:
    """What becomes of weights and gradients: over how many processes each is shared out."""

    weights: int = 1
    gradients: int = 1
    gathered: int = 1
    """With shared weights: segments whose weights are here in full at a time."""
    bucket: int = 0
    """Bytes of the buffer in which gradients travel."""


@dataclass(frozen=True)
class Peak:
    """The largest moment of an update, bytes, and what it holds."""

    total: int
    activations: int
    gradients: int
    casts: int
    moment: str


def update_peak(
    segments: Sequence[Segment], sharding: Sharding, *, accumulates: bool, releases: bool = False, step: int = 0
) -> Peak:
    """Return the peak of forward and backward pass without what lies still.

    `accumulates`: gradients of earlier micro-batches are there from the start. `releases`: each goes as soon as it is
    there, one segment's at most. `step`: what the optimizer's update takes itself, bytes.
    """
    everything = sum(_gradient(segment, sharding) for segment in segments)
    if releases:
        segments = [replace(one, working=one.working + step + _gradient(one, sharding), weights=0) for one in segments]
        everything = 0
    moments = list(_moments(segments, sharding, everything if accumulates else 0, accumulates))
    return max(*moments, _peak(step, everything, 0, "optimizer step"), key=lambda peak: peak.total)


def offloaded(segments: Sequence[Segment], room: int) -> list[Segment]:
    """Move the inputs of recomputed blocks to host memory, from the first, as far as the buffer reaches."""
    found = []
    for segment in segments:
        if segment.recomputed and segment.inputs <= room:
            room -= segment.inputs
            moving = segment.working + 2 * segment.inputs  # on its way out, or fetched before it is wanted
            segment = replace(segment, inputs=0, working=moving)
        found.append(segment)
    return found


def _moments(segments: Sequence[Segment], sharding: Sharding, gradients: int, accumulates: bool) -> Iterable[Peak]:
    kept = held = 0
    whole_weights = sharding.weights == 1
    for segment in segments:
        held += segment.casts if whole_weights else 0
        gathered = 0 if whole_weights else sharding.gathered * segment.casts
        yield _peak(kept + max(segment.kept, segment.inputs) + segment.working, gradients, held + gathered, "forward")
        kept += segment.kept
    yield _peak(kept, gradients, held, "between forward and backward")
    held = sum(segment.casts for segment in segments if not segment.recomputed) if whole_weights else 0
    for segment in reversed(segments):
        again = segment.saved - segment.kept
        own = _gradient(segment, sharding) if not accumulates else 0
        whole = (STATE * segment.weights if sharding.gradients > 1 else 0) + sharding.bucket
        cast = (segment.casts if segment.recomputed else 0) if whole_weights else sharding.gathered * segment.casts
        name = f"backward of {segment.name}"
        yield _peak(kept + again + segment.working, gradients + whole, held + cast, name)
        kept -= segment.kept
        held -= segment.casts if whole_weights and not segment.recomputed else 0
        gradients += own
        yield _peak(kept + segment.inputs, gradients + whole, held + cast, name)


def _gradient(segment: Segment, sharding: Sharding) -> int:
    return STATE * segment.weights // sharding.gradients


def _peak(activations: int, gradients: int, casts: int, moment: str) -> Peak:
    return Peak(activations + gradients + casts, activations, gradients, casts, moment)
