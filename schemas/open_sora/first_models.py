"""The models of Open-Sora 1.x: what each name stands for here, and which keys of its table are which of osora's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.denoiser import (
    DiTConfig,
    LatentDenoiser,
    LatteConfig,
    PixArtConfig,
    STDiT2Config,
    STDiT3Config,
    STDiTConfig,
)
from schemas.open_sora.pairs import ANY_FRAMES, PLACEHOLDER, Pair, optional


@dataclass(frozen=True)
class Named:
    """A family, what a name says of it beyond the family's defaults, and upstream's defaults that are not osora's."""

    config: type[LatentDenoiser]
    values: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    diffusion: str = "iddpm"
    """What it was published with, where a config names no scheduler."""

    @property
    def family(self) -> str:
        """The family's `type`."""
        return str(self.config.model_fields["type"].default)


WIDE = {"hidden_size": 1872, "num_heads": 26}
IN_TIME = {"patch_size": [2, 2, 2]}
DENOISERS: Mapping[str, Named] = {
    "STDiT-XL/2": Named(STDiTConfig),
    "STDiT2-XL/2": Named(STDiT2Config, defaults={"qk_norm": False, "input_sq_size": 32}),
    "STDiT3-XL/2": Named(STDiT3Config, diffusion="rflow"),
    "STDiT3-3B/2": Named(STDiT3Config, WIDE, diffusion="rflow"),
    "DiT-XL/2": Named(DiTConfig),
    "DiT-XL/2x2": Named(DiTConfig, IN_TIME),
    "Latte-XL/2": Named(LatteConfig),
    "Latte-XL/2x2": Named(LatteConfig, IN_TIME),
    "PixArt-XL/2": Named(PixArtConfig),
    "PixArt-1B/2": Named(PixArtConfig, WIDE),
    "PixArtMS-XL/2": Named(PixArtConfig, {"multi_scale": True}),
}
"""`model.type` -> the denoiser."""
AUTOENCODERS: Mapping[str, Mapping[str, Any]] = {
    "VideoAutoencoderKL": {"type": "autoencoder_kl"},
    "VideoAutoencoderKLTemporalDecoder": {"type": "autoencoder_kl_temporal_decoder"},
    "OpenSoraVAE_V1_2": {"type": "open_sora_vae"},
    "VideoAutoencoderPipeline": {"type": "open_sora_vae", "micro_frame_size": "whole", "shift": 0.0, "scale": 1.0},
}
"""`vae.type`, or `model.type` of a config that trains one -> [ae]."""
STAGES: Mapping[str, Mapping[str, str]] = {
    "vae_2d": {"VideoAutoencoderKL": "autoencoder_kl"},
    "vae_temporal": {"VAE_Temporal_SD": "vae_temporal"},
}
"""Tables of a VideoAutoencoderPipeline: their `type`, and that of osora's."""
SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    "iddpm": {"type": "iddpm"},
    "iddpm-speed": {"type": "iddpm", "speed": True},
    "dpm-solver": {"type": "iddpm"},
    "rflow": {"type": "rflow"},
}
"""`scheduler.type` -> [diffusion]."""
SOLVERS = {"iddpm": "ddpm", "iddpm-speed": "ddpm", "dpm-solver": "dpmpp_2m", "rflow": "euler"}
"""`scheduler.type` -> sampling.solver."""
STARTS_ANEW: Mapping[str, tuple[str, list[str]]] = {
    "stdit": ("PixArt-", ["blocks.*.attn_temp.*"]),
    "stdit2": ("PixArt-", ["*_temp*", "[acf]*_embedder.*"]),
    "stdit3": ("PixArt-", ["temporal_blocks.*", "fps_embedder.*"]),
    "dit": ("DiT-XL-2-", ["y_embedder.*"]),
}
"""Family -> how the published weights of an image model are called, and the keys that they lack."""
IDDPM = (
    "diffusion_steps",
    "noise_schedule",
    "timestep_respacing",
    "learn_sigma",
    "sigma_small",
    "predict_xstart",
    "use_kl",
    "rescale_learned_sigmas",
    "cfg_channel",
)
RFLOW = (
    "num_timesteps",
    "use_discrete_timesteps",
    "sample_method",
    "loc",
    "scale",
    "use_timestep_transform",
    "transform_scale",
)


def denoiser_pairs(name: str) -> Iterator[Pair]:
    """Yield the pairs of `model`: every key of the family's is upstream's of the same name."""
    named = DENOISERS.get(name)
    if named is None:
        return
    yield Pair("model.from_pretrained", "model.from_pretrained", conversion=PLACEHOLDER)
    own = set(LatentDenoiser.model_fields) | set(named.config.model_fields)
    for key in sorted(own - {"type", "from_pretrained", "allow_missing"}):
        if key in named.defaults:
            yield optional(f"model.{key}", f"model.{key}", named.defaults[key])
        else:
            yield Pair(f"model.{key}", f"model.{key}")


def autoencoder_pairs(name: str, table: str) -> Iterator[Pair]:
    """Yield the pairs of an autoencoder's table."""
    pictures = "ae.vae_2d." if AUTOENCODERS.get(name, {}).get("type") == "open_sora_vae" else "ae."
    if name in AUTOENCODERS:
        yield Pair(f"{table}.from_pretrained", "ae.from_pretrained")
        yield Pair(f"{table}.micro_batch_size", f"{pictures}micro_batch_size")
    if pictures == "ae.vae_2d.":
        yield Pair(f"{table}.micro_frame_size", "ae.micro_frame_size", conversion=ANY_FRAMES)
        yield Pair(f"{table}.freeze_vae_2d", "ae.freeze_vae_2d")
        yield Pair(f"{table}.shift", "ae.shift")
        yield Pair(f"{table}.scale", "ae.scale")
        yield Pair(f"{table}.vae_2d.from_pretrained", "ae.vae_2d.from_pretrained")
        yield Pair(f"{table}.vae_2d.micro_batch_size", "ae.vae_2d.micro_batch_size")
        yield Pair(f"{table}.vae_temporal.from_pretrained", "ae.vae_temporal.from_pretrained")


def text_pairs(kind: str, name: str) -> Iterator[Pair]:
    """Yield the pairs of `text_encoder`; a denoiser with a learned empty caption has as many tokens of it."""
    if kind not in ("t5", "clip"):
        return
    yield Pair("text_encoder.from_pretrained", f"text.{kind}.from_pretrained")
    yield Pair("text_encoder.model_max_length", f"text.{kind}.max_length")
    yield optional("text_encoder.shardformer", f"text.{kind}.shardformer", False)
    named = DENOISERS.get(name)
    if named is not None and "model_max_length" in named.config.model_fields:
        yield Pair("text_encoder.model_max_length", "model.model_max_length")


def scheduler_pairs(name: str) -> Iterator[Pair]:
    """Yield the pairs of `scheduler` that are about the diffusion process."""
    process = SCHEDULERS.get(name, {}).get("type")
    for key in {"iddpm": IDDPM, "rflow": RFLOW}.get(str(process), ()):
        yield Pair(f"scheduler.{key}", f"diffusion.{key}")


def allow_missing(name: str, source: Any, condition: Any) -> list[str]:
    """Return what starts anew where Open-Sora starts from an image model's weights, which it loads without looking."""
    if name not in DENOISERS:
        return []
    called, keys = STARTS_ANEW.get(DENOISERS[name].family, ("", []))
    of_classes = str(condition or "text").startswith("label_")  # a DiT of classes lacks nothing
    return keys if called and str(source).rsplit("/", 1)[-1].startswith(called) and not of_classes else []
