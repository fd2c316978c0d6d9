"""The clips that an autoencoder is asked for: a table, or whatever lies below a folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from opensora_cli.data.buckets import Buckets
from opensora_cli.data.loader import Loader, build_loader
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from opensora_cli.data.meta_columns import META_COLUMNS, Cell
from opensora_cli.data.meta_worker import Look
from opensora_cli.data.row_texts import RowText
from opensora_cli.data.rules import rules_of
from opensora_cli.progress import JobProgress
from schemas.data import BucketTable
from schemas.errors import OsoraError
from schemas.recipes import VaeSampleRecipe, VaeStatsRecipe


def open_clips(recipe: VaeSampleRecipe | VaeStatsRecipe, console: Console, device: torch.device) -> Loader:
    """Return the recipe's clips in its buckets, each alone in a batch; dataset.data_path may also be a folder.

    Raises OsoraError when nothing can be read or nothing fits a bucket.
    """
    path = recipe.dataset.data_path
    compression = recipe.ae.spatial_compression_ratio
    buckets = one_by_one(recipe.buckets)
    if path is None or not Path(path).expanduser().is_dir():
        loader = build_loader(
            recipe.dataset,
            buckets,
            compression=compression,
            frame_compression=recipe.ae.time_compression_ratio,
            seed=recipe.seed,
            device=device,
        )
    elif not recipe.buckets:
        raise OsoraError('[buckets] is empty: write resolution -> frames, for example "256px" = { 17 = [1.0, 1] }.')
    else:
        manifest = manifest_of_folder(Path(path).expanduser(), console)
        table = Buckets(buckets, compression, recipe.ae.time_compression_ratio, rules_of(recipe.dataset))
        loader = Loader(manifest, table, recipe.dataset, seed=recipe.seed, device=device)
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
    look = Look()
    found: list[tuple[str, list[Cell]]] = []
    with JobProgress("reading headers", len(paths), console=console) as progress:
        for path in paths:
            answer = look(str(path))
            if isinstance(answer, str):
                progress.note(f"{path} was skipped: {answer}")
            else:
                found.append((str(path.relative_to(folder)), answer))
            progress.advance()
    if not found:
        raise OsoraError(f"{folder}: no video or image below this folder can be read. Name a table or another folder.")
    names = [name for name, _ in found]
    cells = dict(zip(META_COLUMNS, zip(*(answer for _, answer in found), strict=True), strict=True))
    return Manifest(
        source=folder,
        folder=folder,
        texts=FileNames(names),
        heights=np.array(cells["height"], dtype=np.int32),
        widths=np.array(cells["width"], dtype=np.int32),
        frames=np.array(cells["num_frames"], dtype=np.int32),
        fps=np.array(cells["fps"], dtype=np.float64),
        motion=None,
        whole_fps=False,
        fingerprint=hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:32],
    )


@dataclass(frozen=True)
class FileNames:
    """Files without captions."""

    names: list[str]

    def read(self, row: int) -> RowText:
        """Return a file's name and an empty caption."""
        return RowText(self.names[row], "")
