"""The DiT denoiser of Open-Sora 1.x."""
