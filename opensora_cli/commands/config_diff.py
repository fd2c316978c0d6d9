"""`osora config diff`: what two recipes do differently, and what the difference costs."""

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from opensora_cli.commands.config_arguments import Recipe
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_lines, write
from schemas.base import COST_MEANING
from schemas.errors import UsageError
from schemas.resolve import UNSET, Place, resolve
from schemas.resolve.diff import Difference, Side, consequences, differences, raw_side, resolved_side
from schemas.resolve.literals import write_value
from schemas.resolve.packaged import locate
from schemas.resolve.sources import read_file

SHOWN = 12
"""Keys that a consequence names before it counts the rest."""


class DiffFormat(StrEnum):
    """How `diff` reports."""

    rich = "rich"
    json = "json"
    markdown = "markdown"


def diff(
    a: Recipe,
    b: Recipe,
    format_: Annotated[
        DiffFormat, typer.Option("--format", help="For people, programs, or a pull request.")
    ] = DiffFormat.rich,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit code 1 if anything differs.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Compare what the files say, without bases and defaults.")] = False,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Compare two recipes after all layers: typed values, both places, consequences. Options apply to both."""
    if raw and (layer or set_ or unset):
        raise UsageError("--raw compares the files as they are written: leave --layer, --set and --unset out.")
    before, after = (
        raw_side(read_file(locate(name)))
        if raw
        else resolved_side(resolve(name, layers=layer or (), sets=set_ or (), unsets=unset or ()))
        for name in (a, b)
    )
    found = differences(before, after)
    match format_:
        case DiffFormat.json:
            write(json.dumps(_as_json(before, after, found), indent=2))
        case DiffFormat.markdown:
            write("\n".join(_markdown(before, after, found)))
        case _:
            print_lines(_lines(before, after, found))
    raise typer.Exit(1 if found and exit_code else 0)


def _lines(before: Side, after: Side, found: Sequence[Difference]) -> Iterator[tuple[str, str]]:
    yield "title", f"{before.name} -> {after.name}: {_count(found)}"
    table: str | None = None
    for difference in found:
        if difference.table != table:
            table = difference.table
            yield "title", f"[{table}]" if table else "(top)"
        yield "plain", f"  {difference.path[-1]}: {_shown(difference.before)} -> {_shown(difference.after)}"
        yield "dim", f"      {difference.before_place} -> {difference.after_place}"
    for cost, keys in consequences(list(found)).items():
        yield "note", f"{cost}: {COST_MEANING[cost]}"
        yield "plain", f"  {_some(keys)}"


def _markdown(before: Side, after: Side, found: Sequence[Difference]) -> Iterator[str]:
    yield f"### `{before.name}` -> `{after.name}`: {_count(found)}"
    if found:
        yield from ("", "| key | before | after | set by | cost |", "|---|---|---|---|---|")
    for difference in found:
        place = difference.before_place if difference.after is UNSET else difference.after_place
        cells = [_code(difference.key), _code(_shown(difference.before)), _code(_shown(difference.after)), str(place)]
        yield "| " + " | ".join([*(_cell(cell) for cell in cells), ", ".join(difference.costs)]) + " |"
    costs = consequences(list(found))
    if costs:
        yield ""
    for cost, keys in costs.items():
        yield f"- **{cost}**: {COST_MEANING[cost]} ({_some([_code(key) for key in keys])})"


def _as_json(before: Side, after: Side, found: Sequence[Difference]) -> dict[str, Any]:
    entries = [
        {
            "key": difference.key,
            "change": difference.change,
            "before": _json_value(difference.before),
            "after": _json_value(difference.after),
            "before_place": _json_place(difference.before_place),
            "after_place": _json_place(difference.after_place),
            "costs": list(difference.costs),
        }
        for difference in found
    ]
    sides = {"before": before.name, "after": after.name}
    return {**sides, "differences": entries, "consequences": consequences(list(found))}


def _json_value(value: Any) -> Any:
    """JSON has a null for a key that is not there, and no dates."""
    return None if value is UNSET else json.loads(json.dumps(value, default=str))


def _json_place(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column}


def _shown(value: Any) -> str:
    return "not set" if value is UNSET else write_value(value)


def _count(found: Sequence[Difference]) -> str:
    return "no difference" if not found else "1 difference" if len(found) == 1 else f"{len(found)} differences"


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + rest


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
