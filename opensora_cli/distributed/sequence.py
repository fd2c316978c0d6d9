"""Sequence parallelism: each process of a group has a share of every clip's tokens, and attention spans them all.

B batch, S tokens of this process (of MMDiT: joined ones; of a denoiser of latents: those of one frame, and B counts frames),
A those of all processes, H heads, K features of a head, P processes of the group; T frames, D width, V values of a patch.
Shares may be uneven: no token is made up, so none has to be masked.
"""

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from opensora_cli.distributed.exchange import Group, joined, swap
from opensora_cli.distributed.ring import ring_attention
from opensora_cli.distributed.stage import no_plan
from opensora_models.layers.latent_attention import Attention
from opensora_models.layers.latent_parallel import SharesFrames, spatial_attention
from opensora_models.mmdit.model import MMDiT
from opensora_models.mmdit.parallel import IMAGE_TOKENS, TEXT_TOKENS, attending_blocks
from schemas.parallel import ParallelConfig


def shares(tokens: int, processes: int) -> list[int]:
    """Return how many tokens each process takes; they differ by one at most."""
    return [tokens // processes + (rank < tokens % processes) for rank in range(processes)]


class Sharing:
    """Attention among the processes of a group, each of which has some tokens."""

    def __init__(self, group: Group, attention: Attention) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._attention = attention

    def swap_heads(self, q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, queries: list[int], keys: list[int]) -> Tensor:
        """Swap tokens for heads, attend to all tokens with a P-th of the heads, swap back (DeepSpeed-Ulysses, section 3).

        `queries` and `keys` are how many of them each process has.
        """
        out_BAHK = self._attention(
            self._to_heads(q_BSHK, queries), self._to_heads(k_BSHK, keys), self._to_heads(v_BSHK, keys)
        )
        return self._to_tokens(out_BAHK, queries)

    def _to_heads(self, x_BSHK: Tensor, tokens: list[int]) -> Tensor:
        batch, own, heads, width = x_BSHK.shape
        each = heads // self.size
        x_PBSHK = x_BSHK.reshape(batch, own, self.size, each, width).permute(2, 0, 1, 3, 4)
        unit = batch * each * width
        out_F = swap(x_PBSHK.flatten(), [unit * own] * self.size, [unit * size for size in tokens], self.group)
        parts = torch.split(out_F, [unit * size for size in tokens])
        return torch.cat([part.view(batch, size, each, width) for part, size in zip(parts, tokens, strict=True)], 1)

    def _to_tokens(self, x_BAHK: Tensor, tokens: list[int]) -> Tensor:
        batch, _, each, width = x_BAHK.shape
        unit, own = batch * each * width, tokens[self.rank]
        sent_F = torch.cat([part.flatten() for part in torch.split(x_BAHK, tokens, 1)])
        out_F = swap(sent_F, [unit * size for size in tokens], [unit * own] * self.size, self.group)
        return out_F.view(self.size, batch, own, each, width).permute(1, 2, 0, 3, 4).flatten(2, 3)


class SharedTokens(Sharing):
    """Hands an MMDiT's tokens out before its forward pass, carries its attention, and collects the result."""

    def __init__(self, model: MMDiT, group: Group, mode: str) -> None:
        blocks = list(attending_blocks(model))
        super().__init__(group, blocks[0].attention)
        self.image: list[int] = []
        self.text: list[int] = []
        self._signature = inspect.signature(model.forward)
        model.register_forward_pre_hook(self._hand_out, with_kwargs=True)
        model.register_forward_hook(self._collect)
        for block in blocks:
            block.attention = self.by_heads if mode == "all_to_all" else self.ring
        if mode == "all_to_all" and model.single_blocks:
            blocks[-1].attention = self.image_by_heads  # the last block makes nothing of the text

    def by_heads(self, q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        """Attend to all tokens with a share of the heads."""
        return self.swap_heads(q_BSHK, k_BSHK, v_BSHK, self._all(), self._all())

    def image_by_heads(self, q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        """Do so with queries of the image tokens alone."""
        return self.swap_heads(q_BSHK, k_BSHK, v_BSHK, self.image, self._all())

    def ring(self, q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        """Keep the queries and pass keys and values round (Ring Attention, section 3)."""
        return ring_attention(q_BSHK, k_BSHK, v_BSHK, self._all(), self.group)

    def _all(self) -> list[int]:
        return [text + image for text, image in zip(self.text, self.image, strict=True)]

    def _hand_out(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        inputs = dict(self._signature.bind(*args, **kwargs).arguments)
        self.image = shares(inputs["img_BND"].shape[1], self.size)
        self.text = shares(inputs["txt_BLD"].shape[1], self.size)
        for names, sizes in ((IMAGE_TOKENS, self.image), (TEXT_TOKENS, self.text)):
            for name in names:
                if inputs.get(name) is not None:
                    inputs[name] = inputs[name].split(sizes, 1)[self.rank]
        return (), inputs

    def _collect(self, model: nn.Module, args: tuple[Any, ...], velocity_BND: Tensor) -> Tensor:
        return joined(velocity_BND, self.image, self.group)


class SharedFrames(Sharing):
    """Hands the tokens of every frame out before the blocks of a denoiser of latents, and carries its spatial attention."""

    def __init__(self, model: nn.Module, group: Group, mode: str) -> None:
        assert isinstance(model, SharesFrames)
        layers = list(spatial_attention(model))
        super().__init__(group, layers[0].attention)
        self.tokens: list[int] = []
        model.tokens_in, model.tokens_out = self._hand_out, self._collect
        for layer in layers:
            layer.attention = self.by_heads if mode == "all_to_all" else self.ring

    def by_heads(self, q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        """Attend to all tokens of a frame with a share of the heads."""
        return self.swap_heads(q_BSHK, k_BSHK, v_BSHK, self.tokens, self.tokens)

    def ring(self, q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor) -> Tensor:
        """Keep the queries and pass keys and values of a frame round."""
        return ring_attention(q_BSHK, k_BSHK, v_BSHK, self.tokens, self.group)

    def _hand_out(self, x_BTSD: Tensor) -> Tensor:
        self.tokens = shares(x_BTSD.shape[2], self.size)
        return torch.split(x_BTSD, self.tokens, 2)[self.rank]

    def _collect(self, x_BTSV: Tensor) -> Tensor:
        batch, frames = x_BTSV.shape[:2]
        whole = joined(x_BTSV.flatten(0, 1), self.tokens, self.group)
        return whole.view(batch, frames, *whole.shape[1:])


def share_tokens(model: nn.Module, group: Group, config: ParallelConfig) -> Sharing:
    """Let the processes of a group share out the tokens of every clip; the model is called as before and gives the same.

    Raises OsoraError for a family without a plan for it.
    """
    if isinstance(model, MMDiT):
        return SharedTokens(model, group, config.sequence_parallelism_mode)
    if isinstance(model, SharesFrames):
        return SharedFrames(model, group, config.sequence_parallelism_mode)
    raise no_plan(model, "tokens", "sp_size = 1")
