"""Typed recipe schemas and the layered TOML resolver. Imports no torch, numpy or transformers."""
