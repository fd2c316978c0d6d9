"""`osora config explain`: one key with its whole history, the keys that differ from their defaults, or a code."""

import re
from collections.abc import Iterator
from typing import Annotated

import typer

from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_lines
from schemas.base import COST_MEANING
from schemas.resolve import UNSET, Event, Resolved, resolve
from schemas.resolve.codes import Code, code_page
from schemas.resolve.explain import Explanation, changed_keys, explain_key
from schemas.resolve.literals import write_value

CODE = re.compile(r"OSR\d+", re.IGNORECASE)
LONGEST = 90
"""Characters of a value that are shown on one line."""

DONE = {
    "deleted": "deletes it, back to ",
    "appended": "appends ",
    "prepended": "puts in front ",
    "merged": "adds to it ",
}
"""What a layer did to a key, where it is more than setting it."""
Line = tuple[str, str]


def explain(
    file: Annotated[
        str, typer.Argument(help="A recipe file, a packaged one, or a code such as OSR101.", show_default=False)
    ],
    key: Annotated[str | None, typer.Argument(help="A key such as optim.lr; all that differ if left out.")] = None,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Explain a key of a recipe: meaning, limits, default, every layer that set it, what a change costs. Or a code."""
    if key is None and CODE.fullmatch(file):
        print_lines(code_lines(code_page(file)))
        return
    resolved = resolve(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
    print_lines(_table_lines(resolved) if key is None else _key_lines(explain_key(resolved, key)))


def code_lines(code: Code) -> Iterator[Line]:
    """Yield the page of a code."""
    about = f" ({', '.join(code.kinds)})" if code.kinds else ""
    yield "title", f"{code.code}  {code.severity}: {code.name}{about}"
    yield "plain", f"  why: {code.reason}"
    yield "plain", f"  fix: {code.fix}"
    for title, text, sets in (("Wrong", code.wrong, code.sets), ("Right", code.right, code.right_sets)):
        yield "plain", ""
        yield "title", f"{title}:"
        yield from (("plain", f"    {line}".rstrip()) for line in text.rstrip("\n").split("\n"))
        if sets:
            options = " ".join(f"--set '{option}'" for option in sets)
            yield "dim", f"    $ osora config validate recipe.toml {options}"
    if code.command:
        yield "dim", f"  when it is given to `osora {code.command}`"
    if code.on:
        yield "dim", f"  with `osora config validate --hardware here`, on {code.on}"


def _key_lines(found: Explanation) -> Iterator[Line]:
    meaning = found.meaning
    yield "title", f"{found.key} = {_shown(found.value)}"
    if meaning.description:
        inside = f"{'.'.join(map(str, meaning.inside))}: " if meaning.inside else ""
        yield "plain", f"  {inside}{meaning.description}"
    for name, text in (("type", meaning.type), ("limits", meaning.limits), ("default", _shown(found.default))):
        if text:
            yield "plain", f"  {name:8} {text}"
    for index, cost in enumerate(meaning.costs):
        yield "plain", f"  {'' if index else 'change':8} {cost}: {COST_MEANING[cost]}"
    if not meaning.costs:
        yield "plain", "  change   costs nothing"
    yield "plain", "  history  " + ("weakest layer first" if found.history else "no layer sets it")
    for event in found.history:
        yield from _event_lines(event)


def _event_lines(event: Event) -> Iterator[Line]:
    done = DONE.get(event.action, "")
    said = event.written if event.action in ("appended", "prepended", "merged") else event.value
    yield "note", f"    {event.place}  {done}{_shown(said)}"
    excerpt = event.place.excerpt()
    if excerpt is not None:
        margin = "" if event.place.line is None else str(event.place.line)
        yield "source", f"      {margin:>5} | {excerpt[0]}"
        yield "caret", f"      {'':>5} | {excerpt[1]}"


def _table_lines(resolved: Resolved) -> Iterator[Line]:
    changed = changed_keys(resolved)
    rows = [(each.key, _shown(each.value), _shown(each.default), str(each.place)) for each in changed]
    rows.insert(0, ("key", "value", "default", "set by"))
    widths = [min(48, max(len(row[column]) for row in rows)) for column in range(3)]
    yield "title", f"{resolved.source}: {len(changed)} keys differ from the defaults of kind {resolved.recipe.kind}"
    for index, row in enumerate(rows):
        cells = [_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "plain" if index else "dim", "  ".join([*cells, row[3]])


def _shown(value: object) -> str:
    return "not set" if value is UNSET else _cut(write_value(value), LONGEST)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
