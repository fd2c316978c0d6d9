"""What the plan says of the denoisers of Open-Sora 1.x, against what their own code takes."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from opensora_cli.distributed.process import Process
from opensora_cli.planning.coded import latent_size
from opensora_cli.planning.denoised import LatentClips
from opensora_cli.planning.denoising import denoiser_costs
from opensora_cli.planning.hardware import memory_of
from opensora_cli.planning.modules import count_denoiser
from opensora_cli.planning.plan import Plan, Target, make_plan
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.segments import Sharding, update_peak
from opensora_cli.planning.traced import LiveStorages, SavedStorages
from opensora_cli.sampling.branches import evaluation_fits
from opensora_cli.training.speed import Speed
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.layers.recompute import Recompute
from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    HunyuanVAEConfig,
    OpenSoraVAEConfig,
)
from schemas.denoiser import (
    DenoiserConfig,
    DiTConfig,
    LatentDenoiser,
    LatteConfig,
    PixArtConfig,
    STDiT2Config,
    STDiT3Config,
    STDiTConfig,
)
from schemas.memory import MemoryConfig
from schemas.resolve import resolve
from tests.unit.training_fakes import FakeBatch

TINY: dict[str, Any] = {"hidden_size": 48, "depth": 3, "num_heads": 4, "caption_channels": 32}
COMPRESSED = {"sampling": "conv", "scale_factor": 2, "kv_compress_layer": (1,)}
MODELS: dict[str, DenoiserConfig] = {
    "stdit3": STDiT3Config(**TINY),
    "stdit2": STDiT2Config(**TINY),
    "stdit": STDiTConfig(**TINY),
    "dit": DiTConfig(**TINY),
    "labels": DiTConfig(**TINY, condition="label_10"),
    "latte": LatteConfig(**TINY),
    "pixart": PixArtConfig(**TINY),
    "sigma": PixArtConfig(**TINY, multi_scale=True, qk_norm=True, kv_compress_config=COMPRESSED),
}
PLAIN = MemoryConfig()
GIB = 2**30
Dtype = Literal["fp32", "bf16"]
every_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def clips_of(config: DenoiserConfig, batch: int, latents: tuple[int, int, int] = (4, 20, 28)) -> LatentClips:
    return LatentClips(batch, latents, 24 if "t5" in config.texts else 1)


def inputs_of(config: DenoiserConfig, clips: LatentClips, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return inputs of a model: all text counts, and all frames are made."""
    assert isinstance(config, LatentDenoiser)
    batch = clips.batch
    names = ("fps_B", "height_B", "width_B", "num_frames_B", "aspect_B")
    known = {
        "text_BLD": torch.zeros(batch, clips.text, config.caption_channels, dtype=dtype),
        "text_mask_BL": torch.ones(batch, clips.text, dtype=torch.bool),
        "labels_B": torch.zeros(batch, dtype=torch.int64),
        "drop_B": torch.zeros(batch, dtype=torch.bool),
        "x_mask_BT": torch.ones(batch, clips.latents[0], dtype=torch.bool),
        **{name: torch.full((batch,), 64.0) for name in names},
    }
    del known["text_BLD" if "labels" in config.texts else "labels_B"]
    with torch.device("meta"):
        takes = build_denoiser(config).conditions  # type: ignore[union-attr]
    taken = {name: tensor for name, tensor in known.items() if name in takes}
    x_BCTHW = torch.zeros(batch, config.in_channels, *clips.latents, dtype=dtype)
    return {"x_BCTHW": x_BCTHW, "timesteps_B": torch.zeros(batch), **taken}


def storages(tensors: list[Tensor]) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors}


@every_model
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_blocks_save_what_the_plan_counts(config: DenoiserConfig, batch: int, dtype: Dtype) -> None:
    clips = clips_of(config, batch)
    module, inputs = build_denoiser(config), inputs_of(config, clips)
    saved = SavedStorages(module)
    with (
        torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"),
    ):
        module(**inputs).float().square().mean()
    held = saved.without(storages([*inputs.values(), *module.buffers()]))
    counts = count_denoiser(config)
    segments = denoiser_costs(config, Precision.of(dtype, "cpu")).segments(clips, counts.trained, PLAIN)
    # Between the two: copies of those weights whose products need no gradient of their input.
    assert sum(one.kept + one.casts for one in segments) == pytest.approx(held, rel=0.015)


@every_model
def test_flops_are_those_that_torch_counts(config: DenoiserConfig) -> None:
    clips = clips_of(config, 2)
    inputs = inputs_of(config, clips)
    module = build_denoiser(config)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(**inputs)
    with torch.no_grad():  # a caller's choice changes nothing
        flops = denoiser_costs(config, Precision.of("bf16", "cuda")).flops(clips)
    assert 2 * (flops.products + flops.attention) == counter.get_total_flops()
    assert flops.attention > 0


@pytest.mark.parametrize(
    "memory",
    [
        PLAIN,
        MemoryConfig(grad_checkpoint=True),
        MemoryConfig(grad_checkpoint=True, grad_ckpt_settings=(2, 1)),
        MemoryConfig(grad_checkpoint=True, grad_ckpt_keep="products"),
    ],
    ids=["plain", "recomputed", "some", "products"],
)
@pytest.mark.parametrize("name", ["stdit3", "dit", "sigma"])
def test_forward_and_backward_take_what_the_plan_says(name: str, memory: MemoryConfig) -> None:
    config = MODELS[name]
    clips = clips_of(config, 2)
    module, inputs = build_denoiser(config), inputs_of(config, clips)
    if memory.grad_checkpoint:
        module.set_grad_checkpointing(*memory.grad_ckpt_settings, memory.grad_ckpt_every, Recompute.of(memory))
    live = LiveStorages(storages([*module.parameters(), *module.buffers(), *inputs.values()]))
    with live:
        torch.autograd.backward(module(**inputs).square().mean())
    costs, counts = denoiser_costs(config, Precision.of("fp32", "cpu")), count_denoiser(config)
    peak = update_peak(costs.segments(clips, counts.trained, memory), Sharding(), accumulates=False)
    assert peak.total == pytest.approx(live.peak, rel=0.05)


@every_model
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_evaluation_takes_what_the_plan_says(config: DenoiserConfig, dtype: Dtype) -> None:
    torch_dtype = torch.float32 if dtype == "fp32" else torch.bfloat16
    clips = clips_of(config, 2)
    module, inputs = build_denoiser(config).to(torch_dtype), inputs_of(config, clips, torch_dtype)
    live = LiveStorages(storages([*module.parameters(), *module.buffers(), *inputs.values()]))
    with live, torch.no_grad():
        module(**inputs)
    assert denoiser_costs(config, Precision.of(dtype, "cpu", autocast=False)).evaluating(clips) == pytest.approx(
        live.peak, rel=0.05
    )


def test_the_recomputed_blocks_are_those_of_the_family() -> None:
    memory = MemoryConfig(grad_checkpoint=True, grad_ckpt_settings=(3, 1), grad_ckpt_every=2)
    config = MODELS["stdit3"]
    costs, clips = denoiser_costs(config, Precision.of("bf16", "cuda")), clips_of(config, 1)
    segments = costs.segments(clips, count_denoiser(config).trained, memory)
    again = [one.name for one in segments if one.recomputed]
    assert again == ["spatial_blocks.0", "temporal_blocks.0", "spatial_blocks.2"]
    assert 0 < costs.flops_again(clips, memory) < costs.flops(clips).forward
    products = memory.model_copy(update={"grad_ckpt_keep": "products"})
    assert costs.flops_again(clips, products) == 0


@pytest.mark.parametrize("config", [MODELS[name] for name in ("stdit3", "latte", "sigma")], ids=lambda one: one.type)
def test_cost_grows_with_depth_and_batch_as_it_must(config: DenoiserConfig) -> None:
    precision, clips = Precision.of("bf16", "cuda"), clips_of(config, 2)

    def kept(depth: int, batch: int) -> int:
        deep = config.model_copy(update={"depth": depth})
        counts = count_denoiser(deep).trained
        segments = denoiser_costs(deep, precision).segments(
            LatentClips(batch, clips.latents, clips.text), counts, PLAIN
        )
        return sum(one.kept for one in segments)

    # Blocks 3 to 6 repeat those before (of the Sigma all but the one that compresses).
    assert kept(8, 2) - kept(6, 2) == kept(6, 2) - kept(4, 2) > 0
    assert kept(3, 8) == 4 * kept(3, 2)


def test_sequence_parallel_processes_share_out_the_tokens() -> None:
    config, precision = MODELS["stdit3"], Precision.of("bf16", "cuda")
    counts, clips = count_denoiser(config).trained, clips_of(config, 2, (4, 32, 32))
    whole, half = (
        sum(one.kept for one in denoiser_costs(config, precision, sequence=parts).segments(clips, counts, PLAIN))
        for parts in (1, 2)
    )
    assert whole / 2 < half < 0.55 * whole  # each has the whole text
    assert denoiser_costs(config, precision, sequence=2).flops(clips) == denoiser_costs(config, precision).flops(clips)


RECIPE = """
schema_version = 1
kind = "train"
[model]
type = "stdit3"
depth = 4
freeze_y_embedder = true
[ae]
type = "open_sora_vae"
from_pretrained = "vae"
[text.t5]
from_pretrained = "google/t5-v1_1-xxl"
max_length = 300
masked = true
[diffusion]
type = "rflow"
[dataset]
rules = "open-sora-1.2"
cached_video = true
[buckets]
"144p" = { 1 = [1.0, 64], 51 = [1.0, 4] }
"""


def planned(folder: Path, *sets: str, target: Target | None = None) -> Plan:
    path = folder / "recipe.toml"
    path.write_text(RECIPE)
    return make_plan(resolve(path, sets=sets).recipe, target or Target(8, "h200", memory_of("h200")))


def test_the_plan_of_a_recipe_of_open_sora_1_2(tmp_path: Path) -> None:
    plan = planned(tmp_path, "parallel.plugin=none", "optim.ema_decay=0.99")
    whole, frozen = plan.parameters["denoiser"].total, plan.parameters["denoiser"].children["y_embedder"]
    assert sum(plan.parameters["denoiser"].children.values()) == whole > 100_000_000
    assert set(plan.parameters) == {"denoiser", "autoencoder", "text.t5"}, "no CLIP"
    assert plan.gradients == 4 * (whole - frozen)
    assert plan.states["optimizer"] == 8 * (whole - frozen)
    assert plan.states["weights"] == plan.states["average (EMA)"] == 4 * whole
    image, clip = (one.cost for one in plan.shapes)
    # 144 x 256 pixels are 18 x 32 latents; 51 frames are 3 parts of 17, each 5 latent frames.
    assert (image.tokens, clip.tokens) == (9 * 16 + 300, 15 * 9 * 16 + 300)
    assert image.flops == image.flops_without_recomputing > 3 * image.forward_flops > 0
    again = planned(tmp_path, "parallel.plugin=zero2", "memory.grad_checkpoint=true")
    assert again.states["optimizer"] == plan.states["optimizer"] // 8
    for one, before in zip(again.shapes, plan.shapes, strict=True):
        assert one.cost.activations < 0.1 * before.cost.activations == 0.1 * one.cost.activations_without_recomputing
        assert one.cost.flops > before.cost.flops


def test_a_vector_is_one_token_and_needs_no_other_encoder(tmp_path: Path) -> None:
    sets = (
        'model={ _delete_ = true, type = "dit", caption_channels = 768 }',
        'diffusion={ _delete_ = true, type = "iddpm" }',
    )
    plan = planned(tmp_path, *sets)
    assert set(plan.parameters) == {"denoiser", "autoencoder", "text.clip"}
    assert plan.shapes[0].cost.tokens == 9 * 16 + 1


@pytest.mark.parametrize(
    "config",
    [HunyuanVAEConfig(), AutoEncoder2DConfig(), AutoencoderKLConfig(), OpenSoraVAEConfig()],
    ids=lambda c: c.type,
)
def test_latents_have_the_size_that_the_autoencoder_gives_them(config: AutoencoderConfig) -> None:
    with torch.device("meta"):
        module = build_autoencoder(config)
    for extent in ((1, 146, 256), (17, 350, 662), (33, 128, 100), (401, 64, 64)):
        assert latent_size(config, extent) == module.latent_size(*extent)


def test_branches_of_latents_are_weighed_as_those_of_tokens() -> None:
    config = STDiT3Config()
    large = LatentClips(2, (30, 90, 160), 300)

    def least(clips: LatentClips, dtype: torch.dtype) -> int:
        return next(gib for gib in range(1, 200) if evaluation_fits(config, clips, dtype, gib * GIB))

    half = LatentClips(1, large.latents, large.text)
    assert least(half, torch.bfloat16) < least(large, torch.bfloat16) < least(large, torch.float32)


def test_a_run_knows_its_tokens_and_its_share_of_the_peak() -> None:
    recipe = resolve("tiny/stdit3").recipe
    speed = Speed(recipe, Process(0, 2, torch.device("cpu"), together=1), None)  # type: ignore[arg-type]
    speed._peak = 1e12
    batch = FakeBatch(torch.empty(3, 3, 17, 64, 64), rows=[0, 1, 2])
    found = speed.metrics([batch], seconds=2.0, data_seconds=0.0)  # type: ignore[list-item]
    assert found["tokens_per_second"] == 3 * 2 * (5 * 4 * 4 + 24) / 2.0
    costs = denoiser_costs(recipe.model, Precision.of("fp32", "cpu"))  # type: ignore[union-attr]
    flops = costs.flops(LatentClips(1, (5, 8, 8), 24)).training()
    assert found["mfu"] == pytest.approx(3 * 2 * flops / (2.0 * 1e12 * 2))
