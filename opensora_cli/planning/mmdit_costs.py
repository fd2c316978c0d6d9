"""The cost of the MMDiT, by the counts of its blocks."""

from collections.abc import Mapping
from dataclasses import dataclass

from opensora_cli.planning.coded import Extent
from opensora_cli.planning.denoised import BlockCounts, Flops, LatentClips
from opensora_cli.planning.mmdit import MMDiTCounter, Recomputed, Tokens, evaluating, mmdit_flops, mmdit_segments
from opensora_cli.planning.precision import STATE
from opensora_cli.planning.segments import Segment
from schemas.memory import MemoryConfig


@dataclass(frozen=True)
class MMDiTCosts:
    """See `DenoiserCosts`; `sequence` processes share out the tokens, text and image alike."""

    counter: MMDiTCounter
    sequence: int = 1

    @property
    def largest_matrix(self) -> int:
        """Queries, keys, values and the MLP of a single block, as far as they are one."""
        config = self.counter.config
        return config.hidden_size * int(config.hidden_size * ((3 if config.fused_qkv else 1) + config.mlp_ratio))

    def image_tokens(self, latents: Extent) -> int:
        """Return the patches of a clip."""
        frames, height, width = latents
        return frames * height * width // self.counter.config.patch_size**2

    def latent_numbers(self, latents: Extent) -> int:
        """Return how many numbers the packed latents are."""
        return self.image_tokens(latents) * self.counter.config.in_channels

    def input_bytes(self, latents: Extent, text: int) -> int:
        """Return the bytes of packed latents and target, ids, condition, encoded text."""
        config = self.counter.config
        features = 2 * config.in_channels + 3 + (config.in_channels + config.patch_size**2 if config.cond_embed else 0)
        caption = text * (self.counter.precision.matrix * config.context_in_dim + 3 * STATE)
        return STATE * features * self.image_tokens(latents) + caption

    def tokens(self, clips: LatentClips) -> Tokens:
        """Return the tokens that one process has of a batch."""
        parts = self.sequence
        return Tokens(clips.batch, -(-self.image_tokens(clips.latents) // parts), -(-clips.text // parts))

    def segments(self, clips: LatentClips, trained: Mapping[str, BlockCounts], memory: MemoryConfig) -> list[Segment]:
        """Return the segments of a training step."""
        recomputed = Recomputed.of(memory, self.counter.config)
        return mmdit_segments(self.counter, self.tokens(clips), trained, recomputed)

    def evaluating(self, clips: LatentClips) -> int:
        """Return what an evaluation takes."""
        return evaluating(self.counter, self.tokens(clips))

    def flops(self, clips: LatentClips) -> Flops:
        """Return the work of one of the clips, forward."""
        config = self.counter.config
        doubles, singles = config.depth, config.depth_single_blocks
        return mmdit_flops(config, self.image_tokens(clips.latents), clips.text, doubles, singles, ends=True)

    def flops_again(self, clips: LatentClips, memory: MemoryConfig) -> int:
        """Return the work of one of the clips in the blocks that are recomputed; none where products are kept."""
        config = self.counter.config
        again = Recomputed.of(memory, config)
        if again.keep == "products":
            return 0
        image, doubles, singles = self.image_tokens(clips.latents), len(again.double), len(again.single)
        return mmdit_flops(config, image, clips.text, doubles, singles, ends=False).forward
