"""What `osora config plan` estimates of memory against what training updates take, measured.

    python benchmarks/plan.py [--device cpu|cuda] [--full] [--only TEXT]

On the CPU every tensor's storage is counted while it lives (the optimizer's and the average's too), and autograd's saved
tensors are counted on their own; the growth of the resident memory is printed as a cross-check. On CUDA the figure is
`torch.cuda.max_memory_allocated`. `--full` adds the 11B model of Open-Sora 2.0 with tensors that have shapes and no
memory (CPU only). Prints estimate / measured; exit code 1 if one is off by more than 15 %.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from opensora_cli.planning.coding import coding
from opensora_cli.planning.mmdit import MMDiTCounter, Recomputed, Tokens, mmdit_segments
from opensora_cli.planning.modules import count_denoiser
from opensora_cli.planning.optimizers import optimizer_bytes, step_bytes
from opensora_cli.planning.plan import Target, make_plan
from opensora_cli.planning.precision import STATE, Device, Precision
from opensora_cli.planning.segments import Sharding, update_peak
from opensora_cli.planning.traced import LiveStorages
from opensora_cli.training.adversary import build_opponent
from opensora_cli.training.draws import Draws
from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import Optimizer
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.diffusion.rectified_flow import flow_loss
from opensora_models.layers.recompute import Recompute
from opensora_models.vae_loss.lpips import Lpips
from opensora_models.vae_loss.reconstruction import reconstruction_loss
from schemas.autoencoder import HunyuanVAEConfig
from schemas.denoiser import MMDiTConfig
from schemas.memory import MemoryConfig
from schemas.optim import OptimConfig
from schemas.recipes import TrainRecipe, VaeTrainRecipe

TOLERANCE = 0.15
MIB = 2**20
PLAIN = MemoryConfig()


@contextmanager
def saved_bytes(module: nn.Module) -> Iterator[Callable[[], int]]:
    """Count what autograd saves, each storage once, weights left out."""
    weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    seen: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(storage.nbytes() for storage in seen.values())
    seen.clear()


@dataclass(frozen=True)
class Case:
    """A denoiser's update: shape, precision, what is recomputed."""

    name: str
    config: MMDiTConfig
    tokens: Tokens
    dtype: Literal["bf16", "fp32"]
    memory: MemoryConfig = PLAIN
    average: bool = True
    fake: bool = False
    cls: Literal["AdamW", "AdamW8bit"] = "AdamW"

    @property
    def recipe(self) -> TrainRecipe:
        """The optimizer and the memory of a recipe; released gradients are not clipped."""
        clip = 0.0 if self.memory.release_gradients else 1.0
        return TrainRecipe(kind="train", optim=OptimConfig(cls=self.cls, grad_clip=clip), memory=self.memory)


def small(**keys: Any) -> MMDiTConfig:
    shape = {"in_channels": 32, "vec_in_dim": 64, "context_in_dim": 128, "hidden_size": 256, "num_heads": 4}
    return MMDiTConfig.model_validate({**shape, "axes_dim": (16, 24, 24), "depth": 3, "depth_single_blocks": 5, **keys})


def again(double: int, single: int, **keys: Any) -> MemoryConfig:
    return MemoryConfig(grad_checkpoint=True, grad_ckpt_settings=(double, single), **keys)


def cases(full: bool) -> list[Case]:
    split = {"fused_qkv": False, "use_liger_rope": True}
    large, short, long = Tokens(2, 700, 80), Tokens(1, 96, 32), Tokens(2, 4000, 128)
    wide = small(hidden_size=512, axes_dim=(32, 48, 48))
    narrow = {**split, "hidden_size": 128, "axes_dim": (8, 12, 12)}
    found = [
        Case("fused fp32", small(), large, "fp32"),
        Case("fused bf16", small(), large, "bf16"),
        Case("split fp32 patch 1", small(**split, patch_size=1, cond_embed=True), Tokens(2, 1000, 64), "fp32"),
        Case("split bf16 patch 2", small(**split, cond_embed=True), large, "bf16"),
        Case("split bf16, one clip", small(**split), Tokens(1, 1400, 160), "bf16"),
        Case("split fp32, all recomputed", small(**split), large, "fp32", again(3, 5)),
        Case("split bf16, all recomputed", small(**split), large, "bf16", again(3, 5)),
        Case("narrow fp32, all recomputed", small(**narrow), long, "fp32", again(3, 5)),
        Case("narrow bf16, all recomputed", small(**narrow), long, "bf16", again(3, 5)),
        Case(
            "narrow fused bf16, singles recomputed", small(**{**narrow, "fused_qkv": True}), long, "bf16", again(0, 5)
        ),
        Case("fused bf16, some recomputed", small(guidance_embed=True), large, "bf16", again(1, 3)),
        Case("split fp32, every second recomputed", small(**split), large, "fp32", again(3, 5, grad_ckpt_every=2)),
        Case("split fp32, products kept", small(**split), large, "fp32", again(3, 5, grad_ckpt_keep="products")),
        Case("fused bf16, products kept", small(), large, "bf16", again(3, 5, grad_ckpt_keep="products")),
        Case("many states fp32, released", wide, short, "fp32", MemoryConfig(release_gradients=True)),
        Case("many states fp32, in host memory", wide, short, "fp32", MemoryConfig(offload_optimizer=True)),
        Case("many states fp32, 8 bits", wide, short, "fp32", PLAIN, cls="AdamW8bit"),
        Case("mostly states fp32", wide, short, "fp32"),
        Case("mostly states bf16, no average", small(**split), short, "bf16", PLAIN, False),
    ]
    if full:
        whole = MMDiTConfig(**split, cond_embed=True)
        stage1 = Tokens(2, 260 * 9, 512)
        found.append(Case("11B bf16, 33 frames, recomputed", whole, stage1, "bf16", again(8, 38), False, True))
        found.append(Case("11B bf16, 33 frames, kept", whole, stage1, "bf16", PLAIN, False, True))
    return found


def inputs_of(case: Case, device: Device) -> tuple[dict[str, Tensor], Tensor]:
    config, tokens = case.config, case.tokens
    batch, text_dtype = tokens.batch, torch.bfloat16 if case.dtype == "bf16" else torch.float32
    inputs = {
        "img_BND": torch.zeros(batch, tokens.image, config.in_channels, device=device),
        "img_ids_BN3": torch.zeros(batch, tokens.image, 3, device=device),
        "txt_BLD": torch.zeros(batch, tokens.text, config.context_in_dim, dtype=text_dtype, device=device),
        "txt_ids_BL3": torch.zeros(batch, tokens.text, 3, device=device),
        "timesteps_B": torch.zeros(batch, device=device),
        "y_vec_BD": torch.zeros(batch, config.vec_in_dim, dtype=text_dtype, device=device),
    }
    if config.cond_embed:
        width = config.in_channels + config.patch_size**2
        inputs["cond_BND"] = torch.zeros(batch, tokens.image, width, device=device)
    if config.guidance_embed:
        inputs["guidance_B"] = torch.zeros(batch, device=device)
    return inputs, torch.zeros(batch, tokens.image, config.in_channels, device=device)


def updates(case: Case, device: Device, start: Callable[[], None]) -> int:
    """Do two updates as the trainer does them; return what autograd saved in the second (0 where blocks are recomputed)."""
    with torch.device(device):
        module = build_denoiser(case.config)
    memory = case.memory
    if memory.grad_checkpoint:
        module.set_grad_checkpointing(*memory.grad_ckpt_settings, memory.grad_ckpt_every, Recompute.of(memory))
    optimizer = Optimizer(module, case.recipe.optim, None, memory=memory)
    ema = Ema(module, 0.99) if case.average else None
    inputs, target = inputs_of(case, device)
    kept = 0
    for number in range(2):
        start()
        optimizer.begin(number)
        with saved_bytes(module) as saved:
            with torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bf16"):
                loss = flow_loss(module(**inputs), target)
            kept = 0 if memory.grad_checkpoint else saved()
        torch.autograd.backward(loss)
        del loss
        optimizer.clip()
        optimizer.step(number)
        if ema is not None:
            ema.update(module)
    return kept


def estimate(case: Case, device: Device) -> tuple[int, int]:
    """Return the estimated peak of an update, states and inputs included, and what autograd saves, casts included."""
    counts = count_denoiser(case.config)
    counter = MMDiTCounter(case.config, Precision.of(case.dtype, device))
    segments = mmdit_segments(counter, case.tokens, counts.trained, Recomputed.of(case.memory, case.config))
    widest = int(case.config.hidden_size * (3 + case.config.mlp_ratio))
    update = update_peak(
        segments,
        Sharding(),
        accumulates=False,
        releases=case.memory.release_gradients,
        step=step_bytes(case.recipe.optim, case.config.hidden_size * widest),
    )
    weights = counts.counted.total
    states = weights * STATE * (2 if case.average else 1) + optimizer_bytes(case.recipe, weights, device)
    tokens, config = case.tokens, case.config
    features = 2 * config.in_channels + 3 + (config.in_channels + config.patch_size**2 if config.cond_embed else 0)
    text = (2 if case.dtype == "bf16" else 4) * config.context_in_dim + 12
    still = states + tokens.batch * (tokens.image * 4 * features + tokens.text * text)
    kept = sum(segment.kept + segment.casts for segment in segments)
    return still + update.total, kept


def measure(case: Case, device: Device) -> tuple[int, int, int]:
    """Return the peak of an update, what autograd saved, and the growth of resident memory."""
    if device == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        kept = updates(case, device, torch.cuda.reset_peak_memory_stats)
        return torch.cuda.max_memory_allocated() - before, kept, 0
    live = LiveStorages()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def start() -> None:
        live.peak = live.now

    with FakeTensorMode() if case.fake else nullcontext(), live:
        kept = updates(case, device, start)
    return live.peak, kept, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def autoencoder_ratios(device: Device) -> Iterator[tuple[str, int, int]]:
    """Yield name, estimate and measurement of encoding and decoding, whole and in tiles."""
    for tiled in (False, True):
        keys = {"use_spatial_tiling": tiled, "sample_size": 64, "sample_tsize": 16, "use_temporal_tiling": tiled}
        config = HunyuanVAEConfig(block_out_channels=(32, 64, 96, 96), norm_num_groups=8, latent_channels=8, **keys)
        for dtype in ("fp32", "bf16"):
            yield from _coding_ratios(config, "bf16" if dtype == "bf16" else "fp32", device, tiled)


def _coding_ratios(
    config: HunyuanVAEConfig, dtype: Literal["bf16", "fp32"], device: Device, tiled: bool
) -> Iterator[tuple[str, int, int]]:
    precision = Precision.of(dtype, device, autocast=False)
    kind, extent = (torch.bfloat16 if dtype == "bf16" else torch.float32), (17, 96, 96)
    module = build_autoencoder(config).to(device, kind)
    clip = torch.zeros(1, 3, *extent, device=device, dtype=kind)
    with torch.no_grad():
        latent = module.encode(clip)
        for name, work in (("encode", lambda: module.encode(clip)), ("decode", lambda: module.decode(latent))):
            peak = _work_peak(work, device)
            direction: Literal["encode", "decode"] = "encode" if name == "encode" else "decode"
            cost = coding(config, precision, 1, extent, direction)
            yield f"autoencoder {name} {dtype}{' in tiles' if tiled else ''}", cost.peak, peak


def _work_peak(work: Callable[[], Tensor], device: Device) -> int:
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with LiveStorages() as live:
        work()
    return live.peak


def autoencoder_updates(device: Device) -> Iterator[tuple[str, int, int]]:
    """Yield name, estimate and measurement of training an autoencoder: what autograd saves, and an update's peak."""
    keys = {"block_out_channels": [16, 24, 32, 48], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 8}
    judged = {"discriminator": {"ndf": 32, "n_layers": 3}, "vae_loss": {"perceptual_loss_weight": 1.0}}
    cases = [("fp32", {}), ("bf16", {}), ("fp32", {"discriminator": {"ndf": 64}}), ("fp32", judged)]
    for dtype, judges in cases:
        recipe = VaeTrainRecipe.model_validate_json(
            json.dumps(
                {
                    "kind": "vae-train",
                    "dtype": dtype,
                    "ae": {"type": "hunyuan_vae", **keys},
                    "buckets": {"96px_ar1:1": {"17": [1.0, 2]}},
                    **judges,
                }
            )
        )
        plan = make_plan(recipe, Target(1, "cpu" if device == "cpu" else None, 2**40))
        extent = plan.shapes[0].shape.extent
        live = LiveStorages()
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        with live if device == "cpu" else nullcontext():
            _autoencoder_updates(recipe, extent, device, live)
        measured = live.peak if device == "cpu" else torch.cuda.max_memory_allocated() - before
        against = "".join(f", {name}" for name in ("discriminator", "vae_loss") if name in judges)
        yield f"autoencoder trained {dtype}{against}: update", plan.shapes[0].total, measured


def _autoencoder_updates(
    recipe: VaeTrainRecipe, extent: tuple[int, int, int], device: Device, live: LiveStorages
) -> None:
    with torch.device(device):
        module = build_autoencoder(recipe.ae)
        clip = torch.zeros(2, 3, *extent)
        lpips = Lpips() if recipe.vae_loss.perceptual_loss_weight else None
    optimizer = Optimizer(module, recipe.optim, None)
    opponent = adversary = None
    if recipe.discriminator is not None:
        opponent = build_opponent(recipe.discriminator, 0, torch.device(device))
        adversary = Optimizer(opponent.module, opponent.trained_by(recipe.optim).optim, None)
    for number in range(2):
        live.peak = live.now
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.autocast(device, torch.bfloat16, enabled=recipe.dtype == "bf16"):
            reconstruction, posterior = module(clip, torch.Generator().manual_seed(0))
            loss = reconstruction_loss(reconstruction, clip, "l1") + 1e-6 * posterior.kl().mean()
            if lpips is not None:
                loss = loss + lpips(reconstruction.reshape(34, 3, 96, 96), clip.view(34, 3, 96, 96)).mean()
            if opponent is not None:
                draws = Draws(0, number, 0, 0)
                loss = loss + opponent.deception(reconstruction, loss, module.decoder.conv_out.conv.weight, draws)[0]
        torch.autograd.backward(loss)
        made = reconstruction.detach()
        del loss, posterior, reconstruction
        if opponent is not None and adversary is not None:
            with torch.autocast(device, torch.bfloat16, enabled=recipe.dtype == "bf16"):
                against = opponent.loss(clip, made, draws).value
            torch.autograd.backward(against)
            del against
            adversary.clip()
            adversary.step(number)
        optimizer.clip()
        optimizer.step(number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    arguments = parser.parse_args()
    device: Device = arguments.device
    worst = 0.0

    def show(name: str, estimated: int, measured: int, further: str = "") -> None:
        nonlocal worst
        ratio = estimated / measured
        worst = max(worst, abs(ratio - 1))
        print(f"{name:<56} {estimated / MIB:>12.2f} {measured / MIB:>12.2f} MiB   {ratio:.3f}{further}", flush=True)

    for case in cases(arguments.full and device == "cpu"):
        if arguments.only not in case.name:
            continue
        (update, saved), (seen_update, seen_saved, resident) = estimate(case, device), measure(case, device)
        show(
            f"{case.name}: update", update, seen_update, f"   (resident +{resident / MIB:.0f} MiB)" if resident else ""
        )
        if seen_saved:
            show(f"{case.name}: saved", saved, seen_saved)
    autoencoders = () if arguments.only else (*autoencoder_ratios(device), *autoencoder_updates(device))
    for name, estimated, measured in autoencoders:
        show(name, estimated, measured)
    print(f"worst: {worst:.1%} off (limit {TOLERANCE:.0%})")
    return 1 if worst > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
