"""Made clips with captions: a coloured shape that moves over a plain background, as real H.264 files."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.data.media import Pixels
from opensora_cli.data.meta_columns import META_COLUMNS, meta_cells
from opensora_cli.data.probe import probe

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "white": (240, 240, 240),
    "purple": (160, 60, 200),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
SPEEDS = {"slowly": 0.35, "fast": 0.8}
"""Share of the free room that the shape crosses during the clip."""
BACKGROUNDS = {"black": (12, 12, 16), "grey": (96, 96, 100)}
SIZES = ((64, 64), (64, 64), (48, 80), (80, 48))
"""(height, width); half of the clips are square."""
FRAMES = (17, 21, 25, 33)
RATES = (8, 12, 24)
RADIUS = 0.2
"""Of the shape, as a share of the clip's short side."""


@dataclass(frozen=True)
class DemoClip:
    """What one made clip shows."""

    colour: str
    shape: str
    direction: str
    speed: str
    background: str
    size: tuple[int, int]
    frames: int
    fps: int

    @property
    def caption(self) -> str:
        """The clip in words."""
        return f"a {self.colour} {self.shape} moves {self.direction} {self.speed} on {self.background}"


def prepare_demo(out: Path, clips: int = 48, seed: int = 0) -> None:
    """Write `clips` mp4 files, `meta.csv` with relative paths, and tiny T5 and CLIP folders below `out`.

    The same number and seed give the same pictures, captions and weights. Raises ValueError for fewer than one clip.
    """
    if clips < 1:
        raise ValueError(f"clips = {clips}: at least 1 is needed")
    write_clips(out, [draw_clip(seed, number) for number in range(clips)])
    make_tiny_text_encoders(out, vocabulary(), seed)


def write_clips(out: Path, clips: Sequence[DemoClip]) -> None:
    """Write mp4 files and `meta.csv` with relative paths below `out`, in the order given."""
    (out / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, clip in enumerate(clips):
        path = out / "clips" / f"{number:04d}.mp4"
        write_mp4(path, clip_frames(clip), clip.fps)
        found = zip(META_COLUMNS, meta_cells(probe(str(path))), strict=True)
        rows.append({"path": f"clips/{path.name}", "text": clip.caption, **dict(found)})
    with (out / "meta.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["path", "text", *META_COLUMNS])
        table.writeheader()
        table.writerows(rows)


def draw_clip(seed: int, number: int) -> DemoClip:
    """Return clip `number` of a seed, whatever the number of clips; colours and shapes take turns."""
    rng = np.random.default_rng([seed, number])

    def pick(choices: tuple[str, ...]) -> str:
        return choices[int(rng.integers(len(choices)))]

    colours = tuple(COLOURS)
    return DemoClip(
        colour=colours[(number + seed) % len(colours)],
        shape=SHAPES[(number // len(colours)) % len(SHAPES)],
        direction=pick(tuple(DIRECTIONS)),
        speed=pick(tuple(SPEEDS)),
        background=pick(tuple(BACKGROUNDS)),
        size=SIZES[int(rng.integers(len(SIZES)))],
        frames=FRAMES[int(rng.integers(len(FRAMES)))],
        fps=RATES[int(rng.integers(len(RATES)))],
    )


def clip_frames(clip: DemoClip) -> Pixels:
    """Return the clip's pictures, (T, H, W, 3): the shape starts off the middle and moves at an even speed."""
    height, width = clip.size
    radius = RADIUS * min(clip.size)
    down, right = DIRECTIONS[clip.direction]
    reach = SPEEDS[clip.speed] * (np.array(clip.size) / 2 - radius)
    frames = np.empty((clip.frames, height, width, 3), dtype=np.uint8)
    for place, time in enumerate(np.linspace(-1, 1, clip.frames)):
        y, x = np.array([height, width]) / 2 + time * reach * (down, right)
        inside = coverage(clip.shape, height, width, y, x, radius)[..., None]
        colours = np.array(COLOURS[clip.colour]), np.array(BACKGROUNDS[clip.background])
        frames[place] = np.rint(inside * colours[0] + (1 - inside) * colours[1])
    return frames


def coverage(shape: str, height: int, width: int, y: float, x: float, radius: float) -> NDArray[np.float64]:
    """Return the share of each pixel that the shape covers, (H, W), from its distance to the shape's edge."""
    down, right = np.mgrid[:height, :width] + 0.5
    down, right = down - y, right - x
    if shape == "circle":
        distance = np.hypot(down, right) - radius
    elif shape == "square":
        distance = np.maximum(abs(down), abs(right)) - radius * math.sqrt(math.pi) / 2
    else:
        slope = (2 * abs(right) - down - radius) / math.sqrt(5)
        distance = np.maximum(down - radius, slope)
    result: NDArray[np.float64] = np.clip(0.5 - distance, 0, 1)
    return result


def write_mp4(path: Path, frames_THWC: Pixels, fps: int) -> None:
    """Write pictures as H.264 with short groups of pictures, nearly without loss."""
    _, height, width, _ = frames_THWC.shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "12", "g": "12", "preset": "veryfast"}
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))


def vocabulary() -> list[str]:
    """Return every word that a caption, its suffix or a prompt like them has."""
    words = [
        *COLOURS,
        *SHAPES,
        *DIRECTIONS,
        *SPEEDS,
        *BACKGROUNDS,
        "a",
        "an",
        "the",
        "and",
        "moves",
        "on",
        "to",
        "in",
        "of",
    ]
    return [*words, "is", "still", "two", "three", "fps", "motion", "score", ".", ",", *map(str, range(61))]
