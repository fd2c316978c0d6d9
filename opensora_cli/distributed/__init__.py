"""Processes and devices. Model code knows nothing of them."""
