"""The MMDiT denoiser of Flux and Open-Sora 2.0."""
