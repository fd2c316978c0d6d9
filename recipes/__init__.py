"""The packaged recipes: TOML files only."""
