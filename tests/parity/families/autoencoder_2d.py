"""The image autoencoder: latents, moments, KL of every frame, reconstruction, intermediates."""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_models.autoencoder_2d.model import AutoEncoder2D
from opensora_models.layers.posterior import DiagonalGaussian
from schemas.autoencoder.autoencoder_2d import AutoEncoder2DConfig
from tests.parity.case import Case, build_config

UNUSED = ("resolution", "sample", "cache_dir")
SAMPLING_SEED = 77


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    ae = AutoEncoder2D(build_config(AutoEncoder2DConfig, case.info["ctor"], ignore=UNUSED))
    ae.load_state_dict(case.weights())
    got = {name: value.detach() for name, value in _outputs(case, ae.eval()).items()}
    for name, want in case.outputs.items():
        yield name, got.get(name, f"{name} is nothing that the autoencoder has"), want
    if "eps" in case.inputs:
        eps = torch.randn(case.inputs["eps"].shape, generator=torch.Generator().manual_seed(SAMPLING_SEED))
        yield "eps", eps, case.inputs["eps"]
    with torch.no_grad():
        yield "frame by frame", ae.decode(got["z"]), case.outputs["rec"]


def _outputs(case: Case, ae: AutoEncoder2D) -> dict[str, Tensor]:
    """Run with gradients: all frames pass at once, as upstream's do, so that intermediates have upstream's shape."""
    x, z_in = case.inputs["x"], case.inputs["z_in"]
    seen: dict[str, Tensor] = {}
    handles = [
        *(_keep(level, f"mid.enc_down{i}", seen) for i, level in enumerate(ae.encoder.down)),
        _keep(ae.encoder.mid.attn_1, "mid.enc_attn", seen),
        _keep(ae.encoder.mid, "mid.enc_mid", seen),
        _keep(ae.decoder.mid, "mid.dec_mid_of_z", seen),
        *(_keep(level, f"mid.dec_up{i}_of_z", seen) for i, level in enumerate(ae.decoder.up)),
    ]
    posterior = ae.posterior(x)
    z = ae.encode(x)
    rec = ae.decode(z)
    for handle in handles:
        handle.remove()
    frames = rearrange(posterior.moments, "b c t h w -> (b t) c 1 h w")
    named = {"z": z, "moments": posterior.moments, "kl": DiagonalGaussian(frames).kl(), "rec": rec}
    sampled = ae.encode(x, torch.Generator().manual_seed(SAMPLING_SEED))
    return {**seen, **named, "z_sampled": sampled, "rec_in": ae.decode(z_in)}


def _keep(module: nn.Module, name: str, seen: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
    return module.register_forward_hook(lambda _module, _inputs, output: seen.update({name: output.clone()}))
