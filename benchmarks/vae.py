"""Encoding and decoding of the Hunyuan autoencoder against diffusers' class: time and memory, same sizes, same weights.

    python -m benchmarks.vae [--frames 33 65] [--side 256] [--repeats 3] [--device cpu|cuda] [--stream]

Every figure is a process of its own. Runs alternate (ours, theirs, ours, ...); the time is the median of the ratios of
neighbours, the memory that of the largest peaks. On the CPU, time is that of the processor and memory the peak
resident size, and its growth over what the process had with model and input; on CUDA, wall time and the allocator's peak.
`--stream` compares the decoding of 129 frames with stream_frames = 4 to that of 33 frames, whole and streamed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo  # in both processes, so that they start with the same memory
from torch import Tensor, nn

from opensora_models.hunyuan_vae.model import HunyuanVAE
from schemas.autoencoder import HunyuanVAEConfig

WIDTHS = {"small": (32, 32, 64, 64), "full": (128, 256, 512, 512)}
MIB = 2**20


def sizes(width: str) -> dict[str, Any]:
    full = width == "full"
    groups, layers, latents = (32, 2, 16) if full else (8, 1, 8)
    return {
        "block_out_channels": WIDTHS[width],
        "norm_num_groups": groups,
        "layers_per_block": layers,
        "latent_channels": latents,
    }


def work(arguments: argparse.Namespace) -> Callable[[], Tensor]:
    """Return one encoding or decoding with random weights."""
    torch.manual_seed(0)
    latents = (arguments.frames[0] - 1) // 4 + 1, arguments.side // 8, arguments.side // 8
    clip = (arguments.frames[0], arguments.side, arguments.side)
    keys = sizes(arguments.width)
    size = (3, *clip) if arguments.direction == "encode" else (keys["latent_channels"], *latents)
    x = torch.randn(1, *size).to(arguments.device, arguments.dtype)
    if arguments.who == "theirs":
        theirs: nn.Module = AutoencoderKLHunyuanVideo(**keys).to(arguments.device, arguments.dtype).eval()
        if arguments.direction == "encode":
            return lambda: theirs.encode(x).latent_dist.mean
        return lambda: theirs.decode(x).sample
    stream = "whole" if arguments.stream_frames == 0 else arguments.stream_frames
    ours = HunyuanVAE(HunyuanVAEConfig(**keys, stream_frames=stream)).to(arguments.device, arguments.dtype).eval()
    return (lambda: ours.encode(x)) if arguments.direction == "encode" else (lambda: ours.decode(x))


@torch.no_grad()
def child(arguments: argparse.Namespace) -> None:
    """Do the work once and print seconds and bytes."""
    torch.set_num_threads(arguments.threads)
    run = work(arguments)
    if arguments.device == "cuda":
        run()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        base = before
        seconds, peak = time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        run()
        seconds = time.process_time() - start
        base = 1024 * before
        peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"seconds": seconds, "peak": peak, "before": base}))


def spawn(arguments: argparse.Namespace, **changes: object) -> dict[str, float]:
    keys = {**vars(arguments), **changes}
    named = ("side", "width", "device", "threads", "dtype", "frames", "direction", "who", "stream_frames")
    options = [f"--{name.replace('_', '-')}={str(keys[name]).removeprefix('torch.')}" for name in named]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.vae", "--child", *options], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(arguments: argparse.Namespace, frames: int, direction: str) -> None:
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(arguments.repeats):
        for who, done in runs.items():
            done.append(spawn(arguments, frames=frames, direction=direction, who=who))
    pairs = list(zip(runs["ours"], runs["theirs"], strict=True))
    ratio = statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)
    seconds = {who: statistics.median(one["seconds"] for one in done) for who, done in runs.items()}
    peaks = {who: max(one["peak"] for one in done) for who, done in runs.items()}
    whole = {who: max(one["peak"] + one["before"] for one in done) for who, done in runs.items()}
    print(
        f"{direction} {frames:>4} frames   time {seconds['ours']:8.2f} s / {seconds['theirs']:8.2f} s = {ratio:.2f}x   "
        f"growth {peaks['ours'] / MIB:6.0f} MiB / {peaks['theirs'] / MIB:6.0f} MiB = {peaks['ours'] / peaks['theirs']:.2f}x   "
        f"peak {whole['ours'] / MIB:6.0f} MiB / {whole['theirs'] / MIB:6.0f} MiB = {whole['ours'] / whole['theirs']:.2f}x",
        flush=True,
    )


def stream(arguments: argparse.Namespace) -> None:
    for frames, part in ((33, 0), (33, 4), (129, 4)):
        done = spawn(arguments, frames=frames, direction="decode", who="ours", stream_frames=part)
        how = f"in parts of {part}" if part else "whole"
        print(
            f"decode {frames:>4} frames {how:<14} {done['seconds']:8.2f} s  {done['peak'] / MIB:8.0f} MiB", flush=True
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[33, 65])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", choices=WIDTHS, default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--direction", choices=("encode", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--who", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--stream-frames", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return 0
    if arguments.stream:
        stream(arguments)
        return 0
    for frames in arguments.frames:
        for direction in ("encode", "decode"):
            compare(arguments, frames, direction)
    return 0


if __name__ == "__main__":
    sys.exit(main())
