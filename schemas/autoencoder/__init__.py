"""Autoencoders: the tagged union is the registry of families."""

from schemas.autoencoder.hunyuan_vae import HunyuanVAEConfig

# With a second family this becomes `Annotated[HunyuanVAEConfig | OtherConfig, Discriminator("type")]`.
AutoencoderConfig = HunyuanVAEConfig

__all__ = ["AutoencoderConfig", "HunyuanVAEConfig"]
