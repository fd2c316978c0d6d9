"""Seeds of samples: never the same for two samples of a job, unless its rows say so."""

import hashlib
from collections.abc import Sequence

BITS = 48  # as many as JSON readers keep exact


def row_seeds(given: Sequence[int | None], first: int) -> list[int]:
    """Return each row's seed: its own, or else `first` + its index; one that another row has as its own is moved away."""
    taken = {seed for seed in given if seed is not None}
    return [_free(first + row, taken) if seed is None else seed for row, seed in enumerate(given)]


def sample_seed(row_seed: int, number: int) -> int:
    """Return the seed of a row's sample: the first has the row's, the others a hash, far from every other row's."""
    return row_seed if number == 0 else _hashed(row_seed, number)


def _free(seed: int, taken: set[int]) -> int:
    return _free(_hashed(seed, 0), taken) if seed in taken else seed


def _hashed(seed: int, number: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=BITS // 8).digest()
    return int.from_bytes(digest, "little") | 1 << BITS  # above every seed of fewer bits
