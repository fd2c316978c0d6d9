"""The clips that an autoencoder is asked for: a table, or whatever lies below a folder."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console

from opensora_cli.data.buckets import Buckets
from opensora_cli.data.loader import Loader, build_loader
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from opensora_cli.data.meta_worker import look_at
from opensora_cli.progress import JobProgress
from schemas.data import BucketTable
from schemas.errors import OsoraError
from schemas.recipes import VaeSampleRecipe, VaeStatsRecipe


def open_clips(recipe: VaeSampleRecipe | VaeStatsRecipe, console: Console, *, pin: bool) -> Loader:
    """Return the recipe's clips in its buckets, each alone in a batch; dataset.data_path may also be a folder.

    Raises OsoraError when nothing can be read or nothing fits a bucket.
    """
    path = recipe.dataset.data_path
    compression = recipe.ae.spatial_compression_ratio
    buckets = one_by_one(recipe.buckets)
    if path is None or not Path(path).expanduser().is_dir():
        loader = build_loader(recipe.dataset, buckets, compression=compression, seed=recipe.seed, device_pin=pin)
    elif not recipe.buckets:
        raise OsoraError('[buckets] is empty: write resolution -> frames, for example "256px" = { 17 = [1.0, 1] }.')
    else:
        manifest = manifest_of_folder(Path(path).expanduser(), console)
        loader = Loader(manifest, Buckets(buckets, compression), recipe.dataset, seed=recipe.seed, pin=pin)
    notes = loader.warnings()
    if buckets != recipe.buckets:
        notes.append("clips go one by one, so that none is left over: the batch sizes of [buckets] are not used")
    for line in notes:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    return loader


def one_by_one(buckets: BucketTable) -> BucketTable:
    """Return the same buckets with one clip a batch: no clip is left over because others are missing."""
    return {
        resolution: {frames: (chance, 1) for frames, (chance, _) in lengths.items()}
        for resolution, lengths in buckets.items()
    }


def manifest_of_folder(folder: Path, console: Console) -> Manifest:
    """Return a row for every video and image below a folder, in the order of their names; bad files are named and left out.

    Raises OsoraError when nothing can be read.
    """
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    found = []
    with JobProgress("reading headers", len(paths), console=console) as progress:
        for path in paths:
            answer = look_at(str(path))
            if "error" in answer:
                progress.note(f"{path} was skipped: {answer['error']}")
            else:
                found.append((path.relative_to(folder), answer))
            progress.advance()
    if not found:
        raise OsoraError(f"{folder}: no video or image below this folder can be read. Name a table or another folder.")
    names = [str(path) for path, _ in found]
    sizes = {
        name: np.array([one[name] for _, one in found], dtype=np.int64) for name in ("height", "width", "num_frames")
    }
    rates = np.array([np.nan if one["fps"] is None else one["fps"] for _, one in found], dtype=np.float64)
    return Manifest(
        source=folder / "*",  # paths start at its parent, as those of a table do
        paths=pa.array(names),
        texts=pa.array([""] * len(names)),
        heights=sizes["height"],
        widths=sizes["width"],
        frames=sizes["num_frames"],
        fps=rates,
        motion=None,
        whole_fps=False,
        fingerprint=hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:32],
    )
