"""Layers that two or more families share. None does yet: each family keeps its own in its folder."""
