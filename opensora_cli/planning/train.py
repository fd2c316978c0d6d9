"""Training a denoiser: frozen encoders beside it, states shared out as the recipe says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from opensora_cli.planning.coded import Coding
from opensora_cli.planning.coding import coding
from opensora_cli.planning.estimate import Estimate
from opensora_cli.planning.mmdit import BlockCounts, MMDiTCounter, Recomputed, Tokens, mmdit_flops, mmdit_segments
from opensora_cli.planning.modules import Counted, DenoiserCounts
from opensora_cli.planning.optimizers import host_bytes, optimizer_bytes, step_bytes
from opensora_cli.planning.precision import STATE, Device, Precision
from opensora_cli.planning.segments import Peak, Segment, offloaded, update_peak
from opensora_cli.planning.shapes import ClipShape
from opensora_cli.planning.sharing import Sharing
from opensora_cli.planning.text import TextEncoder
from schemas.autoencoder.frames import latent_frames
from schemas.recipes import SampleRecipe, TrainRecipe


def latent_extent(recipe: TrainRecipe | SampleRecipe, shape: ClipShape) -> tuple[int, int, int]:
    """Return the latents' frames, rows and columns of a clip."""
    side = recipe.ae.spatial_compression_ratio
    return latent_frames(recipe.ae, shape.frames), -(-shape.height // side), -(-shape.width // side)


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
        trained = max(self._weights(stage, self.counts.trained) for stage in self._stages)
        frozen = max(map(self._frozen_bytes, self._stages)) if recipe.lora else 0
        matrix = self._precision.matrix
        return {
            "weights": (STATE * trained + frozen) // sharing.weights,
            "gathered weights": matrix * trained + frozen if sharing.gathers_all else 0,
            "optimizer": optimizer_bytes(recipe, trained, self.device) // sharing.optimizer,
            "average (EMA)": STATE * trained // sharing.average if optim.ema_decay is not None else 0,
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
        trained = max(self._weights(stage, self.counts.trained) for stage in self._stages)
        return STATE * trained // self.sharing.sharding.gradients

    def host_notes(self) -> Iterator[str]:
        """Say what waits in host memory instead."""
        memory = self.recipe.memory
        if host := host_bytes(self.recipe, max(self._weights(stage, self.counts.trained) for stage in self._stages)):
            yield f"in pinned host memory: the optimizer, {host / 2**30:.1f} GiB for each process"
        if memory.grad_checkpoint and memory.grad_ckpt_buffer_size:
            size = memory.grad_ckpt_buffer_size / 2**30
            yield f"in pinned host memory: inputs of recomputed blocks, up to {size:.1f} GiB for each process"

    def estimate(self, shape: ClipShape, batch: int) -> Estimate:
        """Return the cost of a batch of clips of a shape."""
        tokens = self._tokens(shape, batch)
        peaks = [self._update(tokens, self._recomputed), *self._frozen(shape, batch)]
        peak = max(peaks, key=lambda one: one.total)
        model = self._flops(shape)
        frozen = self._frozen_flops(shape)
        segments, plain = self._segments(tokens, self._recomputed), self._segments(tokens, Recomputed())
        return Estimate(
            tokens=self._image_tokens(shape) + self.recipe.text.t5.max_length,
            forward_flops=model[0],
            flops=model[1] + model[2] + frozen,
            flops_without_recomputing=model[1] + frozen,
            activations=sum(one.kept for one in segments) // self.sharing.pipeline,
            activations_without_recomputing=sum(one.kept for one in plain) // self.sharing.pipeline,
            peak=peak.total + self._inputs(shape, batch),
            moment=peak.moment,
            gradients_at_peak=peak.gradients,
        )

    @cached_property
    def _precision(self) -> Precision:
        return Precision.of(self.recipe.dtype, self.device)

    @property
    def _recomputed(self) -> Recomputed:
        return Recomputed.of(self.recipe.memory, self.recipe.model)

    @property
    def _widest(self) -> int:
        """Rows of the largest matrix: queries, keys, values and the MLP of a single block, as far as they are one."""
        model = self.recipe.model
        return int(model.hidden_size * ((3 if model.fused_qkv else 1) + model.mlp_ratio))

    def _image_tokens(self, shape: ClipShape) -> int:
        frames, height, width = latent_extent(self.recipe, shape)
        return frames * height * width // self.recipe.model.patch_size**2

    def _tokens(self, shape: ClipShape, batch: int) -> Tokens:
        parts = self.sharing.sequence
        return Tokens(batch, ceil(self._image_tokens(shape) / parts), ceil(self.recipe.text.t5.max_length / parts))

    def _segments(self, tokens: Tokens, recomputed: Recomputed) -> list[Segment]:
        counter = MMDiTCounter(self.recipe.model, self._precision, self.sharing.tensor, self.recipe.memory.fp8_linear)
        segments = mmdit_segments(counter, tokens, self.counts.trained, recomputed)
        if self.sharing.gathers_all:
            segments = [
                replace(segment, casts=0) for segment in segments
            ]  # they are gathered in the products' precision
        return offloaded(segments, self.recipe.memory.grad_ckpt_buffer_size)

    @cached_property
    def _stages(self) -> list[list[str]]:
        """The segments of each pipeline stage, by kind; one stage has all."""
        model, stages = self.recipe.model, self.sharing.pipeline
        kinds = ["double"] * model.depth + ["single"] * model.depth_single_blocks
        size = ceil(len(kinds) / stages) or 1
        found = [kinds[start : start + size] for start in range(0, size * stages, size)]
        return [
            [*(["entry"] if not index else []), *part, *(["final"] if index == stages - 1 else [])]
            for index, part in enumerate(found)
        ]

    def _frozen_bytes(self, stage: Sequence[str]) -> int:
        """Return what the weights beside adapters take; 8 bits are for the matrices of blocks."""
        matrix, parts = self._precision.matrix, self.counts.whole
        narrow = self.recipe.lora is not None and self.recipe.lora.fp8_weights
        saved = sum((matrix - 1) * parts[kind].matrices for kind in stage if kind in ("double", "single") and narrow)
        return matrix * self._weights(stage, parts) - saved

    def _weights(self, stage: Sequence[str], counts: Mapping[str, BlockCounts]) -> int:
        return sum(counts[kind].weights for kind in stage)

    def _update(self, tokens: Tokens, recomputed: Recomputed) -> Peak:
        """Return the peak of the worst pipeline stage; earlier stages keep more micro-batches in flight."""
        segments = self._segments(tokens, recomputed)
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
                step=step_bytes(self.recipe.optim, self.recipe.model.hidden_size * self._widest),
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
        """Return the batch itself: pixels in fp32, packed latents and target, ids, condition, encoded text."""
        model, text = self.recipe.model, self.recipe.text.t5.max_length
        features = 2 * model.in_channels + 3 + (model.in_channels + model.patch_size**2 if model.cond_embed else 0)
        pixels = 3 * STATE * shape.pixels if self.recipe.dataset.encodes_clips else 0
        per_clip = pixels + STATE * features * self._image_tokens(shape)
        return batch * (per_clip + text * (self._precision.matrix * model.context_in_dim + 3 * STATE))

    def _flops(self, shape: ClipShape) -> tuple[int, int, int]:
        """Return forward, forward and backward, and recomputation, of one clip."""
        model, image, text = self.recipe.model, self._image_tokens(shape), self.recipe.text.t5.max_length
        whole = mmdit_flops(model, image, text, model.depth, model.depth_single_blocks, ends=True)
        again = self._recomputed
        if again.keep == "products":
            return whole.products + whole.attention, whole.training(), 0
        twice = mmdit_flops(model, image, text, len(again.double), len(again.single), ends=False)
        return whole.products + whole.attention, whole.training(), twice.products + twice.attention

    def _frozen_flops(self, shape: ClipShape) -> int:
        video = self._encoding(shape, 1)
        captions = sum(one.flops for one in self.text.values()) if self.recipe.dataset.encodes_text else 0
        return captions + (video.flops if video else 0)
