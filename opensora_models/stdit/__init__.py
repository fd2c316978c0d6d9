"""The STDiT denoiser of Open-Sora 1.0."""
