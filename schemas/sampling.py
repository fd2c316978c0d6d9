"""Sampling: size, steps, guidance and output of a generated clip."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost
from schemas.condition import ConditionName

NUMERICS = cost("changes_numerics")
BOTH = cost("changes_numerics", "changes_memory")


class SamplingConfig(Schema):
    """Euler steps over a shifted schedule, guided by text and by image."""

    resolution: str | None = Field(
        "256px",
        description="Pixel budget: 256px, 480p, 768px, ...; unset when height and width are given.",
        json_schema_extra=BOTH,
    )
    aspect_ratio: str = Field(
        "16:9",
        description="Width:height; the nearest size of the resolution's table is taken.",
        json_schema_extra=NUMERICS,
    )
    height: int | None = Field(
        None, ge=16, description="Pixels; goes with width, and takes the place of resolution.", json_schema_extra=BOTH
    )
    width: int | None = Field(None, ge=16, description="Pixels; goes with height.", json_schema_extra=BOTH)
    num_frames: int = Field(
        129, ge=1, description="Frames to make: 4k+1 with a causal autoencoder.", json_schema_extra=BOTH
    )
    num_steps: int = Field(50, ge=1, description="Steps of the solver.", json_schema_extra=NUMERICS)
    guidance: float = Field(7.5, ge=0, description="Scale of the text guidance.", json_schema_extra=NUMERICS)
    guidance_img: float = Field(3.0, ge=0, description="Scale of the image guidance.", json_schema_extra=NUMERICS)
    text_osci: bool = Field(
        True, description="From step 10 on, use text scale 1 on every second step.", json_schema_extra=NUMERICS
    )
    image_osci: bool = Field(
        True, description="From step 10 on, use image scale 1 on every second step.", json_schema_extra=NUMERICS
    )
    scale_temporal_osci: bool = Field(
        True, description="Let the image scale grow over the frames, from 1 at the first.", json_schema_extra=NUMERICS
    )
    shift: bool = Field(
        True, description="Shift the schedule towards noise for larger and longer clips.", json_schema_extra=NUMERICS
    )
    flow_shift: float | None = Field(
        None,
        gt=0,
        description="Shift of the schedule (unitless, 1 is none); unset takes it from the clip's size.",
        json_schema_extra=NUMERICS,
    )
    offload: Literal["none", "model", "block"] = Field(
        "none",
        description="What waits in host memory: nothing, the models that are not at work, or the blocks too.",
        json_schema_extra=cost("changes_memory"),
    )
    fp8_weights: bool = Field(
        False,
        description="Keep the denoiser's matrices in 8-bit floats and multiply in dtype.",
        json_schema_extra=BOTH,
    )
    cond_type: ConditionName = Field(
        "t2v", description="Which frames come from a reference.", json_schema_extra=NUMERICS
    )
    seed: int = Field(
        42, ge=0, description="Seed of the first sample's noise; sample i uses seed + i.", json_schema_extra=NUMERICS
    )
    num_samples: int = Field(1, ge=1, description="Samples per prompt.")
    batch_size: int = Field(1, ge=1, description="Prompts denoised together.", json_schema_extra=cost("changes_memory"))
    fps_save: int = Field(24, ge=1, description="Frames per second of the written file.")
    motion_score: Literal["1", "2", "3", "4", "5", "6", "7", "none"] = Field(
        "4",
        description="Motion score written behind the prompt, 1 (still) to 7; none writes none.",
        json_schema_extra=NUMERICS,
    )
    save_dir: str = Field("samples", description="Folder for the results.")
