"""Loading weights tensor by tensor, so that a model is never there twice, nor in a precision that is not wanted."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from opensora_models.hub import local_path
from opensora_models.layers.float8_linear import Float8Linear
from opensora_models.weight_headers import read_headers
from opensora_models.weights import check_fit, explained_damage, read_weights, weight_files

SCALES = "*.weight_scale"
"""What layers with 8-bit weights add to the keys of a file."""


def stream_weights(path: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (key, tensor) of the weights at `path`; of safetensors one tensor is read at a time. Raises OsoraError."""
    for file in weight_files(local_path(path))[0]:
        if file.suffix == ".safetensors":
            with explained_damage(file), safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 (not a mapping)
                    yield key, opened.get_tensor(key)
        else:
            yield from read_weights(file).items()


@torch.no_grad()
def fill(module: nn.Module, tensors: Iterable[tuple[str, Tensor]], path: str | Path, device: torch.device) -> None:
    """Copy (key, tensor) of the weights at `path` into `module`, whose memory is there; 8-bit layers quantise on `device`.

    As strict as `load_weights`, and before the first tensor is read. Raises OsoraError where the weights do not fit.
    """
    shapes = {key: torch.empty(header.shape, device="meta") for key, header in read_headers(path).items()}
    check_fit(module, shapes, path, allow_missing=[SCALES])
    own = module.state_dict()
    for key, tensor in tensors:
        owner, _, name = key.rpartition(".")
        layer = module.get_submodule(owner)
        if isinstance(layer, Float8Linear) and name == "weight":
            layer.store(tensor.to(device))
        else:
            own[key].copy_(tensor)
