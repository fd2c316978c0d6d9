"""How an MMDiT is divided: which layers by their features, which tensors by their tokens, which blocks are one unit.

This is the plan alone; `opensora_cli.distributed` knows the processes and carries it out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from opensora_models.mmdit.attention import Attention
from opensora_models.mmdit.blocks import DoubleStreamBlock, SelfAttention, SingleStreamBlock
from opensora_models.mmdit.model import MMDiT

TEXT_TOKENS = ("txt_BLD", "txt_ids_BL3")
IMAGE_TOKENS = ("img_BND", "img_ids_BN3", "cond_BND")
"""Arguments of `MMDiT.forward` whose second axis are tokens; the result's are those of the image."""


@dataclass(frozen=True)
class Divided:
    """A linear layer whose features are divided: each of `parts`, which lie one after the other, evenly.

    `side` is "out" where the layer makes the divided features, "in" where it reads them and the results have to be added.
    """

    path: str
    side: Literal["in", "out"]
    parts: tuple[int, ...]


def divided_layers(model: MMDiT) -> Iterator[Divided]:
    """Yield every layer that tensor parallelism divides (Megatron-LM, section 3): whole heads, and features of the MLPs.

    Layers that modulate stay whole, as they follow from the condition alone.
    """
    dim = model.config.hidden_size
    mlp = int(dim * model.config.mlp_ratio)
    fused = model.config.fused_qkv
    for number in range(len(model.double_blocks)):
        for stream in ("img", "txt"):
            attn, feed = f"double_blocks.{number}.{stream}_attn", f"double_blocks.{number}.{stream}_mlp"
            for name in ("qkv",) if fused else ("q_proj", "k_proj", "v_proj"):
                yield Divided(f"{attn}.{name}", "out", (dim,) * (3 if fused else 1))
            yield Divided(f"{attn}.proj", "in", (dim,))
            yield Divided(f"{feed}.0", "out", (mlp,))
            yield Divided(f"{feed}.2", "in", (mlp,))
    for number in range(len(model.single_blocks)):
        block = f"single_blocks.{number}"
        if fused:
            yield Divided(f"{block}.linear1", "out", (dim, dim, dim, mlp))
        else:
            yield Divided(f"{block}.q_proj", "out", (dim,))
            yield Divided(f"{block}.k_proj", "out", (dim,))
            yield Divided(f"{block}.v_mlp", "out", (dim, mlp))
        yield Divided(f"{block}.linear2", "in", (dim, mlp))


def divide_heads(model: MMDiT, size: int) -> list[str]:
    """Let every block expect a `size`-th of the heads and MLP features.

    Returns the paths of the norms that all heads share: each process sees the gradient of its own heads only.
    """
    for module in model.modules():
        if isinstance(module, SelfAttention | SingleStreamBlock):
            module.num_heads //= size
        if isinstance(module, SingleStreamBlock):
            module.widths = [width // size for width in module.widths]
    return [name for name, _ in model.named_modules() if name.endswith(("query_norm", "key_norm"))]


def use_attention(model: MMDiT, attention: Attention) -> None:
    """Let every block attend by another kernel."""
    for block in attending_blocks(model):
        block.attention = attention


def attending_blocks(model: MMDiT) -> Iterator[DoubleStreamBlock | SingleStreamBlock]:
    """Yield the blocks whose `attention` spans all tokens."""
    yield from model.double_blocks
    yield from model.single_blocks
