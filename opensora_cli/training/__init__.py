"""Training: one loop for every objective, and what it keeps on disk."""
