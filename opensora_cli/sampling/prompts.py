"""Prompts as the denoiser knows captions from training: with frames per second and motion score behind them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from opensora_cli.data.captions import add_fps, add_motion_score
from opensora_cli.sampling.language_model import LanguageModel
from opensora_cli.sampling.prompts_v1 import add_scores, join_loops, prompt_at_loop, split_loops
from opensora_cli.sampling.request import Sample
from opensora_cli.sampling.rewriting import refined_prompt, written_motion
from opensora_models.build import build_text_encoders
from opensora_models.text.features import TextFeatures
from schemas.sampling import SamplingConfig
from schemas.text import TextConfig, TextPart


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt as the text encoders get it, and what a language model added to it."""

    encoded: str
    refined: str | None = None
    motion_score: str | None = None

    def of_loops(self, loops: int) -> list[str]:
        """Return the text of each loop of a long clip: `|0| dawn |2| noon` is dawn twice, then noon."""
        return [prompt_at_loop(self.encoded, loop) for loop in range(loops)]


def full_prompt(prompt: str, config: SamplingConfig, motion_score: str | None = None) -> str:
    """Return what the text encoders get: images, and clips with `motion_score = "none"`, take the prompt as it is.

    `motion_score` is what takes the place of "dynamic". Scores of Open-Sora 1.x go behind the text of every loop.
    """
    if (config.aes, config.flow, config.camera_motion) != (None, None, None):
        texts, loops = split_loops(prompt)
        scored = [add_scores(text, config.aes, config.flow, config.camera_motion) for text in texts]
        prompt = join_loops(scored, loops)
    if config.num_frames == 1 or config.motion_score == "none":
        return prompt
    return add_motion_score(add_fps(prompt, config.fps_save), motion_score or config.motion_score)


def needs_language_model(config: SamplingConfig) -> bool:
    """Whether a prompt cannot be written without a language model."""
    return config.refine_prompt or (config.motion_score == "dynamic" and config.num_frames > 1)


def write_prompt(sample: Sample, model: LanguageModel | None) -> WrittenPrompt:
    """Return a sample's prompt, refined and with a motion score if its settings want that. Raises OsoraError."""
    config = sample.config
    if not needs_language_model(config):
        return WrittenPrompt(full_prompt(sample.prompt, config))
    assert model is not None, "asked for where any sample needs it"
    given = "t2v" if sample.needs_image else config.cond_type  # the image is made of the same words, and not there yet
    refined = refined_prompt(model, sample.prompt, given) if config.refine_prompt else None
    text = refined or sample.prompt
    dynamic = config.motion_score == "dynamic" and config.num_frames > 1
    motion = written_motion(model, text) if dynamic else None
    return WrittenPrompt(full_prompt(text, config, motion), refined, motion)


@dataclass(frozen=True)
class PromptTable:
    """Encoded texts on the CPU, each a batch of one, so that the encoders need not stay in memory."""

    features: dict[str, TextFeatures]

    def batch(self, texts: list[str], device: torch.device) -> TextFeatures:
        """Return the rows of `texts`, in order, on `device`."""
        return TextFeatures.joined([self.features[text] for text in texts]).to(device)


@torch.no_grad()
def encode_prompts(
    texts: Iterable[str], config: TextConfig, parts: tuple[TextPart, ...], dtype: torch.dtype, device: torch.device
) -> PromptTable:
    """Encode each text once. The encoders live only as long as this call: T5-XXL alone takes 9 GB in bf16."""
    encoders = build_text_encoders(config, parts, dtype, device)
    return PromptTable({text: encoders([text]).to("cpu") for text in sorted(set(texts))})
