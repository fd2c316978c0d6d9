"""`--set KEY=VALUE` and `--unset KEY`: layers made of one key each."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from schemas.resolve.diagnostics import Diagnostic, Place, RecipeError
from schemas.resolve.keys import KeySyntaxError, Path, parse_key, read_key
from schemas.resolve.literals import read_value
from schemas.resolve.sources import OptionSource, reject_extremes

EXAMPLE = "Write `--set optim.lr=1e-4`, or `--set 'buckets.\"256px\".33=[1.0, 4]'`."


class Unsetting(str):
    """A key to un-set, standing among the `KEY=VALUE` texts in the order of the command line."""

    __slots__ = ()


def read_overrides(sets: Sequence[str], unsets: Sequence[str]) -> list[tuple[OptionSource, Path | None]]:
    """Return one layer an option; the path is given where the option un-sets it.

    `unsets` come before `sets`: a key that is un-set and set again keeps what is set. Where the order matters, `sets`
    may hold `Unsetting`s, each in place of the same key in `unsets`. Raises RecipeError with every option that cannot be read.
    """
    layers: list[tuple[OptionSource, Path | None]] = []
    problems: list[Diagnostic] = []
    placed = Counter(str(option) for option in sets if isinstance(option, Unsetting))
    first = (Counter(unsets) - placed).elements()
    for option in [*(Unsetting(key) for key in first), *sets]:
        try:
            layers.append(_read_unset(option) if isinstance(option, Unsetting) else _read_set(option))
        except RecipeError as error:
            problems += error.diagnostics
    if problems:
        raise RecipeError(problems)
    return layers


def _read_set(option: str) -> tuple[OptionSource, Path | None]:
    prefix = "--set "
    text = prefix + _printable(option)
    try:
        parts, end = read_key(text, len(prefix))
    except KeySyntaxError as error:
        raise _bad_option(text, error.offset, "a key is missing or not a TOML key.", EXAMPLE) from None
    if not text.startswith("=", end):
        raise _bad_option(text, end, "`=` and a value are missing.", EXAMPLE)
    raw = text[end + 1 :]
    start = end + 1 + len(raw) - len(raw.lstrip())
    try:
        value = read_value(raw.strip())
    except ValueError:
        raise _bad_option(
            text,
            start,
            "the value is not TOML.",
            "Text that looks like TOML needs quotes of its own: `--set key='\"text\"'`.",
        ) from None
    path = tuple(name for name, _, _ in parts)
    source = OptionSource(text, _nested(path, value), (parts[0][1], parts[-1][2]), (start, len(text)))
    reject_extremes(source)
    return source, None


def _read_unset(option: str) -> tuple[OptionSource, Path | None]:
    prefix = "--unset "
    text = prefix + _printable(option)
    try:
        path = parse_key(option)
    except KeySyntaxError as error:
        offset = len(prefix) + error.offset
        raise _bad_option(text, offset, "not a TOML key.", "Write `--unset optim.ema_decay`.") from None
    span = (len(prefix), len(text))
    return OptionSource(text, {}, span, span), path


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value if isinstance(value, dict) else {}


def _printable(option: str) -> str:
    """A shell may hand over bytes that are no text; show them escaped instead of failing on output."""
    return option.encode("utf-8", "backslashreplace").decode("utf-8")


def _bad_option(text: str, offset: int, message: str, help_text: str) -> RecipeError:
    return RecipeError([Diagnostic("OSR013", message, Place("<command line>", None, offset + 1, text), help=help_text)])
