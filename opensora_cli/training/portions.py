"""Tensors by name in portions of a bounded size, for work that must not take all of them at once."""

from collections.abc import Iterator, Mapping


def portions(numbers: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Yield names in their order, together of at most `most` numbers; a larger one is alone."""
    portion: list[str] = []
    total = 0
    for name, count in numbers.items():
        if portion and total + count > most:
            yield portion
            portion, total = [], 0
        portion.append(name)
        total += count
    if portion:
        yield portion
