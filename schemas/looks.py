"""Looks at a run while it trains: clips that it never trains on, and samples of a few prompts."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema
from schemas.sampling import SamplingConfig


class ValidationConfig(Schema):
    """Clips that are not trained on, looked at while training."""

    data_path: str | None = Field(
        None, description="csv or parquet as dataset.data_path; cut by the same buckets. Unset looks at none."
    )
    every: int = Field(500, ge=1, description="Updates between looks.")
    num_samples: int = Field(8, ge=1, description="Clips to look at; they stay in memory.")
    ema: bool = Field(False, description="Look with the averaged weights instead of the trained ones.")


class DenoiserValidationConfig(ValidationConfig):
    """Clips that are not trained on: the loss of each at fixed times, with fixed noise."""

    time_bins: int = Field(
        4,
        ge=1,
        le=100,
        description="Equal parts of the times from 0 (the clip) to 1 (noise); one loss in the middle of each.",
    )


class TrainingSamplesConfig(Schema):
    """What the model in training makes of a few prompts, as a picture."""

    prompts: tuple[str, ...] = Field((), description="What to make, one clip each; empty makes none.")
    every: int = Field(500, ge=1, description="Updates between looks.")
    resolution: str = Field("256px", description="Pixel budget: 256px, 480p, ...")
    aspect_ratio: str = Field("16:9", description="Width:height; the nearest size of the resolution's table is taken.")
    num_frames: int = Field(33, ge=1, description="Frames to make: 4k+1 with a causal autoencoder.")
    num_steps: int = Field(20, ge=1, description="Steps of Euler's method.")
    guidance: float = Field(7.5, ge=0, description="Scale of the text guidance.")
    fps_save: int = Field(24, ge=1, description="Frames per second that are written behind the prompt.")
    motion_score: Literal["1", "2", "3", "4", "5", "6", "7", "none"] = Field(
        "4", description="Motion score written behind the prompt, 1 (still) to 7; none writes neither it nor the rate."
    )
    seed: int = Field(42, ge=0, lt=2**63, description="Seed of the first prompt's noise; prompt i uses seed + i.")
    ema: bool = Field(False, description="Sample with the averaged weights instead of the trained ones.")

    def sampling(self) -> SamplingConfig:
        """Return the same as `osora sample` has it, without image guidance."""
        shared = self.model_dump(exclude={"prompts", "every", "ema"})
        return SamplingConfig.model_validate(shared)
