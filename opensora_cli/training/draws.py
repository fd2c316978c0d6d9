"""Random generators keyed by what they are for, so that a resumed run repeats its draws without stored state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by a hash of `key`, for example ("noise", seed, update, micro_batch, rank).

    Equal keys give equal draws on every machine; keys that differ anywhere give unrelated ones.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Draws:
    """The generators of one micro-batch on one data-parallel rank."""

    def __init__(self, seed: int, update: int, micro_batch: int, rank: int) -> None:
        self.update = update
        self._key = (seed, update, micro_batch, rank)

    def generator(self, purpose: str, device: torch.device | None = None) -> torch.Generator:
        """Return a fresh generator for `purpose`; asking twice gives the same draws twice.

        On a GPU its draws are others than on the CPU: ask for a `device` where draws are too many to be copied there.
        """
        generator = keyed_generator(purpose, *self._key)
        if device is None or device.type == "cpu":
            return generator
        return torch.Generator(device).manual_seed(generator.initial_seed())


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Let modules that are built inside draw their weights from `seed`, and leave the global generators untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
