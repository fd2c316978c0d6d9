"""The causal video autoencoder: latents, moments, KL, reconstruction, intermediates, latent sizes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from opensora_models.hunyuan_vae.model import HunyuanVAE
from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig
from tests.parity.case import Case, build_config

SAMPLING_SEED = 123


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    vae = build_vae(case)
    got = {name: value.detach() for name, value in _outputs(case, vae).items()}
    for name, want in case.outputs.items():
        yield name, got.get(name, f"{name} is nothing that the autoencoder has"), want
    with torch.no_grad():  # in parts, as everything but training does it
        yield "moments in parts", vae.posterior(case.inputs["x"]).moments, case.outputs["moments"]
        yield "rec in parts", vae.decode(got["z"]), case.outputs["rec"]
        yield "rec_in in parts", vae.decode(case.inputs["z_in"]), case.outputs["rec_in"]
    if "eps" in case.inputs:
        generator = torch.Generator().manual_seed(SAMPLING_SEED)
        yield "eps", torch.randn(case.inputs["eps"].shape, generator=generator), case.inputs["eps"]
    if (case.path / "latent_size.json").is_file():
        for row in case.json("latent_size"):
            yield f"latent_size{row['input']}", list(vae.latent_size(*row["input"])), row["latent"]


def build_vae(case: Case) -> HunyuanVAE:
    """Return the autoencoder of a case, with its weights loaded strictly."""
    vae = HunyuanVAE(build_config(HunyuanVAEConfig, case.info["ctor"], ignore=["cache_dir"]))
    vae.load_state_dict(case.weights())
    return vae.eval()


def _outputs(case: Case, vae: HunyuanVAE) -> dict[str, Tensor]:
    x, z_in = case.inputs["x"], case.inputs["z_in"]
    seen: dict[str, Tensor] = {}
    handles = [
        _keep(vae.encoder.conv_in, "mid.enc_conv_in", seen),
        *(_keep(block, f"mid.enc_down{i}", seen) for i, block in enumerate(vae.encoder.down_blocks)),
        *(_keep(block, f"mid.enc_down_m{4 - i}", seen) for i, block in enumerate(vae.encoder.down_blocks)),
        _keep(vae.encoder.mid_block, "mid.enc_mid_block", seen),
        _keep(vae.encoder, "mid.enc_out", seen),
        _keep(vae.decoder.mid_block, "mid.dec_mid_block_of_z", seen),
        *(_keep(block, f"mid.dec_up{i}_of_z", seen) for i, block in enumerate(vae.decoder.up_blocks)),
    ]
    posterior = vae.posterior(x)
    z = vae.encode(x)
    rec = vae.decode(z)
    for handle in handles:
        handle.remove()
    sampled = vae.encode(x, torch.Generator().manual_seed(SAMPLING_SEED))
    named = {"z": z, "moments": posterior.moments, "kl": posterior.kl(), "z_sampled": sampled, "rec": rec}
    return {**seen, **named, "rec_in": vae.decode(z_in)}


def _keep(module: nn.Module, name: str, seen: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
    return module.register_forward_hook(lambda _module, _inputs, output: seen.update({name: output}))
