"""Training steps of hidden size 3072 on one GPU, in every form that saves memory or time: speed, MFU, memory against the plan.

    python -m benchmarks.train_gpu [VARIANT...] [--depth N] [--rounds 3] [--small]

Buckets of 256px with 1, 33 and 129 frames; as many double blocks, and twice as many single ones, as the plan says fit
without recomputing (or `--depth`). Prints image tokens a second, model FLOPs (three times the forward pass, whatever is
recomputed) against a plain bf16 matrix product of the same run and against the GPU's dense bf16 peak, and the peak of
memory against `osora config plan` for exactly that recipe. `--small` is a check that all of it runs, also on a CPU.
Exit code 1 if the plan is off by more than 15 % or no variant reaches 50 % of the dense peak in any bucket.
"""

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu import matrix_product_tflops
from opensora_cli.planning.optimizers import host_bytes
from opensora_cli.planning.plan import Plan, ShapePlan, Target, make_plan
from opensora_cli.training.optim import Optimizer
from opensora_models.compiled import compile_blocks
from opensora_models.diffusion.latent_packing import image_ids, text_ids
from opensora_models.diffusion.rectified_flow import flow_loss
from opensora_models.float8_training import train_in_float8
from opensora_models.layers.recompute import Recompute
from opensora_models.mmdit.model import MMDiT
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve

GIB = 2**30
DENSE_PEAK = {"H200": 989, "H100": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362, "RTX 4090": 165}
"""Dense bf16 TFLOP/s of the data sheets, by a part of the GPU's name."""
AIM, TOLERANCE = 0.50, 0.15
HOST_SHARE = 0.6
"""Of the host's memory, what an optimizer there may take."""
RECOMPUTE = "memory.grad_checkpoint=true"
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "recompute": [RECOMPUTE],
    "every-second": [RECOMPUTE, "memory.grad_ckpt_every=2"],
    "products": [RECOMPUTE, 'memory.grad_ckpt_keep="products"'],
    "buffer": [RECOMPUTE, f"memory.grad_ckpt_buffer_size={16 * GIB}"],
    "8bit": ['optim.cls="AdamW8bit"'],
    "released": ["memory.release_gradients=true", "optim.grad_clip=0.0"],
    "host": ["memory.offload_optimizer=true"],
    "fp8": ["memory.fp8_linear=true"],
    "compile": ["memory.compile=true"],
    "compile-fp8": ["memory.compile=true", "memory.fp8_linear=true"],
}
BUCKETS = '{"256px_ar1:1" = {1 = [1.0, 16], 33 = [1.0, 4], 129 = [1.0, 1]}}'
SMALL = [
    "model.hidden_size=64",
    "model.num_heads=4",
    "model.axes_dim=[4, 6, 6]",
    'buckets={"256px_ar1:1" = {1 = [1.0, 2], 5 = [1.0, 1]}}',
]


@dataclass(frozen=True)
class Measured:
    """What a variant took for a step of one bucket."""

    seconds: float
    peak: int


def recipe_of(variant: str, depth: int, small: bool) -> TrainRecipe:
    """Return stage 1 with cached inputs, so that nothing but the denoiser is here, in a variant's form."""
    sets = [
        f"model.depth={depth}",
        f"model.depth_single_blocks={2 * depth}",
        "dataset.cached_video=true",
        "dataset.cached_text=true",
        "memory.grad_checkpoint=false",
        "parallel.plugin=none",
        *(SMALL if small else [f"buckets={BUCKETS}"]),
        *VARIANTS[variant],
    ]
    recipe = resolve("stage1", sets=sets, unsets=["parallel", "buckets"]).recipe
    assert isinstance(recipe, TrainRecipe)
    return recipe


def largest_depth(memory: int) -> int:
    """Return the largest number of double blocks (with twice as many single ones) that the plan says fit."""
    depth = 1
    while all(one.fits for one in make_plan(recipe_of("plain", depth + 1, False), Target(1, None, memory)).shapes):
        depth += 1
    return depth


def inputs_of(recipe: TrainRecipe, shape: ShapePlan, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
    """Return what the objective gives the denoiser for a batch, and the velocity it should answer."""
    config, batch, texts = recipe.model, shape.shape.batch_size, recipe.text.t5.max_length
    frames, height, width = shape.shape.extent
    latent = (frames - 1) // 4 + 1
    tokens = latent * height * width // (8 * config.patch_size) ** 2

    def normal(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size, device=device, dtype=dtype)

    inputs = {
        "img_BND": normal(batch, tokens, config.in_channels),
        "img_ids_BN3": image_ids(latent, height // 8, width // 8, config.patch_size, batch=batch, device=device),
        "txt_BLD": normal(batch, texts, config.context_in_dim, dtype=torch.bfloat16),
        "txt_ids_BL3": text_ids(texts, batch=batch, device=device),
        "timesteps_B": torch.rand(batch, device=device),
        "y_vec_BD": normal(batch, config.vec_in_dim, dtype=torch.bfloat16),
    }
    if config.cond_embed:
        inputs["cond_BND"] = normal(batch, tokens, config.in_channels + config.patch_size**2)
    if config.guidance_embed:
        inputs["guidance_B"] = torch.full((batch,), recipe.diffusion.guidance, device=device)
    return inputs, normal(batch, tokens, config.in_channels)


def measured(
    recipe: TrainRecipe, plan: Plan, device: torch.device, rounds: int
) -> Iterator[tuple[ShapePlan, Measured]]:
    """Train the denoiser on every bucket, as the trainer does it, and yield what a step took."""
    with device:
        model = MMDiT(recipe.model).train()
    memory = recipe.memory
    if memory.fp8_linear:
        train_in_float8(model, device)
    if memory.grad_checkpoint:
        model.set_grad_checkpointing(*memory.grad_ckpt_settings, memory.grad_ckpt_every, Recompute.of(memory))
    if memory.compile:
        compile_blocks(model, any_size=True)
    optimizer = Optimizer(model, recipe.optim, recipe.max_steps, memory=memory)
    for shape in plan.shapes:
        inputs, target_BND = inputs_of(recipe, shape, device)

        def step(inputs: dict[str, Tensor] = inputs, target_BND: Tensor = target_BND) -> None:
            optimizer.begin(0)
            with torch.autocast(device.type, torch.bfloat16):
                loss = flow_loss(model(**inputs), target_BND)
            loss.backward()
            optimizer.clip()
            optimizer.step(0)

        for _ in range(2):
            step()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        taken = statistics.median(seconds(step, device) for _ in range(rounds))
        yield shape, Measured(taken, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long some work takes, the GPU's part included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help=f"all if left out: {', '.join(VARIANTS)}")
    parser.add_argument("--depth", type=int, help="double blocks; by default as many as fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tiny model: a check, not a measurement")
    args = parser.parse_args()
    if unknown := set(args.variants) - set(VARIANTS):
        parser.error(f"{', '.join(sorted(unknown))}: the variants are {', '.join(VARIANTS)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.small:
        raise SystemExit("this benchmark needs a CUDA GPU; --small checks it on a CPU")
    torch.manual_seed(0)
    name, product, peak = "cpu", 0.0, None
    if device.type == "cuda":
        name, product = torch.cuda.get_device_name(), matrix_product_tflops()
        peak = next((tflops for part, tflops in DENSE_PEAK.items() if part in name), None)
    depth = args.depth or (1 if args.small else largest_depth(torch.cuda.get_device_properties(0).total_memory))
    print(
        f"{name}, torch {torch.__version__}; matrix product {product:.0f}, dense peak {peak} TFLOP/s; "
        f"{depth} + {2 * depth} blocks"
    )
    variants = args.variants or [one for one in VARIANTS if device.type == "cuda" or not needs_gpu(one)]
    found = [row for variant in variants for row in rows(variant, depth, device, args, product, peak)]
    good = [row for row in found if row is not None]
    worst = max((abs(plan - 1) for _, plan in good if plan is not None), default=0.0)
    best = max((mfu for mfu, _ in good if mfu is not None), default=None)
    print(
        f"plan: worst {worst:.1%} off (limit {TOLERANCE:.0%}); "
        f"best MFU of the dense peak: {best and f'{best:.1%}'} (aim {AIM:.0%})"
    )
    return int(worst > TOLERANCE or (best is not None and not args.small and best < AIM))


def needs_gpu(variant: str) -> bool:
    """Whether a CPU cannot run a variant, or compiles it for too long."""
    return any("fp8" in key or "compile" in key for key in VARIANTS[variant])


def rows(
    variant: str, depth: int, device: torch.device, args: argparse.Namespace, product: float, peak: float | None
) -> Iterator[tuple[float | None, float | None] | None]:
    """Print what a variant takes; yield its share of the dense peak and planned / measured memory for every bucket."""
    recipe = recipe_of(variant, depth, args.small)
    plan = make_plan(recipe, Target(1, "cpu" if device.type == "cpu" else None, None))
    host = host_bytes(recipe, plan.parameters["denoiser"].total)
    if host > HOST_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        print(
            f"{variant:<12} needs {host / GIB:.0f} GiB of host memory, more than is sensible here: lower --depth",
            flush=True,
        )
        return
    try:
        for shape, one in measured(recipe, plan, device, args.rounds):
            batch = shape.shape.batch_size
            tflops = 3 * shape.cost.forward_flops * batch / one.seconds / 1e12
            image = batch * (shape.cost.tokens - recipe.text.t5.max_length)
            mfu = tflops / peak if peak else None
            plan_ratio = shape.total / one.peak if one.peak else None
            shares = f"{tflops / product:.1%} of the product, " if product else ""
            shares += f"MFU {mfu:.1%}, " if mfu is not None else ""
            against = f" = {plan_ratio:.3f} of" if plan_ratio is not None else ", measured"
            print(
                f"{variant:<12} {shape.shape.frames:>4} frames x {batch:<3} {one.seconds:.3f} s, "
                f"{image / one.seconds:>8,.0f} image tokens/s, {tflops:.0f} TFLOP/s, {shares}"
                f"plan {shape.total / GIB:.2f}{against} {one.peak / GIB:.2f} GiB",
                flush=True,
            )
            yield mfu, plan_ratio
    except torch.OutOfMemoryError:
        print(f"{variant:<12} does not fit", flush=True)
        yield None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
