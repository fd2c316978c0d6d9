"""Text to image to video: an image model makes the first frame, the video model goes on from it."""

from pydantic import Field

from schemas.autoencoder import AutoEncoder2DConfig, AutoencoderConfig
from schemas.base import Schema, cost
from schemas.denoiser import MMDiTConfig


class T2I2VConfig(Schema):
    """The image stage; its texts are those of the video stage. The defaults are Flux (dev); key names are upstream's."""

    img_resolution: str = Field(
        "768px",
        description="Pixel budget of the image, in the clip's aspect ratio; it is scaled to the clip's size afterwards.",
        json_schema_extra=cost("changes_numerics", "changes_memory"),
    )
    img_guidance: float = Field(
        4.0,
        ge=0,
        description="Guidance scale of the image.",
        json_schema_extra=cost("changes_numerics"),
    )
    img_flux: MMDiTConfig = Field(MMDiTConfig.model_construct(guidance_embed=True), description="The image model.")
    img_flux_ae: AutoencoderConfig = Field(
        AutoEncoder2DConfig.model_construct(), description="The image model's autoencoder."
    )
