"""OSR12x: the denoiser must take what the text encoders give."""

from collections.abc import Iterator

from schemas.checks.model import denoisers
from schemas.checks.registry import Finding, rule
from schemas.denoiser import DenoiserConfig, MMDiTConfig
from schemas.recipes import SampleRecipe, TrainRecipe

Diffusing = TrainRecipe | SampleRecipe
T5_WIDTHS = {"t5-v1_1-small": 512, "t5-v1_1-base": 768, "t5-v1_1-large": 1024, "t5-v1_1-xl": 2048, "t5-v1_1-xxl": 4096}
CLIP_WIDTHS = {
    "clip-vit-base-patch16": 512,
    "clip-vit-base-patch32": 512,
    "clip-vit-large-patch14": 768,
    "clip-vit-large-patch14-336": 768,
}
"""Widths of published encoders, by the last part of their name; an encoder of one's own is not known here."""
WIDTHS = {"t5": T5_WIDTHS, "clip": CLIP_WIDTHS}
CLIP_TOKENS = 77


def _text_inputs(model: DenoiserConfig) -> Iterator[tuple[str, int, str]]:
    """Yield the key and value of every width that a denoiser has for text, and the encoder that gives it."""
    if isinstance(model, MMDiTConfig):
        yield "context_in_dim", model.context_in_dim, "t5"
        yield "vec_in_dim", model.vec_in_dim, "clip"
        return
    for part in model.texts:
        if part in WIDTHS:
            yield "caption_channels", model.caption_channels, part


@rule(
    "OSR121",
    TrainRecipe,
    SampleRecipe,
    reason="The denoiser's text inputs are as wide as the encoders' outputs.",
    fix="Choose the encoder that the denoiser was made for, or its width for a denoiser that is trained from the start.",
    wrong="""
        _base_ = "stage1"
        [text.t5]
        from_pretrained = "google/t5-v1_1-xl"
    """,
    right="""
        _base_ = "stage1"
        [text.t5]
        from_pretrained = "google/t5-v1_1-xxl"
    """,
)
def text_is_as_wide_as_the_model_takes(recipe: Diffusing) -> Iterator[Finding]:
    """context_in_dim is T5's width, vec_in_dim CLIP's, caption_channels that of what is read; for encoders that are known."""
    for at, model, _, _ in denoisers(recipe):
        names = {"t5": recipe.text.t5.from_pretrained, "clip": recipe.text.clip.from_pretrained}
        for key, given, encoder in _text_inputs(model):
            name, widths = names[encoder], WIDTHS[encoder]
            width = widths.get(name.rstrip("/").rsplit("/", 1)[-1])
            if width is not None and width != given:
                ours = ".".join((*at, key))
                keys = ((*at, key), ("text", encoder, "from_pretrained"))
                message = f"{ours} = {given}, but {name} gives {width} features."
                yield Finding(keys, message, f"Use {ours} = {width}, or another encoder.")


@rule(
    "OSR122",
    TrainRecipe,
    SampleRecipe,
    reason="CLIP was trained with 77 positions and has no more.",
    fix="Use text.clip.max_length = 77 or less.",
    wrong="""
        _base_ = "stage1"
        [text.clip]
        max_length = 256
    """,
    right="""
        _base_ = "stage1"
        [text.clip]
        max_length = 77
    """,
)
def clip_reads_77_tokens(recipe: Diffusing) -> Iterator[Finding]:
    """text.clip.max_length is at most 77 for a published CLIP."""
    clip = recipe.text.clip
    if clip.from_pretrained.rstrip("/").rsplit("/", 1)[-1] in CLIP_WIDTHS and clip.max_length > CLIP_TOKENS:
        message = f"text.clip.max_length = {clip.max_length}, but {clip.from_pretrained} has {CLIP_TOKENS} positions."
        yield Finding((("text", "clip", "max_length"), ("text", "clip", "from_pretrained")), message)


@rule(
    "OSR123",
    TrainRecipe,
    SampleRecipe,
    reason="CLIP gives one vector of a caption, at its last token: there is no padding in it to mask.",
    fix="Set text.clip.masked = false; text.t5.masked is what Open-Sora 1.x has.",
    wrong="""
        _base_ = "stage1"
        [text.clip]
        masked = true
    """,
    right="""
        _base_ = "stage1"
        [text.t5]
        masked = true
    """,
)
def only_t5_masks_padding(recipe: Diffusing) -> Iterator[Finding]:
    """text.clip.masked is false."""
    if recipe.text.clip.masked:
        yield Finding((("text", "clip", "masked"),), "text.clip.masked = true, but CLIP gives one vector of a caption.")


@rule(
    "OSR124",
    TrainRecipe,
    SampleRecipe,
    reason="A denoiser of Open-Sora 1.x has learned an empty caption of so many tokens, which takes the place of any other.",
    fix="Use text.t5.max_length = model.model_max_length.",
    wrong="""
        _base_ = "tiny/stdit3"
        [text.t5]
        max_length = 120
    """,
    right="""
        _base_ = "tiny/stdit3"
        [text.t5]
        max_length = 24
    """,
)
def captions_fit_the_empty_one(recipe: Diffusing) -> Iterator[Finding]:
    """text.t5.max_length is at most the model's model_max_length."""
    most, length = getattr(recipe.model, "model_max_length", None), recipe.text.t5.max_length
    if most is not None and "t5" in recipe.model.texts and length > most:
        message = f"text.t5.max_length = {length}, but model.model_max_length = {most}."
        yield Finding((("text", "t5", "max_length"), ("model", "model_max_length")), message, f"Use {most}.")
