"""The cost of a denoiser of latents, by traces of its own code."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from opensora_cli.planning.coded import Extent
from opensora_cli.planning.denoised import BlockCounts, Flops, LatentClips
from opensora_cli.planning.modules import ENTRY, FINAL
from opensora_cli.planning.precision import STATE, Precision
from opensora_cli.planning.segments import Segment
from opensora_cli.planning.traced_denoiser import evaluation_peak, largest_matrix, recomputed_blocks, trace
from opensora_models.layers.latent_patches import patch_grid
from schemas.denoiser import DenoiserConfig, LatentDenoiser
from schemas.memory import MemoryConfig

MOST_TRACED = 2
"""Clips of a trace: from two on, every clip of a batch takes as much, and one alone is copied less."""


@dataclass(frozen=True)
class TracedCosts:
    """See `DenoiserCosts`; `sequence` processes share out rows of tokens, and each has the whole text."""

    config: DenoiserConfig
    precision: Precision
    sequence: int = 1

    @property
    def largest_matrix(self) -> int:
        """Numbers of the largest matrix."""
        return largest_matrix(self.config, self.precision)

    def image_tokens(self, latents: Extent) -> int:
        """Return the patches of a clip."""
        return prod(patch_grid(latents, self._latent.patch_size))

    def latent_numbers(self, latents: Extent) -> int:
        """Return how many numbers the latents are."""
        return self._latent.in_channels * prod(latents)

    def input_bytes(self, latents: Extent, text: int) -> int:
        """Return the bytes of clean and noisy latents, noise, the target, and the encoded text."""
        return 4 * STATE * self.latent_numbers(latents) + text * self.precision.matrix * self._latent.caption_channels

    def segments(self, clips: LatentClips, trained: Mapping[str, BlockCounts], memory: MemoryConfig) -> list[Segment]:
        """Return the segments of a training step."""
        traced = trace(self.config, self.precision, self._few(clips))
        again, keeps = self._again(memory), memory.grad_ckpt_keep == "products"

        def bytes_of(size: int) -> int:
            return size * clips.batch // min(clips.batch, MOST_TRACED)

        def segment(name: str, kind: str, saved: int, working: int, inputs: int = 0, results: int = 0) -> Segment:
            part, kept = trained[kind], min(results, saved - inputs) if keeps else 0
            casts = self.precision.casts * part.matrices
            sizes = (bytes_of(saved), bytes_of(inputs), name in again, part.weights, casts, bytes_of(working))
            return Segment(name, *sizes, bytes_of(kept))

        stream = traced.blocks[0].stream
        blocks = [
            segment(name, one.kind, one.saved, one.working, one.stream, one.products)
            for name, one in zip(traced.names, traced.blocks, strict=True)
        ]
        behind = traced.final + STATE * traced.out  # the loss keeps an error for every number
        return [
            segment("input layers", ENTRY, traced.entry, stream),
            *blocks,
            segment("last layer", FINAL, behind, stream),
        ]

    def evaluating(self, clips: LatentClips) -> int:
        """Return what an evaluation takes."""
        few = self._few(clips)
        return evaluation_peak(self.config, self.precision, few) * clips.batch // few.batch

    def flops(self, clips: LatentClips) -> Flops:
        """Return the work of one of the clips, forward."""
        whole = self._few(clips, parts=1)
        return trace(self.config, self.precision, whole).flops.of_one(whole.batch)

    def flops_again(self, clips: LatentClips, memory: MemoryConfig) -> int:
        """Return the work of one of the clips in the blocks that are recomputed."""
        if memory.grad_ckpt_keep == "products":
            return 0
        whole, again = self._few(clips, parts=1), self._again(memory)
        traced = trace(self.config, self.precision, whole)
        blocks = zip(traced.names, traced.blocks, strict=True)
        return sum(block.flops.forward for name, block in blocks if name in again) // whole.batch

    @property
    def _latent(self) -> LatentDenoiser:
        assert isinstance(self.config, LatentDenoiser)
        return self.config

    def _again(self, memory: MemoryConfig) -> frozenset[str]:
        if not memory.grad_checkpoint:
            return frozenset()
        return recomputed_blocks(self.config, self.precision, *memory.grad_ckpt_settings, memory.grad_ckpt_every)

    def _few(self, clips: LatentClips, parts: int | None = None) -> LatentClips:
        """Return what is traced for a batch: few clips, of which one of `parts` processes has its share of the rows."""
        frames, rows, columns = clips.latents
        patch = self._latent.patch_side
        share = patch * -(-rows // (patch * (parts or self.sequence)))
        return LatentClips(min(clips.batch, MOST_TRACED), (frames, min(rows, share), columns), clips.text)
