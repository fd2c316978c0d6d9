"""OSR42x: looks at a run must suit what it trains."""

from collections.abc import Iterator

from schemas.checks.data import RESOLUTION
from schemas.checks.frames import frames_advice
from schemas.checks.registry import Finding, rule
from schemas.checks.sampling import RATIO
from schemas.recipes import TrainRecipe, VaeTrainRecipe


@rule(
    "OSR420",
    TrainRecipe,
    VaeTrainRecipe,
    reason="Only a run with optim.ema_decay has averaged weights.",
    fix="Set optim.ema_decay, for example to 0.9999, or look with the trained weights.",
    wrong="""
        _base_ = "stage1"
        [validation]
        ema = true
    """,
    right="""
        _base_ = "stage1"
        [validation]
        ema = true
        [optim]
        ema_decay = 0.9999
    """,
)
def looks_have_an_average(recipe: TrainRecipe | VaeTrainRecipe) -> Iterator[Finding]:
    """validation.ema and samples.ema need optim.ema_decay."""
    wanted = {"validation": recipe.validation.ema}
    if isinstance(recipe, TrainRecipe):
        wanted["samples"] = recipe.samples.ema
    for table in [name for name, ema in wanted.items() if ema and recipe.optim.ema_decay is None]:
        message = f"{table}.ema = true, but optim.ema_decay is not set: the run keeps no average."
        yield Finding(((table, "ema"), ("optim", "ema_decay")), message)


@rule(
    "OSR421",
    TrainRecipe,
    reason="A sample has a number of frames that the autoencoder takes, and a size from the table.",
    fix="Use 4k+1 frames and a resolution such as 256px.",
    wrong="""
        _base_ = "stage1"
        [samples]
        prompts = ["rain on a tin roof"]
        num_frames = 32
    """,
    right="""
        _base_ = "stage1"
        [samples]
        prompts = ["rain on a tin roof"]
        num_frames = 33
    """,
)
def samples_have_a_size(recipe: TrainRecipe) -> Iterator[Finding]:
    """samples.num_frames, resolution and aspect_ratio are ones that `osora sample` would take."""
    samples = recipe.samples
    wrong = frames_advice(f"samples.num_frames = {samples.num_frames}", samples.num_frames, recipe.ae)
    if samples.prompts and wrong is not None:
        yield Finding((("samples", "num_frames"), ("ae", "time_compression_ratio"), ("ae", "type")), *wrong)
    if RESOLUTION.fullmatch(samples.resolution) is None:
        yield Finding(
            (("samples", "resolution"),),
            f'samples.resolution: "{samples.resolution}" is not a resolution.',
            'Write "256px" (256 x 256 pixels), "480p" or "768px".',
        )
    if RATIO.fullmatch(samples.aspect_ratio) is None:
        message = f'samples.aspect_ratio: "{samples.aspect_ratio}" is not width:height.'
        yield Finding((("samples", "aspect_ratio"),), message, 'Write for example "16:9", "1:1" or "9:16".')
