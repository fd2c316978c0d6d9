"""Encoding and decoding against diffusers' autoencoders: time and memory, with the same weights and equal results.

    python -m benchmarks.vae [--family hunyuan|dc|flux|kl|svd] [--frames 33 65] [--side 256] [--width small|quarter|half|full]
                             [--repeats 3] [--device cpu|cuda] [--dtype float32]
    python -m benchmarks.vae --stream

Every figure is a process of its own. Runs alternate (ours, theirs, ours, ...); the time is the median of the ratios of
neighbours, the memory that of the largest growths over what a process had with model and input. On the CPU, time is that
of the processor and memory the resident size; on CUDA, wall time and the allocator's peak. Results of the two are compared.
The Hunyuan family is measured twice: whole, and in the tiles of 16 frames that diffusers' class uses unless told otherwise.
Exit code 1 where ours takes more than 1.0 of the time or, of the Hunyuan family, more than 0.8 of the memory.
`--stream` decodes 129 frames in parts: exit code 1 where that takes more memory than 33 frames, whole, or more than half
as much again as 33 frames in parts, the pixels themselves left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from opensora_models.build import build_autoencoder
from opensora_models.layers.renaming import from_layout
from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    DCAEConfig,
    HunyuanVAEConfig,
)
from schemas.autoencoder.dc_ae import DCAEShape
from tests.parity.diffusers_peers import peer_of, rules_of

MIB = 2**20
TIME_BOUND, MEMORY_BOUND = 1.0, 0.8
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Root mean square of the difference over that of the result."""
WIDTHS = {"quarter": 4, "half": 2, "full": 1}
DEFAULT_FRAMES = {"hunyuan": [33, 65], "dc": [4], "flux": [4], "kl": [4], "svd": [4]}
LONG, SHORT, PART = 129, 33, 4
Figures = dict[str, float]


def config_of(arguments: argparse.Namespace) -> AutoencoderConfig:
    """Return the published shape with all widths divided, or a shape that is small throughout."""
    if arguments.family == "hunyuan":
        how = {"use_temporal_tiling": arguments.tiles, "sample_tsize": 16}
        how["stream_frames"] = arguments.stream_frames or "whole"
        if arguments.width == "small":
            shape = {"block_out_channels": (32, 32, 64, 64), "norm_num_groups": 8, "layers_per_block": 1}
            return HunyuanVAEConfig.model_validate({**shape, "latent_channels": 8, **how})
        widths = tuple(width // WIDTHS[arguments.width] for width in (128, 256, 512, 512))
        return HunyuanVAEConfig.model_validate({"block_out_channels": widths, **how})
    over = WIDTHS.get(arguments.width, 4)
    if arguments.family == "flux":
        return AutoEncoder2DConfig(ch=128 // over)
    if arguments.family in ("kl", "svd"):
        family = AutoencoderKLConfig if arguments.family == "kl" else AutoencoderKLTemporalDecoderConfig
        return family(block_out_channels=tuple(width // over for width in (128, 256, 512, 512)))
    widths = tuple(width // over for width in DCAEShape().width_list)
    shape = {"width_list": widths, "latent_channels": 32, "temporal_downsample": (False,) * 6, "is_video": False}
    return DCAEConfig(model_name="custom", shape=DCAEShape.model_validate(shape))


def input_size(config: AutoencoderConfig, direction: str, frames: int, side: int) -> tuple[int, ...]:
    if direction == "encode":
        return 1, 3, frames, side, side
    time, space = config.time_compression_ratio, config.spatial_compression_ratio
    return 1, config.latent_channels, (frames - 1) // time + 1, side // space, side // space


def ours(config: AutoencoderConfig, weights: Path, direction: str, place: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    module: Any = build_autoencoder(config)
    module.load_state_dict(from_layout(load_file(weights), module.state_dict(), rules_of(config)[0]))
    module = module.to(**place).eval()
    if direction == "encode":
        return module.moments
    if isinstance(config, DCAEConfig):
        return module.decode
    return lambda raw: module.decode((raw - config.shift_factor) * config.scale_factor)


def theirs(
    config: AutoencoderConfig, weights: Path, direction: str, place: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    module: Any = peer_of(config)
    module.load_state_dict(load_file(weights))
    module = module.to(**place).eval()
    if isinstance(config, HunyuanVAEConfig):
        module.use_framewise_encoding = module.use_framewise_decoding = config.use_temporal_tiling
        if direction == "encode":
            return lambda x: module.encode(x).latent_dist.parameters
        return lambda raw: module.decode(raw).sample
    names = {"dc": "latent", "kl": "latent_dist"}
    field = names["dc" if isinstance(config, DCAEConfig) else "kl"] if direction == "encode" else "sample"

    def pictures(x_BCTHW: Tensor) -> Tensor:
        row_NCHW, more = x_BCTHW[0].transpose(0, 1), {}
        if direction == "decode" and isinstance(config, AutoencoderKLTemporalDecoderConfig):
            more = {"num_frames": len(row_NCHW)}
        found = getattr(getattr(module, direction)(row_NCHW, **more), field)
        return getattr(found, "parameters", found).transpose(0, 1)[None]

    return pictures


@torch.no_grad()
def child(arguments: argparse.Namespace) -> None:
    """Do the work once, print seconds and bytes, and leave the result for comparison."""
    diffusers.utils.logging.set_verbosity_error()  # it warns of any cast
    torch.set_num_threads(arguments.threads)
    config = config_of(arguments)
    place = {"device": arguments.device, "dtype": arguments.dtype}
    coder = {"ours": ours, "theirs": theirs}[arguments.who]
    code = coder(config, arguments.folder / "weights.safetensors", arguments.direction, place)
    size = input_size(config, arguments.direction, arguments.frames[0], arguments.side)
    x = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(**place)
    result, figures = measured(lambda: code(x), arguments.device)
    save_file({"result": result.float().cpu().contiguous()}, arguments.folder / f"{arguments.who}.safetensors")
    print(json.dumps({**figures, "result": result.nbytes}))


def measured(run: Callable[[], Tensor], device: str) -> tuple[Tensor, Figures]:
    if device == "cuda":
        run()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        result = run()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return result, {"seconds": seconds, "growth": torch.cuda.max_memory_allocated() - before}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    before = resident("VmRSS")
    start = time.process_time()
    result = run()
    return result, {"seconds": time.process_time() - start, "growth": resident("VmHWM") - before}


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def spawn(arguments: argparse.Namespace, **changes: object) -> Figures:
    keys = {**vars(arguments), **changes}
    named = [
        "family",
        "side",
        "width",
        "device",
        "threads",
        "dtype",
        "frames",
        "direction",
        "who",
        "stream_frames",
        "folder",
    ]
    options = [f"--{name.replace('_', '-')}={str(keys[name]).removeprefix('torch.')}" for name in named]
    options += ["--tiles"] if keys["tiles"] else []
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.vae", "--child", *options], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def difference(folder: Path) -> float:
    """Return how far the two last results are from each other."""
    one, other = (load_file(folder / f"{who}.safetensors")["result"] for who in ("ours", "theirs"))
    assert one.shape == other.shape, (one.shape, other.shape)
    return float((one - other).square().mean().sqrt() / other.square().mean().sqrt())


def compare(arguments: argparse.Namespace, frames: int, direction: str, tiles: bool) -> bool:
    """Measure one direction at one length, print the line, and return whether it is within bounds."""
    runs: dict[str, list[Figures]] = {"ours": [], "theirs": []}
    for _ in range(arguments.repeats):
        for who, done in runs.items():
            done.append(spawn(arguments, frames=frames, direction=direction, who=who, tiles=tiles))
    pairs = list(zip(runs["ours"], runs["theirs"], strict=True))
    ratio = statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)
    seconds = {who: statistics.median(one["seconds"] for one in done) for who, done in runs.items()}
    growth = {who: max(one["growth"] for one in done) for who, done in runs.items()}
    memory, apart = growth["ours"] / growth["theirs"], difference(arguments.folder)
    fits = memory <= MEMORY_BOUND or arguments.family != "hunyuan"
    good = ratio <= TIME_BOUND and fits and apart <= TOLERANCE[arguments.dtype]
    name = f"{arguments.family} {arguments.width} {direction} {frames} frames{' in tiles' if tiles else ''}"
    print(
        f"{name:<42} time {seconds['ours']:8.2f} s / {seconds['theirs']:8.2f} s = {ratio:.2f}   "
        f"memory {growth['ours'] / MIB:6.0f} MiB / {growth['theirs'] / MIB:6.0f} MiB = {memory:.2f}   "
        f"apart {apart:.1e}{'' if good else '   MISSED'}",
        flush=True,
    )
    return good


def stream(arguments: argparse.Namespace) -> bool:
    """Decode 129 frames in parts, and 33 whole and in parts; return whether the long clip takes the short one's memory."""
    beside = []
    for frames, part in ((SHORT, 0), (SHORT, PART), (LONG, PART)):
        done = spawn(arguments, frames=frames, direction="decode", who="ours", stream_frames=part, tiles=False)
        beside.append(done["growth"] - done["result"])
        how = f"in parts of {part} frames" if part else "whole"
        print(
            f"decode {frames:>4} frames {how:<20} {done['seconds']:8.2f} s   memory {done['growth'] / MIB:6.0f} MiB, "
            f"of it {done['result'] / MIB:4.0f} MiB pixels",
            flush=True,
        )
    whole, short, long = beside
    print(
        f"129 in parts / 33 whole = {long / whole:.2f}   129 in parts / 33 in parts = {long / short:.2f}, without pixels"
    )
    return long <= whole and long <= 1.5 * short


def main() -> int:
    arguments = parsed()
    if arguments.child:
        child(arguments)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = Path(folder)
        torch.manual_seed(0)
        peer: nn.Module = peer_of(config_of(arguments))
        save_file(dict(peer.state_dict()), arguments.folder / "weights.safetensors")
        del peer
        if arguments.stream:
            good = [stream(arguments)]
        else:
            good = [
                compare(arguments, frames, direction, tiles)
                for tiles in ((False, True) if arguments.family == "hunyuan" else (False,))
                for frames in arguments.frames or DEFAULT_FRAMES[arguments.family]
                for direction in ("encode", "decode")
            ]
    return 0 if all(good) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=tuple(DEFAULT_FRAMES), default="hunyuan")
    parser.add_argument("--frames", type=int, nargs="+", default=[])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", choices=("small", *WIDTHS), default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--tiles", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--direction", choices=("encode", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--who", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--stream-frames", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
