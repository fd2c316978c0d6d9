"""The two-stage video autoencoder of Open-Sora 1.2, and its stage along time."""
