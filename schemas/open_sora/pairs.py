"""How one key of Open-Sora and one of osora correspond, and values that the two write differently."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from schemas.data import LENGTHS_1_2


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
    """A number alone is the side of a square."""
    return f"{name}px" if name.isascii() and name.isdecimal() else name


def _needs_saving(value: Any) -> Any:
    if value == 0:
        raise NoCounterpartError("0 never saves; osora always does, at the latest at the end")
    return value


def _needs_number(value: Any) -> Any:
    if isinstance(value, int) and value < 0:
        raise NoCounterpartError("keeps every checkpoint; osora keeps a number of them: set checkpoint.keep_n_latest")
    return value


def _buckets_1_2(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(lengths, Mapping) for lengths in value.values()):
        raise NoCounterpartError("buckets are a table: resolution -> frames -> [keep probability, batch size]")
    return {
        name: {frames: _bucket_1_2(bucket) for frames, bucket in lengths.items()} for name, lengths in value.items()
    }


def _bucket_1_2(bucket: Any) -> Any:
    """Give a bucket that takes every clip its probability, and one that takes none a batch size: nothing reads it."""
    match bucket:
        case [int() | float() as keep, _] if keep > 1:
            raise NoCounterpartError("batch sizes to search between: `osora config plan` says which ones fit a machine")
        case [None, size]:
            return [1.0, size]
        case [0 | 0.0 as keep, None]:
            return [keep, 1]
    return bucket


def _named(value: Any) -> Any:
    if value in ("PRETRAINED_MODEL", "CSV_PATH"):
        raise NoCounterpartError("it stands for a name of your own")
    return value


def _without_half(value: Any) -> Any:
    if value == "fp16":
        raise NoCounterpartError("bf16 takes its place: as fast, and nothing overflows")
    return value


def _frames(value: Any) -> Any:
    return LENGTHS_1_2.get(value, int(value) if value.isdecimal() else value) if isinstance(value, str) else value


def _width_first(value: Any) -> Any:
    if not isinstance(value, str) or value.count(":") != 1:
        raise NoCounterpartError("no ratio, height:width")
    return ":".join(reversed(value.split(":")))


def _one_for_all(value: Any) -> Any:
    if not isinstance(value, str):
        raise NoCounterpartError("one for each prompt: a column of the table that `osora sample --prompts` takes")
    return value


BUCKETS = Conversion(_buckets_to_ours)
BUCKETS_1_2 = Conversion(_buckets_1_2)
PLACEHOLDER = Conversion(_named)
HALF = Conversion(_without_half)
FRAMES = Conversion(_frames)
WIDTH_FIRST = Conversion(_width_first)
ONE_FOR_ALL = Conversion(_one_for_all)
ANY_FRAMES = Conversion(lambda value: "whole" if value is None else value)
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
