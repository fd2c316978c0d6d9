"""The STDiT2 denoiser of Open-Sora 1.1."""
