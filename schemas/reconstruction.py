"""Reconstructing clips: what `osora vae-sample` makes of them, and what training looks at."""

from pydantic import Field

from schemas.base import Schema
from schemas.vae_loss import LPIPS_FILE


class ReconstructionConfig(Schema):
    """Which clips are encoded and decoded again, one by one, and where the results go."""

    save_dir: str = Field("samples", description="Folder for the clips and the table of quality.")
    fps_save: int = Field(16, ge=1, description="Frames per second of the written files.")
    num_samples: int | None = Field(None, ge=1, description="Clips to reconstruct; unset takes all of the data.")
    lpips_from_pretrained: str = Field(
        LPIPS_FILE, description="VGG16 with the LPIPS heads; where it is not there, LPIPS is not measured."
    )


class ValidationConfig(Schema):
    """Clips that are not trained on, reconstructed while training."""

    data_path: str | None = Field(
        None, description="csv or parquet as dataset.data_path; cut by the same buckets. Unset looks at none."
    )
    every: int = Field(500, ge=1, description="Updates between looks.")
    num_samples: int = Field(8, ge=1, description="Clips to look at; they stay in memory.")
