"""Exporting recipe files, and layers by what they say to a recipe."""

import os
from collections.abc import Sequence

from schemas.open_sora.exporting import Export, export_layer, export_recipe, leaves
from schemas.resolve import RecipeError, resolve
from schemas.resolve.layers import collect

HOSTS = ("sample/256px", "stage1", "vae/dc_ae", "sample/high_compression")
"""Packaged recipes that a layer is laid over: the first one that takes it shows what the layer says."""


def export_file(
    source: str, layers: Sequence[str | os.PathLike[str]] = (), sets: Sequence[str] = (), unsets: Sequence[str] = ()
) -> Export:
    """Return a recipe, or the top-level keys that a layer (a file without `kind`) is about. Raises RecipeError."""
    files = [os.fspath(layer) for layer in layers]
    _, stack = collect(source, files, list(sets), list(unsets), {})
    keys = {key for layer in stack for key, _ in leaves(layer.source.values)}
    if "kind" in keys:
        return export_recipe(resolve(source, layers=files, sets=sets, unsets=unsets).recipe)
    refusals: list[RecipeError] = []
    for host in HOSTS:
        try:
            whole = resolve(host, layers=[source, *files], sets=sets, unsets=unsets).recipe
        except RecipeError as error:
            refusals.append(error)
        else:
            return export_layer(resolve(host).recipe, whole, keys)
    raise min(refusals, key=lambda error: len(error.diagnostics))
