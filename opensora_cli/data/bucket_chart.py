"""A picture of how many clips each bucket has: bars, full batches in blue, what is left over in orange."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from opensora_cli.data.data_check import BucketFill
from opensora_cli.files import whole_file

ROW = 26
LABEL = 230
BARS = 620
NUMBERS = 130
TOP = 64
_INK, _PALE, _FULL, _REST = (40, 40, 48), (120, 120, 130), (61, 116, 196), (232, 143, 54)


def draw_chart(buckets: tuple[BucketFill, ...], title: str, path: Path) -> None:
    """Write a PNG with a bar for every bucket, as long as its clips are many. Raises OsoraError when the disk refuses."""
    height = TOP + ROW * max(1, len(buckets)) + 12
    image = Image.new("RGB", (LABEL + BARS + NUMBERS, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    large, small = ImageFont.load_default(17), ImageFont.load_default(13)
    draw.text((12, 10), title, fill=_INK, font=large)
    _legend(draw, small)
    most = max((bucket.clips for bucket in buckets), default=1)
    for number, bucket in enumerate(buckets):
        top = TOP + ROW * number
        draw.text((12, top + 4), bucket.name, fill=_INK, font=small)
        _bar(draw, bucket, top, BARS / most)
        count = f"{bucket.clips}" if bucket.batches else f"{bucket.clips} no batch"
        draw.text((LABEL + BARS * bucket.clips / most + 8, top + 4), count, fill=_PALE, font=small)
    with whole_file(path) as aside:
        image.save(aside, format="PNG")


def _bar(draw: ImageDraw.ImageDraw, bucket: BucketFill, top: int, scale: float) -> None:
    full = bucket.batches * bucket.batch_size
    middle, end = LABEL + round(full * scale), LABEL + max(2, round(bucket.clips * scale))
    if middle > LABEL:
        draw.rectangle((LABEL, top + 2, middle, top + ROW - 6), fill=_FULL)
    if end > middle:
        draw.rectangle((middle, top + 2, end, top + ROW - 6), fill=_REST)


def _legend(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    for x, colour, text in ((12, _FULL, "clips in full batches"), (182, _REST, "left over in the first epoch")):
        draw.rectangle((x, 40, x + 12, 52), fill=colour)
        draw.text((x + 18, 38), text, fill=_PALE, font=font)
