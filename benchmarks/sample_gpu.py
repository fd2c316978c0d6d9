"""Sampling at its real size on one GPU with random weights: plain, compiled, with a step cache, in 8 bits, within 24 GB.

    python -m benchmarks.sample_gpu [--steps 50] [--few 10] [--threshold 0.1] [--only plain compiled ...]

Text to video with the 11B denoiser, 129 frames at 256px (192 x 336), and 3 steps at 768px. `bound` is the time that the
blocks' products and attention would take at the speed of a plain bf16 matrix product in the same run. Lines of --few steps
say what they would be for all steps, by the number of evaluations. Text features are random. Exits 1 where a bound is
missed: 25 s of denoising without loss, 24 GiB with blocks in host memory. With random weights the step cache shows its
mechanics and its cost; how much it saves and loses with trained ones is another number.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.gpu import DEVICE, GIB, built, matrix_product_tflops, peak_gib, random_text, seconds
from opensora_cli.planning.mmdit import mmdit_flops
from opensora_cli.sampling.generate import Clips, Generator, generate
from opensora_cli.sampling.offload import BlockSwap, WholeModel
from opensora_cli.sampling.size import sample_size
from opensora_cli.sampling.stages import Stages
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.compiled import compile_blocks, compile_seconds
from opensora_models.layers.float8_linear import use_float8
from opensora_models.mmdit.attention import attention, preferred_kernels
from schemas.recipes import SampleRecipe
from schemas.resolve import resolve

LOSSLESS_SECONDS, SMALL_GIB = 25.0, 24.0
missed: list[str] = []


class Bench:
    """The models, and the clips that are made with them."""

    def __init__(self, args: argparse.Namespace) -> None:
        recipe = resolve("sample/256px", sets=["sampling.num_frames=129"]).recipe
        assert isinstance(recipe, SampleRecipe)
        self.recipe, self.args = recipe, args
        self.speed = matrix_product_tflops() * 1e12
        print(f"bf16 matrix product, 8192 cubed: {self.speed / 1e12:.0f} TFLOP/s", flush=True)
        self.denoiser = built(lambda: build_denoiser(recipe.model))
        self.autoencoder = built(lambda: build_autoencoder(recipe.ae))
        self.texts = random_text(recipe), random_text(recipe)
        self.models = Generator(self.denoiser, self.autoencoder, recipe.model, {}, DEVICE)  # type: ignore[arg-type]

    def clip(self, steps: int, stages: Stages | None = None, **changes: object) -> Clips:
        """Make a clip with other settings."""
        config = self.recipe.sampling.model_copy(update={"num_steps": steps, **changes})
        size = sample_size(config, self.autoencoder.strides[1] * self.recipe.model.patch_size)  # type: ignore[operator]
        return generate(self.models, config, size, [0], *self.texts, [None], stages=stages)

    def warm(self, **changes: object) -> None:
        """Meet both numbers of branches at this size: compiled blocks have a graph for each."""
        self.clip(1, **changes)
        self.clip(1, **{**changes, "guidance": 1.0})

    def measure(self, name: str, steps: int, **changes: object) -> float:
        """Print what a clip takes, and return the seconds of denoising, for all steps."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        stages = Stages(DEVICE)
        made = self.clip(steps, stages, **changes)
        denoising = stages.seconds["denoise"]
        frames, height, width = made.video.shape[2:]
        image = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)
        model = self.recipe.model
        cost = mmdit_flops(
            model, image, self.recipe.text.t5.max_length, model.depth, model.depth_single_blocks, ends=True
        )
        bound = made.evaluations * (cost.products + cost.attention) / self.speed
        whole = {50: 80}.get(self.args.steps, made.evaluations)
        scaled = denoising if steps == self.args.steps else denoising * whole / made.evaluations
        print(
            f"{name}: {height} x {width}, {steps} steps, {made.evaluations} evaluations ({made.reused[0]} cut short): "
            f"denoise {denoising:.2f} s ({denoising / bound:.2f} of the bound), decode {stages.seconds['decode']:.2f} s, "
            f"peak {peak_gib():.1f} GiB"
            + ("" if steps == self.args.steps else f"; {self.args.steps} steps at this size: {scaled:.1f} s"),
            flush=True,
        )
        return scaled

    def plain(self) -> None:
        """Measure the blocks as they are."""
        self.warm()
        self.measure("plain", self.args.steps)

    def compiled(self) -> None:
        """Measure compiled blocks, then a step cache on top, then a larger clip."""
        before = compile_seconds()
        compile_blocks(self.denoiser, any_size=False)
        self.warm()
        print(f"compiling: {compile_seconds() - before:.0f} s", flush=True)
        taken = self.measure("compiled", self.args.steps)
        if taken > LOSSLESS_SECONDS:
            missed.append(f"compiled: {taken:.1f} s of denoising, the bound is {LOSSLESS_SECONDS:g}")
        self.measure("compiled, step cache", self.args.steps, cache_threshold=self.args.threshold)

    def large(self) -> None:
        """Measure three steps at 768px."""
        before = compile_seconds()
        self.warm(resolution="768px", num_frames=5)
        self.clip(1, resolution="768px")
        print(f"compiling for any size: {compile_seconds() - before:.0f} s", flush=True)
        self.measure("768px", 3, resolution="768px")

    def fp8(self) -> None:
        """Measure matrices in 8 bits, without compiling."""
        self._eager()
        for block in self.denoiser.units:  # type: ignore[arg-type]
            use_float8(block)
        self.warm()
        self.measure("fp8 weights", self.args.few)

    def offload(self) -> None:
        """Measure blocks that come from host memory, where a program may have 24 GB."""
        del self.denoiser, self.models  # its matrices may be in 8 bits by now
        self.denoiser = built(lambda: build_denoiser(self.recipe.model))
        taken = seconds(self._put_away)
        print(f"into pinned host memory: {taken:.1f} s", flush=True)
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, SMALL_GIB * GIB / total))
        self.warm()
        self.measure("blocks in host memory, at most 24 GiB", self.args.few)
        if peak_gib() > SMALL_GIB:
            missed.append(f"blocks in host memory: {peak_gib():.1f} GiB")
        torch.cuda.set_per_process_memory_fraction(1.0)

    def _put_away(self) -> None:
        blocks = self.denoiser.units  # type: ignore[arg-type]
        waiting = {
            "denoiser": BlockSwap(self.denoiser, blocks, DEVICE),
            "autoencoder": WholeModel(self.autoencoder, DEVICE),
        }
        self.models = Generator(self.denoiser, self.autoencoder, self.recipe.model, waiting, DEVICE)  # type: ignore[arg-type]

    def _eager(self) -> None:
        for block in self.denoiser.units:  # type: ignore[arg-type]
            block.__dict__.pop("forward", None)


def kernels() -> None:
    """Print the time of one attention at 256px, in PyTorch's order of kernels and with cuDNN's first."""
    q, k, v = (torch.randn(2, 8828, 24, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    flops = 2 * 4 * 8828**2 * 3072
    for name in ("sdpa", "auto"):
        with preferred_kernels(name, DEVICE):
            attention(q, k, v)
            taken = min(seconds(lambda: attention(q, k, v)) for _ in range(5))
        print(f"attention, {name}: {1e3 * taken:.2f} ms, {flops / taken / 1e12:.0f} TFLOP/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--few", type=int, default=10, help="steps of the slow variants")
    parser.add_argument("--threshold", type=float, default=0.1, help="of the step cache")
    names = ["plain", "compiled", "large", "fp8", "offload"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU")
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    kernels()
    with torch.no_grad():
        bench = Bench(args)
        parts: dict[str, Callable[[], None]] = {
            "plain": bench.plain,
            "compiled": bench.compiled,
            "large": bench.large,
            "fp8": bench.fp8,
            "offload": bench.offload,
        }
        for name in names:
            if name in args.only:
                parts[name]()
    if missed:
        raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
