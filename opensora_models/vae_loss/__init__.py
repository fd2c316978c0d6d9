"""What an autoencoder is trained on: reconstruction, perceptual distance, the latents, an adversary."""
