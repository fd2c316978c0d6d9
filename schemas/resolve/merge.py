"""Applying one layer to what the weaker ones left: tables merge key by key, everything else replaces.

A layer may also say, in any table:
    _delete_ = true            forget everything inherited in this table, then apply what follows
    _delete_ = ["key", ...]    un-set inherited keys
    _append_.NAME = [...]      add to the end of an inherited list
    _prepend_.NAME = [...]     add to its front
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from schemas.resolve.diagnostics import Diagnostic
from schemas.resolve.keys import Path, show_key
from schemas.resolve.nodes import UNSET, Event, Leaf, Node, Table, is_set
from schemas.resolve.sources import Source

DIRECTIVES = ("_delete_", "_append_", "_prepend_", "_base_")
SCALARS = frozenset({str, int, float, bool})
"""What most values are; asking whether they are a `Mapping` takes longer than merging them."""
Policy = Callable[[Path], str | None]
"""Names the list policy of a key (`schemas.base.lists`), or None where a list replaces the one below."""
Default = Callable[[Path], Any]
"""Looks the schema's default of a key up, for lists that a layer appends to; UNSET where there is none."""


def no_default(path: Path) -> Any:
    """Know no defaults."""
    return UNSET


def no_policy(path: Path) -> str | None:
    """Let every list replace the one below."""
    return None


class Merger:
    """Applies layers one by one; collects problems instead of stopping at the first."""

    def __init__(self, default: Default = no_default, policy: Policy = no_policy) -> None:
        self.problems: list[Diagnostic] = []
        self._default = default
        self._policy = policy

    def apply(self, tree: Table, source: Source) -> Table:
        """Return the tree with one more layer on top; the given tree is unchanged."""
        return self._table(tree, source.values, source, ())

    def unset(self, tree: Table, path: Path, source: Source) -> Table:
        """Return the tree without one key, as `--unset` asks."""
        return self._unset_below(tree, path, 0, source)

    def _unset_below(self, table: Table, path: Path, depth: int, source: Source) -> Table:
        if depth == len(path) - 1:
            return self._delete_key(table, path, source, path)
        name = str(path[depth])
        node = table.items.get(name)
        if not isinstance(node, Table):
            self._nothing_to_delete(Table(), path, node, source, path)
            return table
        return _with(table, {name: self._unset_below(node, path, depth + 1, source)})

    def _table(self, table: Table, values: Mapping[str, Any], source: Source, path: Path) -> Table:
        delete = values.get("_delete_")
        if delete is True:
            table = _emptied(table, Event("deleted", UNSET, True, source, (*path, "_delete_")))
        elif delete is not None:
            table = self._delete_listed(table, delete, source, path)
        items = dict(table.items)
        for name, value in values.items():
            here = (*path, name)
            if name.startswith("_") and name.endswith("_") and len(name) > 2:
                self._check_directive(name, source, here)
            else:
                items[name] = self._merged(items.get(name), value, source, here)
        for directive in ("_prepend_", "_append_"):
            if directive in values:
                self._extend(items, directive, values[directive], source, path)
        opened = Event("set", values, values, source, path) if path else None
        return Table(MappingProxyType(items), (*table.history, opened) if opened else table.history)

    def _check_directive(self, name: str, source: Source, path: Path) -> None:
        if name == "_base_" and path[1:]:
            self._report("`_base_` belongs above all tables.", source, path, "Write it once, at the top of the file.")
        elif name not in DIRECTIVES:
            self._unknown_directive(name, source, path)

    def _merged(self, node: Node | None, value: Any, source: Source, path: Path) -> Node:
        if type(value) not in SCALARS and isinstance(value, Mapping):
            table = node if isinstance(node, Table) else Table(history=() if node is None else node.history)
            return self._table(table, value, source, path)
        history = node.history if node else ()
        if isinstance(value, list) and isinstance(node, Leaf) and isinstance(node.value, list):
            policy = self._policy(path)
            if policy is not None:
                both = combined(node.value, value, policy)
                return Leaf(both, (*history, Event("merged", both, value, source, path)))
        return Leaf(value, (*history, Event("set", value, value, source, path)))

    def _delete_listed(self, table: Table, names: Any, source: Source, path: Path) -> Table:
        here = (*path, "_delete_")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._report(
                "`_delete_` takes true or a list of key names.", source, here, 'For one key: `_delete_ = ["key"]`.'
            )
            return table
        for index, name in enumerate(names):
            table = self._delete_key(table, (*path, name), source, (*here, index))
        return table

    def _delete_key(self, table: Table, path: Path, source: Source, at: Path) -> Table:
        name = str(path[-1])
        node = table.items.get(name)
        if node is None or not is_set(node):
            self._nothing_to_delete(table, path, node, source, at)
            return table
        return _with(table, {name: _forgotten(node, Event("deleted", UNSET, True, source, at))})

    def _nothing_to_delete(self, table: Table, path: Path, node: Node | None, source: Source, at: Path) -> None:
        close = get_close_matches(str(path[-1]), [name for name, other in table.items.items() if is_set(other)], 1)
        hint = (
            f"Did you mean `{close[0]}`?"
            if close
            else "No weaker layer sets it, so it has the schema's default already."
        )
        earlier = node.history[-1].key_place if node is not None and node.history else None
        self.problems.append(
            Diagnostic(
                "OSR020",
                f"cannot delete `{show_key(path)}`: it is not there.",
                source.place(at, "value"),
                earlier,
                "already deleted in" if earlier else None,
                hint,
            )
        )

    def _extend(self, items: dict[str, Node], directive: str, lists: Any, source: Source, path: Path) -> None:
        here = (*path, directive)
        if not isinstance(lists, Mapping):
            self._report(f"`{directive}` needs the name of a list.", source, here, f"Write `{directive}.NAME = [...]`.")
            return
        for name, added in lists.items():
            self._extend_one(items, directive, name, added, source, path)

    def _extend_one(
        self, items: dict[str, Node], directive: str, name: str, added: Any, source: Source, path: Path
    ) -> None:
        target, here = (*path, name), (*path, directive, name)
        node = items.get(name)
        if not isinstance(added, list):
            self._report(f"`{directive}.{name}` takes a list.", source, here, f"Write `{directive}.{name} = [...]`.")
            return
        current = node.value if isinstance(node, Leaf) and node.value is not UNSET else self._default(target)
        if isinstance(node, Table) or not isinstance(current, list):
            what = "not there" if current is UNSET and not isinstance(node, Table) else "no list"
            verb = directive.strip("_")
            hint = f"Set it instead: `{name} = [...]`."
            second = node.history[-1].place if node is not None and node.history else None
            message = f"cannot {verb} to `{show_key(target)}`: it is {what}."
            self.problems.append(Diagnostic("OSR021", message, source.place(here), second, "set here", hint))
            return
        value = [*current, *added] if directive == "_append_" else [*added, *current]
        action: Any = "appended" if directive == "_append_" else "prepended"
        items[name] = Leaf(value, (*(node.history if node else ()), Event(action, value, added, source, here)))

    def _unknown_directive(self, name: str, source: Source, path: Path) -> None:
        close = get_close_matches(name, DIRECTIVES, 1)
        hint = (
            f"Did you mean `{close[0]}`?" if close else f"There are {', '.join(f'`{known}`' for known in DIRECTIVES)}."
        )
        self._report(f"unknown directive `{show_key(path)}`.", source, path, hint)

    def _report(self, message: str, source: Source, path: Path, hint: str) -> None:
        self.problems.append(Diagnostic("OSR022", message, source.place(path), help=hint))


def combined(below: list[Any], above: list[Any], policy: str) -> list[Any]:
    """Return the list that two layers make under a policy; items keep the place where they first stood."""
    if policy == "append":
        return [*below, *above]
    if policy == "unique":
        return [*below, *(item for index, item in enumerate(above) if item not in below and item not in above[:index])]
    name = policy.removeprefix("by ")
    both = list(below)
    for item in above:
        at = next((index for index, other in enumerate(both) if _named_alike(other, item, name)), None)
        if at is None:
            both.append(item)
        else:
            both[at] = {**both[at], **item}
    return both


def _named_alike(first: Any, second: Any, name: str) -> bool:
    tables = isinstance(first, Mapping) and isinstance(second, Mapping)
    return tables and name in first and name in second and bool(first[name] == second[name])


def _with(table: Table, items: Mapping[str, Node]) -> Table:
    return Table(MappingProxyType({**table.items, **items}), table.history)


def _emptied(table: Table, event: Event) -> Table:
    """Forget what a table holds, but not who said it."""
    items = {name: _forgotten(node, event) if is_set(node) else node for name, node in table.items.items()}
    return Table(MappingProxyType(items), (*table.history, event) if table.history else ())


def _forgotten(node: Node, event: Event) -> Node:
    return _emptied(node, event) if isinstance(node, Table) else Leaf(UNSET, (*node.history, event))
