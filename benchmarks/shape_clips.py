"""The clips of `benchmarks.learn_shapes`: every combination of words once, and a quarter of them held out."""

import itertools

from opensora_cli.data.demo_clips import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, DemoClip

SIDE = 32
FRAMES = 5
FPS = 8


def all_clips() -> list[DemoClip]:
    """Return one clip for every colour, shape, direction, speed and background."""
    words = itertools.product(COLOURS, SHAPES, DIRECTIONS, SPEEDS, BACKGROUNDS)
    return [DemoClip(*five, size=(SIDE, SIDE), frames=FRAMES, fps=FPS) for five in words]


def is_held_out(clip: DemoClip) -> bool:
    """Whether a clip is kept out of training: one direction in four for each colour, shape and speed, on both backgrounds."""
    number = list(COLOURS).index(clip.colour) + SHAPES.index(clip.shape) + 2 * list(SPEEDS).index(clip.speed)
    return (number + list(DIRECTIONS).index(clip.direction)) % len(DIRECTIONS) == 0


def training_clips() -> list[DemoClip]:
    """Return the clips that the models may see."""
    return [clip for clip in all_clips() if not is_held_out(clip)]


def held_out_clips() -> list[DemoClip]:
    """Return the clips whose captions are the test."""
    return [clip for clip in all_clips() if is_held_out(clip)]
