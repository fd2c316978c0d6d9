"""The complete recipe documents, told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.autoencoder import AutoencoderConfig
from schemas.base import Schema, cost
from schemas.checkpoint import CheckpointConfig, LoggingConfig
from schemas.condition import ConditionWeights
from schemas.data import BucketTable, DatasetConfig
from schemas.denoiser import DenoiserConfig
from schemas.diffusion import DiffusionConfig
from schemas.memory import MemoryConfig
from schemas.optim import OptimConfig
from schemas.sampling import SamplingConfig
from schemas.text import DropoutRatio, TextConfig
from schemas.vae_loss import VaeLossConfig


class Recipe(Schema):
    """What every recipe has."""

    schema_version: Literal[1] = Field(1, description="Version of the recipe language.")
    kind: str = Field(description="What this recipe does.")
    dtype: Literal["bf16", "fp32"] = Field(
        "bf16",
        description="Precision of the matrix products.",
        json_schema_extra=cost("changes_numerics", "changes_memory"),
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a CUDA GPU where there is one.")


class RunRecipe(Recipe):
    """What every kind of training has."""

    seed: int = Field(
        42,
        ge=0,
        description="Seed of every draw of the run.",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )
    outputs: str = Field("outputs", description="Folder that holds the run folders.")
    epochs: int = Field(1, ge=1, description="Passes over the data; max_steps may end the run before.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer updates after which the run ends; unset leaves it to epochs."
    )
    dataset: DatasetConfig = Field(DatasetConfig(), description="The clips.")
    buckets: BucketTable = Field(
        {},
        description="resolution -> frames -> [keep probability, batch size].",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    optim: OptimConfig = Field(OptimConfig(), description="Optimizer and schedule.")
    memory: MemoryConfig = Field(MemoryConfig(), description="Activation checkpointing.")
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="When and how to save.")
    logging: LoggingConfig = Field(LoggingConfig(), description="What is written while training.")
    ae: AutoencoderConfig = Field(AutoencoderConfig(), description="The autoencoder.")


class TrainRecipe(RunRecipe):
    """Train a denoiser."""

    kind: Literal["train"] = Field(description="What this recipe does.")
    model: DenoiserConfig = Field(DenoiserConfig(), description="The denoiser.")
    text: TextConfig = Field(TextConfig(), description="The text encoders.")
    dropout_ratio: DropoutRatio = Field(DropoutRatio(), description="How often a caption is left out.")
    condition: ConditionWeights = Field(ConditionWeights(), description="How often each visual condition is drawn.")
    diffusion: DiffusionConfig = Field(DiffusionConfig(), description="Rectified flow.")


class VaeTrainRecipe(RunRecipe):
    """Train an autoencoder."""

    kind: Literal["vae-train"] = Field(description="What this recipe does.")
    vae_loss: VaeLossConfig = Field(VaeLossConfig(), description="The loss.")


class SampleRecipe(Recipe):
    """Generate clips or images."""

    kind: Literal["sample"] = Field(description="What this recipe does.")
    model: DenoiserConfig = Field(DenoiserConfig(), description="The denoiser.")
    ae: AutoencoderConfig = Field(AutoencoderConfig(), description="The autoencoder.")
    text: TextConfig = Field(TextConfig(), description="The text encoders.")
    sampling: SamplingConfig = Field(SamplingConfig(), description="Size, steps, guidance, output.")


AnyRecipe = TrainRecipe | VaeTrainRecipe | SampleRecipe
RECIPES: dict[str, type[AnyRecipe]] = {"train": TrainRecipe, "vae-train": VaeTrainRecipe, "sample": SampleRecipe}
ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(Annotated[AnyRecipe, Field(discriminator="kind")])
