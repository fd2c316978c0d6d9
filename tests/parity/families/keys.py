"""Real-size models on the meta device: names, shapes and buffers of their state dicts, and the parameter count."""

from collections.abc import Iterator

import torch
from torch import nn

from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.dc_ae.model import DCAE
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.mmdit.model import MMDiT
from schemas.autoencoder.autoencoder_2d import AutoEncoder2DConfig
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from schemas.denoiser.mmdit import MMDiTConfig
from tests.parity.case import Case, build_config
from tests.parity.families.autoencoder_2d import UNUSED
from tests.parity.families.dc_ae import dc_ae_config
from tests.parity.families.losses import build_discriminator
from tests.parity.runner import NotBuiltError


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    with torch.device("meta"):
        model = _build(case)
    state = model.state_dict()
    want = case.info["keys"]
    yield "missing keys", sorted(want.keys() - state.keys()), []
    yield "keys that should not be", sorted(state.keys() - want.keys()), []
    for key in want.keys() & state.keys():
        yield key, list(state[key].shape), want[key]
    yield "buffers", sorted(name for name, _ in model.named_buffers()), sorted(case.info["buffers"])
    yield "n_params", sum(parameter.numel() for parameter in model.parameters()), case.info["n_params"]


def _build(case: Case) -> nn.Module:
    """Return the model, told by what only its constructor knows."""
    info = case.info["info"]
    if "depth_single_blocks" in info:
        return MMDiT(build_config(MMDiTConfig, info, ignore=["cache_dir", "note"]))
    if "layers_per_block" in info or case.name.startswith("hunyuan_vae"):
        return HunyuanVAE(build_config(HunyuanVAEConfig, info, ignore=["cache_dir", "note"]))
    if "width_list" in info.get("encoder", {}):
        return DCAE(dc_ae_config(info))
    if "z_channels" in info:
        return AutoEncoder2D(build_config(AutoEncoder2DConfig, info, ignore=UNUSED))
    if "conv_cls" in info:
        return build_discriminator(info)
    raise NotBuiltError(f"osora builds no {case.name}")
