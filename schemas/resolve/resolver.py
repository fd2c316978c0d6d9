"""From layers to a checked recipe, in five steps: read, merge, interpolate, validate, check."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from schemas.checks import Problem, run_checks
from schemas.recipes import RECIPES, AnyRecipe
from schemas.resolve.diagnostics import Diagnostic, Place, RecipeError, in_order
from schemas.resolve.fields import defaults_of, field_at, list_policy, look_up, takes_text
from schemas.resolve.interpolation import Surroundings, has_references, interpolate
from schemas.resolve.keys import Path, show_key
from schemas.resolve.kinds import kind_of
from schemas.resolve.layers import Layer, collect
from schemas.resolve.merge import SCALARS, Merger
from schemas.resolve.nodes import Table, plain
from schemas.resolve.resolved import DEFAULT, Resolved
from schemas.resolve.sources import FileSource
from schemas.resolve.validate import Validator


def resolve(
    source: str | os.PathLike[str],
    *,
    layers: Sequence[str | os.PathLike[str]] = (),
    sets: Sequence[str] = (),
    unsets: Sequence[str] = (),
    kind: str | None = None,
    injected: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Resolved:
    """Resolve a recipe, weakest layer first: schema defaults, bases, the recipe, `layers`, `sets`/`unsets`, `injected`.

    `source` and `layers` are files or packaged names; `sets` are `KEY=VALUE` texts; `kind` is what the caller can run;
    `injected` maps a label such as `<checkpoint>` to values that are not the user's; `environment` serves `${env:...}`.
    Raises RecipeError with every problem found.
    """
    names = [os.fspath(layer) for layer in layers]
    file, stack = collect(os.fspath(source), names, sets, unsets, injected or {})
    job = _Job(file, stack, kind, os.environ if environment is None else environment)
    return job.run()


class _Job:
    """One resolution; gathers problems across the steps so that the user sees all of them at once."""

    def __init__(
        self, file: FileSource, layers: list[Layer], wanted: str | None, environment: Mapping[str, str]
    ) -> None:
        self.file = file
        self.layers = layers
        self.wanted = wanted
        self.environment = environment
        self.problems: list[Diagnostic] = []
        self.wrong: set[Path] = set()

    def run(self) -> Resolved:
        hints = _hints(self.layers)
        guess = hints.get("kind")
        tree = self._merge(hints, guess if guess in RECIPES else self.wanted)
        kind, problem = kind_of(tree, self.wanted, self.file)
        if problem is not None:
            self.problems.append(problem)
        if kind is None:
            raise RecipeError(in_order(self.problems))
        tree = self._interpolate(tree, kind)
        values = plain(tree)
        defaults = defaults_of(RECIPES[kind], values)
        values = {**_overlaid(defaults, values), "kind": kind}
        recipe = self._check(Validator(kind, values, tree, Place(self.file.name)))
        if recipe is None or any(problem.severity == "error" for problem in self.problems):
            raise RecipeError(in_order(self.problems))
        names = tuple(layer.source.name for layer in self.layers)
        return Resolved(recipe, self.file.name, names, tree, defaults, tuple(in_order(self.problems)))

    def _merge(self, hints: Mapping[str, Any], kind: str | None) -> Table:
        defaults = defaults_of(RECIPES[kind], hints) if kind in RECIPES else {}
        merger = Merger(partial(look_up, defaults), lambda path: list_policy(kind or "", path, hints))
        tree = Table()
        for layer in self.layers:
            path, source = layer.unset, layer.source
            tree = merger.apply(tree, source) if path is None else merger.unset(tree, path, source)
        self.problems += merger.problems
        return tree

    def _interpolate(self, tree: Table, kind: str) -> Table:
        values = plain(tree)
        if not has_references(values):
            return tree
        defaults = defaults_of(RECIPES[kind], values)
        around = Surroundings(
            recipe_dir=os.path.dirname(os.path.abspath(self.file.name)),  # noqa: PTH100, PTH120 - text, not a Path
            environment=self.environment,
            default=partial(look_up, defaults),
            wants_text=lambda path: takes_text(field_at(kind, path, values)),
        )
        tree, problems, broken = interpolate(tree, around)
        self.problems += problems
        self.wrong |= broken
        return tree

    def _check(self, validator: Validator) -> AnyRecipe | None:
        """Validate, then run the rules; where parts are wrong, run them on what is left and drop what leans on those."""
        whole, found = validator.run()
        fresh = [(path, problem) for path, problem in found if not _within(path, self.wrong)]
        self.problems += [problem for _, problem in fresh]
        if self.wrong or found:
            self.wrong |= {path for path, _ in found}
            whole = None
        recipe, gone = (whole, set[Path]()) if whole is not None else validator.pruned(self.wrong)
        if recipe is not None:
            around = {path[:length] for path in gone for length in range(1, len(path))}
            rules = [
                problem
                for problem in run_checks(recipe)
                if not any(key in around or _within(key, gone) for key in problem.keys)
            ]
            self.problems += [self._diagnostic(problem, validator) for problem in rules]
        return whole

    def _diagnostic(self, problem: Problem, validator: Validator) -> Diagnostic:
        """Place a rule's finding: at the key that the strongest layer set, and at the next one of the rule's keys."""
        strength = {id(layer.source): index for index, layer in enumerate(self.layers)}
        given = [key for key in problem.keys if validator.given(key)]
        given.sort(key=lambda key: -strength[id(validator.source_of(key))])
        blamed = given[0] if given else None
        first = Place(self.file.name) if blamed is None else validator.place(blamed)
        second: Place | None = None
        note = None
        for key in problem.keys if blamed is not None else ():
            place = validator.place(key) if key in given else Place(DEFAULT.name)
            if key != blamed and place != first:
                second, note = place, f"`{show_key(key)}` comes from"
                break
        return Diagnostic(problem.code, problem.message, first, second, note, problem.help, problem.severity)


def _hints(layers: list[Layer]) -> dict[str, Any]:
    """Foresee `kind` and every table's `type`, which decide the defaults that a layer's lists are appended to."""
    hints: dict[str, Any] = {}
    for layer in layers:
        _collect_hints(layer.source.values, hints)
    return hints


def _collect_hints(values: Mapping[str, Any], hints: dict[str, Any]) -> None:
    for name, value in values.items():
        if type(value) not in SCALARS and isinstance(value, Mapping):
            inner = hints.setdefault(name, {})
            if isinstance(inner, dict):
                _collect_hints(value, inner)
        elif name in ("kind", "type") and isinstance(value, str):
            hints[name] = value


def _overlaid(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(weak)
    for name, value in strong.items():
        below = both.get(name)
        both[name] = _overlaid(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _within(path: Path, tables: set[Path]) -> bool:
    """Whether the path, or a table around it, is one of `tables`."""
    return any(path[:length] in tables for length in range(1, len(path) + 1))
