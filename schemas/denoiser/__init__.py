"""Denoisers: the tagged union is the registry of families."""

from schemas.denoiser.mmdit import MMDiTConfig

# With a second family this becomes `Annotated[MMDiTConfig | OtherConfig, Discriminator("type")]`.
DenoiserConfig = MMDiTConfig

__all__ = ["DenoiserConfig", "MMDiTConfig"]
