"""The layers that the families of Open-Sora 1.x share."""

import re
from collections.abc import Iterator

from torch import Tensor, nn

from opensora_models.layers.embedders import CaptionEmbedder, LabelEmbedder, SizeEmbedder, timestep_features
from opensora_models.layers.position_tables import coordinates, sincos_1d, sincos_2d
from tests.parity.case import Case


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    got = _CASES[next(name for name in _CASES if case.name.startswith(name))](case)
    for name, want in case.outputs.items():
        yield name, got.get(name, f"{name} is nothing that the layer has"), want


def _tables(case: Case) -> dict[str, Tensor]:
    """Return the tables that the case's `call` describes: numbered grids, then lengths of time."""
    space, _, time = case.info["call"].partition("time:")
    tables: dict[str, Tensor] = {}
    for number, entry in re.findall(r"(\d+):\(([^)]*)\)", space):
        rows, columns, scale, base_size = (None if value == "None" else float(value) for value in entry.split(","))
        base = None if base_size is None else int(base_size)
        tables[f"static{number}"] = sincos_2d(_dim(space), int(rows), int(columns), scale, base)
        tables[f"dyn{number}"] = tables[f"static{number}"][None]
    for number, (length, scale) in enumerate(re.findall(r"\(([\d.]+),([\d.]+)\)", time)):
        tables[f"time{number}"] = sincos_1d(_dim(time), coordinates(int(length), float(scale)))
    return tables


def _dim(call: str) -> int:
    return int(re.search(r"dim (\d+)", call)[1])


def _caption(case: Case) -> dict[str, Tensor]:
    ctor = case.info["ctor"]
    layer = loaded(CaptionEmbedder(ctor["in_channels"], ctor["hidden_size"], ctor["token_num"]), case)
    text_BLD, drop_B = case.inputs["y"][:, 0], case.inputs["drop_ids"].bool()
    return {"out": layer(text_BLD, drop_B)[:, None], "out_nodrop": layer(text_BLD)[:, None]}


def _label(case: Case) -> dict[str, Tensor]:
    ctor = case.info["ctor"]
    layer = loaded(LabelEmbedder(ctor["num_classes"], ctor["hidden_size"], ctor["dropout_prob"] > 0), case)
    return {"out": layer(case.inputs["labels"], case.inputs["drop_ids"].bool())}


def _size(case: Case) -> dict[str, Tensor]:
    layer = loaded(SizeEmbedder(case.info["ctor"]["hidden_size"]), case)
    sizes_BN = case.inputs["s"]
    rows = len(case.outputs["out"])
    return {"out": layer(sizes_BN.repeat(rows // len(sizes_BN), 1))}


def _timestep(case: Case) -> dict[str, Tensor]:
    return {name: timestep_features(case.inputs["t"], int(name.removeprefix("e"))) for name in case.outputs}


_CASES = {
    "caption_embedder": _caption,
    "label_embedder": _label,
    "position_tables": _tables,
    "size_embedder": _size,
    "timestep_embedding": _timestep,
}


def loaded(layer: nn.Module, case: Case) -> nn.Module:
    """Return the layer with the case's weights."""
    layer.load_state_dict(case.weights())
    return layer.eval()
