"""Recipes that come with osora, and what a recipe's name stands for."""

import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import schemas
from schemas.resolve.diagnostics import Diagnostic, Place, RecipeError
from schemas.resolve.sources import Asker


@cache
def packaged_recipes() -> dict[str, Path]:
    """Return every packaged recipe and layer: name (`stage1`, `sample/256px`, `layers/mmdit_11b`) -> file."""
    folder = Path(schemas.__file__).parent.parent / "recipes"
    files = sorted(folder.rglob("*.toml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def locate(name: str, folder: str = "", asked: Asker | None = None) -> str:
    """Return the file that a name stands for: a path seen from `folder` if there is one, else a packaged recipe.

    `asked` is the place that names it. Raises RecipeError with the close names.
    """
    path = os.path.normpath(os.path.join(folder, name)) if name else ""  # noqa: PTH118 - keeps names relative as written
    if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - these two never raise
        return path
    packaged = packaged_recipes().get(name.removesuffix(".toml"))
    if packaged is not None:
        return _short(packaged)
    if os.path.lexists(path):
        return path
    raise RecipeError([_unknown(name, path, asked)])


def _unknown(name: str, path: str, asked: Asker | None) -> Diagnostic:
    close = _neighbours(name, path) or get_close_matches(name.removesuffix(".toml"), packaged_recipes(), 3)
    named = "" if path == name else f" (looked for {path})"
    message = f"there is no recipe `{name}`: neither a file{named} nor a packaged recipe."
    if close:
        hint = f"Did you mean {' or '.join(f'`{other}`' for other in close)}?"
    else:
        hint = "`osora recipes list` names the packaged ones."
    return Diagnostic(
        "OSR011",
        message.encode("utf-8", "backslashreplace").decode(),
        asked() if asked else Place(name or '""'),
        help=hint,
    )


def _neighbours(name: str, path: str) -> list[str]:
    """Return the files of the same folder whose names are close, written as `name` is."""
    try:
        files = os.listdir(os.path.dirname(path) or ".")  # noqa: PTH120, PTH208 - text, as above
    except (OSError, ValueError):
        return []
    stem, base = name[: len(name) - len(os.path.basename(name))], os.path.basename(name)  # noqa: PTH119
    close = get_close_matches(base, [file for file in files if file.endswith(".toml")], 3, 0.75)
    return [stem + file for file in close]


def _short(file: Path) -> str:
    """Show a path below the current folder without that folder."""
    try:
        here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - a tenth of what pathlib takes, for every base
    except OSError:
        return str(file)
    return str(file).removeprefix(here)
