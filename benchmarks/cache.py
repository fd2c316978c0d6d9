"""A training step from cached latents and text features against the step that encodes clips and captions itself.

Makes clips, weights and encoders (random, in the shapes of the real ones), runs `osora cache`'s job, and takes the same
batches in turn with and without it, the same denoiser and optimizer in both: a noisy machine slows both. On one CPU
thread (OMP_NUM_THREADS=1) seconds are the processor's own. `small` is a denoiser of 100 million parameters beside the
autoencoder of HunyuanVideo at a quarter of its widths and a T5 at an eighth of its width.

    python benchmarks/cache.py [--size tiny|small] [--steps 12] [--device cpu|cuda]
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from transformers import T5Config, T5EncoderModel
from transformers.utils.logging import disable_progress_bar

from opensora_cli.data.cache.job import run_cache
from opensora_cli.data.demo_clips import write_mp4
from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.data.loader import Batch, Loader
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.training.denoise_objective import DenoiserObjective
from opensora_cli.training.draws import Draws, seeded_init
from opensora_cli.training.job import make_loader, make_objective
from opensora_cli.training.optim import Optimizer
from opensora_models.build import build_autoencoder
from opensora_models.weights import save_weights
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve

WARM_UP = 1
CLIPS = 8
CAPTION = "a red circle moves left"


@dataclass(frozen=True)
class Size:
    """A clip's pixels and frames, the T5's layers and width, and what the recipe says otherwise than tiny/train."""

    side: int
    frames: int
    t5: tuple[int, int]
    sets: tuple[str, ...]


SIZES = {
    "tiny": Size(64, 17, (2, 32), ()),
    "small": Size(
        128,
        17,
        (8, 512),
        (
            "ae.latent_channels=16",
            "ae.layers_per_block=2",
            "ae.block_out_channels=[32, 64, 128, 128]",
            "ae.norm_num_groups=32",
            "ae.mid_block_add_attention=true",
            "model.in_channels=64",
            "model.hidden_size=768",
            "model.num_heads=12",
            "model.axes_dim=[16, 24, 24]",
            "model.mlp_ratio=4.0",
            "model.depth=3",
            "model.depth_single_blocks=4",
            "model.context_in_dim=512",
            "text.t5.max_length=128",
        ),
    ),
}


@dataclass(frozen=True)
class Step:
    """Seconds of one step: reading the batch, making the denoiser's inputs, the update."""

    read: float
    encode: float
    update: float

    @property
    def on_device(self) -> float:
        """What a step costs while other processes read ahead."""
        return self.encode + self.update


class Side:
    """One of the two ways, stepping through its loader."""

    def __init__(self, recipe: TrainRecipe, process: Process, shared: DenoiserObjective | None) -> None:
        self.process = process
        self.loader: Loader = make_loader(recipe, process)
        objective = make_objective(recipe, process, self.loader.cached)
        assert isinstance(objective, DenoiserObjective)
        if shared is not None:
            objective.module = shared.module
        self.objective = objective
        self.autocast = DTYPES[recipe.dtype]
        self.inputs: dict[str, torch.Tensor] = {}
        self._batches = self._endless()

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.loader.epoch(epoch)
            epoch += 1

    def step(self, number: int, optimizer: Optimizer) -> tuple[Step, float]:
        """Do one update; return its seconds and its loss."""
        device = self.process.device
        start = self._now()
        batch = next(self._batches).to(device)
        read = self._now()
        with torch.no_grad():
            noised = self.objective.prepare(batch, Draws(0, number, 0, 0))
        self.inputs = noised.inputs
        encoded = self._now()
        with torch.autocast(device.type, self.autocast, enabled=self.autocast != torch.float32):
            loss = self.objective.judge(self.objective.module(**noised.inputs), noised.truth)
        loss.backward()
        optimizer.clip()
        optimizer.step(number)
        end = self._now()
        return Step(read - start, encoded - read, end - encoded), float(loss.detach())

    def _now(self) -> float:
        if self.process.device.type == "cuda":
            torch.cuda.synchronize()
        # With one thread the processor's time is what a step costs, whoever else uses the machine.
        alone = self.process.device.type == "cpu" and torch.get_num_threads() == 1
        return time.process_time() if alone else time.perf_counter()


def make_recipes(folder: Path, size: Size, device: str) -> tuple[TrainRecipe, TrainRecipe]:
    """Write data and weights; return the recipe without and with the cache."""
    make_tiny_text_encoders(folder, CAPTION.split(), seed=0)
    _replace_t5(folder / "t5", *size.t5)
    _make_clips(folder, size)
    sets = [
        *size.sets,
        f"dataset.data_path={folder}/meta.csv",
        "dataset.num_workers=0",
        f"ae.from_pretrained={folder}/vae.safetensors",
        f"text.t5.from_pretrained={folder}/t5",
        f"text.clip.from_pretrained={folder}/clip",
        f'buckets."{size.side}px".{size.frames}=[1.0, 2]',
        f"device={device}",
        f"dtype={'bf16' if device == 'cuda' else 'fp32'}",
    ]
    unsets = ["optim.ema_decay", *(['buckets."64px"'] if size.side != 64 else [])]
    plain = resolve("tiny/train", sets=sets, unsets=unsets).recipe
    with seeded_init(0):
        autoencoder = build_autoencoder(plain.ae)
    save_weights(autoencoder.state_dict(), folder / "vae.safetensors")
    cached = [*sets, "dataset.cached_video=true", "dataset.cached_text=true"]
    with_cache = resolve("tiny/train", sets=cached, unsets=unsets).recipe
    assert isinstance(plain, TrainRecipe) and isinstance(with_cache, TrainRecipe)
    return plain, with_cache


def _replace_t5(folder: Path, layers: int, width: int) -> None:
    config = T5Config.from_pretrained(folder)
    config.update(
        {"num_layers": layers, "d_model": width, "d_ff": 4 * width, "d_kv": 64, "num_heads": max(width // 64, 1)}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5EncoderModel(config).save_pretrained(folder)


def _make_clips(folder: Path, size: Size) -> None:
    """Clips exactly as long as a window, so that one window is all there is to cache."""
    rows = []
    generator = np.random.default_rng(0)
    for number in range(CLIPS):
        coarse = generator.integers(0, 256, (size.frames, 8, 8, 3), dtype=np.uint8)
        write_mp4(
            folder / f"{number}.mp4", np.kron(coarse, np.ones((1, size.side // 8, size.side // 8, 1), np.uint8)), 8
        )
        rows.append([f"{number}.mp4", CAPTION, size.side, size.side, size.frames, 8])
    with (folder / "meta.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "text", "height", "width", "num_frames", "fps"))
        table.writerows(rows)


def compare(folder: Path, size: Size, steps: int, device: str) -> str:
    """Cache, train in turn, and return the line of figures."""
    plain_recipe, cached_recipe = make_recipes(folder, size, device)
    started = time.perf_counter()
    assert run_cache(cached_recipe, latents=True, text=True, shard_mib=256, console=Console(quiet=True)) == 0
    caching = time.perf_counter() - started
    process = Process(0, 1, torch.device(device))
    plain = Side(plain_recipe, process, None)
    cached = Side(cached_recipe, process, plain.objective)
    optimizer = Optimizer(plain.objective.module, plain_recipe.optim, None)
    pairs = []
    for number in range(steps + WARM_UP):
        without, loss = plain.step(number, optimizer)
        with_cache, other = cached.step(number, optimizer)
        pairs.append((without, with_cache))
        assert np.isfinite(loss) and np.isfinite(other)
        for name, tensor in plain.inputs.items():
            torch.testing.assert_close(cached.inputs[name], tensor, rtol=1e-3, atol=1e-3)  # else they did other work
    return report(
        pairs[WARM_UP:],
        {
            "parameters": sum(p.numel() for p in plain.objective.module.parameters()),
            "mib": sum(p.stat().st_size for p in folder.rglob("shard-*")) / 2**20 / CLIPS,
            "caching": caching,
        },
    )


def report(pairs: list[tuple[Step, Step]], facts: Mapping[str, float]) -> str:
    """Return the medians over steps, taken in turn, in words."""
    without, with_cache = zip(*pairs, strict=True)
    ratio = statistics.median(a.on_device / b.on_device for a, b in pairs)
    whole = statistics.median((a.read + a.on_device) / (b.read + b.on_device) for a, b in pairs)
    share = statistics.median(a.encode / a.on_device for a in without)

    def median(steps: tuple[Step, ...], name: str) -> float:
        return 1e3 * statistics.median(getattr(step, name) for step in steps)

    lines = [
        f"step without cache / step with cache = {ratio:.2f}; with reading in the same process {whole:.2f} "
        f"(medians of {len(pairs)} steps in turn, denoiser of {facts['parameters'] / 1e6:.1f} million parameters)",
        f"share of encoding in the step without: {100 * share:.0f} %",
        f"without: read {median(without, 'read'):.1f} ms, encode {median(without, 'encode'):.1f}, "
        f"update {median(without, 'update'):.1f}; with: read {median(with_cache, 'read'):.1f}, "
        f"prepare {median(with_cache, 'encode'):.1f}, update {median(with_cache, 'update'):.1f}",
        f"cached once in {facts['caching']:.1f} s, {facts['mib']:.2f} MiB a clip",
    ]
    return "\n  ".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", choices=tuple(SIZES), help="one size only; both if left out")
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = arguments.parse_args()
    disable_progress_bar()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    for size in [options.size] if options.size else list(SIZES):
        with tempfile.TemporaryDirectory() as folder:
            print(
                f"cache {size} on {name}: {compare(Path(folder), SIZES[size], options.steps, options.device)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
