"""The Latte denoiser of Open-Sora 1.x."""
