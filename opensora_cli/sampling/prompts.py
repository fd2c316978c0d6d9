"""Prompts as the denoiser knows captions from training: with frames per second and motion score behind them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from opensora_cli.data.captions import add_fps, add_motion_score
from opensora_cli.sampling.denoise import EncodedText
from opensora_models.build import build_text_encoders
from schemas.sampling import SamplingConfig
from schemas.text import TextConfig


def full_prompt(prompt: str, config: SamplingConfig) -> str:
    """Return what the text encoders get: images, and clips with `motion_score = "none"`, take the prompt as it is."""
    if config.num_frames == 1 or config.motion_score == "none":
        return prompt
    return add_motion_score(add_fps(prompt, config.fps_save), config.motion_score)


@dataclass(frozen=True)
class PromptTable:
    """Encoded texts on the CPU, so that the encoders need not stay in memory: by text, (L, D) tokens and a (D,) vector."""

    tokens: dict[str, Tensor]
    vector: dict[str, Tensor]

    def batch(self, texts: list[str], device: torch.device) -> EncodedText:
        """Return the rows of `texts`, in order, on `device`."""
        return EncodedText(
            torch.stack([self.tokens[text] for text in texts]).to(device),
            torch.stack([self.vector[text] for text in texts]).to(device),
        )


@torch.no_grad()
def encode_prompts(texts: set[str], config: TextConfig, dtype: torch.dtype, device: torch.device) -> PromptTable:
    """Encode each text once. The encoders live only as long as this call: T5-XXL alone takes 9 GB in bf16."""
    encoders = build_text_encoders(config, dtype, device)
    ordered = sorted(texts)
    return PromptTable(
        {text: encoders.t5([text])[0].cpu() for text in ordered},
        {text: encoders.clip([text])[0].cpu() for text in ordered},
    )
