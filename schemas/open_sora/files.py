"""Exporting recipe files, and layers by what they add to a recipe."""

import os
from collections.abc import Sequence

from schemas.open_sora.exporting import Export, export_layer, export_recipe
from schemas.recipes import AnyRecipe
from schemas.resolve import RecipeError, resolve
from schemas.resolve.layers import collect

HOSTS = ("sample/256px", "stage1", "vae/dc_ae")
"""Packaged recipes that a layer is laid over; the first one that takes it shows what the layer adds."""


def export_file(
    source: str, layers: Sequence[str | os.PathLike[str]] = (), sets: Sequence[str] = (), unsets: Sequence[str] = ()
) -> Export:
    """Return a recipe, or the top-level keys that a layer (a file without `kind`) adds. Raises RecipeError."""
    files = [os.fspath(layer) for layer in layers]
    if _has_kind(source, files, sets, unsets):
        return export_recipe(resolve(source, layers=files, sets=sets, unsets=unsets).recipe)
    refusals: list[RecipeError] = []
    for host in HOSTS:
        try:
            whole = resolve(host, layers=[source, *files], sets=sets, unsets=unsets).recipe
        except RecipeError as error:
            refusals.append(error)
        else:
            return export_layer(_alone(host), whole)
    raise min(refusals, key=lambda error: len(error.diagnostics))


def _alone(host: str) -> AnyRecipe:
    return resolve(host).recipe


def _has_kind(source: str, layers: Sequence[str], sets: Sequence[str], unsets: Sequence[str]) -> bool:
    _, stack = collect(source, list(layers), list(sets), list(unsets), {})
    return any("kind" in layer.source.values for layer in stack)
