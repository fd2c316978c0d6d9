"""ColossalAI's `plugin` and `plugin_config`, and osora's [parallel]."""

from collections.abc import Mapping
from typing import Any

from schemas.open_sora.pairs import NoCounterpartError

SIZES = ("tp_size", "sp_size", "pp_size")
OVERLAP, BUCKET = "overlap_allgather", "reduce_bucket_size_in_m"
OPEN_SORA_DEFAULTS = {OVERLAP: True, BUCKET: 20}
KNOWN = {
    OVERLAP,
    BUCKET,
    *SIZES,
    "zero_stage",
    "static_graph",
    "sequence_parallelism_mode",
    "enable_sequence_parallelism",
}


def plugin_of(parallel: Mapping[str, Any], *, always: bool) -> tuple[str | None, dict[str, Any]]:
    """Return Open-Sora's plugin and its config for a [parallel] table; no plugin for a job of one process.

    With `always`, where Open-Sora has no way to do without, that is zero2, which on one process shares out nothing.
    Raises NoCounterpartError for plugins that Open-Sora has not.
    """
    plugin = parallel["plugin"]
    if plugin == "none":
        if not always:
            return None, {}
        plugin = "zero2"
    if plugin not in ("zero1", "zero2", "hybrid"):
        raise NoCounterpartError(f'parallel.plugin = "{plugin}": Open-Sora has zero1, zero2 and hybrid')
    config: dict[str, Any] = {OVERLAP: parallel[OVERLAP]}
    if parallel[BUCKET] != OPEN_SORA_DEFAULTS[BUCKET]:
        config[BUCKET] = parallel[BUCKET]
    if plugin == "hybrid":
        config |= {name: parallel[name] for name in (*SIZES, "zero_stage")}
        if parallel["static_graph"]:
            config["static_graph"] = True
        if parallel["sp_size"] > 1:
            config["enable_sequence_parallelism"] = True
            config["sequence_parallelism_mode"] = parallel["sequence_parallelism_mode"]
    return plugin, config


def parallel_of(plugin: Any, config: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the [parallel] table for a plugin, and what of the config has no counterpart: name -> reason."""
    if plugin is None:
        return {}, {}
    given = config if isinstance(config, Mapping) else {}
    left = {name: "osora has no such setting of a plugin" for name in given if name not in KNOWN}
    sequence = given.get("enable_sequence_parallelism")
    if sequence is not None and bool(sequence) != (given.get("sp_size", 1) != 1):
        left["enable_sequence_parallelism"] = "sp_size decides: above 1 the tokens are shared out"
    table = {"plugin": plugin, **OPEN_SORA_DEFAULTS}
    return table | {
        name: value for name, value in given.items() if name in KNOWN - {"enable_sequence_parallelism"}
    }, left


def first_parallel_of(plugin: Any, sp_size: Any) -> dict[str, Any]:
    """Return the [parallel] table for a plugin of Open-Sora 1.x; nothing for one that it has not."""
    if plugin == "zero2-seq":
        return {"plugin": "hybrid", "zero_stage": 2, "sp_size": sp_size}
    return {"plugin": "zero2"} if plugin == "zero2" else {}
