"""What the plan says of memory, against what autograd saves and against sums done by hand."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from opensora_cli.planning.coded import latent_size
from opensora_cli.planning.coding import coding
from opensora_cli.planning.judges import discriminator_pass
from opensora_cli.planning.mmdit import MMDiTCounter, Recomputed, Tokens, mmdit_flops, mmdit_segments
from opensora_cli.planning.modules import count_denoiser
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.segments import Segment, Sharding, offloaded, update_peak
from opensora_cli.planning.traced import LiveStorages
from opensora_models.dc_ae.model import DCAE
from opensora_models.discriminator.model import PatchDiscriminator3D
from opensora_models.float8_training import train_in_float8
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.mmdit.model import MMDiT
from schemas.autoencoder import DCAEConfig, HunyuanVAEConfig
from schemas.autoencoder.dc_ae import DCAEShape
from schemas.denoiser import MMDiTConfig
from schemas.discriminator import DiscriminatorConfig


def denoiser(**keys: object) -> MMDiTConfig:
    sizes = {"in_channels": 16, "vec_in_dim": 32, "context_in_dim": 48, "hidden_size": 64, "num_heads": 4}
    return MMDiTConfig.model_validate({**sizes, "axes_dim": (4, 6, 6), "depth": 2, "depth_single_blocks": 3, **keys})


TINY_STAGES = {
    "latent_channels": 8,
    "width_list": (8, 32, 32),
    "encoder_depth_list": (1, 1, 1),
    "decoder_depth_list": (1, 1, 1),
    "block_type": ("ResBlock", "ResBlock", "EViTS5_GLU"),
    "temporal_downsample": (True, True, False),
}


class Saved:
    """Bytes of the storages that autograd saves, each once, without the module's own weights."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        self.storages: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def total(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp8"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "keys",
    [
        {"fused_qkv": True},
        {"fused_qkv": False, "use_liger_rope": True, "cond_embed": True},
        {"fused_qkv": False, "patch_size": 1, "mlp_ratio": 2.0, "guidance_embed": True},
    ],
)
def test_blocks_save_what_the_plan_counts(
    keys: dict[str, object], batch: int, dtype: Literal["fp32", "bf16", "fp8"]
) -> None:
    config, tokens = denoiser(**keys), Tokens(batch, 304, 48)
    module = MMDiT(config)
    if dtype == "fp8":
        train_in_float8(module, torch.device("cpu"), emulate=True)
    saved = Saved(module)
    cond = torch.zeros(batch, 304, 16 + config.patch_size**2) if config.cond_embed else None
    guidance = torch.zeros(batch) if config.guidance_embed else None
    img, txt, vec = torch.zeros(batch, 304, 16), torch.zeros(batch, 48, 48), torch.zeros(batch, 32)
    with (
        torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype != "fp32"),
    ):
        ids = torch.zeros(batch, 304, 3), torch.zeros(batch, 48, 3)
        out = module(img, ids[0], txt, ids[1], torch.zeros(batch), vec, cond, guidance)
        out.float().square().mean()
    counter = MMDiTCounter(config, Precision.of("fp32" if dtype == "fp32" else "bf16", "cpu"), fp8=dtype == "fp8")
    segments = mmdit_segments(counter, tokens, count_denoiser(config).trained, Recomputed())
    counted = sum(segment.kept + segment.casts for segment in segments)
    inputs = saved.total - counted
    # Only the inputs, which the caller holds anyway, the few condition vectors and rounding are between the two.
    assert abs(inputs) < 0.015 * saved.total


@pytest.mark.parametrize("fused", [True, False])
def test_flops_are_those_that_torch_counts(fused: bool) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = denoiser(fused_qkv=fused, cond_embed=True, guidance_embed=True)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = MMDiT(config)
        zeros = torch.zeros
        ids = zeros(1, 300, 3), zeros(1, 50, 3)
        module(zeros(1, 300, 16), ids[0], zeros(1, 50, 48), ids[1], zeros(1), zeros(1, 32), zeros(1, 300, 20), zeros(1))
    flops = mmdit_flops(config, 300, 50, 2, 3, ends=True)
    assert counter.get_total_flops() == flops.products + flops.attention


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", [True, False])
def test_the_autoencoder_saves_what_the_walk_counts(attention: bool, dtype: Literal["fp32", "bf16"]) -> None:
    config = HunyuanVAEConfig(
        block_out_channels=(16, 24, 32, 32), norm_num_groups=8, latent_channels=4, mid_block_add_attention=attention
    )
    module, precision = HunyuanVAE(config), Precision.of(dtype, "cpu")
    clip = torch.zeros(1, 3, 9, 64, 64)
    saved = Saved(module)
    with (
        torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"),
    ):
        module(clip, torch.Generator().manual_seed(0))
    both = sum(coding(config, precision, 1, (9, 64, 64), name).saved for name in ("encode", "decode"))
    casts = precision.casts * sum(parameter.numel() for parameter in module.parameters())
    assert both + casts == pytest.approx(saved.total, rel=0.05)


IN_TILES = {"use_spatial_tiling": True, "sample_size": 64, "use_temporal_tiling": True, "sample_tsize": 16}


@pytest.mark.parametrize(
    ("how", "dtype"), [({}, "fp32"), ({}, "bf16"), (IN_TILES, "fp32"), ({"stream_frames": 4}, "bf16")]
)
def test_coding_in_parts_takes_what_the_plan_says(how: dict[str, object], dtype: Literal["fp32", "bf16"]) -> None:
    widths = {"block_out_channels": (32, 64, 96, 96), "norm_num_groups": 8, "latent_channels": 8}
    config = HunyuanVAEConfig.model_validate(widths | how)
    precision = Precision.of(dtype, "cuda", autocast=False)
    with torch.device("meta"), torch.no_grad():
        module = HunyuanVAE(config).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
        clip = torch.empty(1, 3, 17, 96, 96, dtype=module.quant_conv.weight.dtype)
        latents = torch.empty(1, 8, 5, 12, 12, dtype=clip.dtype)
        for direction, work in (("encode", lambda: module.encode(clip)), ("decode", lambda: module.decode(latents))):
            with LiveStorages() as live:
                work()
            cost = coding(config, precision, 1, (17, 96, 96), "encode" if direction == "encode" else "decode")
            assert cost.peak == pytest.approx(live.peak, rel=0.15), direction


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("learns", [True, False])
def test_a_discriminator_saves_what_the_plan_counts(learns: bool, dropout: float) -> None:
    config = DiscriminatorConfig(ndf=8, n_layers=2, dropout=dropout)
    module = PatchDiscriminator3D(config).requires_grad_(learns).train()
    clip = torch.zeros(2, 3, 5, 32, 48, requires_grad=not learns)
    saved = Saved(module)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        module(clip, torch.Generator().manual_seed(0))
    counted = discriminator_pass(config, 4, 2, (5, 32, 48), learns=learns)
    assert counted.saved == pytest.approx(saved.total - clip.nbytes, rel=0.1)  # others hold the clip
    assert counted.weights == sum(parameter.numel() for parameter in module.parameters())


def test_tiles_bound_the_autoencoders_memory() -> None:
    config = HunyuanVAEConfig(use_spatial_tiling=True, use_temporal_tiling=True)
    precision = Precision.of("bf16", "cuda", autocast=False)
    small, large = (coding(config, precision, 1, (65, side, side), "encode") for side in (256, 1024))
    assert small.peak < large.peak < 1.1 * small.peak
    assert large.flops > 16 * small.flops  # tiles overlap
    untiled = coding(HunyuanVAEConfig(), precision, 1, (65, 1024, 1024), "encode")
    assert untiled.peak > 10 * large.peak
    assert latent_size(config, (65, 1024, 1024)) == (17, 128, 128)


def test_what_a_small_trace_says_of_a_large_clip() -> None:
    config = DCAEConfig(model_name="custom", shape=DCAEShape.model_validate(TINY_STAGES))
    precision = Precision.of("fp32", "cpu")
    for direction in ("encode", "decode"):
        module = DCAE(config)
        clip = torch.zeros(2, 3, 16, 32, 48) if direction == "encode" else torch.zeros(2, 8, 4, 8, 12)
        saved, live = Saved(module), LiveStorages()
        work = module.encode if direction == "encode" else module.decode
        with live, torch.no_grad():
            work(clip)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            work(clip)
        cost = coding(config, precision, 2, (16, 32, 48), direction)
        assert cost.peak == pytest.approx(live.peak, rel=0.02)
        assert cost.saved == pytest.approx(saved.total, rel=0.02)
    tiled = config.model_copy(update={"use_spatial_tiling": True, "spatial_tile_size": 16})
    small, large = (coding(tiled, precision, 1, (16, side, side), "encode") for side in (32, 128))
    assert small.peak < large.peak < 1.5 * small.peak
    assert large.flops > 16 * small.flops


def block(number: int, *, recomputed: bool = False, casts: int = 0) -> Segment:
    return Segment(f"block {number}", 100, 10, recomputed, 5, casts, 3)


def test_the_peak_of_kept_blocks_lies_before_the_first_gradients() -> None:
    peak = update_peak([block(0), block(1)], Sharding(), accumulates=False)
    # Both blocks' activations and what the last one works with, its own gradients not yet there.
    assert (peak.total, peak.activations, peak.gradients) == (203, 203, 0)


def test_recomputing_keeps_inputs_and_one_block() -> None:
    blocks = [block(number, recomputed=True) for number in range(10)]
    peak = update_peak(blocks, Sharding(), accumulates=False)
    # In block 1: two inputs, its activations without its own input, its work, and the gradients of eight blocks; in
    # block 0 one input less and one block's gradients more: 10 + 90 + 3 + 9 * 20.
    assert (peak.total, peak.moment) == (283, "backward of block 0")


def test_with_accumulation_all_gradients_are_there() -> None:
    peak = update_peak([block(0), block(1)], Sharding(), accumulates=True)
    assert (peak.total, peak.gradients) == (203 + 40, 40)


def test_gathered_weights_hold_copies_of_one_block_not_of_all() -> None:
    blocks = [block(number, casts=1000) for number in range(4)]
    whole = update_peak(blocks, Sharding(), accumulates=False)
    shared = update_peak(blocks, Sharding(weights=4, gradients=4), accumulates=False)
    ahead = update_peak(blocks, Sharding(weights=4, gradients=4, gathered=2), accumulates=False)
    assert (whole.casts, shared.casts, ahead.casts) == (4000, 1000, 2000)


def test_an_update_takes_no_memory_of_its_own() -> None:
    only_states = [Segment("block", 0, 0, False, 1000, 0, 0)]
    assert update_peak(only_states, Sharding(), accumulates=False).total == 4000


def test_a_block_that_keeps_its_products_keeps_them_beside_its_inputs() -> None:
    blocks = [Segment(f"block {n}", 100, 10, True, 0, 0, 3, products=40) for n in range(4)]
    peak = update_peak(blocks, Sharding(), accumulates=False)
    assert peak.total == 4 * 50 + (100 - 50) + 3


def test_inputs_wait_in_host_memory_as_far_as_it_reaches() -> None:
    blocks = [block(number, recomputed=number > 0) for number in range(4)]
    found = offloaded(blocks, 25)
    assert [one.inputs for one in found] == [10, 0, 0, 10]
    assert [one.working for one in found] == [3, 23, 23, 3]  # one on its way out, one on its way back


@given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 500), st.integers(1, 4))
def test_recomputing_never_keeps_more_and_memory_grows_with_the_batch(
    blocks: int, again: int, tokens: int, batch: int
) -> None:
    config = denoiser(depth=blocks, depth_single_blocks=blocks)
    counter = MMDiTCounter(config, Precision.of("bf16", "cuda"))
    counts = count_denoiser(config).trained

    def kept(size: int, recomputed: Recomputed) -> int:
        return sum(one.kept for one in mmdit_segments(counter, Tokens(size, tokens, 16), counts, recomputed))

    plain, some = Recomputed(), range(again)
    kept_some = kept(batch, Recomputed(some, some))
    assert kept_some <= kept(batch, Recomputed(some, some, "products")) <= kept(batch, plain)
    assert kept_some <= kept(batch, Recomputed(some[::2], some[::2])) <= kept(batch, plain)
    assert kept(batch, plain) < kept(batch + 1, plain)
