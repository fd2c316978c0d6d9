"""Reconstructing clips: what `osora vae-sample` makes of them."""

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
