"""Pydantic's errors, retold: with the key as the user wrote it, its place, what is allowed and the way out."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from schemas.recipes import RECIPES, AnyRecipe
from schemas.resolve.diagnostics import Diagnostic, Place
from schemas.resolve.fields import choices, field_at
from schemas.resolve.keys import Path, show_key
from schemas.resolve.literals import write_value
from schemas.resolve.nodes import Table, find, is_set
from schemas.resolve.renames import VERSION
from schemas.resolve.sources import Source

TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "none_required": "nothing",
}
OLDER = "`osora config migrate FILE` rewrites a recipe of an older version."
LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


class Mistake(NamedTuple):
    """One or more of Pydantic's errors about one key, with the union's branches told apart from the key's path."""

    path: Path
    type: str
    value: Any
    context: Mapping[str, Any]
    others: tuple["Mistake", ...] = ()


def frozen(value: Any) -> Any:
    """Return plain values with lists as tuples, so that every schema is immutable through and through."""
    if isinstance(value, dict):
        return {name: frozen(item) for name, item in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list) else value


class Validator:
    """Validates merged values as a recipe of one kind, and finds the place of what is wrong."""

    def __init__(self, kind: str, values: Mapping[str, Any], tree: Table, source: Place) -> None:
        self.kind = kind
        self.values = values
        self.tree = tree
        self._source = source

    def run(self) -> tuple[AnyRecipe | None, list[tuple[Path, Diagnostic]]]:
        """Return the recipe if it is valid, else the problems, each with what would have to go for the rest to be valid."""
        try:
            return RECIPES[self.kind].model_validate(frozen(self.values)), []
        except ValidationError as error:
            mistakes = _grouped([self._mistake(found) for found in error.errors(include_url=False)])
        return None, [(_to_prune(mistake), self.diagnostic(mistake)) for mistake in mistakes]

    def pruned(self, wrong: Iterable[Path]) -> tuple[AnyRecipe | None, set[Path]]:
        """Return what the recipe would be without its wrong parts, and the paths that had to go.

        It serves only to look for further problems in the parts that are right.
        """
        gone = {_names(path) for path in wrong}
        for _ in range(3):
            try:
                return RECIPES[self.kind].model_validate(frozen(_without(self.values, gone))), gone
            except ValidationError as error:
                found = {_to_prune(self._mistake(each))[:-1] for each in error.errors(include_url=False)}
                gone |= found - {()}
        return None, gone

    def _mistake(self, error: Any) -> Mistake:
        """Drop from Pydantic's location what is no key: union tags and branch names."""
        path: Path = ()
        here: Any = self.values
        for index, part in enumerate(error["loc"]):
            last = index == len(error["loc"]) - 1
            if isinstance(here, Mapping) and str(part) in here:
                path, here = (*path, str(part)), here[str(part)]
            elif isinstance(here, list) and isinstance(part, int) and part < len(here):
                path, here = (*path, part), here[part]
            elif last and error["type"] == "missing" and isinstance(part, str):
                path = (*path, part)
        if error["type"] == "union_tag_invalid" and isinstance(here, Mapping):
            path, here = (*path, "type"), here.get("type")
        kind = "key_" + error["type"] if error["loc"][-1] == "[key]" else error["type"]
        return Mistake(path, kind, here, error.get("ctx", {}))

    def diagnostic(self, mistake: Mistake) -> Diagnostic:
        """Return the diagnostic for one mistake."""
        if mistake.type == "extra_forbidden":
            return self._unknown(mistake.path)
        if mistake.type == "missing" and not isinstance(mistake.value, list):
            return self._missing(mistake.path)
        code, message, help_text = self._wrong_value(mistake)
        name = show_key(mistake.path)
        shown = f"`{name}`" if isinstance(mistake.value, Mapping) else f"`{name} = {_short(mistake.value)}`"
        part = "key" if mistake.type.startswith("key_") else "value"
        place = self.place(mistake.path, part)
        second, note = self._replaced(mistake.path) if code == "OSR002" else (None, None)
        return Diagnostic(code, f"{shown}: {message}", place, second, note, help_text)

    def place(self, path: Path, part: Any = "value") -> Place:
        """Return the place of the last layer that set the key, or the nearest table around it that a layer opened."""
        for length in range(len(path), 0, -1):
            node = find(self.tree, path[:length])
            if node is not None and node.history:
                event = node.history[-1]
                inside = length == len(path) or isinstance(path[length], int)
                if event.action in ("set", "deleted", "merged"):
                    return event.source.place(
                        (*event.path, *path[length:]) if inside else event.path, part if inside else "key"
                    )
                return event.place
        return self._source

    def given(self, path: Path) -> bool:
        """Whether a layer sets the key; otherwise its value is the schema's default."""
        node = find(self.tree, path)
        return node is not None and is_set(node)

    def source_of(self, path: Path) -> Source | None:
        """Return the strongest layer that spoke of the key or of anything in its table."""
        node = find(self.tree, path)
        return node.history[-1].source if node is not None and node.history else None

    def _replaced(self, path: Path) -> tuple[Place | None, str | None]:
        """A value of the wrong type may have pushed a weaker layer's value aside: show that one too."""
        node = find(self.tree, path)
        if node is None or len(node.history) < 2 or node.history[-2].action == "deleted":
            return None, None
        return node.history[-2].place, "it replaces"

    def _unknown(self, path: Path) -> Diagnostic:
        from schemas.resolve.unknown_keys import unknown_key_hint  # most recipes have none

        hint = unknown_key_hint(self.kind, self.values, path)
        return Diagnostic("OSR001", f"unknown key `{show_key(path)}`.", self.place(path, "key"), help=hint)

    def _missing(self, path: Path) -> Diagnostic:
        field = field_at(self.kind, path, self.values)
        meaning = f" {field.description}" if field is not None and field.description else ""
        table = f"[{show_key(path[:-1])}]" if path[1:] else "the recipe"
        message = f"`{show_key(path)}` is missing.{meaning}"
        return Diagnostic("OSR004", message, self.place(path[:-1], "key"), help=f"Add `{path[-1]} = ...` to {table}.")

    def _wrong_value(self, mistake: Mistake) -> tuple[str, str, str | None]:
        """Return code, message and help for a key whose value will not do."""
        kind, context = mistake.type.removeprefix("key_"), mistake.context
        if mistake.type.startswith("key_"):
            return "OSR003", "the key is a number of frames: a whole number, at least 1.", None
        if kind in LIMITS:
            words, bound = LIMITS[kind]
            return "OSR003", f"must be {words} {context[bound]}.", self._meaning(mistake.path)
        if kind in ("too_long", "missing"):
            size = context.get("max_length") or self._length(mistake.path)
            return "OSR003", f"needs exactly {size} values, not {len(mistake.value)}.", self._meaning(mistake.path)
        if kind == "too_short":
            return "OSR003", f"needs at least {context['min_length']} value.", self._meaning(mistake.path)
        if kind == "finite_number":
            return "OSR003", "must be a finite number.", None
        if kind in ("literal_error", "union_tag_invalid"):
            expected = str(context.get("expected", context.get("expected_tags", "")))
            return "OSR005", f"must be {expected.replace(chr(39), chr(34))}.", self._close_value(mistake, expected)
        wanted = [TYPES[each.type] for each in (mistake, *mistake.others) if each.type in TYPES]
        if wanted:
            return "OSR002", f"must be {' or '.join(dict.fromkeys(wanted))}.", self._type_help(mistake)
        return "OSR002", f"{context.get('error', kind.replace('_', ' '))}.", self._meaning(mistake.path)

    def _length(self, path: Path) -> int:
        """Return how many values the tuple at a path has; a bucket is the only one inside a table of free names."""
        field = field_at(self.kind, path, self.values)
        return 2 if field is None else len(get_args(choices(field.annotation)[0]))

    def _meaning(self, path: Path) -> str | None:
        names = _names(path)
        field = field_at(self.kind, names, self.values)
        while field is None and names:
            names = names[:-1]
            field = field_at(self.kind, names, self.values)
        return None if field is None or field.description is None else f"{show_key(names)}: {field.description}"

    def _close_value(self, mistake: Mistake, expected: str) -> str | None:
        if mistake.path == ("schema_version",):
            older = isinstance(mistake.value, int) and mistake.value < VERSION
            return OLDER if older else "This osora reads no other; a recipe of a newer version needs a newer osora."
        allowed = expected.replace("'", "").replace(" or ", ", ").split(", ")
        if isinstance(mistake.value, (int, float)) and str(mistake.value) in allowed:
            option = f"--set {show_key(mistake.path)}='\"{mistake.value}\"'"
            return f'Write it as text: "{mistake.value}" (on the command line: `{option}`).'
        close = get_close_matches(str(mistake.value), allowed, 1)
        return f'Did you mean "{close[0]}"?' if close else None

    def _type_help(self, mistake: Mistake) -> str | None:
        value = mistake.value
        if isinstance(value, str) and value.lower() in ("none", "null"):
            names = _names(mistake.path)
            return f'To un-set a key: `--unset {show_key(names)}`, or `_delete_ = ["{names[-1]}"]` in a file.'
        if isinstance(value, str) and mistake.type != "string_type" and _is_number(value):
            return f"Leave the quotes out: {value}."
        if isinstance(value, str) and value in ("true", "false") and mistake.type == "bool_type":
            return f"Leave the quotes out: {value}."
        if isinstance(value, float) and value.is_integer() and mistake.type.startswith("int"):
            return f"Write {int(value)}."
        return self._meaning(mistake.path)


def _grouped(mistakes: list[Mistake]) -> list[Mistake]:
    """Make one mistake of what the branches of one union say about one value."""
    kept: list[Mistake] = []
    by_path: dict[Path, list[Mistake]] = {}
    for mistake in mistakes:
        by_path.setdefault(mistake.path, []).append(mistake)
    for path, group in by_path.items():
        if isinstance(group[0].value, list) and any(other[: len(path)] == path and other != path for other in by_path):
            continue  # the branch that took the list says more
        exact = [mistake for mistake in group if mistake.type not in TYPES]
        first = (exact or group)[0]
        others = () if exact else tuple(group[1:])
        kept.append(Mistake(path, first.type, first.value, first.context, others))
    return kept


def _names(path: Path) -> Path:
    """Return a path as far as it leads through tables."""
    return path[: next((index for index, part in enumerate(path) if isinstance(part, int)), len(path))]


def _to_prune(mistake: Mistake) -> Path:
    """Return what has to go for the rest to be valid: a key, or the table that misses one."""
    if mistake.type == "missing" and not isinstance(mistake.value, list):
        return mistake.path[:-1]
    return _names(mistake.path)


def _without(values: Mapping[str, Any], gone: set[Path], path: Path = ()) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if (*path, name) not in gone}
    return {
        name: _without(value, gone, (*path, name)) if isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def _short(value: Any) -> str:
    text = write_value(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
