"""How one key of Open-Sora and one of osora correspond, and values that the two write differently."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final


class NoCounterpartError(Exception):
    """A value that the other side cannot say; the message is the reason."""


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = _Nothing()
"""No default: what Open-Sora does without the key is not osora's business, or there is no telling."""


def same(value: Any) -> Any:
    """Return the value."""
    return value


@dataclass(frozen=True, slots=True)
class Conversion:
    """Both ways of a value; either may raise NoCounterpartError. None stands for an unset key on osora's side."""

    ours: Callable[[Any], Any] = same
    theirs: Callable[[Any], Any] = same


@dataclass(frozen=True, slots=True)
class Pair:
    """Dotted keys of Open-Sora (`theirs`) and osora (`ours`).

    `default` is Open-Sora's value where the key is absent; an export leaves it out, unless `written`.
    """

    theirs: str
    ours: str
    default: Any = NOTHING
    written: bool = True
    conversion: Conversion = Conversion()

    def below(self, theirs: str, ours: str) -> "Pair":
        """Return the pair with both keys in tables."""
        return replace(self, theirs=f"{theirs}.{self.theirs}", ours=f"{ours}.{self.ours}")


def optional(theirs: str, ours: str, default: Any, conversion: Conversion = Conversion()) -> Pair:
    """Return a pair that an export writes only where its value is not Open-Sora's default."""
    return Pair(theirs, ours, default, written=False, conversion=conversion)


def choice(mapping: Mapping[Any, Any], what: str) -> Conversion:
    """Return the conversion by a table of theirs -> ours; anything else has no counterpart."""

    def convert(table: Mapping[Any, Any], value: Any) -> Any:
        try:
            return table[value]
        except (KeyError, TypeError):
            raise NoCounterpartError(f"{what} has no counterpart for {value!r}") from None

    back = {ours: theirs for theirs, ours in reversed(list(mapping.items()))}
    return Conversion(lambda value: convert(mapping, value), lambda value: convert(back, value))


def _buckets_to_ours(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise NoCounterpartError("buckets are a table: resolution -> frames -> [keep probability, batch size]")
    return {_resolution(name): lengths for name, lengths in value.items()}


def _resolution(name: str) -> str:
    """1.x writes 256 for a square of 256 pixels a side."""
    return f"{name}px" if name.isascii() and name.isdecimal() else name


def _needs_saving(value: Any) -> Any:
    if value == 0:
        raise NoCounterpartError("0 never saves; osora always does, at the latest at the end")
    return value


def _needs_number(value: Any) -> Any:
    if isinstance(value, int) and value < 0:
        raise NoCounterpartError("keeps every checkpoint; osora keeps a number of them: set checkpoint.keep_n_latest")
    return value


BUCKETS = Conversion(_buckets_to_ours)
SAVING = Conversion(_needs_saving)
KEEPING = Conversion(_needs_number)
MOTION = Conversion(
    lambda value: "none" if value is None else str(value), lambda value: None if value == "none" else value
)
WARMUP = Conversion(lambda value: 0 if value is None else value)
EVERY_BLOCK = Conversion(lambda value: [100, 100] if value is None else value)
FACTOR = Conversion(lambda value: 1.0 if value is None else value, lambda value: None if value == 1.0 else value)
COSINE = choice({False: "constant", True: "cosine"}, "the schedule")
FAMILY = choice({"flux": "mmdit"}, "the denoiser")
OPTIMIZER = choice({"HybridAdam": "AdamW"}, "the optimizer")
MIXED = Conversion(lambda value: "none" if value is None else value, lambda value: None if value == "none" else value)
NAME = choice({"dc-ae-f32t4c128": "dc-ae-f32t4c128"}, "the DC-AE")
OFFLOAD = choice({False: "none", True: "model"}, "offload_model")
