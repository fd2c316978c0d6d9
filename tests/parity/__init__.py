"""Parity: osora's numbers against recorded reference numbers."""
