"""A golden case: one folder with `case.json` and tensors, or one file of `keys/`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from torch import Tensor

from schemas.base import Schema

S = TypeVar("S", bound=Schema)


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed error: `atol + rtol * |want|`."""

    atol: float
    rtol: float


@dataclass
class Case:
    """Everything one case holds, read when it is asked for.

    `path` is the case's folder, or the json file of a key list; `root` is the data root that `weights_from` starts at.
    """

    path: Path
    root: Path
    family: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.family = self.path.parent.name
        self.name = self.path.stem if self.path.is_file() else self.path.name

    @cached_property
    def info(self) -> dict[str, Any]:
        source = self.path if self.path.is_file() else self.path / "case.json"
        return json.loads(source.read_text(encoding="utf-8"))

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self._tensors("inputs.safetensors")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return self._tensors("outputs.safetensors")

    @property
    def tolerance(self) -> Tolerance:
        return Tolerance(self.info.get("atol", 0.0), self.info.get("rtol", 0.0))

    def weights(self, of: str | None = None) -> dict[str, Tensor]:
        """Return the case's own state dict, or that of the case it names in `weights_from`.

        `of` picks one by its family (the folder's name) where `weights_from` lists several.
        Raises ValueError where no weights, or more than one set, answer.
        """
        own = self.path / "weights.safetensors"
        if of is None and own.is_file():
            return load_file(own)
        source = self.weight_source(of)
        return load_file(source.path / "weights.safetensors")

    def weight_source(self, of: str | None = None) -> "Case":
        """Return the case that the weights come from: its `info` has the constructor's arguments."""
        listed = self.info.get("weights_from", [])
        sources = [Case(self.root / name, self.root) for name in ([listed] if isinstance(listed, str) else listed)]
        fitting = [source for source in sources if of is None or of in (source.family, source.name)]
        if len(fitting) != 1:
            names = ", ".join(f"{source.family}/{source.name}" for source in sources) or "nothing"
            raise ValueError(f"{self.path}: weights_from lists {names}; of={of!r} fits {len(fitting)} of them, not one")
        return fitting[0]

    def json(self, name: str) -> Any:
        """Return an extra table of the case: `latent_size` reads latent_size.json."""
        return json.loads((self.path / f"{name.removesuffix('.json')}.json").read_text(encoding="utf-8"))

    def _tensors(self, name: str) -> dict[str, Tensor]:
        path = self.path / name
        return load_file(path) if path.is_file() else {}


def build_config(schema: type[S], table: Mapping[str, Any], ignore: Iterable[str] = ()) -> S:
    """Return `table` (constructor arguments as JSON) as a config; unknown keys are errors unless `ignore` names them."""
    known = {key: value for key, value in table.items() if key not in set(ignore)}
    return schema.model_validate(
        {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    )
