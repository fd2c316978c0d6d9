"""`osora vae-sample`: clips encoded and decoded again, beside the originals, and how good they are."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from opensora_cli.data.loader import Loader
from opensora_cli.distributed.process import DTYPES, pick_device
from opensora_cli.files import write_text
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.progress import JobProgress
from opensora_cli.reconstruction.clips import open_clips
from opensora_cli.reconstruction.quality import Quality, mean_quality, measure, reconstruct, side_by_side
from opensora_cli.sampling.generate import Autoencoder
from opensora_cli.sampling.saving import write_sample
from opensora_cli.sampling.weights import find_weights
from opensora_cli.supported import check_supported
from opensora_models.vae_loss.lpips import HOW_TO_GET, Lpips, find_lpips, load_lpips
from schemas.errors import OsoraError
from schemas.recipes import VaeSampleRecipe
from schemas.resolve import Resolved

TABLE = "quality.csv"
COLUMNS = ("clip", "path", "frames", "height", "width", "psnr_db", "ssim", "lpips")
SHOWN_ROWS = 40
ODD_SIDES = "Choose resolutions in [buckets] whose sides are even, or an autoencoder that halves sides at least once."


@dataclass(frozen=True)
class Measured:
    """One clip: its row in the table of clips, its file, its size (frames, height, width) as reconstructed, its quality."""

    row: int
    path: str
    size: tuple[int, int, int]
    quality: Quality


def run_reconstruction(resolved: Resolved, *, console: Console, overwrite: bool = False, ema: bool = False) -> Path:
    """Reconstruct a recipe's clips, write them and the table of quality, show the table, and return where it is.

    Raises OsoraError, before any model is built, for whatever is wrong with the request.
    """
    recipe = resolved.recipe
    assert isinstance(recipe, VaeSampleRecipe)
    check_supported(recipe)
    device = pick_device(recipe.device)
    folder = Path(recipe.reconstruction.save_dir)
    if (folder / TABLE).exists() and not overwrite:
        raise OsoraError(f"{folder / TABLE} exists already. Use --overwrite, or another --save-dir.")
    source = recipe.ae.from_pretrained
    weights = find_weights(source, "ae.from_pretrained", ema=ema) if source is not None else None
    if weights is None:
        _say(console, "ae.from_pretrained is not set: these weights are random, and the clips will show it")
    loader = open_clips(recipe, console, device)
    lpips = _find_lpips(recipe.reconstruction.lpips_from_pretrained, console)
    autoencoder = frozen_autoencoder(recipe.ae, weights, seed=recipe.seed, dtype=DTYPES[recipe.dtype], device=device)
    (folder / TABLE).unlink(missing_ok=True)  # until the new clips are all there, there is no table of them
    measured = _reconstruct_all(recipe, loader, autoencoder, lpips.to(device) if lpips else None, folder, console)
    write_text(folder / "recipe.lock.toml", resolved.lock())
    write_text(folder / TABLE, as_csv(measured))
    console.print(as_table(measured))
    _say(console, f"clips, originals on the left: {folder}")
    _say(console, f"table: {folder / TABLE}")
    return folder / TABLE


def _reconstruct_all(
    recipe: VaeSampleRecipe,
    loader: Loader,
    autoencoder: Autoencoder,
    lpips: Lpips | None,
    folder: Path,
    console: Console,
) -> list[Measured]:
    device = next(iter(autoencoder.parameters())).device
    wanted = min(recipe.reconstruction.num_samples or loader.plan(0).used_rows, loader.plan(0).used_rows)
    measured: dict[int, Measured] = {}
    with JobProgress("reconstructing", wanted, console=console) as progress:
        for batch in loader.epoch(0):
            for row, path, reason in batch.bad:
                progress.note(f"row {row} was skipped: {path}: {reason}")
            video_BCTHW = batch.video.to(device)
            reconstruction_BCTHW = reconstruct(autoencoder, video_BCTHW, DTYPES[recipe.dtype])
            qualities = measure(reconstruction_BCTHW, video_BCTHW, lpips)
            for place, (row, quality) in enumerate(zip(batch.rows, qualities, strict=True)):
                if row in measured or len(measured) == wanted:  # a clip may also stand in for a bad one
                    continue
                pair = side_by_side(video_BCTHW[place], reconstruction_BCTHW[place])
                suffix = ".mp4" if pair.shape[1] > 1 else ".png"
                file = folder / f"clip-{row:06d}{suffix}"
                write_sample(file, pair, recipe.reconstruction.fps_save, odd_sides=ODD_SIDES)
                frames, height, width = video_BCTHW.shape[2:]
                measured[row] = Measured(row, loader.manifest.path(row), (frames, height, width), quality)
                progress.advance(f"PSNR {quality.psnr_db:.2f} dB")
            if len(measured) == wanted:
                break
    return [measured[row] for row in sorted(measured)]


def as_csv(measured: Sequence[Measured]) -> str:
    """Return the table as csv: a line for each clip, and one named `mean` for all."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for one in measured:
        table.writerow([one.row, one.path, *one.size, *_cells(one.quality)])
    table.writerow(["mean", "", "", "", "", *_cells(mean_quality(one.quality for one in measured))])
    return text.getvalue()


def as_table(measured: Sequence[Measured]) -> Table:
    """Return the table for a terminal; of a long one, the worst clips."""
    shown = sorted(sorted(measured, key=lambda one: one.quality.psnr_db)[:SHOWN_ROWS], key=lambda one: one.row)
    table = Table(title="reconstructions" if len(shown) == len(measured) else f"the {len(shown)} worst reconstructions")
    for name in ("clip", "file", "size", "PSNR dB", "SSIM", "LPIPS"):
        table.add_column(name, justify="left" if name == "file" else "right")
    for one in shown:
        size = " x ".join(map(str, one.size))
        table.add_row(str(one.row), Path(one.path).name, size, *_cells(one.quality))
    table.add_section()
    table.add_row("mean", f"{len(measured)} clips", "", *_cells(mean_quality(one.quality for one in measured)))
    return table


def _cells(quality: Quality) -> list[str]:
    lpips = "" if quality.lpips is None else f"{quality.lpips:.4f}"
    return [f"{quality.psnr_db:.2f}", f"{quality.ssim:.4f}", lpips]


def _find_lpips(source: str, console: Console) -> Lpips | None:
    if find_lpips(source) is None:
        lacking = f"reconstruction.lpips_from_pretrained = {source!r} is not there: LPIPS is not measured"
        _say(console, f"{lacking}. {HOW_TO_GET}")
        return None
    return load_lpips(source, "reconstruction.lpips_from_pretrained")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
