"""Sampling: no gradients and no optimizer; the models are at work one after the other."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from opensora_cli.planning.coded import latent_size
from opensora_cli.planning.coding import coding
from opensora_cli.planning.denoised import BlockCounts, DenoiserCosts, LatentClips, text_tokens
from opensora_cli.planning.denoising import denoiser_costs
from opensora_cli.planning.estimate import Estimate
from opensora_cli.planning.modules import Counted, DenoiserCounts
from opensora_cli.planning.precision import Device, Precision
from opensora_cli.planning.shapes import ClipShape, shapes_of
from opensora_cli.planning.sharing import Sharing
from opensora_cli.planning.text import TextEncoder
from schemas.recipes import SampleRecipe

BLOCKS_HERE = 2
"""With offload = "block": the block at work and the one on its way, each in memory for the largest."""


@dataclass(frozen=True)
class Sampling:
    """Estimates for a sample recipe: `estimate` takes a batch of prompts through all steps."""

    recipe: SampleRecipe
    device: Device
    sharing: Sharing
    counts: DenoiserCounts
    autoencoder: Counted
    text: Mapping[str, TextEncoder]
    images: "Sampling | None" = None
    """The stage that makes the first frames; its models are gone before those of the clips come."""

    @property
    def states(self) -> Mapping[str, int]:
        """Nothing lies still: the moments of `estimate` hold the models that are on the device."""
        return {}

    @property
    def gradients(self) -> int:
        """None."""
        return 0

    @property
    def models(self) -> dict[str, int]:
        """Bytes of each model while it is at work."""
        matrix, numbers = self._precision.matrix, Counter(self.counts.blocks)
        sizes = {name: self._bytes(part, name in numbers) for name, part in self.counts.whole.items()}
        denoiser = sum(size * numbers.get(name, 1) for name, size in sizes.items())
        if self.recipe.sampling.offload == "block":
            around = sum(size for name, size in sizes.items() if name not in numbers)
            largest = max((sizes[name] for name in numbers), default=0)
            denoiser = around + min(BLOCKS_HERE, len(self.counts.blocks)) * largest
        found = {
            "denoiser": denoiser // (self.sharing.sharding.weights * self.sharing.pipeline),
            "autoencoder": matrix * self.autoencoder.total,
            "text encoders": matrix * sum(one.weights for one in self.text.values()),
        }
        if self.images is not None:
            found |= {f"image {name}": self.images.models[name] for name in ("denoiser", "autoencoder")}
        return found

    def _bytes(self, part: BlockCounts, is_block: bool) -> int:
        """Return the bytes of a part's weights; 8 bits are for the matrices of blocks."""
        matrix = self._precision.matrix
        each = 1 if is_block and self.recipe.sampling.fp8_weights else matrix
        return each * part.matrices + matrix * (part.weights - part.matrices)

    def estimate(self, shape: ClipShape, batch: int) -> Estimate:
        """Return the cost of a batch of clips; a guided step evaluates all its branches."""
        models, matrix, clips = self.models, self._precision.matrix, self._clips(shape, batch)
        together = models["denoiser"] + models["autoencoder"] if self.recipe.sampling.offload == "none" else 0
        moments = {"encoding the prompts": models["text encoders"] + self._text_working(batch)}
        moments["denoising"] = max(together, models["denoiser"]) + self._denoising(shape, batch)
        flops = self.branches * self._evaluations * self._forward(shape)
        decoding = coding(self.recipe.ae, self._precision, batch, shape.extent, "decode")
        pixels = 3 * batch * shape.pixels * (matrix + 4)
        moments["decoding"] = max(together, models["autoencoder"]) + decoding.peak + pixels
        flops += decoding.flops // batch
        if self.images is not None:
            (picture,) = shapes_of(self.images.recipe)
            first = self.images.estimate(picture, batch)
            moments[f"the first frames: {first.moment}"] = first.peak
            flops += first.flops
        moment = max(moments, key=lambda name: moments[name])
        return Estimate(
            tokens=self._costs.image_tokens(clips.latents) + clips.text,
            forward_flops=self._forward(shape),
            flops=flops,
            flops_without_recomputing=flops,
            activations=0,
            activations_without_recomputing=0,
            peak=moments[moment],
            moment=moment,
            gradients_at_peak=0,
        )

    @property
    def branches(self) -> int:
        """Evaluations of a guided step."""
        return self.recipe.branches

    @property
    def _evaluations(self) -> int:
        """Evaluations of each branch: Heun's method takes two a step, save the last one."""
        steps = self.recipe.sampling.num_steps
        return 2 * steps - 1 if self.recipe.sampling.solver == "heun" else steps

    @property
    def _precision(self) -> Precision:
        return Precision.of(self.recipe.dtype, self.device, autocast=False)

    @cached_property
    def _costs(self) -> DenoiserCosts:
        tensor, sequence = self.sharing.tensor, self.sharing.sequence
        return denoiser_costs(self.recipe.model, self._precision, tensor=tensor, sequence=sequence)

    def _clips(self, shape: ClipShape, batch: int) -> LatentClips:
        return LatentClips(batch, latent_size(self.recipe.ae, shape.extent), text_tokens(self.recipe))

    def _denoising(self, shape: ClipShape, batch: int) -> int:
        parts, model, costs = self.sharing.sequence, self.recipe.model, self._costs
        together = 1 if self.recipe.sampling.cfg_branches == "in_turn" else -(-self.branches // self.sharing.branches)
        clips = self._clips(shape, batch * together)
        matrix = model.hidden_size * int(model.hidden_size * (model.mlp_ratio + 3))
        written_out = (
            2 * self._precision.matrix * matrix // self.sharing.tensor if self.recipe.sampling.fp8_weights else 0
        )
        # Of every guidance branch the step cache keeps what the first block and all others added.
        seen = 2 * self._precision.matrix * costs.image_tokens(clips.latents) * model.hidden_size // parts
        if self.recipe.sampling.cache_threshold:
            written_out += batch * self.branches * seen
        latents = written_out + 8 * batch * self.branches * costs.latent_numbers(clips.latents)
        return costs.evaluating(clips) + latents

    def _text_working(self, batch: int) -> int:
        return max((one.working(batch, self._precision.matrix) for one in self.text.values()), default=0)

    def _forward(self, shape: ClipShape) -> int:
        return self._costs.flops(self._clips(shape, 1)).forward
