"""Values that refer to others: `${optim.lr}`, `${env:NAME:-default}`, `${recipe_dir}`; `$${` is a plain `${`.

A string that is nothing but one reference takes the other value with its type; anywhere else it becomes text.
References are followed after all layers are merged, without recursion, so that chains may be long.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from schemas.resolve.diagnostics import Diagnostic
from schemas.resolve.keys import KeySyntaxError, Path, parse_key, show_key
from schemas.resolve.literals import read_scalar, write_scalar
from schemas.resolve.nodes import UNSET, Leaf, Table, is_set, leaves

REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
MAX_TEXT = 65_536


class _Broken(Exception):  # noqa: N818 - control flow between two functions of this file, never seen outside
    """A reference that cannot be followed: message and help."""


class Surroundings(NamedTuple):
    """What references may read besides the recipe itself."""

    recipe_dir: str
    environment: Mapping[str, str]
    default: Callable[[Path], Any]
    wants_text: Callable[[Path], bool]


def interpolate(tree: Table, surroundings: Surroundings) -> tuple[Table, list[Diagnostic], set[Path]]:
    """Return the tree with every reference replaced, the problems, and the paths that could not be replaced."""
    run = _Run(tree, surroundings)
    run.resolve_all()
    return (_rebuilt(tree, run.done, ()) if run.done else tree), run.problems, run.broken


def escape(text: str) -> str:
    """Write text so that interpolation gives it back."""
    return text.replace("${", "$${")


def has_references(values: Any) -> bool:
    """Whether any text among plain values refers to something; most recipes have none."""
    if isinstance(values, str):
        return "${" in values
    if isinstance(values, (dict, list)):
        return any(map(has_references, values.values() if isinstance(values, dict) else values))
    return False


class _Run:
    def __init__(self, tree: Table, surroundings: Surroundings) -> None:
        self.values = {path: leaf for path, leaf in leaves(tree) if is_set(leaf)}
        self.tables = {path[:length] for path in self.values for length in range(1, len(path))}
        self.pending = {
            path for path, leaf in self.values.items() if any("${" in text for text in _strings(leaf.value))
        }
        self.done: dict[Path, Any] = {}
        self.problems: list[Diagnostic] = []
        self.broken: set[Path] = set()
        self._around = surroundings

    def resolve_all(self) -> None:
        for path in sorted(self.pending, key=str):
            self._resolve([path])

    def _resolve(self, stack: list[Path]) -> None:
        """Resolve the top of the stack once everything that it refers to is resolved."""
        waiting = set(stack)
        while stack:
            path = stack[-1]
            missing = [] if self._is_done(path) else [other for other in self._needs(path) if not self._is_done(other)]
            if any(other in waiting for other in missing):
                self._cycle(stack, next(other for other in missing if other in waiting))
            elif missing:
                stack.append(missing[0])
                waiting.add(missing[0])
                continue
            elif not self._is_done(path):
                self._finish(path)
            waiting.discard(stack.pop())

    def _is_done(self, path: Path) -> bool:
        return path not in self.pending or path in self.done or path in self.broken

    def _needs(self, path: Path) -> Iterator[Path]:
        for text in _strings(self.values[path].value):
            for match in REFERENCE.finditer(text):
                name = match[1]
                if name and ":" not in name and name != "recipe_dir":
                    try:
                        yield parse_key(name)
                    except KeySyntaxError:
                        continue

    def _finish(self, path: Path) -> None:
        try:
            self.done[path] = self._replaced(self.values[path].value, path)
        except _Broken as error:
            self._fail(path, *error.args)

    def _replaced(self, value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return [self._replaced(item, path) for item in value]
        if isinstance(value, dict):
            return {name: self._replaced(item, path) for name, item in value.items()}
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = REFERENCE.fullmatch(value)
        if whole is not None and whole[1] is not None:
            return self._look_up(whole, path, whole_value=True)
        text = REFERENCE.sub(lambda match: self._as_text(match, path), value)
        if len(text) > MAX_TEXT:
            raise _Broken(f"grows to more than {MAX_TEXT} characters.", "A text that refers to itself many times over?")
        return text

    def _as_text(self, match: re.Match[str], path: Path) -> str:
        if match[1] is None:
            return "${"
        value = self._look_up(match, path, whole_value=False)
        if isinstance(value, (list, dict)):
            raise _Broken(
                f"puts the list `{match[1]}` into text.", "Only numbers, text, true and false can stand inside text."
            )
        return value if isinstance(value, str) else write_scalar(value)

    def _look_up(self, match: re.Match[str], path: Path, whole_value: bool) -> Any:
        name = match[1]
        if not match[0].endswith("}"):
            raise _Broken("opens `${` and never closes it.", "Close it with `}`, or write `$${` for a plain `${`.")
        if name.startswith("env:"):
            return self._environment(name[4:], path, whole_value)
        if name == "recipe_dir":
            return self._around.recipe_dir
        return self._key(name)

    def _environment(self, reference: str, path: Path, whole_value: bool) -> Any:
        name, found, default = reference.partition(":-")
        text = self._around.environment.get(name) or (default if found else None)
        if not name or text is None:
            hint = f"Set it, or give a default: `${{env:{name or 'NAME'}:-default}}`."
            raise _Broken(f"needs the environment variable `{name}`, which is not set.", hint)
        return read_scalar(text) if whole_value and not self._around.wants_text(path) else text

    def _key(self, name: str) -> Any:
        try:
            path = parse_key(name)
        except KeySyntaxError:
            hint = "Write `${table.key}`, `${env:NAME:-default}` or `${recipe_dir}`."
            raise _Broken(f"refers to `{name}`, which is no key.", hint) from None
        if path in self.broken:
            raise _Broken("", None)  # its own problem is reported already
        if path in self.values:
            return self.done.get(path, self.values[path].value)
        default = self._around.default(path)
        if path in self.tables or isinstance(default, dict):
            raise _Broken(f"refers to the table `{name}`.", "Refer to one of its keys, or share tables with `_base_`.")
        if default is UNSET:
            close = get_close_matches(name, [show_key(other) for other in self.values], 1)
            hint = (
                f"Did you mean `{close[0]}`?"
                if close
                else "Only keys that the recipe or the schema gives a value can be used."
            )
            raise _Broken(f"refers to `{name}`, which has no value.", hint)
        return default

    def _cycle(self, stack: list[Path], back: Path) -> None:
        loop = [*stack[stack.index(back) :], back]
        shown = [show_key(path) for path in loop]
        names = " -> ".join(shown if len(shown) <= 8 else [*shown[:4], "...", *shown[-3:]])
        first, last = self.values[back].history[-1], self.values[loop[-2]].history[-1]
        second = last.place if loop[-2] != back else None
        help_text = "Give one of them a value of its own."
        self.problems.append(
            Diagnostic(
                "OSR031", f"references go round in a circle: {names}.", first.place, second, "and back in", help_text
            )
        )
        self.broken.update(loop)

    def _fail(self, path: Path, message: str, help_text: str | None) -> None:
        self.broken.add(path)
        if message:
            place = self.values[path].history[-1].place
            self.problems.append(Diagnostic("OSR030", f"`{show_key(path)}` {message}", place, help=help_text))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value if isinstance(value, list) else value.values():
            yield from _strings(item)


def _rebuilt(table: Table, done: Mapping[Path, Any], path: Path) -> Table:
    items: dict[str, Any] = {}
    for name, node in table.items.items():
        here = (*path, name)
        if isinstance(node, Table):
            items[name] = _rebuilt(node, done, here)
        elif here in done:
            last = node.history[-1]._replace(value=done[here])
            items[name] = Leaf(done[here], (*node.history[:-1], last))
        else:
            items[name] = node
    return Table(MappingProxyType(items), table.history)
