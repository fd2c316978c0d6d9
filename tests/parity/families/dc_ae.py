"""The deep-compression autoencoder: latents, reconstructions, intermediates of the last batch item, latent sizes.

Upstream decodes a last temporal tile of one latent frame as a picture and so returns too few frames. osora returns all:
what upstream has before that tile must be equal, and its one odd frame, of which mixing keeps only the old tile, must be
osora's last.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opensora_models.dc_ae.model import DCAE
from schemas.autoencoder.dc_ae import DCAEConfig, DCAEShape
from tests.parity.case import Case

SHARED = ("use_spatial_tiling", "use_temporal_tiling", "spatial_tile_size", "temporal_tile_size", "tile_overlap_factor")


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    ae = DCAE(dc_ae_config(case.info["ctor"]))
    ae.load_state_dict(case.weights())
    with torch.no_grad():
        got = _outputs(case, ae.eval())
    for name, want in case.outputs.items():
        value = got.get(name, f"{name} is nothing that the autoencoder has")
        frames = {"rec": got["z"], "rec_in": case.inputs["z_in"]}
        if isinstance(value, Tensor) and name in frames and _tail_is_a_picture(ae.config, frames[name].shape[2]):
            yield f"frames of {name}", value.shape[2], frames[name].shape[2] * ae.strides[0]
            yield name, torch.cat([value[:, :, : want.shape[2] - 1], value[:, :, -1:]], 2), want
        else:
            yield name, value, want
    if (case.path / "latent_size.json").is_file():
        for row in case.json("latent_size"):
            yield f"latent_size{row['input']}", list(ae.latent_size(*row["input"])), row["latent"]


def dc_ae_config(info: Mapping[str, Any]) -> DCAEConfig:
    """Return upstream's constructor arguments, encoder and decoder apart, as a config."""
    encoder, decoder = info["encoder"], info["decoder"]
    stages = len(encoder["width_list"])
    kinds = encoder["block_type"]
    lists = {
        "width_list": encoder["width_list"],
        "encoder_depth_list": encoder["depth_list"],
        "decoder_depth_list": decoder["depth_list"],
        "block_type": [kinds] * stages if isinstance(kinds, str) else kinds,
        "temporal_downsample": encoder["temporal_downsample"],
    }
    for one, other in (("width_list", "width_list"), ("block_type", "block_type"), ("is_video", "is_video")):
        assert encoder[one] == decoder[other], one
    assert encoder["temporal_downsample"] == decoder["temporal_upsample"]
    shape = DCAEShape.model_validate(
        {name: tuple(value) for name, value in lists.items()}
        | {"latent_channels": info["latent_channels"], "is_video": encoder["is_video"]}
        | {"downsample": encoder["downsample_block_type"], "upsample": decoder["upsample_block_type"]}
    )
    keys = {key: info[key] for key in SHARED if key in info}
    return DCAEConfig(model_name="custom", shape=shape, scaling_factor=info["scaling_factor"] or 1.0, **keys)


def _tail_is_a_picture(config: DCAEConfig, latent_frames: int) -> bool:
    """Whether the last temporal tile of a decoding is a single latent frame that another tile covers too."""
    tile = config.temporal_tile_size // config.time_compression_ratio
    stride = int(tile * (1 - config.tile_overlap_factor))
    last = latent_frames - (latent_frames - 1) // stride * stride
    return config.use_temporal_tiling and latent_frames > tile and last == 1 and stride < tile


def _outputs(case: Case, ae: DCAE) -> dict[str, Tensor]:
    x, z_in = case.inputs["x"], case.inputs["z_in"]
    seen: dict[str, Tensor] = {}
    handles = [
        _keep(ae.encoder.project_in, "mid.enc_project_in", seen),
        *(_keep(stage, f"mid.enc_stage{i}", seen) for i, stage in enumerate(ae.encoder.stages)),
        _keep(ae.decoder.project_in, "mid.dec_project_in", seen),
        *(_keep(stage, f"mid.dec_stage{i}", seen) for i, stage in enumerate(ae.decoder.stages)),
    ]
    z = ae.encode(x)
    rec = ae.decode(z)
    for handle in handles:
        handle.remove()
    return {**seen, "z": z, "rec": rec, "rec_in": ae.decode(z_in)}


def _keep(module: nn.Module, name: str, seen: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
    return module.register_forward_hook(lambda _module, _inputs, output: seen.update({name: output[-1:]}))
