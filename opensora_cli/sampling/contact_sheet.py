"""A job on one page: a row of frames for each sample, its caption below."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from opensora_cli.sampling.saving import Frames, write_image

COLUMNS = 6
TILE_WIDTH = 192  # pixels
GAP = 6
CAPTION_HEIGHT = 18
BACKGROUND, INK = (24, 24, 24), (230, 230, 230)


def write_contact_sheet(path: Path, samples: Sequence[tuple[Path, str]]) -> Path:
    """Write a PNG with up to six frames, evenly spaced, of each sample. `samples` are (file, caption)."""
    return write_image(path, draw_contact_sheet((_read(file), caption) for file, caption in samples))


def draw_contact_sheet(samples: Iterable[tuple[Sequence[Frames], str]]) -> Frames:
    """Return a picture (H, W, 3) with up to six frames, evenly spaced, of each sample. `samples` are (frames, caption)."""
    rows = [(_tiles(frames), caption) for frames, caption in samples]
    width = max(sum(tile.width + GAP for tile in tiles) for tiles, _ in rows) + GAP
    height = sum(max(tile.height for tile in tiles) + CAPTION_HEIGHT + 2 * GAP for tiles, _ in rows) + GAP
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    y = GAP
    for tiles, caption in rows:
        x = GAP
        for tile in tiles:
            sheet.paste(tile, (x, y))
            x += tile.width + GAP
        y += max(tile.height for tile in tiles) + GAP
        draw.text((GAP, y), _fit(caption, font, width - 2 * GAP), fill=INK, font=font)
        y += CAPTION_HEIGHT + GAP
    return np.asarray(sheet)


def _read(file: Path) -> list[Frames]:
    if file.suffix in (".png", ".webp", ".gif"):
        with Image.open(file) as image:
            return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False) for frame in container.decode(video=0)]


def _tiles(frames: Sequence[Frames]) -> list[Image.Image]:
    count = min(COLUMNS, len(frames))
    picked = [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]
    images = [Image.fromarray(frame) for frame in picked]
    return [image.resize((TILE_WIDTH, max(1, round(image.height * TILE_WIDTH / image.width)))) for image in images]


def _fit(caption: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """Cut a caption to one line of `width` pixels. The built-in font may lack a letter: it shows a box."""
    line = " ".join(caption.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line}..."
