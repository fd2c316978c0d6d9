"""How many frames, and how many latent frames, an autoencoder makes of one another."""

from schemas.autoencoder import AutoencoderConfig, OpenSoraVAEConfig, PaddedConfig, VAETemporalConfig


def latent_frames(config: AutoencoderConfig, frames: int) -> int:
    """Return the latent frames of a clip."""
    time = config.time_compression_ratio
    match config:
        case VAETemporalConfig() | OpenSoraVAEConfig():
            return sum(-(-part // time) for part in parts_of(frames, part_frames(config)))
        case _:
            return (frames - 1) // time + 1 if config.causal else max(1, frames // time)


def most_frames(config: PaddedConfig, latent_frames: int) -> int:
    """Return the most frames that become so many latent frames."""
    time, part = config.time_compression_ratio, part_frames(config)
    if part is None:
        return time * latent_frames
    return sum(min(part, time * latents) for latents in parts_of(latent_frames, -(-part // time)))


def frames_of(config: AutoencoderConfig, latent_frames: int) -> int:
    """Return the frames of a clip of so many latent frames; where several numbers become as many, the largest."""
    match config:
        case VAETemporalConfig() | OpenSoraVAEConfig():
            return most_frames(config, latent_frames)
        case _:
            time = config.time_compression_ratio
            return (latent_frames - 1) * time + 1 if config.causal else latent_frames * time


def part_frames(config: PaddedConfig) -> int | None:
    """Return the frames that are coded together along time; None is all of a clip."""
    if isinstance(config, VAETemporalConfig) or config.micro_frame_size == "whole":
        return None
    return config.micro_frame_size


def parts_of(length: int, part: int | None) -> list[int]:
    """Return the lengths of the parts that a length is cut into, the last perhaps shorter; None is one part."""
    if part is None or length <= part:
        return [length]
    return [min(part, length - start) for start in range(0, length, part)]
