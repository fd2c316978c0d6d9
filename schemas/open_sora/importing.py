"""From a config of Open-Sora to a recipe: what has a counterpart, and a reason for everything that has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.errors import UsageError
from schemas.open_sora.exporting import families, leaves
from schemas.open_sora.first_generation import (
    disagreements_within,
    first_pairs,
    fixed_bucket,
    is_first_generation,
    said_by_names,
    said_elsewhere,
)
from schemas.open_sora.fixed import constants, derived
from schemas.open_sora.leftovers import Leftover, reason_for
from schemas.open_sora.pairs import NOTHING, NoCounterpartError, Pair
from schemas.open_sora.plugins import first_parallel_of, parallel_of
from schemas.open_sora.source import Config
from schemas.open_sora.tables import AUTOENCODER_TABLE, look_up, pairs_of
from schemas.recipes import RECIPES, AnyRecipe
from schemas.resolve.fields import as_toml, defaults_of
from schemas.resolve.interpolation import escape
from schemas.resolve.literals import write_document, write_value
from schemas.resolve.validate import frozen

AUTOENCODERS = ("hunyuan_vae", "dc_ae", "autoencoder_2d")
CONDITIONS = "condition_config"
SAMPLING_SEED = "sampling_option.seed"


@dataclass(frozen=True)
class Import:
    """The recipe as nested values (TOML's, without defaults that agree), the recipe itself, and what was left out."""

    kind: str
    values: dict[str, Any]
    recipe: AnyRecipe
    leftovers: tuple[Leftover, ...]

    def text(self, source: str) -> str:
        """Return the recipe as a TOML text, with what was left out as comments above it."""
        head = [f"# Imported from {source} (Open-Sora)."]
        if self.leftovers:
            head += ["#", "# Not taken over:", *(f"#   {_one_line(str(leftover))}" for leftover in self.leftovers)]
        return (
            "\n".join(head) + "\n" + write_document(_escaped({"schema_version": 1, "kind": self.kind, **self.values}))
        )


def import_config(config: Config, kind: str | None = None) -> Import:
    """Return the recipe that a config of Open-Sora stands for. Raises UsageError where its kind cannot be told."""
    return _Importer(config, kind or kind_of(config)).run()


def kind_of(config: Config) -> str:
    """Return the kind of recipe that a config is: by what it trains or samples."""
    values = config.values
    model = values.get("model")
    family = model.get("type") if isinstance(model, Mapping) else None
    alone = family in AUTOENCODERS or "vae" in str(family).lower() or "autoencoder" in str(family).lower()
    samples = "save_dir" in values or "sampling_option" in values
    if alone:
        return "vae-sample" if samples else "vae-train"
    if samples:
        return "sample"
    if family is not None or "outputs" in values:
        return "train"
    raise UsageError(f"{config.file}: no `model`, `outputs` or `save_dir` tells what this config is for: give --kind.")


class _Importer:
    def __init__(self, config: Config, kind: str) -> None:
        self.config = config
        self.kind = kind
        self.first = is_first_generation(config.values)
        self.values: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.read: set[str] = set()
        self.leftovers: dict[str, Leftover] = {}

    def run(self) -> Import:
        if self.first:
            self._names()
        for pair in self._pairs():
            self._take(pair)
        if self.first:
            self._fixed_bucket()
            self._disagreements()
        else:
            self._conditions()
            self._sampling_seed()
        if self.kind not in ("vae-sample", "vae-stats"):
            self._plugins()
            self._wandb()
        recipe = self._validated()
        if not self.first:
            self._compare(recipe)
        for key, value in leaves(self.config.values):
            if not _says_nothing(value) and not any(key == read or key.startswith(f"{read}.") for read in self.read):
                self._leave(key, value, reason_for(self.kind, key, first_generation=self.first))
        return Import(self.kind, self.values, recipe, tuple(self.leftovers.values()))

    def _pairs(self) -> tuple[Pair, ...]:
        if self.first:
            return first_pairs(self.kind, self.config.values)
        given = self.config.values
        tables = {
            "lora": given.get("lora_config") is not None,
            "discriminator": given.get("discriminator") is not None,
            "t2i2v": bool(given.get("use_t2i2v")),
        }
        wanted = {"lora": "train", "discriminator": "vae-train", "t2i2v": "sample"}
        self.tables = {name for name, there in tables.items() if there and wanted[name] == self.kind}
        if "t2i2v" in self.tables:
            self.read.add("use_t2i2v")
        self.family = {
            ours: self._theirs(f"{theirs}.type", "")
            for ours, theirs in (("ae", AUTOENCODER_TABLE[self.kind]), ("t2i2v.img_flux_ae", "img_flux_ae"))
        }
        return pairs_of(self.kind, self.family, self.tables)

    def _take(self, pair: Pair) -> None:
        value = self._theirs(pair.theirs, NOTHING)
        given = value is not NOTHING
        if given:
            self.read.add(pair.theirs)
        elif pair.default is NOTHING:
            return
        try:
            ours = pair.conversion.ours(value if given else pair.default)
        except NoCounterpartError as reason:
            if given:
                self._leave(pair.theirs, value, str(reason))
            return
        if ours is not None and (given or ours != self._usual(pair.ours)):
            self._set(pair.ours, ours, pair.theirs)

    def _conditions(self) -> None:
        weights = self._theirs(CONDITIONS, None)
        if self.kind == "train" and isinstance(weights, Mapping):
            self.read.add(CONDITIONS)
            for name, weight in {"t2v": 0, **weights}.items():
                self._set(f"condition.{name}", float(weight) if type(weight) is int else weight, f"{CONDITIONS}.{name}")

    def _names(self) -> None:
        """Set what the names of 1.x's models stand for, and what its scripts always do."""
        for key, value, source in said_by_names(self.kind, self.config.values):
            self.read.add(source)
            if value != self._usual(key) or key.endswith(".type"):
                self._set(key, value, source)

    def _disagreements(self) -> None:
        self.read |= set(said_elsewhere(self.kind, self.config.values))
        for key, reason in disagreements_within(self.kind, self.config.values):
            self._leave(key, self._theirs(key, None), reason)

    def _fixed_bucket(self) -> None:
        """A config of 1.x without buckets has one size, which is one bucket."""
        buckets, read = fixed_bucket(self.config.values)
        if buckets and self.kind != "sample":
            self.read |= set(read)
            self._set("buckets", buckets, read[0])

    def _sampling_seed(self) -> None:
        """The seed among the sampling options is stronger than the one at the top."""
        seed = self._theirs(SAMPLING_SEED, None)
        if self.kind == "sample" and seed is not None:
            self.read.add(SAMPLING_SEED)
            self._set("sampling.seed", seed, SAMPLING_SEED)

    def _plugins(self) -> None:
        if self.first:
            self._first_plugins()
            return
        missing = "zero2" if self.kind in ("train", "vae-train") else None
        config = self._theirs("plugin_config", None)
        values, left = parallel_of(self._theirs("plugin", missing), config)
        if values or self._theirs("plugin", NOTHING) is None:
            self.read |= {"plugin", "plugin_config"}
        for name, value in values.items():
            if value != self._usual(f"parallel.{name}") or name in (config or {}):
                self._set(f"parallel.{name}", value, f"plugin_config.{name}" if name != "plugin" else name)
        for name, reason in left.items():
            self._leave(f"plugin_config.{name}", config[name], reason)

    def _first_plugins(self) -> None:
        plugin, size = self._theirs("plugin", "zero2"), self._theirs("sp_size", 1)
        values = first_parallel_of(plugin, size) if self.kind != "sample" else {}
        if values:
            self.read |= {"plugin", "sp_size"} if size in (1, values.get("sp_size")) else {"plugin"}
        for name, value in values.items():
            self._set(f"parallel.{name}", value, "sp_size" if name == "sp_size" else "plugin")

    def _wandb(self) -> None:
        if self._theirs("wandb", None) is False:
            self.read.add("wandb")
        if self.kind != "sample" and self._theirs("wandb", False) is True:
            self.read |= {"wandb", "wandb_project"}
            self._set("logging.wandb_project", self._theirs("wandb_project", "Open-Sora"), "wandb_project")

    def _validated(self) -> AnyRecipe:
        """Return the recipe; what its schema refuses is left out, with the schema's reason."""
        model = RECIPES[self.kind]
        while True:
            whole = _overlaid(defaults_of(model, self.values), self.values) | {"kind": self.kind}
            try:
                return model.model_validate(frozen(whole))
            except ValidationError as error:
                refused = {
                    self._set_here(found["loc"]): found["msg"] for found in reversed(error.errors(include_url=False))
                }
            for path, message in refused.items():
                self._refuse(path, message)

    def _set_here(self, location: tuple[Any, ...]) -> tuple[str, ...]:
        """Return the deepest key, of those set here, that an error's location leads to."""
        path: list[str] = []
        here: Any = self.values
        for part in location:
            if isinstance(here, Mapping) and str(part) in here:
                path.append(str(part))
                here = here[str(part)]
        assert path, f"the schema refuses its own default: {location}"
        return tuple(path)

    def _refuse(self, path: tuple[str, ...], message: str) -> None:
        """Take a key out again, with the schema's reason."""
        table: Any = self.values
        for part in path[:-1]:
            table = table[part]
        value, key = table.pop(path[-1]), ".".join(path)
        source = next((self.origin[k] + key[len(k) :] for k in self.origin if key == k or key.startswith(f"{k}.")), key)
        self._leave(source, value, f"`{key}` does not take it: {message}")

    def _compare(self, recipe: AnyRecipe) -> None:
        """Say where the config states again, differently, what osora derives or keeps constant."""
        fixed = {
            **constants(self.kind, families(as_toml(recipe)), self.tables, AUTOENCODER_TABLE[self.kind]),
            **derived(recipe),
        }
        for key, (value, reason) in fixed.items():
            stated = self._theirs(key, NOTHING)
            if stated is NOTHING:
                continue
            self.read.add(key)
            if stated != value and key != SAMPLING_SEED:
                shown = write_value(value) if value is not None else "unset"
                self._leave(key, stated, f"it follows, as {shown}, from {reason}" if key in derived(recipe) else reason)

    def _leave(self, key: str, value: Any, reason: str) -> None:
        self.read.add(key)
        self.leftovers[key] = Leftover(self.config.place(key), key, value, reason)

    def _theirs(self, key: str, otherwise: Any) -> Any:
        try:
            return look_up(self.config.values, key)
        except KeyError:
            return otherwise

    def _usual(self, key: str) -> Any:
        """Return osora's own default of a key, for the families chosen so far."""
        try:
            return look_up(defaults_of(RECIPES[self.kind], self.values), key)
        except KeyError:
            return None

    def _set(self, key: str, value: Any, source: str) -> None:
        *tables, name = key.split(".")
        target = self.values
        for table in tables:
            target = target.setdefault(table, {})
        target[name] = value
        self.origin[key] = source


def _says_nothing(value: Any) -> bool:
    """None counts as absent, and so does a size whose sides are None."""
    return value is None or (isinstance(value, list) and value != [] and all(item is None for item in value))


def _overlaid(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(weak)
    for name, value in strong.items():
        below = both.get(name)
        both[name] = _overlaid(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return both


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
