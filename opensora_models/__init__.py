"""The PyTorch models and the maths of diffusion. Single device, no process groups, no files but weights."""
