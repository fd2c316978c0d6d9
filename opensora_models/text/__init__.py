"""Text encoders: T5 for the tokens, CLIP for the pooled vector."""
