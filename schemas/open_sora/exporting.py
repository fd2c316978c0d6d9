"""From a recipe to a config under Open-Sora's own key names."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import UsageError
from schemas.open_sora.fixed import constants, derived
from schemas.open_sora.pairs import NOTHING, NoCounterpartError, Pair
from schemas.open_sora.plugins import parallel_of, plugin_of
from schemas.open_sora.tables import AUTOENCODER_TABLE, look_up, pairs_of
from schemas.parallel import ParallelConfig, SamplingParallelConfig
from schemas.recipes import RECIPES, AnyRecipe, SampleRecipe, TrainRecipe
from schemas.resolve.fields import as_toml, defaults_of

EXPORTED = {"model": ("mmdit",), "ae": ("hunyuan_vae", "dc_ae", "autoencoder_2d")}
"""Families of Open-Sora 2.0, by the recipe's table."""
OPTIONAL_TABLES = ("lora", "discriminator", "t2i2v")


@dataclass(frozen=True)
class Export:
    """The config, and what of the recipe it cannot say: osora's key -> reason."""

    config: dict[str, Any]
    lost: dict[str, str]


def export_recipe(recipe: AnyRecipe) -> Export:
    """Return the recipe under Open-Sora's keys, with the values that Open-Sora's own configs spell out.

    Raises UsageError for a model of Open-Sora 1.x, whose configs have other keys.
    """
    for table, families in EXPORTED.items():
        part = getattr(recipe, table, None)
        if part is not None and part.type not in families:
            raise UsageError(
                f'{table}.type = "{part.type}": an export is a config of Open-Sora 2.0, which has {", ".join(families)}. '
                "Recipes of 1.x are read from its configs (`osora config import`), not written back."
            )
    return _Exporter(recipe).run()


def export_layer(without: AnyRecipe, recipe: AnyRecipe, keys: Iterable[str]) -> Export:
    """Return what a layer says: the top-level keys that its `keys` become, and those it changes in a recipe it is laid over."""
    before, exporter, own = export_recipe(without), _Exporter(recipe), set(keys)
    after = exporter.run()
    said = {pair.theirs.split(".")[0] for pair in exporter.pairs if pair.ours in own}
    config = {name: value for name, value in after.config.items() if name in said or before.config.get(name) != value}
    return Export(config, {key: reason for key, reason in after.lost.items() if key not in before.lost})


class _Exporter:
    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe
        self.tree = as_toml(recipe)
        self.config: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        self.pairs: tuple[Pair, ...] = ()
        self.said: set[str] = {"kind", "schema_version", "parallel.engine"}

    def run(self) -> Export:
        kind = self.recipe.kind
        family, tables = families(self.tree), {name for name in OPTIONAL_TABLES if name in self.tree}
        ae = self.tree["ae"]
        tiled = bool(ae.get("use_spatial_tiling") or ae.get("use_temporal_tiling"))
        self.pairs = pairs_of(kind, family, tables, tiled)
        for pair in self.pairs:
            self._write(pair)
        for key, (value, _) in constants(kind, family, tables, AUTOENCODER_TABLE[kind]).items():
            self._put(key, value)
        for key, (value, _) in derived(self._as_told()).items():
            self._put(key, value)
        self._special(tables)
        self.lost |= dict.fromkeys(self._unsaid(), "Open-Sora has no such key")
        return Export(self.config, self.lost)

    def _as_told(self) -> AnyRecipe:
        """Return the recipe as its config tells it: Open-Sora knows a single DC-AE, and sizes follow from that one."""
        if "ae.model_name" not in self.lost:
            return self.recipe
        ae: Any = self.recipe.ae
        usual = ae.model_copy(update={"model_name": type(ae).model_fields["model_name"].default})
        return self.recipe.model_copy(update={"ae": usual})

    def _write(self, pair: Pair) -> None:
        self.said.add(pair.ours)
        try:
            value = pair.conversion.theirs(self._ours(pair.ours))
        except NoCounterpartError as reason:
            self.lost[pair.ours] = str(reason)
            if pair.default is NOTHING:
                return
            value = pair.default
        if pair.written or value != pair.default:
            self._put(pair.theirs, value)

    def _special(self, tables: set[str]) -> None:
        if "parallel" in self.tree:
            self._parallel(self.tree["parallel"])
        if isinstance(self.recipe, TrainRecipe):
            self._conditions(self.recipe)
        if "t2i2v" in tables:
            self._put("use_t2i2v", True)
        project = self._ours("logging.wandb_project")
        self.said.add("logging.wandb_project")
        if project is not None:
            self._put("wandb", True)
            self._put("wandb_project", project)

    def _parallel(self, values: dict[str, Any]) -> None:
        self.said |= {f"parallel.{name}" for name in values}
        always = not isinstance(self.recipe, SampleRecipe)
        reasons: dict[str, str] = {}
        try:
            plugin, config = plugin_of(values, always=always)
        except NoCounterpartError as reason:
            reasons["plugin"] = str(reason)
            plugin, config = plugin_of(values | {"plugin": "none"}, always=always)
        if plugin is not None:
            self._put("plugin", plugin)
            self._put("plugin_config", config)
        back = (ParallelConfig() if always else SamplingParallelConfig()).model_dump() | parallel_of(plugin, config)[0]
        told = (
            "Open-Sora always trains with a plugin"
            if values["plugin"] == "none"
            else f"the plugin {plugin} does not take it"
        )
        changed = [name for name in values if name != "engine" and values[name] != back[name]]
        self.lost |= {f"parallel.{name}": reasons.get(name, told) for name in changed}

    def _conditions(self, recipe: TrainRecipe) -> None:
        """Write the weights that count, where the model takes frames; whole ones as whole numbers."""
        self.said |= {f"condition.{name}" for name in type(recipe.condition).model_fields}
        weights = recipe.condition.weights()
        if recipe.model.takes_frames or weights != {"t2v": 1.0}:
            whole = {name: int(weight) if weight.is_integer() else weight for name, weight in weights.items()}
            self._put("condition_config", whole)

    def _ours(self, key: str) -> Any:
        try:
            return look_up(self.tree, key)
        except KeyError:
            return None

    def _put(self, key: str, value: Any) -> None:
        *tables, name = key.split(".")
        target = self.config
        for table in tables:
            target = target.setdefault(table, {})
        target[name] = value

    def _unsaid(self) -> Iterator[str]:
        """Yield the keys with other values than their defaults that no table knows."""
        usual = dict(leaves(defaults_of(RECIPES[self.recipe.kind], self.tree)))
        for key, value in leaves(self.tree):
            if (
                key not in self.said
                and not any(key.startswith(f"{said}.") for said in self.said)
                and usual.get(key) != value
            ):
                yield key


def families(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the `type` of every autoencoder of a recipe, by the key of its table."""
    found = {}
    for key in ("ae", "t2i2v.img_flux_ae"):
        try:
            found[key] = str(look_up(values, f"{key}.type"))
        except KeyError:
            continue
    return found


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of nested dicts that holds no dict, with its value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
