"""The complete recipe documents, told apart by `kind`."""

from typing import Literal

from pydantic import Field

from schemas.autoencoder import AutoencoderConfig, HunyuanVAEConfig
from schemas.base import Schema, cost
from schemas.checkpoint import CheckpointConfig, LoggingConfig
from schemas.condition import ConditionName, ConditionWeights
from schemas.data import BucketTable, DatasetConfig
from schemas.denoiser import DenoiserConfig, LatentDenoiser, MMDiTConfig
from schemas.diffusion import AnyDiffusion, DiffusionConfig
from schemas.discriminator import DiscriminatorConfig
from schemas.frame_mask import MaskRatios
from schemas.looks import DenoiserValidationConfig, TrainingSamplesConfig, ValidationConfig
from schemas.lora import LoraConfig
from schemas.memory import MemoryConfig
from schemas.optim import OptimConfig
from schemas.parallel import ParallelConfig, SamplingParallelConfig
from schemas.reconstruction import ReconstructionConfig
from schemas.sampling import SamplingConfig
from schemas.t2i2v import T2I2VConfig
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


class ClipsRecipe(Recipe):
    """What every pass over clips has."""

    seed: int = Field(
        42,
        ge=0,
        description="Seed of every draw.",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )
    dataset: DatasetConfig = Field(DatasetConfig.model_construct(), description="The clips.")
    buckets: BucketTable = Field(
        {},
        description="resolution -> frames -> [keep probability, batch size].",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    ae: AutoencoderConfig = Field(HunyuanVAEConfig.model_construct(), description="The autoencoder.")

    @property
    def pixels_per_token(self) -> int:
        """Pixels of a side that buckets' sizes are multiples of."""
        return self.ae.spatial_compression_ratio


class RunRecipe(ClipsRecipe):
    """What every kind of training has."""

    outputs: str = Field("outputs", description="Folder that holds the run folders.")
    epochs: int = Field(1, ge=1, description="Passes over the data; max_steps may end the run before.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer updates after which the run ends; unset leaves it to epochs."
    )
    optim: OptimConfig = Field(OptimConfig.model_construct(), description="Optimizer and schedule.")
    parallel: ParallelConfig = Field(
        ParallelConfig.model_construct(), description="How the run is spread over processes."
    )
    memory: MemoryConfig = Field(MemoryConfig.model_construct(), description="Recomputing and offloading.")
    checkpoint: CheckpointConfig = Field(CheckpointConfig.model_construct(), description="When and how to save.")
    logging: LoggingConfig = Field(LoggingConfig.model_construct(), description="What is written while training.")


class TrainRecipe(RunRecipe):
    """Train a denoiser."""

    kind: Literal["train"] = Field(description="What this recipe does.")
    model: DenoiserConfig = Field(MMDiTConfig.model_construct(), description="The denoiser.")
    text: TextConfig = Field(TextConfig.model_construct(), description="The text encoders.")
    dropout_ratio: DropoutRatio = Field(DropoutRatio.model_construct(), description="How often a caption is left out.")
    condition: ConditionWeights = Field(
        ConditionWeights.model_construct(), description="How often each visual condition is drawn."
    )
    mask_ratios: MaskRatios = Field(
        MaskRatios.model_construct(), description="How often frames are given to a denoiser of Open-Sora 1.x."
    )
    diffusion: AnyDiffusion = Field(DiffusionConfig.model_construct(), description="How noise and clips are mixed.")
    lora: LoraConfig | None = Field(
        None,
        description="Train low-rank adapters and freeze the denoiser; unset trains all of it.",
        json_schema_extra=cost("breaks_resume", "changes_memory", "changes_numerics"),
    )

    validation: DenoiserValidationConfig = Field(
        DenoiserValidationConfig.model_construct(), description="Held-out clips to look at while training."
    )
    samples: TrainingSamplesConfig = Field(
        TrainingSamplesConfig.model_construct(), description="Prompts to sample while training."
    )

    @property
    def pixels_per_token(self) -> int:
        """Pixels of a side that one token covers."""
        return self.ae.spatial_compression_ratio * self.model.patch_side


class VaeTrainRecipe(RunRecipe):
    """Train an autoencoder."""

    kind: Literal["vae-train"] = Field(description="What this recipe does.")
    vae_loss: VaeLossConfig = Field(VaeLossConfig.model_construct(), description="The loss.")
    discriminator: DiscriminatorConfig | None = Field(
        None,
        description="An adversary that sharpens reconstructions; unset trains without.",
        json_schema_extra=cost("breaks_resume", "changes_memory", "changes_numerics"),
    )
    validation: ValidationConfig = Field(
        ValidationConfig.model_construct(), description="Held-out clips to look at while training."
    )
    mixed_strategy: Literal["none", "mixed_video_image", "mixed_video_random"] = Field(
        "none",
        description="Cut clips: never, to one frame with probability mixed_image_ratio, or to a random length.",
        json_schema_extra=cost("changes_numerics"),
    )
    mixed_image_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of batches that mixed_video_image cuts to one frame.",
        json_schema_extra=cost("changes_numerics"),
    )


class SampleRecipe(Recipe):
    """Generate clips or images."""

    kind: Literal["sample"] = Field(description="What this recipe does.")
    model: DenoiserConfig = Field(MMDiTConfig.model_construct(), description="The denoiser.")
    ae: AutoencoderConfig = Field(HunyuanVAEConfig.model_construct(), description="The autoencoder.")
    text: TextConfig = Field(TextConfig.model_construct(), description="The text encoders.")
    adapters: dict[str, float] = Field(
        {},
        description="Adapters to add to the denoiser: file, folder or run of `osora train` with [lora] -> its weight.",
        json_schema_extra=cost("changes_numerics"),
    )
    diffusion: AnyDiffusion = Field(
        DiffusionConfig.model_construct(), description="How noise and clips are mixed, as the denoiser was trained."
    )
    sampling: SamplingConfig = Field(SamplingConfig.model_construct(), description="Size, steps, guidance, output.")
    t2i2v: T2I2VConfig | None = Field(
        None,
        description="Make the first frame with an image model; unset starts from text or from references.",
        json_schema_extra=cost("changes_numerics", "changes_memory"),
    )
    parallel: SamplingParallelConfig = Field(
        SamplingParallelConfig.model_construct(), description="How the job is spread over processes."
    )

    @property
    def pixels_per_token(self) -> int:
        """Pixels of a side that one token covers."""
        return self.ae.spatial_compression_ratio * self.model.patch_side

    @property
    def condition(self) -> ConditionName:
        """What is given of a clip: with [t2i2v] the first frame, which the image model makes."""
        return "i2v_head" if self.t2i2v is not None else self.sampling.cond_type

    @property
    def branches(self) -> int:
        """Guidance branches of a step: caption and negative, with a reference also the negative without it."""
        if self.model.guidance_embed:
            return 1
        return 2 if self.condition == "t2v" or isinstance(self.model, LatentDenoiser) else 3


class VaeSampleRecipe(ClipsRecipe):
    """Reconstruct clips with an autoencoder."""

    kind: Literal["vae-sample"] = Field(description="What this recipe does.")
    reconstruction: ReconstructionConfig = Field(
        ReconstructionConfig.model_construct(), description="How many clips, and where to."
    )


class VaeStatsRecipe(ClipsRecipe):
    """Measure the mean and variance of an autoencoder's latents."""

    kind: Literal["vae-stats"] = Field(description="What this recipe does.")
    num_samples: int | None = Field(None, ge=1, description="Clips to measure; unset takes all of the data.")


AnyRecipe = TrainRecipe | VaeTrainRecipe | SampleRecipe | VaeSampleRecipe | VaeStatsRecipe
RECIPES: dict[str, type[AnyRecipe]] = {
    "train": TrainRecipe,
    "vae-train": VaeTrainRecipe,
    "sample": SampleRecipe,
    "vae-sample": VaeSampleRecipe,
    "vae-stats": VaeStatsRecipe,
}
