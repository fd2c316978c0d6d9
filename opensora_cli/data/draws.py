"""Random numbers that are functions of what they are for: nothing is stored, and any subset can be drawn alone."""

from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sizes = NDArray[np.integer[Any]]
"""Whole numbers of any width."""


class Purpose(IntEnum):
    """What a draw decides; draws of different purposes have nothing to do with one another."""

    BUCKET = 1
    ROW_ORDER = 2
    BATCH_ORDER = 3
    CLIP_START = 4
    SHARD_ORDER = 5
    CROP = 6


def hashes(purpose: Purpose, seed: int, epoch: int, rows: Sizes, slot: int = 0) -> UInt64s:
    """Return 64 well mixed bits for each row: a counter-based generator, splitmix64 (Steele, Lea, Flood 2014) by key part."""
    key = _key(purpose, seed, epoch, slot)
    return _mix(_mix(key ^ rows.astype(np.uint64)) + key)


def uniforms(purpose: Purpose, seed: int, epoch: int, rows: Sizes, slot: int = 0) -> Floats:
    """Return a number in [0, 1) for each row."""
    return (hashes(purpose, seed, epoch, rows, slot) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=1024)
def _key(purpose: Purpose, seed: int, epoch: int, slot: int) -> UInt64s:
    key = np.zeros(1, dtype=np.uint64)
    for part in (int(purpose), seed, epoch, slot):
        key = _mix(key + np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return key


def _mix(x: UInt64s) -> UInt64s:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
