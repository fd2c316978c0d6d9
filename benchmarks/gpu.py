"""Seconds and peak memory of the real sizes on one GPU, with random weights: the autoencoders.

    python -m benchmarks.gpu [--rounds 3]

Absolute figures, printed with the GPU's name and beside a plain matrix product of the same run; benchmarks/RESULTS.md
keeps them. benchmarks.sample_gpu measures sampling, benchmarks.train_gpu training.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from opensora_models.build import build_autoencoder
from opensora_models.text.features import TextFeatures
from schemas.recipes import SampleRecipe
from schemas.resolve import resolve

DEVICE, DTYPE = torch.device("cuda"), torch.bfloat16
GIB = 2**30


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes on the GPU, all of it included."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_gib() -> float:
    """Return the most memory allocated since the last reset, GiB."""
    return torch.cuda.max_memory_allocated() / GIB


def matrix_product_tflops(size: int = 8192, rounds: int = 20) -> float:
    """Return the speed of a plain bf16 matrix product."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=DTYPE) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 / statistics.median(seconds(lambda: a @ b) for _ in range(rounds)) / 1e12


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model in bf16 on the GPU with small random weights."""
    with torch.device("meta"):
        module = make().to(DTYPE)
    module = module.to_empty(device=DEVICE)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.02)
    return module.eval().requires_grad_(False)


def random_text(recipe: SampleRecipe) -> TextFeatures:
    """Return features as the text encoders give them."""
    tokens_BLD = torch.randn(1, recipe.text.t5.max_length, recipe.model.context_in_dim, device=DEVICE, dtype=DTYPE)
    return TextFeatures({"t5": tokens_BLD, "clip": torch.randn(1, recipe.model.vec_in_dim, device=DEVICE, dtype=DTYPE)})


def vae(rounds: int) -> None:
    """Encode and decode with the autoencoders in their real size."""
    for kind, name in (("Hunyuan", "sample/256px"), ("DC-AE", "sample/high_compression")):
        recipe = resolve(name).recipe
        assert isinstance(recipe, SampleRecipe)
        module = built(lambda recipe=recipe: build_autoencoder(recipe.ae))  # type: ignore[misc]
        for frames, side in ((129, 256), (33, 768)):
            count = frames if module.causal else frames - 1
            x_BCTHW = torch.randn(1, 3, count, side, side, device=DEVICE, dtype=DTYPE)
            with torch.no_grad():
                z_BCTHW = module.encode(x_BCTHW)
                for way, work in (
                    ("encode", lambda x=x_BCTHW, m=module: m.encode(x)),
                    ("decode", lambda z=z_BCTHW, m=module: m.decode(z)),
                ):
                    work()
                    torch.cuda.reset_peak_memory_stats()
                    taken = statistics.median(seconds(work) for _ in range(rounds))
                    print(
                        f"{kind} {way} {count} frames at {side}px: {taken:.2f} s, peak {peak_gib():.1f} GiB", flush=True
                    )
        del module
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU")
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"bf16 matrix product, 8192 cubed: {matrix_product_tflops():.0f} TFLOP/s", flush=True)
    vae(args.rounds)


if __name__ == "__main__":
    main()
