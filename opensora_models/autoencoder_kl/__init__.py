"""The image autoencoder of Stable Diffusion, and Stable Video Diffusion's with a decoder that joins frames."""
