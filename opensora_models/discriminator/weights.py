"""What a difference between a discriminator and its weights says about the recipe."""

LIKELY_CAUSES = (
    (r"missing main\.\d+\.", "discriminator.n_layers"),
    (r"unexpected main\.\d+\.", "discriminator.n_layers"),
    (r"shape\[\d\] main\.\d+\.", "discriminator.ndf"),
)
"""(pattern over a line such as `shape[0] main.0.weight`, recipe key); see `opensora_models.weights.Misfit.likely_keys`."""
