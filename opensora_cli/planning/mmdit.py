"""What the MMDiT keeps for the backward pass, and how much it computes, block by block.

The counts follow the forward functions of `opensora_models/mmdit/blocks.py`, tensor by tensor, with the tensors that
autograd saves: the input of a norm and its output where that is multiplied, inputs of linear layers, queries, keys, values,
output and row sums of the attention, inputs of GELU, what a gate is multiplied with. Bytes per token unless said otherwise.
D residual width, A attention width and M MLP width of this process, H its heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from opensora_cli.planning.denoised import BlockCounts, Flops
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.segments import Segment
from opensora_models.layers.recompute import Keep
from schemas.denoiser import MMDiTConfig
from schemas.memory import MemoryConfig

STATISTICS = 8
"""Mean and reciprocal deviation that a layer norm keeps for each token."""


_MODULATIONS = {"double": 4, "single": 1}
"""Shifts, scales and gates of a block, each three times its width, made of the condition."""


@dataclass(frozen=True)
class Tokens:
    """A batch as the denoiser sees it: clips, image tokens and text tokens of each (on this process)."""

    batch: int
    image: int
    text: int

    @property
    def joined(self) -> int:
        """Tokens of a clip, text and image."""
        return self.text + self.image


@dataclass(frozen=True)
class MMDiTCounter:
    """Counts for one configuration in one precision; `tensor` processes share out heads and MLP features.

    `fp8`: linear layers keep their inputs in 8 bits, and no input that something else keeps in full serves for it.
    """

    config: MMDiTConfig
    precision: Precision
    tensor: int = 1
    fp8: bool = False

    @property
    def _widths(self) -> tuple[int, int, int, int]:
        config = self.config
        mlp = int(config.hidden_size * config.mlp_ratio)
        return (
            config.hidden_size,
            config.hidden_size // self.tensor,
            mlp // self.tensor,
            config.num_heads // self.tensor,
        )

    def double_block(self, tokens: Tokens) -> int:
        """Return the bytes that autograd saves in a double-stream block."""
        dim, inner, mlp, _ = self._widths
        c = self.precision.matrix
        stream = 2 * self._modulated(dim) + self._normed_inputs(3 if self._split else 1) + self._normed_inputs(1)
        stream += self._query_key_norm(whole_storage=not self._split)
        # The stream's part of the attention, in 8 bits, or where it is not contiguous.
        stream += inner if self.fp8 else self._projection_copy(tokens.batch) * c * inner
        stream += c * dim + c * mlp + self._input * mlp + c * dim  # gated projection, both sides of GELU, gated MLP
        return tokens.batch * tokens.joined * (stream + self._attention())

    def single_block(self, tokens: Tokens, *, last: bool) -> int:
        """Return the bytes that autograd saves in a single-stream block; the last one has image tokens for queries."""
        dim, inner, mlp, heads = self._widths
        c, rows = self.precision.matrix, tokens.joined
        queries = tokens.image if last else rows
        every = self._modulated(dim) + self._normed_inputs(2 if self._split else 1)
        copied = last and tokens.batch > 1 and tokens.text > 0
        sliced = self._input * dim if self._split and (self.fp8 or self.precision.norm != c or copied) else 0
        every += c * (inner + mlp) if self._split else c * (3 * inner + mlp)
        normed = 4 * inner if self._split or c != 4 else 0
        normed += (4 * inner if self.precision.device == "cpu" else 0) + 4 * heads
        key = normed + c * inner
        query = normed + 2 * c * inner + 4 * heads
        query += self._input * (inner + mlp) + c * dim  # joined attention and MLP, gated output
        return tokens.batch * (rows * (every + key) + queries * (query + sliced))

    def double_products(self, tokens: Tokens) -> int:
        """Return the results of a double block's matrix products and attention, bytes."""
        dim, inner, mlp, heads = self._widths
        return tokens.batch * tokens.joined * (self.precision.matrix * (4 * inner + 2 * dim + mlp) + 4 * heads)

    def single_products(self, tokens: Tokens) -> int:
        """Return the results of a single block's matrix products and attention, bytes."""
        dim, inner, mlp, heads = self._widths
        return tokens.batch * tokens.joined * (self.precision.matrix * (4 * inner + dim + mlp) + 4 * heads)

    def final_layer(self, tokens: Tokens) -> int:
        """Return the bytes that autograd saves in the last layer and in the loss."""
        each = self._modulated(self.config.hidden_size) + self._normed_inputs(1) + 4 * self.config.in_channels
        return tokens.batch * tokens.image * each

    def entry(self, tokens: Tokens) -> int:
        """Return what the input layers save, the rotary tables and the condition vectors, which are few, included."""
        config, c = self.config, self.precision.matrix
        features = config.in_channels + (config.in_channels + config.patch_size**2 if config.cond_embed else 0)
        copies = 0 if c == 4 else c  # fp32 inputs are the batch's own tensors
        table = 8 * config.hidden_size // config.num_heads // (1 if config.use_liger_rope else 2)
        per_clip = tokens.image * copies * features + tokens.joined * table
        return tokens.batch * (per_clip + tokens.text * copies * config.context_in_dim)

    def block_input(self, tokens: Tokens) -> int:
        """Return the bytes of the residual stream: all that a recomputed block keeps."""
        return tokens.batch * tokens.joined * self.precision.matrix * self.config.hidden_size

    def double_working(self, tokens: Tokens) -> int:
        """Return what a double block holds at most while it runs without a backward pass."""
        dim, inner, mlp, _ = self._widths
        c = self.precision.matrix
        mlp_phase = 3 * c * dim + 7 * c * inner + 2 * c * mlp
        rotation = c * dim + 8 * c * inner + 16 * inner
        return tokens.batch * tokens.joined * max(mlp_phase, rotation)

    def single_working(self, tokens: Tokens) -> int:
        """Return what a single block holds at most while it runs without a backward pass."""
        dim, inner, mlp, _ = self._widths
        return tokens.batch * tokens.joined * self.precision.matrix * (2 * dim + 5 * inner + 3 * mlp)

    def backward_working(self, tokens: Tokens) -> int:
        """Return the gradients in flight inside a block: of the stream, and of the MLP's hidden features."""
        dim, inner, mlp, _ = self._widths
        return tokens.batch * tokens.joined * self.precision.matrix * (2 * dim + inner + mlp)

    def casts(self, counts: BlockCounts, modulations: int) -> int:
        """Return the copies of a block's matrices for its products; those of its `modulations` are never in 8 bits."""
        wide = modulations * 3 * self.config.hidden_size**2
        narrow = counts.matrices - wide if self.fp8 else 0
        return self.precision.casts * (counts.matrices - narrow) + narrow

    @property
    def _input(self) -> int:
        """Bytes of a number that a linear layer keeps of its input."""
        return 1 if self.fp8 else self.precision.matrix

    @property
    def _split(self) -> bool:
        return not self.config.fused_qkv

    def _modulated(self, dim: int) -> int:
        """A norm's input and output (the input is the residual stream, or its fp32 copy), and the norm's statistics."""
        return 2 * self.precision.norm * dim + STATISTICS

    def _normed_inputs(self, layers: int) -> int:
        """Inputs of the linear layers behind a norm: one tensor, or a cast for each where the norm's is fp32."""
        copies = 1 if self.precision.norm == self.precision.matrix and not self.fp8 else layers
        return copies * self._input * self.config.hidden_size

    def _query_key_norm(self, *, whole_storage: bool) -> int:
        """fp32 inputs of both norms; in fp32 a fused projection is kept whole, values included. CPUs keep the output too."""
        _, inner, _, heads = self._widths
        inputs = 3 if whole_storage and self.precision.matrix == 4 else 2
        outputs = 2 if self.precision.device == "cpu" else 0
        return (inputs + outputs) * 4 * inner + 2 * 4 * heads

    def _attention(self) -> int:
        """Rotated queries and keys, joined values, output, and the row sums of the softmax."""
        _, inner, _, heads = self._widths
        return 4 * self.precision.matrix * inner + 4 * heads

    def _projection_copy(self, batch: int) -> int:
        return 1 if batch > 1 else 0  # the part of one clip is contiguous as it is


@dataclass(frozen=True)
class Recomputed:
    """Blocks that are recomputed, by number, and what is kept of them."""

    double: range = range(0)
    single: range = range(0)
    keep: Keep = "nothing"

    @classmethod
    def of(cls, memory: MemoryConfig, config: MMDiTConfig) -> "Recomputed":
        """Return what a recipe asks for."""
        if not memory.grad_checkpoint:
            return cls()
        doubles, singles = memory.grad_ckpt_settings
        every = memory.grad_ckpt_every
        double = range(0, min(doubles, config.depth), every)
        return cls(double, range(0, min(singles, config.depth_single_blocks), every), memory.grad_ckpt_keep)


def evaluating(counter: MMDiTCounter, tokens: Tokens) -> int:
    """Return what an evaluation without a backward pass takes beside the weights, bytes."""
    return max(counter.double_working(tokens), counter.single_working(tokens)) + counter.entry(tokens)


def mmdit_segments(
    counter: MMDiTCounter, tokens: Tokens, counts: Mapping[str, BlockCounts], recomputed: Recomputed
) -> list[Segment]:
    """Return the segments of a training step, in order.

    `counts` has the weights of "double", "single", "final" and "entry" on this process.
    """
    stream, working = counter.block_input(tokens), counter.backward_working(tokens)
    keeps = recomputed.keep == "products"

    def segment(name: str, kind: str, saved: int, inputs: int, again: bool, extra: int, products: int = 0) -> Segment:
        here, kept = counts[kind], min(products, saved - inputs) if keeps else 0
        casts = (
            counter.casts(here, _MODULATIONS[kind]) if kind in _MODULATIONS else counter.precision.casts * here.matrices
        )
        return Segment(name, saved, inputs, again, here.weights, casts, extra, kept)

    found = [segment("input layers", "entry", counter.entry(tokens), 0, False, stream)]
    double, products = counter.double_block(tokens), counter.double_products(tokens)
    for index in range(counter.config.depth):
        again = index in recomputed.double
        found.append(segment(f"double block {index}", "double", double, stream, again, working, products))
    blocks, products = counter.config.depth_single_blocks, counter.single_products(tokens)
    for index in range(blocks):
        saved = counter.single_block(tokens, last=index == blocks - 1)
        again = index in recomputed.single
        found.append(segment(f"single block {index}", "single", saved, stream, again, working, products))
    found.append(segment("last layer", "final", counter.final_layer(tokens), 0, False, stream))
    return found


def mmdit_flops(config: MMDiTConfig, image: int, text: int, doubles: int, singles: int, *, ends: bool) -> Flops:
    """Return the FLOPs of one clip in the first so many blocks of each kind; `ends`: and in the layers around them."""
    dim, mlp, joined = config.hidden_size, int(config.hidden_size * config.mlp_ratio), image + text
    vector = 2 * dim * dim * (12 * doubles + 3 * singles)
    products = vector + doubles * joined * 2 * (4 * dim**2 + 2 * dim * mlp)
    attention = (doubles + singles) * 4 * joined**2 * dim
    wide, behind = 2 * (3 * dim**2 + dim * mlp), 2 * (dim**2 + dim * mlp)
    products += singles * joined * (wide + behind)
    if singles and singles == config.depth_single_blocks:  # the last block has image tokens for queries
        attention -= 4 * text * joined * dim
        products -= text * (behind + (0 if config.fused_qkv else 2 * dim**2))
    if ends:
        features = 2 * config.in_channels + (config.in_channels + config.patch_size**2 if config.cond_embed else 0)
        products += 2 * dim * (image * features + text * config.context_in_dim)
        embedders = 2 if config.guidance_embed else 1
        products += 2 * dim * (embedders * (256 + dim) + config.vec_in_dim + dim) + 4 * dim**2
    return Flops(products, attention)
