"""The causal video autoencoder of HunyuanVideo."""
