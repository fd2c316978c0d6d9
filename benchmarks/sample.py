"""Denoising: what leaving out branches saves, and what the choices of sampling cost.

    python -m benchmarks.sample [--device cpu|cuda] [--steps 20] [--hidden 256] [--compile] ...

Runs alternate, and every figure is the median of the ratios of neighbours: the time of a variant over that of the plain
three-branch sum (Open-Sora's way, 3 evaluations in each of the same steps). Below 1 is faster.
Then every option of memory and speed: seconds a step, over the time that the blocks' products and attention would take at
the speed of a plain matrix product in the same run, and how far its latent is from the one without the option.
"""

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from opensora_cli.planning.mmdit import mmdit_flops
from opensora_cli.sampling.denoise import Denoised, denoise
from opensora_cli.sampling.offload import BlockSwap
from opensora_models.compiled import compile_blocks
from opensora_models.diffusion.condition import inference_condition
from opensora_models.diffusion.guidance import GuidanceScales, step_scales
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack
from opensora_models.diffusion.schedule import get_schedule
from opensora_models.layers.float8_linear import use_float8
from opensora_models.mmdit.model import MMDiT
from opensora_models.text.features import TextFeatures
from schemas.denoiser.mmdit import MMDiTConfig

SCALES = GuidanceScales(7.5, 3.0, text_oscillates=True, image_oscillates=True, image_grows_over_frames=True)
CHANNELS, PATCH, TEXT_WIDTH, VECTOR_WIDTH = 16, 2, 128, 64


class Clip:
    """A denoiser, and everything that one clip needs."""

    def __init__(self, args: argparse.Namespace) -> None:
        head = args.hidden // args.heads
        config = MMDiTConfig(
            in_channels=CHANNELS * PATCH**2,
            vec_in_dim=VECTOR_WIDTH,
            context_in_dim=TEXT_WIDTH,
            hidden_size=args.hidden,
            num_heads=args.heads,
            depth=args.depth,
            depth_single_blocks=args.single,
            axes_dim=(head - 2 * (head // 8 * 3), head // 8 * 3, head // 8 * 3),
            cond_embed=True,
        )
        draw = torch.Generator().manual_seed(0)
        self.model = MMDiT(config).requires_grad_(False)
        for weight in self.model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.05)
        # Random weights make every time another world, where no step is like the one before; trained ones do not.
        self.model.time_in.out_layer.weight.zero_()
        self.model.to(args.device)
        size = (1, CHANNELS, args.frames, args.side, args.side)
        self.noise = torch.randn(size, generator=draw).to(args.device)
        self.texts = [
            TextFeatures(
                {
                    "t5": torch.randn(1, args.text, TEXT_WIDTH, generator=draw).to(args.device),
                    "clip": torch.randn(1, VECTOR_WIDTH, generator=draw).to(args.device),
                }
            )
            for _ in range(2)
        ]
        self.times = get_schedule(args.steps, args.side**2 // PATCH**2, args.frames)
        self.reference = [torch.randn(CHANNELS, 1, args.side, args.side, generator=draw).to(args.device)]

    def condition(self, kind: str) -> Tensor:
        """Return the condition of t2v or i2v_head."""
        references = [self.reference if kind != "t2v" else None]
        return inference_condition(self.noise, kind, references, time_stride=4, causal=True)

    def ours(self, kind: str, *, in_turn: bool = False) -> Tensor:
        """Denoise with the branches that count."""
        return self.denoised(kind, in_turn=in_turn).latent

    def denoised(
        self, kind: str, model: MMDiT | None = None, *, in_turn: bool = False, threshold: float = 0.0
    ) -> Denoised:
        """Do so with another copy of the model, or with a step cache."""
        return denoise(
            model or self.model, self.noise, *self.texts, times=self.times, scales=SCALES, patch_size=PATCH,
            condition_BCTHW=self.condition(kind), in_turn=in_turn, cache_threshold=threshold,
        )  # fmt: skip

    def plain(self, kind: str) -> Tensor:
        """Denoise with three branches in every step, as the formula is written."""
        frames, height, width = self.noise.shape[2:]
        img, cond = pack(self.noise, PATCH), pack(self.condition(kind), PATCH)
        caption, negative = self.texts
        ids = image_ids(frames, height, width, PATCH, batch=3, device=img.device)
        for step, (now, then) in enumerate(pairwise(self.times.tolist())):
            c, u, u2 = self.model(
                img_BND=img.repeat(3, 1, 1),
                img_ids_BN3=ids,
                txt_BLD=torch.cat([caption["t5"], negative["t5"], negative["t5"]]),
                txt_ids_BL3=text_ids(caption["t5"].shape[1], batch=3, device=img.device),
                timesteps_B=torch.full((3,), now, device=img.device),
                y_vec_BD=torch.cat([caption["clip"], negative["clip"], negative["clip"]]),
                cond_BND=torch.cat([cond, cond, torch.zeros_like(cond)]),
            ).chunk(3)
            text, image_T = step_scales(SCALES, step, len(self.times) - 1, frames)
            image_N1 = image_T.repeat_interleave(height * width // PATCH**2)[:, None].to(img)
            img = img + (then - now) * (u2 + image_N1 * (u - u2) + text * (c - u))
        return unpack(img, frames, height, width, PATCH)


def ratio(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Return the median ratio of times, and the largest difference of the results relative to the largest value."""
    ratios = []
    for _ in range(repeats):
        mine, a = timed(ours)
        plain, b = timed(theirs)
        ratios.append(mine / plain)
    return statistics.median(ratios), float((a - b).abs().max() / b.abs().max())


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the seconds of a run, work on a GPU included, and its result."""
    started = time.perf_counter()
    result = run().cpu()
    return time.perf_counter() - started, result


def product_speed(device: str, size: int = 768) -> float:
    """Return the FLOP/s of a plain matrix product in the precision of the model."""
    a, b = torch.randn(2, size, size).to(device)
    runs = [timed(lambda: a @ b)[0] for _ in range(9)]
    return 2 * size**3 / min(runs)


def options(clip: Clip, args: argparse.Namespace) -> None:
    """Print seconds a step and their share over the bound, and the error, of every option."""
    config, tokens = clip.model.config, args.frames * args.side**2 // PATCH**2
    cost = mmdit_flops(config, tokens, args.text, args.depth, args.single, ends=True)
    speed = product_speed(args.device)
    light, swapped = copy.deepcopy(clip.model), copy.deepcopy(clip.model)
    for block in light.units:
        use_float8(block)
    swap = BlockSwap(swapped, swapped.units, torch.device(args.device))

    def from_host() -> Denoised:
        with swap.at_work():
            return clip.denoised("t2v", swapped)

    ways: dict[str, Callable[[], Denoised]] = {
        "plain": lambda: clip.denoised("t2v"),
        "branches in turn": lambda: clip.denoised("t2v", in_turn=True),
        "blocks in host memory": from_host,
        "matrices in 8 bits": lambda: clip.denoised("t2v", light),
        **{f"step cache {t}": lambda t=t: clip.denoised("t2v", threshold=t) for t in (0.05, 0.1, 0.2)},
    }
    if args.compile:
        compiled = copy.deepcopy(clip.model)
        compile_blocks(compiled, any_size=False)
        clip.denoised("t2v", compiled)
        ways["compiled"] = lambda: clip.denoised("t2v", compiled)
    want = clip.denoised("t2v").latent
    for name, way in ways.items():
        runs = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            made = way()
            made.latent.cpu()
            runs.append(time.perf_counter() - started)
        bound = made.evaluations * (cost.products + cost.attention) / speed
        error = float((made.latent - want).norm() / want.norm())
        print(
            f"{name:22} {1e3 * statistics.median(runs) / args.steps:8.1f} ms a step, {statistics.median(runs) / bound:.2f} of "
            f"the bound, error {error:.1e}, {made.reused[0]} of {made.evaluations} evaluations cut short"
        )


def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    for name, value in {
        "steps": 20, "repeats": 3, "hidden": 192, "heads": 4, "depth": 2, "single": 4, "frames": 3, "side": 16, "text": 32,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--compile", action="store_true", help="compiled blocks too; compiling takes a minute or more")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        clip = Clip(args)
        clip.plain("t2v")
        print(
            f"{platform.machine()}, {args.device}, {args.steps} steps, {args.frames * args.side**2 // PATCH**2} tokens"
        )
        for kind in ("t2v", "i2v_head"):
            for in_turn in (False, True):
                run = lambda kind=kind, in_turn=in_turn: clip.ours(kind, in_turn=in_turn)  # noqa: E731
                time_ratio, difference = ratio(run, lambda kind=kind: clip.plain(kind), args.repeats)
                name = f"{kind}, branches {'in turn' if in_turn else 'batched'}"
                print(f"{name:28} {time_ratio:.2f} of the plain sum's time, results differ by {difference:.1e}")
        options(clip, args)


if __name__ == "__main__":
    main()
