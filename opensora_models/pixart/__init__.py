"""The PixArt denoisers of Open-Sora 1.x."""
