"""The loss of an autoencoder."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost

NUMERICS = cost("changes_numerics")
LPIPS_FILE = "./ckpts/lpips_vgg16.safetensors"


class VaeLossConfig(Schema):
    """Reconstruction, perceptual distance and a KL term; sums over the pixels of a frame, averaged over frames."""

    reconstruction_loss: Literal["l1", "l2"] = Field(
        "l1", description="Distance between a clip and its reconstruction.", json_schema_extra=NUMERICS
    )
    kl_loss_weight: float = Field(
        1e-6,
        ge=0,
        description="Weight of the KL term against a unit Gaussian; families that draw no latents have none.",
        json_schema_extra=NUMERICS,
    )
    perceptual_loss_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the LPIPS distance (arXiv 1801.03924) of each frame; 0 needs no VGG16.",
        json_schema_extra=cost("changes_numerics", "changes_memory"),
    )
    lpips_from_pretrained: str = Field(
        LPIPS_FILE,
        description="VGG16 with the LPIPS heads: a file, a folder or a cached hub name; held-out clips are measured with it too.",
        json_schema_extra=NUMERICS,
    )
    logvar_init: float = Field(
        0.0,
        description="Log of the variance that reconstruction and perceptual distance are divided by.",
        json_schema_extra=NUMERICS,
    )
    use_real_rec_loss: bool = Field(
        True,
        description="Whether pixels count: reconstruction, perceptual distance and the KL term.",
        json_schema_extra=NUMERICS,
    )
    use_z_rec_loss: bool = Field(
        False,
        description="Whether the latents of pictures count that the stage along time makes again (open_sora_vae).",
        json_schema_extra=NUMERICS,
    )
    use_image_identity_loss: bool = Field(
        False,
        description="Whether the stage along time shall leave single images as they are (open_sora_vae): the distance between "
        "its latents, before shift and scale, and those of pictures.",
        json_schema_extra=NUMERICS,
    )
    opl_loss_weight: float = Field(
        0.0, ge=0, description="Weight of the penalty on outliers among the latents.", json_schema_extra=NUMERICS
    )

    @property
    def sees_perception(self) -> bool:
        """Whether the LPIPS distance counts, and so has to be there."""
        return self.use_real_rec_loss and self.perceptual_loss_weight > 0
