"""Aspect tables, buckets, frame sampling and pixel transforms of Open-Sora 1.x."""

import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np

from opensora_cli.data import aspect_v1
from opensora_cli.data.aspect import closest_ratio
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.frames import crop_indices
from opensora_cli.data.rules import Rules12
from schemas.data import PIXELS_1_2
from schemas.errors import OsoraError
from tests.parity.case import Case
from tests.parity.families import data as current

Checks = Iterator[tuple[str, object, object]]


def checks(case: Case) -> Checks:
    name = case.name.removeprefix("v1_2_")
    yield from next(check for start, check in CHECKS.items() if name.startswith(start))(case)


def aspect(case: Case) -> Checks:
    recorded = case.json("aspect.json")
    for name, table in recorded["aspect_ratios"].items():
        got = {ratio: list(size) for ratio, size in aspect_v1.aspect_table(name).items()}
        yield f"{name}.pixels", aspect_v1.pixel_count(name), table["num_pixels"]
        yield f"{name}.table", list(got.items()), list(table["ratios"].items())
    yield "resolutions", list(PIXELS_1_2), list(recorded["aspect_ratios"])
    yield "ratios", dict(aspect_v1.RATIOS), recorded["aspect_ratio_map"]
    yield "lengths", dict(aspect_v1.LENGTHS_1_2), recorded["num_frames_map"]
    for length, want in recorded["get_num_frames"]:
        yield f"frames.{length}", aspect_v1.frame_count(length), want
    for name, ratio, want in recorded["get_image_size"]:
        yield f"{name}.size.{ratio}", size_or_none(name, ratio), want
    for height, width, name, want in recorded["get_closest_ratio"]:
        got_ratio = closest_ratio(height, width, aspect_v1.aspect_table(name), aspect_v1.ratio_value)
        yield f"{name}.closest.{height}x{width}", got_ratio, want
    for pixels, want in recorded["computed_tables"]:
        yield f"computed.{pixels}", aspect_v1.computed_table(pixels), want


def size_or_none(name: str, ratio: str) -> object:
    try:
        return aspect_v1.get_image_size(name, ratio)
    except OsoraError:
        return None


def buckets(case: Case) -> Checks:
    for number, table in enumerate(case.json("buckets.json")):
        config = current.as_table(table["config"])
        built = Buckets(config, rules=Rules12())
        yield f"{number}.count", len(built.keys), table["num_bucket"]
        yield f"{number}.order", [[level.resolution, list(level.lengths)] for level in built.levels], table["order"]
        got = [bucket_of(config, *row[:5]) for row in table["rows"]]
        yield f"{number}.rows", got, [row[5] for row in table["rows"]]
        yield f"{number}.all_at_once", *at_once(config, table["rows"])


def bucket_of(config: dict[str, Any], frames: int, height: int, width: int, interval: int, seed: int) -> object:
    """One row with upstream's draws: a generator for each (resolution, length), whose second draw is a pair's first number."""
    built = Buckets(config, rules=Rules12(interval))
    chances = [config[level.resolution][length][0] for level in built.levels for length in level.lengths]

    def draw(rows: Any, slot: int) -> Any:
        number, considers = divmod(slot, 2)
        draws = np.random.default_rng(seed + number).random(2)
        return np.full(len(rows), draws[0 if considers or not isinstance(chances[number], tuple) else 1])

    assigned = built.assign_by(*current.columns([[frames, height, width, None]]), None, draw)
    return described(built, int(assigned.bucket[0]))


def at_once(config: dict[str, Any], rows: list[list[Any]]) -> tuple[object, object]:
    """All rows in one call with keyed draws: where a row's bucket is the same for every draw, it is the golden one."""
    got, want = [], []
    for interval in sorted({row[3] for row in rows}):
        built = Buckets(config, rules=Rules12(interval))
        chosen = [row for row in rows if row[3] == interval]
        table = current.columns([[*row[:3], None] for row in chosen])
        assigned = built.assign(*table, None, seed=1, epoch=0).bucket
        for row, bucket in zip(chosen, assigned, strict=True):
            if row[5] is not None and config[row[5][0]][row[5][1]][0] == 1.0 and only_certain(config):
                got.append(described(built, int(bucket)))
                want.append(row[5])
    return got, want


def only_certain(config: dict[str, Any]) -> bool:
    return all(chance == 1.0 for lengths in config.values() for chance, _ in lengths.values())


def described(built: Buckets, bucket: int) -> object:
    return None if bucket < 0 else [*built.keys[bucket], list(built.shape(built.keys[bucket]))]


def temporal_crop(case: Case) -> Checks:
    for total, frames, interval, seed, want in case.json("temporal_crop.json"):
        start = Random(seed).randint(0, Rules12(interval).latest_start(total, frames, interval))
        yield f"crop.{total}.{frames}.{interval}.{seed}", indices_or_none(total, frames, interval, start), want
    for interval in (1, 3):
        rules = Rules12(interval)
        got = [rules.rate("a.png", 25.0, None), rules.rate("a.mp4", 30.0, None), rules.rate("a.mp4", math.nan, None)]
        yield f"fps.{interval}", got, [(120.0, interval), (30.0 // interval, interval), (24.0 // interval, interval)]


def indices_or_none(total: int, frames: int, interval: int, start: int) -> object:
    try:
        return crop_indices(total, frames, interval, start)
    except ValueError:
        return None


CHECKS: dict[str, Callable[[Case], Checks]] = {
    "aspect": aspect,
    "buckets": buckets,
    "temporal_crop": temporal_crop,
    "transforms": lambda case: current.transforms(case, Rules12().transform),
}
