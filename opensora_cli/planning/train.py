"""Training a denoiser: frozen encoders beside it, states shared out as the recipe says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from opensora_cli.planning.coded import Coding, latent_size
from opensora_cli.planning.coding import coding
from opensora_cli.planning.denoised import BlockCounts, DenoiserCosts, LatentClips, text_tokens
from opensora_cli.planning.denoising import denoiser_costs
from opensora_cli.planning.estimate import Estimate
from opensora_cli.planning.modules import ENTRY, FINAL, Counted, DenoiserCounts
from opensora_cli.planning.optimizers import host_bytes, optimizer_bytes, step_bytes
from opensora_cli.planning.precision import STATE, Device, Precision
from opensora_cli.planning.segments import Peak, Segment, offloaded, update_peak
from opensora_cli.planning.shapes import ClipShape
from opensora_cli.planning.sharing import Sharing
from opensora_cli.planning.text import TextEncoder
from schemas.memory import MemoryConfig
from schemas.recipes import TrainRecipe


@dataclass(frozen=True)
class DenoiserTraining:
    """Estimates for a train recipe."""

    recipe: TrainRecipe
    device: Device
    sharing: Sharing
    counts: DenoiserCounts
    autoencoder: Counted
    text: Mapping[str, TextEncoder]

    @cached_property
    def states(self) -> dict[str, int]:
        """Weights, moments, average and frozen models."""
        recipe, sharing, optim = self.recipe, self.sharing, self.recipe.optim
        matrix = self._precision.matrix
        # Adapters are averaged alone; otherwise what is frozen is in fp32 and in the average like all the rest.
        frozen = max(map(self._frozen_bytes, self._stages)) if recipe.lora else 0
        whole = self._trained if recipe.lora else self._most_weights(self.counts.whole)
        return {
            "weights": (STATE * whole + frozen) // sharing.weights,
            "gathered weights": matrix * whole + frozen if sharing.gathers_all else 0,
            "optimizer": optimizer_bytes(recipe, self._trained, self.device) // sharing.optimizer,
            "average (EMA)": STATE * whole // sharing.average if optim.ema_decay is not None else 0,
            "autoencoder": matrix * self.autoencoder.total if recipe.dataset.encodes_clips else 0,
            "text encoders": matrix * sum(one.weights for one in self.text.values())
            if recipe.dataset.encodes_text
            else 0,
        }

    @property
    def gradients(self) -> int:
        """All gradients of the trained weights, as they are shared out; none where each goes at once."""
        if self.recipe.memory.release_gradients:
            return 0
        return STATE * self._trained // self.sharing.sharding.gradients

    def host_notes(self) -> Iterator[str]:
        """Say what waits in host memory instead."""
        memory = self.recipe.memory
        if host := host_bytes(self.recipe, self._trained):
            yield f"in pinned host memory: the optimizer, {host / 2**30:.1f} GiB for each process"
        if memory.grad_checkpoint and memory.grad_ckpt_buffer_size:
            size = memory.grad_ckpt_buffer_size / 2**30
            yield f"in pinned host memory: inputs of recomputed blocks, up to {size:.1f} GiB for each process"

    def estimate(self, shape: ClipShape, batch: int) -> Estimate:
        """Return the cost of a batch of clips of a shape."""
        clips = self._clips(shape, batch)
        peaks = [self._update(clips), *self._frozen(shape, batch)]
        peak = max(peaks, key=lambda one: one.total)
        model, frozen = self._costs.flops(clips), self._frozen_flops(shape)
        again = self._costs.flops_again(clips, self.recipe.memory)
        segments, plain = self._segments(clips, self.recipe.memory), self._segments(clips, MemoryConfig())
        return Estimate(
            tokens=self._costs.image_tokens(clips.latents) + clips.text,
            forward_flops=model.forward,
            flops=model.training() + again + frozen,
            flops_without_recomputing=model.training() + frozen,
            activations=sum(one.kept for one in segments) // self.sharing.pipeline,
            activations_without_recomputing=sum(one.kept for one in plain) // self.sharing.pipeline,
            peak=peak.total + self._inputs(shape, batch),
            moment=peak.moment,
            gradients_at_peak=peak.gradients,
        )

    @cached_property
    def _precision(self) -> Precision:
        return Precision.of(self.recipe.dtype, self.device)

    @cached_property
    def _costs(self) -> DenoiserCosts:
        model, sharing, fp8 = self.recipe.model, self.sharing, self.recipe.memory.fp8_linear
        return denoiser_costs(model, self._precision, tensor=sharing.tensor, sequence=sharing.sequence, fp8=fp8)

    @cached_property
    def _trained(self) -> int:
        return self._most_weights(self.counts.trained)

    def _most_weights(self, counts: Mapping[str, BlockCounts]) -> int:
        """Return the weights of the pipeline stage that has most."""
        return max(self._weights(stage, counts) for stage in self._stages)

    def _clips(self, shape: ClipShape, batch: int) -> LatentClips:
        return LatentClips(batch, latent_size(self.recipe.ae, shape.extent), text_tokens(self.recipe))

    def _segments(self, clips: LatentClips, memory: MemoryConfig) -> list[Segment]:
        segments = self._costs.segments(clips, self.counts.trained, memory)
        if self.sharing.gathers_all:  # they are gathered in the products' precision
            segments = [replace(segment, casts=0) for segment in segments]
        return offloaded(segments, memory.grad_ckpt_buffer_size)

    @cached_property
    def _stages(self) -> list[list[str]]:
        """The segments of each pipeline stage, by kind; one stage has all."""
        kinds, stages = self.counts.blocks, self.sharing.pipeline
        size = ceil(len(kinds) / stages) or 1
        found = [kinds[start : start + size] for start in range(0, size * stages, size)]
        return [
            [*([ENTRY] if not index else []), *part, *([FINAL] if index == stages - 1 else [])]
            for index, part in enumerate(found)
        ]

    def _frozen_bytes(self, stage: Sequence[str]) -> int:
        """Return what the weights beside adapters take; 8 bits are for the matrices of blocks."""
        matrix, parts = self._precision.matrix, self.counts.whole
        narrow = self.recipe.lora is not None and self.recipe.lora.fp8_weights
        saved = sum((matrix - 1) * parts[kind].matrices for kind in stage if kind not in (ENTRY, FINAL) and narrow)
        return matrix * self._weights(stage, parts) - saved

    def _weights(self, stage: Sequence[str], counts: Mapping[str, BlockCounts]) -> int:
        return sum(counts[kind].weights for kind in stage)

    def _update(self, clips: LatentClips) -> Peak:
        """Return the peak of the worst pipeline stage; earlier stages keep more micro-batches in flight."""
        segments = self._segments(clips, self.recipe.memory)
        accumulation, stages = self.recipe.optim.accumulation_steps, self.sharing.pipeline
        peaks, start = [], 0
        for index, stage in enumerate(self._stages):
            part = segments[start : start + len(stage)]
            start += len(stage)
            peak = update_peak(
                part,
                self.sharing.sharding,
                accumulates=accumulation > 1,
                releases=self.recipe.memory.release_gradients,
                step=step_bytes(self.recipe.optim, self._costs.largest_matrix),
            )
            waiting = (min(stages - index, accumulation) - 1) * sum(segment.kept for segment in part)
            peaks.append(replace(peak, total=peak.total + waiting))
        return max(peaks, key=lambda peak: peak.total)

    def _frozen(self, shape: ClipShape, batch: int) -> list[Peak]:
        """Return what encoding clips and captions takes; with accumulation the gradients are there already."""
        here = self.gradients if self.recipe.optim.accumulation_steps > 1 else 0
        moments = []
        video = self._encoding(shape, batch)
        if video is not None:
            copy = 3 * batch * shape.pixels * self._precision.matrix if self._precision.matrix != STATE else 0
            moments.append(("encoding the clips", video.peak + copy))
        if self.recipe.dataset.encodes_text:
            working = [one.working(batch, self._precision.matrix) for one in self.text.values()]
            moments.append(("encoding the captions", max(working, default=0)))
        return [Peak(here + size, 0, here, 0, moment) for moment, size in moments]

    def _encoding(self, shape: ClipShape, batch: int) -> Coding | None:
        if not self.recipe.dataset.encodes_clips:
            return None
        precision = Precision.of(self.recipe.dtype, self.device, autocast=False)
        return coding(self.recipe.ae, precision, batch, shape.extent, "encode")

    def _inputs(self, shape: ClipShape, batch: int) -> int:
        """Return the batch itself: pixels in fp32, and what the denoiser gets."""
        clips = self._clips(shape, batch)
        pixels = 3 * STATE * shape.pixels if self.recipe.dataset.encodes_clips else 0
        return batch * (pixels + self._costs.input_bytes(clips.latents, clips.text))

    def _frozen_flops(self, shape: ClipShape) -> int:
        video = self._encoding(shape, 1)
        captions = sum(one.flops for one in self.text.values()) if self.recipe.dataset.encodes_text else 0
        return captions + (video.flops if video else 0)
