"""Latents and text features on disk: written once by `osora cache`, read by training in place of the encoders."""
