"""Diffusers' transformers of the shapes that our configurations describe, with our weights carried over by key tables."""

import re
from collections.abc import Mapping

import torch
from diffusers import DiTTransformer2DModel, LatteTransformer3DModel, PixArtTransformer2DModel
from torch import Tensor

from opensora_models.dit.model import DiT
from opensora_models.latte.model import Latte
from opensora_models.layers.renaming import Rules, renamed
from opensora_models.pixart.model import PixArt

BLOCK: Rules = (
    (r"\.attn\.qkv\.", ".attn1.to_{q,k,v}."),
    (r"\.attn\.proj\.", ".attn1.to_out.0."),
    (r"\.cross_attn\.q_linear\.", ".attn2.to_q."),
    (r"\.cross_attn\.kv_linear\.", ".attn2.to_{k,v}."),
    (r"\.cross_attn\.proj\.", ".attn2.to_out.0."),
    (r"\.mlp\.fc1\.", ".ff.net.0.proj."),
    (r"\.mlp\.fc2\.", ".ff.net.2."),
    (r"^x_embedder\.", "pos_embed."),
)
DIT: Rules = (
    *BLOCK,
    (r"^blocks\.(\d+)\.adaLN_modulation\.1\.", r"transformer_blocks.\1.norm1.linear."),
    (r"^blocks\.", "transformer_blocks."),
    (r"^t_embedder\.mlp\.0\.", "EVERY.norm1.emb.timestep_embedder.linear_1."),
    (r"^t_embedder\.mlp\.2\.", "EVERY.norm1.emb.timestep_embedder.linear_2."),
    (r"^y_embedder\.", "EVERY.norm1.emb.class_embedder."),
    (r"^final_layer\.adaLN_modulation\.1\.", "proj_out_1."),
    (r"^final_layer\.linear\.", "proj_out_2."),
)
PIXART: Rules = (
    *BLOCK,
    (r"^blocks\.", "transformer_blocks."),
    (r"^t_block\.1\.", "adaln_single.linear."),
    (r"^t_embedder\.", "adaln_single.emb.timestep_embedder."),
    (r"^csize_embedder\.", "adaln_single.emb.resolution_embedder."),
    (r"^ar_embedder\.", "adaln_single.emb.aspect_ratio_embedder."),
    (r"_embedder\.mlp\.0\.", "_embedder.linear_1."),
    (r"_embedder\.mlp\.2\.", "_embedder.linear_2."),
    (r"^y_embedder\.y_proj\.fc", "caption_projection.linear_"),
    (r"^final_layer\.linear\.", "proj_out."),
    (r"^final_layer\.", ""),
)
LATTE: Rules = (
    *BLOCK,
    (r"^t_embedder\.mlp\.0\.", "adaln_single.emb.timestep_embedder.linear_1."),
    (r"^t_embedder\.mlp\.2\.", "adaln_single.emb.timestep_embedder.linear_2."),
    (r"^final_layer\.linear\.", "proj_out."),
)


def carried(state: Mapping[str, Tensor], rules: Rules, depth: int = 0) -> dict[str, Tensor]:
    """Return our weights under diffusers' names: stacked projections apart, what each of `depth` blocks holds in each."""
    theirs: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = renamed(key, rules)
        stack = re.search(r"\{(.+)\}", name)
        letters = stack[1].split(",") if stack else [""]
        for letter, part in zip(letters, tensor.chunk(len(letters)), strict=True):
            one = re.sub(r"\{.+\}", letter, name)
            owners = [f"transformer_blocks.{i}" for i in range(depth)] if "EVERY" in one else ["EVERY"]
            theirs |= {one.replace("EVERY", owner): part for owner in owners}
    theirs["pos_embed.proj.weight"] = theirs["pos_embed.proj.weight"].squeeze(2)
    return theirs


def dit_peer(ours: DiT, side: int) -> DiTTransformer2DModel:
    """Return diffusers' DiT for square latents of `side` pixels."""
    config = ours.config
    theirs = DiTTransformer2DModel(
        **_sizes(ours),
        sample_size=side,
        out_channels=config.in_channels * (1 + config.learn_sigma),
        num_embeds_ada_norm=int(config.condition.removeprefix("label_")),
    )
    theirs.load_state_dict(carried(ours.state_dict(), DIT, config.depth))
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = (
            0  # the paper's code; diffusers' last frequency is 1/10000 of the first
        )
    return theirs.eval()


def pixart_peer(ours: PixArt, side: int) -> PixArtTransformer2DModel:
    """Return diffusers' PixArt that was trained on square latents of `side` pixels."""
    config = ours.config
    theirs = PixArtTransformer2DModel(
        **_sizes(ours),
        sample_size=side,
        out_channels=config.in_channels * (1 + config.pred_sigma),
        cross_attention_dim=config.hidden_size,
        caption_channels=config.caption_channels,
        interpolation_scale=config.space_scale,
        use_additional_conditions=config.multi_scale,
    )
    state = carried(ours.state_dict(), PIXART)
    del state["y_embedder.y_embedding"]  # diffusers leaves the empty caption to whoever encodes text
    theirs.load_state_dict(state)
    return theirs.eval()


def latte_peer(ours: Latte, side: int, frames: int, timestep: Tensor) -> LatteTransformer3DModel:
    """Return diffusers' Latte, its cross attention silenced, and make `ours` the same function at that one timestep.

    Its blocks share one modulation and add their own tables: as biases of blocks of ours that share a weight. Its
    last modulation is linear in the embedded time: a constant of ours at one timestep.
    """
    config, dim = ours.config, ours.config.hidden_size
    theirs = LatteTransformer3DModel(
        **_sizes(ours),
        sample_size=side,
        video_length=frames,
        out_channels=config.in_channels * (1 + config.learn_sigma),
        cross_attention_dim=dim,
        caption_channels=8,
        norm_type="ada_norm_single",
        num_embeds_ada_norm=1000,
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_elementwise_affine=False,
    )
    own = {key: tensor for key, tensor in ours.state_dict().items() if "adaLN" not in key and "y_embedder" not in key}
    state = carried(own, LATTE)
    state = {re.sub(r"^blocks\.(\d+)\.", _stack, key): tensor for key, tensor in state.items()}
    left = theirs.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(re.search(r"attn2|caption|adaln_single\.linear|scale_shift_table", key) for key in left.missing_keys)
    with torch.no_grad():
        for block in theirs.transformer_blocks:
            block.attn2.to_out[0].weight.zero_()
            block.attn2.to_out[0].bias.zero_()
        pairs = zip(theirs.transformer_blocks, theirs.temporal_transformer_blocks, strict=True)
        for block, peer in zip(ours.blocks, [block for pair in pairs for block in pair], strict=True):
            block.adaLN_modulation[1].weight.copy_(theirs.adaln_single.linear.weight)
            block.adaLN_modulation[1].bias.copy_(theirs.adaln_single.linear.bias + peer.scale_shift_table.flatten())
        last = ours.final_layer.adaLN_modulation[1]
        last.weight.zero_()
        last.bias.copy_((theirs.scale_shift_table + ours.t_embedder(timestep[None])).flatten())
        ours.y_embedder.embedding_table.weight.zero_()
    return theirs.eval()


def _stack(match: re.Match[str]) -> str:
    """Our blocks take turns; diffusers keeps two lists."""
    number = int(match[1])
    return f"{'temporal_' if number % 2 else ''}transformer_blocks.{number // 2}."


def _sizes(ours: DiT | PixArt | Latte) -> dict[str, int | float]:
    config = ours.config
    return {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "num_layers": config.depth // 2 if isinstance(ours, Latte) else config.depth,
        "patch_size": config.patch_size[1],
        "norm_eps": 1e-6,
    }
