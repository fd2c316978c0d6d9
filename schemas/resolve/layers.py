"""The chain of layers: `_base_` files depth first and left to right, the recipe, layer files, options, injected values."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from schemas.resolve.diagnostics import Diagnostic, RecipeError
from schemas.resolve.keys import Path
from schemas.resolve.overrides import read_overrides
from schemas.resolve.packaged import locate
from schemas.resolve.sources import Asker, FileSource, LabelSource, Source, read_file, reject_extremes

MAX_FILES = 10_000


class Layer(NamedTuple):
    """A source, and the path that it un-sets instead of setting values (`--unset`)."""

    source: Source
    unset: Path | None = None


def collect(
    source: str,
    layers: Sequence[str],
    sets: Sequence[str],
    unsets: Sequence[str],
    injected: Mapping[str, Mapping[str, Any]],
) -> tuple[FileSource, list[Layer]]:
    """Return the recipe's own file and every layer, weakest first. Raises RecipeError with all that cannot be read."""
    reader = _Reader()
    recipe: FileSource | None = None
    for name in (source, *layers):
        file = reader.read(name)
        recipe = recipe or file
    try:
        reader.layers += [Layer(option, path) for option, path in read_overrides(sets, unsets)]
        reader.layers += [Layer(_label(label, values)) for label, values in injected.items()]
    except RecipeError as error:
        reader.problems += error.diagnostics
    if reader.problems or recipe is None:
        raise RecipeError(dict.fromkeys(reader.problems))
    return recipe, reader.layers


def _label(label: str, values: Mapping[str, Any]) -> LabelSource:
    source = LabelSource(label, values)
    reject_extremes(source)
    return source


class _Reader:
    """Reads files and their bases without recursion, so that chains of any depth are read or refused, never crash."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.problems: list[Diagnostic] = []
        self._files: dict[str, FileSource] = {}

    def read(self, name: str) -> FileSource | None:
        """Append the layers of a file: its bases first, then itself."""
        top = self._open(name, "", None)
        if top is None:
            return None
        stack = [(top, self._bases(top))]
        on_path = {top.real: top}
        while stack:
            file, bases = stack[-1]
            if not bases:
                stack.pop()
                del on_path[file.real]
                self.layers.append(Layer(file))
                continue
            base, asked = bases.pop(0)
            opened = self._open(base, file.folder, asked)
            if opened is None:
                continue
            if opened.real in on_path:
                self._cycle([entry for entry, _ in stack], opened, asked)
                continue
            if len(self.layers) + len(stack) > MAX_FILES:
                self._too_many(asked)
                return top
            on_path[opened.real] = opened
            stack.append((opened, self._bases(opened)))
        return top

    def _open(self, name: str, folder: str, asked: Asker | None) -> FileSource | None:
        try:
            path = locate(name, folder, asked)
            if path not in self._files:
                self._files[path] = read_file(path, asked)
            return self._files[path]
        except RecipeError as error:
            self.problems += error.diagnostics
            return None

    def _bases(self, file: FileSource) -> list[tuple[str, Asker]]:
        named = file.values.get("_base_", [])
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            message = "`_base_` takes a file's or packaged recipe's name, or a list of them."
            self.problems.append(
                Diagnostic(
                    "OSR014", message, file.place(("_base_",), "value"), help='For example `_base_ = ["image.toml"]`.'
                )
            )
            return []
        if isinstance(named, str):
            return [(named, partial(file.place, ("_base_",), "value"))]
        return [(name, partial(file.place, ("_base_", index), "value")) for index, name in enumerate(names)]

    def _cycle(self, path: list[FileSource], back: FileSource, asked: Asker) -> None:
        names = [file.name for file in path]
        start = next(index for index, file in enumerate(path) if file.real == back.real)
        loop = [*names[start:], back.name]
        shown = " -> ".join(loop if len(loop) <= 8 else [*loop[:4], "...", *loop[-3:]])
        first = path[start].place(("_base_",)) if start < len(path) - 1 else None
        message = f"`_base_` goes round in a circle: {shown}."
        self.problems.append(
            Diagnostic("OSR015", message, asked(), first, "and back in", "Move what both need into a third file.")
        )

    def _too_many(self, asked: Asker) -> None:
        message = f"`_base_` brings in more than {MAX_FILES} files."
        self.problems.append(
            Diagnostic("OSR015", message, asked(), help="Does a file name the same base many times over?")
        )
