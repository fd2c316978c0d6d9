"""opensora_models."""
