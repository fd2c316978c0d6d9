"""What `osora vae-sample` makes of clips: reconstructions beside the originals, and their quality."""

from pydantic import Field

from schemas.base import Schema


class ReconstructionConfig(Schema):
    """Which clips are encoded and decoded again, and where the results go."""

    save_dir: str = Field("samples", description="Folder for the clips and the table of quality.")
    fps_save: int = Field(16, ge=1, description="Frames per second of the written files.")
    num_samples: int | None = Field(None, ge=1, description="Clips to reconstruct; unset takes all of the data.")
