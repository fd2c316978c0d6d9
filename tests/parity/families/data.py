"""Aspect tables, buckets, frame sampling, captions and pixel transforms."""

import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from opensora_cli.data.aspect import aspect_table, closest_ratio, get_image_size, pixel_count, token_count
from opensora_cli.data.buckets import Buckets, bucket_to_shapes
from opensora_cli.data.captions import training_caption
from opensora_cli.data.frames import crop_indices, latest_start, map_target_fps, sampling_intervals
from opensora_cli.data.transforms import transform_image, transform_video
from schemas.errors import OsoraError
from tests.parity.case import Case

Checks = Iterator[tuple[str, object, object]]


def checks(case: Case) -> Checks:
    from tests.parity.families import data_v1  # which builds on this module

    if case.name.startswith("v1_2_"):
        yield from data_v1.checks(case)
        return
    name = "text" if case.name.startswith("text") else case.name
    yield from CHECKS[name](case)


def aspect(case: Case) -> Checks:
    for step, tables in case.json("aspect.json").items():
        compression = int(step)
        for name, (pixels, want) in tables["tables"].items():
            got = aspect_table(name, compression, training=True)
            yield f"{step}.{name}.pixels", pixel_count(name), pixels
            yield f"{step}.{name}.order", list(got), list(want)
            yield f"{step}.{name}.training", got, want
        for name, want in tables["inference_tables"].items():
            got = aspect_table(name, compression, training=False)
            yield f"{step}.{name}.inference", list(got.items()), list(want.items())
        for name, height, width, want in tables["closest"]:
            got_ratio = closest_ratio(height, width, aspect_table(name, compression))
            yield f"{step}.{name}.closest.{height}x{width}", got_ratio, want
        for name, ratio, training, want in tables["image_size"]:
            yield f"{step}.{name}.size.{ratio}.{training}", size_or_none(name, ratio, compression, training), want
        for name, want in tables["num_tokens"].items():
            table = aspect_table(name, compression)
            yield f"{step}.{name}.tokens", {r: token_count(size, compression) for r, size in table.items()}, want


def size_or_none(name: str, ratio: str, compression: int, training: bool) -> object:
    try:
        return get_image_size(name, ratio, compression, training)
    except OsoraError:
        return None


def buckets(case: Case) -> Checks:
    for table in case.json("buckets.json"):
        built = Buckets(as_table(table["config"]))
        assert len(built.keys) == table["num_bucket"]
        order = [[level.resolution, list(level.lengths)] for level in built.levels]
        yield f"{table['name']}.order", order, table["order"]
        got = [bucket_of(built, *row[:6]) for row in table["rows"]]
        yield f"{table['name']}.rows", got, [row[6] for row in table["rows"]]
        yield f"{table['name']}.all_at_once", *at_once(built, table["rows"])


def as_table(config: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither tuples nor whole numbers as keys."""
    return {
        name: {int(t): (tuple(p) if isinstance(p, list) else p, batch) for t, (p, batch) in lengths.items()}
        for name, lengths in config.items()
    }


def bucket_of(built: Buckets, frames: int, height: int, width: int, fps: float | None, seed: int, limit: int) -> object:
    """One row with upstream's own source of draws, one `default_rng(seed)` in order of use: then every row must agree."""
    rng = np.random.default_rng(seed)
    assigned = built.assign_by(*columns([[frames, height, width, fps]]), limit, lambda rows, _: rng.random(len(rows)))
    return described(built, int(assigned.bucket[0]))


def at_once(built: Buckets, rows: list[list[Any]]) -> tuple[object, object]:
    """All rows in one call with keyed draws: where golden rows of all seeds agree, no draw was involved."""
    got, want = [], []
    for limit in sorted({row[5] for row in rows}):
        chosen = [row for row in rows if row[5] == limit]
        assigned = built.assign(*columns(chosen), limit, seed=1, epoch=0)
        for row, bucket in zip(chosen, assigned.bucket, strict=True):
            if not draws_needed(built, row):
                got.append(described(built, int(bucket)))
                want.append(row[6])
    return got, want


def draws_needed(built: Buckets, row: list[Any]) -> bool:
    """Whether the row's bucket changes with the draws: never, if it is the same for the lowest and the highest ones."""
    ends = [
        built.assign_by(*columns([row]), row[5], lambda rows, _, v=v: np.full(len(rows), v)) for v in (0.0, 1 - 1e-9)
    ]
    return ends[0].bucket[0] != ends[1].bucket[0] or any(0 < p < 1 for level in built.levels for p in level.skip)


def columns(rows: list[list[Any]]) -> tuple[Any, Any, Any, Any]:
    frames, heights, widths = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    return frames, heights, widths, np.array([math.nan if row[3] is None else row[3] for row in rows], dtype=float)


def described(built: Buckets, bucket: int) -> object:
    return None if bucket < 0 else [*built.keys[bucket], list(built.shape(built.keys[bucket]))]


def shapes(case: Case) -> Checks:
    for number, (config, batch_size, want) in enumerate(case.json("shapes.json")):
        yield f"shapes.{number}", bucket_to_shapes(as_table(config), batch_size=batch_size), want


def target_fps(case: Case) -> Checks:
    table = case.json("fps.json")
    for fps, limit, *want in table["rows"]:
        got = map_target_fps(fps, limit)
        yield f"fps.{fps}.{limit}", (*got, type(got[0]).__name__), (*want, type(want[0]).__name__)
        yield f"fps.{fps}.{limit}.interval", sampling_intervals(np.array([fps], dtype=float), limit).tolist(), want[1:]
    yield "fps.nan", map_target_fps(math.nan, 24), table["nan"]


def temporal_crop(case: Case) -> Checks:
    for total, frames, interval, seed, want in case.json("temporal_crop.json"):
        start = want[0] if want else 0
        assert start <= latest_start(total, frames, interval)
        yield f"crop.{total}.{frames}.{interval}.{seed}", indices_or_none(total, frames, interval, start), want


def indices_or_none(total: int, frames: int, interval: int, start: int) -> object:
    try:
        return crop_indices(total, frames, interval, start)
    except ValueError:
        return None


def captions(case: Case) -> Checks:
    recorded = case.json("text.json")
    table = pd.read_csv(io.StringIO(recorded["csv"]))
    rows = table.astype(object).to_dict("records")
    for run in recorded["results"]:
        limit, vmaf = run.get("fps_max"), run["vmaf"]
        for row, want in zip(rows, run["items"], strict=True):
            fps = row.get("fps", math.nan)
            got = training_caption(row["text"], fps, limit, row.get("score_vmafmotion") if vmaf else None)
            interval = map_target_fps(fps, limit)[1]
            yield f"{limit}.{vmaf}.{row['text']}", [got, interval], [want["text"], want["sampling_interval"]]


def transforms(case: Case, named: Callable[[str], str] = str) -> Checks:
    """`named` gives what a line calls the transform of a name."""
    items = json.loads(
        case.info["call"].split("items [k, kind, transform name, input size, target (h,w), output shape]: ")[1]
    )
    for k, kind, called, _, (height, width), _ in items:
        name = named(called)
        x = case.inputs[f"{k}.in"].to(torch.uint8)
        if kind == "video":
            got = transform_video(x.permute(0, 2, 3, 1), name, height, width)
        else:
            got = transform_image(x.permute(1, 2, 0).contiguous(), name, height, width)
        yield f"{k}.out", got, case.outputs[f"{k}.out"]


CHECKS: dict[str, Callable[[Case], Checks]] = {
    "aspect": aspect,
    "buckets": buckets,
    "bucket_to_shapes": shapes,
    "map_target_fps": target_fps,
    "temporal_crop": temporal_crop,
    "text": captions,
    "transforms": transforms,
}
