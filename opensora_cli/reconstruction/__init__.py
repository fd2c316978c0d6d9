"""What an autoencoder makes of clips: reconstructions, their quality, and the size of the latents."""
