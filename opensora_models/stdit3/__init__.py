"""The STDiT3 denoiser of Open-Sora 1.2."""
