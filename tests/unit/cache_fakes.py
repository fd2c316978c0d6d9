"""Clips, weights and a recipe for tests of caches, small enough to encode in a moment."""

import csv
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from opensora_cli.data.cache.job import run_cache
from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.training.draws import seeded_init
from opensora_models.build import build_autoencoder
from opensora_models.weights import save_weights
from schemas.recipes import TrainRecipe
from schemas.resolve import Resolved, resolve
from tests.unit.data_fakes import numbered_mp4

ROWS = 6
CAPTIONS = ("a red circle", "a blue square moves left")


def make_folder(folder: Path, rows: int = ROWS) -> Path:
    """Fill a folder with clips of 20 frames, text encoders, an autoencoder's weights and a table of `rows` clips."""
    make_tiny_text_encoders(folder, ["a red circle", "a blue square moves left"], seed=0)
    save_autoencoder(folder, seed=0)
    for number in range(ROWS):
        numbered_mp4(folder / f"{number}.mp4", 20 + number, 8, (32, 32))
    write_table(folder, rows)
    return folder


def save_autoencoder(folder: Path, seed: int) -> None:
    with seeded_init(seed):
        autoencoder = build_autoencoder(resolve("tiny/train").recipe.ae)
    save_weights(autoencoder.state_dict(), folder / "vae.safetensors")


def write_table(folder: Path, rows: int) -> None:
    names = ("path", "text", "height", "width", "num_frames", "fps")
    with (folder / "meta.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows([f"{n}.mp4", CAPTIONS[n % 2], 32, 32, 20 + n, 8] for n in range(rows))


def sets_of(folder: Path) -> list[str]:
    return [
        f"dataset.data_path={folder}/meta.csv",
        f"ae.from_pretrained={folder}/vae.safetensors",
        f"text.t5.from_pretrained={folder}/t5",
        f"text.clip.from_pretrained={folder}/clip",
        "dataset.num_workers=0",
        'buckets."32px".9=[1.0, 2]',
        f"outputs={folder}/runs",
        "epochs=2",
    ]


def resolved(folder: Path, *sets: str) -> Resolved:
    return resolve("tiny/train", sets=[*sets_of(folder), *sets], unsets=['buckets."64px"', "max_steps"])


def recipe(folder: Path, *sets: str) -> TrainRecipe:
    found = resolved(folder, *sets).recipe
    assert isinstance(found, TrainRecipe)
    return found


USES = ("dataset.cached_video=true", "dataset.cached_text=true")


def make_cache(folder: Path, *sets: str, shard_mib: float = 0.02, latents: bool = True, text: bool = True) -> None:
    done = run_cache(
        recipe(folder, *sets), latents=latents, text=text, shard_mib=shard_mib, console=Console(quiet=True)
    )
    assert done == 0


def entries(cache: Path) -> dict[str, Tensor]:
    """Every tensor of every shard below a folder."""
    found: dict[str, Tensor] = {}
    for shard in cache.rglob("shard-*.safetensors"):
        found |= load_file(shard)
    return found


def same_entries(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())
