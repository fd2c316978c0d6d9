"""The autoencoders of Open-Sora 1.x: pictures, along time, both in turn, and Stable Video Diffusion's."""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from opensora_models.autoencoder_kl.model import AutoencoderKL, AutoencoderKLTemporalDecoder
from opensora_models.autoencoder_kl.weights import own_key
from opensora_models.build import build_autoencoder
from opensora_models.layers.posterior import DiagonalGaussian
from opensora_models.open_sora_vae.model import OpenSoraVAE
from opensora_models.open_sora_vae.temporal import VAETemporal
from schemas.autoencoder import (
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    OpenSoraVAEConfig,
    VAETemporalConfig,
)
from schemas.autoencoder.open_sora_vae import ByChannel
from tests.parity.case import Case, build_config

OF_DIFFUSERS = ("down_block_types", "up_block_types", "sample_size", "act_fn", "scaling_factor", "force_upcast")
OF_TEMPORAL = ("activation_fn",)
ALL_FRAMES = 1024
"""micro_batch_size = null."""
Checks = Iterator[tuple[str, object, object]]


def checks(case: Case) -> Checks:
    ctor = case.info["ctor"]
    if (case.path / "latent_size.json").is_file():
        yield from _latent_sizes(case)
    elif "AutoencoderKLTemporalDecoder" in ctor:
        yield from _temporal_decoder(case, ctor["AutoencoderKLTemporalDecoder"])
    elif "vae_temporal" in ctor:
        yield from _pipeline(case, ctor)
    elif "AutoencoderKL" in ctor:
        yield from _pictures(case, ctor)
    else:
        yield from _temporal(case, ctor)


def _pictures_config(ctor: dict[str, Any]) -> AutoencoderKLConfig:
    portion = {"micro_batch_size": ctor["micro_batch_size"] or ALL_FRAMES}
    return build_config(AutoencoderKLConfig, ctor["AutoencoderKL"] | portion, ignore=OF_DIFFUSERS)


def _pictures(case: Case, ctor: dict[str, Any]) -> Checks:
    ae = AutoencoderKL(_pictures_config(ctor))
    ae.load_state_dict({own_key(key): tensor for key, tensor in case.weights().items()})
    for name, gradients in (("", False), (" with gradients", True)):
        with torch.set_grad_enabled(gradients):
            yield from _encoding_of_pictures(case, ae, name)
            yield f"decoded{name}", ae.decode(case.inputs["z"]), case.outputs["decoded"]


def _encoding_of_pictures(case: Case, ae: AutoencoderKL, name: str) -> Checks:
    posterior = ae.posterior(case.inputs["x"])
    yield f"encoded{name}", _drawn_pictures(ae, case.inputs["x"], case.inputs["noise"]), case.outputs["encoded"]
    yield f"moments_mean{name}", _in_a_row(posterior.mean), case.outputs["moments_mean"]
    yield f"moments_logvar{name}", _in_a_row(posterior.logvar), case.outputs["moments_logvar"]


def _drawn_pictures(ae: AutoencoderKL, x_BCTHW: Tensor, noise_NCHW: Tensor) -> Tensor:
    """Return scaled latents with the noise that upstream drew."""
    posterior = ae.posterior(x_BCTHW)
    noise = rearrange(noise_NCHW, "(b t) c h w -> b c t h w", b=len(x_BCTHW))
    moments = torch.cat([posterior.mean + posterior.std * noise, torch.zeros_like(noise)], 1)
    return ae.latents(moments)


def _in_a_row(x_BCTHW: Tensor) -> Tensor:
    return rearrange(x_BCTHW, "b c t h w -> (b t) c h w")


def _temporal_decoder(case: Case, ctor: dict[str, Any]) -> Checks:
    ae = AutoencoderKLTemporalDecoder(build_config(AutoencoderKLTemporalDecoderConfig, ctor, ignore=OF_DIFFUSERS))
    left = ae.load_state_dict({own_key(key): tensor for key, tensor in case.weights().items()}, strict=False)
    yield "keys", [key for key in left.missing_keys if not key.startswith("encoder.")] + left.unexpected_keys, []
    with torch.no_grad():
        yield "decoded", ae.decode(case.inputs["z"]), case.outputs["decoded"]


def _temporal(case: Case, ctor: dict[str, Any]) -> Checks:
    ae = VAETemporal(build_config(VAETemporalConfig, ctor, ignore=OF_TEMPORAL))
    ae.load_state_dict(case.weights())
    with torch.no_grad():
        for name in _lengths(case):
            posterior = ae.posterior(case.inputs[f"{name}.x"])
            got = {
                "mean": posterior.mean,
                "logvar": posterior.logvar,
                "kl": posterior.kl(),
                "sample": posterior.mean + posterior.std * case.inputs[f"{name}.noise"],
                "decoded": ae.decode(case.inputs[f"{name}.z"], num_frames=case.inputs[f"{name}.x"].shape[2]),
            }
            for output, value in got.items():
                yield f"{name}.{output}", value, case.outputs[f"{name}.{output}"]


def _pipeline(case: Case, ctor: dict[str, Any]) -> Checks:
    config = OpenSoraVAEConfig(
        vae_2d=_pictures_config(ctor),
        vae_temporal=build_config(VAETemporalConfig, ctor["vae_temporal"], ignore=OF_TEMPORAL),
        micro_frame_size=ctor["micro_frame_size"] or "whole",
        shift=_by_channel(ctor["shift"]),
        scale=_by_channel(ctor["scale"]),
    )
    ae = build_autoencoder(config)
    assert isinstance(ae, OpenSoraVAE)
    ae.load_state_dict({ae.own_key(key): tensor for key, tensor in case.weights().items()})
    with torch.no_grad():
        for name in _lengths(case):
            x = case.inputs[f"{name}.x"]
            yield f"{name}.encoded", _drawn(ae, case, name), case.outputs[f"{name}.encoded"]
            decoded = ae.decode(case.inputs[f"{name}.z"], num_frames=x.shape[2])
            yield f"{name}.decoded", decoded, case.outputs[f"{name}.decoded"]
            yield f"{name}.latent_size", list(ae.latent_size(*x.shape[2:])), list(case.inputs[f"{name}.z"].shape[2:])


def _drawn(ae: OpenSoraVAE, case: Case, name: str) -> Tensor:
    pictures = ae.spatial_vae.module
    assert isinstance(pictures, AutoencoderKL)
    posterior: DiagonalGaussian = ae.posterior_of(
        _drawn_pictures(pictures, case.inputs[f"{name}.x"], case.inputs[f"{name}.noise2d"])
    )
    noise = case.inputs[f"{name}.noiset"]
    return ae.latents(torch.cat([posterior.mean + posterior.std * noise, torch.zeros_like(noise)], 1))


def _latent_sizes(case: Case) -> Checks:
    with torch.device("meta"):
        ae = build_autoencoder(OpenSoraVAEConfig())
    for given, wanted in case.json("latent_size"):
        # An axis that is not known upstream stays unknown; the others do not depend on it.
        got = ae.latent_size(*(1 if axis is None else axis for axis in given))
        known = [None if axis is None else value for axis, value in zip(given, got, strict=True)]
        yield f"latent_size{given}", known, wanted


def _lengths(case: Case) -> list[str]:
    return sorted({key.split(".")[0] for key in case.inputs})


def _by_channel(value: float | list[float]) -> ByChannel:
    return tuple(map(float, value)) if isinstance(value, list) else float(value)
