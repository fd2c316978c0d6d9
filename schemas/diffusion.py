"""Diffusion processes: how noise and data are mixed, and which times are trained."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field

from schemas.base import Schema, cost

NUMERICS = cost("changes_numerics")


class DiffusionConfig(Schema):
    """Times are logit-normal, then shifted towards noise for larger and longer clips (SD3, section 5.3.2)."""

    type: Literal["rectified_flow"] = Field("rectified_flow", description="The diffusion process.")
    sigma_min: float = Field(
        1e-5,
        ge=0,
        lt=1,
        description="Share of the data left in pure noise (unitless).",
        json_schema_extra=NUMERICS,
    )
    guidance: float = Field(
        4.0,
        ge=0,
        description="Guidance scale fed to a model with guidance_embed while it trains.",
        json_schema_extra=NUMERICS,
    )


class TimestepFlowConfig(Schema):
    """Rectified flow of Open-Sora 1.2 and 1.3: times from 0 to num_timesteps, the model gives data - noise."""

    type: Literal["rflow"] = Field("rflow", description="The diffusion process.")
    num_timesteps: int = Field(1000, ge=1, description="The time of pure noise.", json_schema_extra=NUMERICS)
    use_discrete_timesteps: bool = Field(
        False, description="Train and sample at whole timesteps only.", json_schema_extra=NUMERICS
    )
    sample_method: Literal["uniform", "logit-normal"] = Field(
        "uniform", description="Distribution of the trained times.", json_schema_extra=NUMERICS
    )
    loc: float = Field(0.0, description="Mean of the normal in logit-normal (unitless).", json_schema_extra=NUMERICS)
    scale: float = Field(
        1.0,
        gt=0,
        description="Standard deviation of the normal in logit-normal (unitless).",
        json_schema_extra=NUMERICS,
    )
    use_timestep_transform: bool = Field(
        False, description="Shift times towards noise for larger and longer clips.", json_schema_extra=NUMERICS
    )
    transform: Literal["v1.2", "v1.3"] = Field(
        "v1.2",
        description="How that shift counts latent frames: 5 of 17 frames, or 1 of 4 after the first.",
        json_schema_extra=NUMERICS,
    )
    transform_scale: float = Field(
        1.0,
        gt=0,
        description="Factor on that shift (unitless); v1.2: in training only, v1.3: for clips, not images.",
        json_schema_extra=NUMERICS,
    )
    scale_temporal: bool = Field(
        True, description="Whether the shift of v1.3 grows with the frames.", json_schema_extra=NUMERICS
    )


class IDDPMConfig(Schema):
    """Improved DDPM (arXiv 2102.09672) of Open-Sora 1.0 and 1.1: times are the steps 0 to diffusion_steps - 1."""

    type: Literal["iddpm"] = Field("iddpm", description="The diffusion process.")
    diffusion_steps: int = Field(1000, ge=2, description="Noise levels.", json_schema_extra=NUMERICS)
    noise_schedule: Literal["linear", "squaredcos_cap_v2"] = Field(
        "linear", description="How the noise grows over the steps.", json_schema_extra=NUMERICS
    )
    timestep_respacing: str = Field(
        "",
        pattern=r"^(|ddim[1-9]\d*|[1-9]\d*(,[1-9]\d*)*)$",
        description="Steps that are used: a count for each equal section (`10,15,20`), or ddimN; empty uses all.",
        json_schema_extra=NUMERICS,
    )
    learn_sigma: bool = Field(
        True, description="The model gives the variance as well, in as many channels again.", json_schema_extra=NUMERICS
    )
    sigma_small: bool = Field(
        False, description="Without learn_sigma: the smaller of the two bounds.", json_schema_extra=NUMERICS
    )
    predict_xstart: bool = Field(
        False, description="The model gives the data rather than the noise.", json_schema_extra=NUMERICS
    )
    use_kl: bool = Field(
        False, description="Train on the variational bound alone, times the steps.", json_schema_extra=NUMERICS
    )
    rescale_learned_sigmas: bool = Field(
        False,
        description="Weigh the bound, which trains the variance, by the steps over 1000.",
        json_schema_extra=NUMERICS,
    )
    cfg_channel: int | None = Field(
        None,
        ge=1,
        description="Channels that guidance changes, from the first (Open-Sora 1.0: 3); unset: half of the model's.",
        json_schema_extra=NUMERICS,
    )
    clip_denoised: bool = Field(
        False, description="Clip the predicted data to [-1, 1] in sampling.", json_schema_extra=NUMERICS
    )
    ddim_eta: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of ddpm's noise that the ddim solver draws (unitless).",
        json_schema_extra=NUMERICS,
    )
    speed: bool = Field(
        False,
        description="Train times where the noise changes most, weighted, as SpeeD (arXiv 2405.17403).",
        json_schema_extra=NUMERICS,
    )


AnyDiffusion = Annotated[DiffusionConfig | TimestepFlowConfig | IDDPMConfig, Discriminator("type")]
"""How noise and clips are mixed; each family of denoisers was made for one or two of them."""
