"""OSR2xx: buckets and visual conditions must suit the autoencoder, the model and each other."""

import re
from collections.abc import Iterator

from schemas.checks.frames import frames_advice
from schemas.checks.model import why_no_frames
from schemas.checks.registry import Finding, rule
from schemas.data import PIXELS_1_2
from schemas.denoiser import MMDiTConfig
from schemas.recipes import ClipsRecipe, TrainRecipe

RESOLUTION = re.compile(r"[1-9][0-9]*(px|p)(_max|_ar[0-9]+(\.[0-9]+)?:[0-9]+(\.[0-9]+)?)?")
FIXED_SIZE = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")
ONE_OF_OURS = 'Write "256px" (256 x 256 pixels), "480p", "768px_max" or "512px_ar16:9".'
FRAMES_SHOWN = {
    "i2v_head": 1,
    "i2v_tail": 1,
    "i2v_loop": 2,
    "v2v_head": 33,
    "v2v_tail": 33,
    "v2v_head_easy": 65,
    "v2v_tail_easy": 65,
}
"""Frames that a condition shows; a clip must be longer, so that something is left to learn."""


@rule(
    "OSR201",
    ClipsRecipe,
    reason="Clips are trained in buckets; without one there is nothing to train on.",
    fix='Add for example `[buckets]` with `"256px" = { 33 = [1.0, 4] }`.',
    wrong="""
        kind = "train"
    """,
    right="""
        kind = "train"
        [buckets]
        "256px" = { 33 = [1.0, 4] }
    """,
)
def there_are_buckets(recipe: ClipsRecipe) -> Iterator[Finding]:
    """At least one bucket, and none of the resolutions empty."""
    if not recipe.buckets:
        yield Finding((("buckets",),), "buckets is empty: no clip can be trained on.")
    for name, lengths in recipe.buckets.items():
        if not lengths:
            message = f"buckets.{name} has no lengths: no clip falls into it."
            yield Finding(
                (("buckets", name),), message, "Give it `frames = [keep probability, batch size]`, or delete it."
            )


@rule(
    "OSR202",
    ClipsRecipe,
    reason="A bucket's name says how many pixels a frame has.",
    fix=ONE_OF_OURS,
    wrong="""
        kind = "train"
        [buckets]
        "256x256" = { 33 = [1.0, 4] }
    """,
    right="""
        kind = "train"
        [buckets]
        "256px" = { 33 = [1.0, 4] }
    """,
)
def resolutions_are_known(recipe: ClipsRecipe) -> Iterator[Finding]:
    """Names are `<N>px` or `<N>p`, with `_max` or `_ar<W>:<H>` behind; with open-sora-1.2 its own, or `<height>x<width>`."""
    older = recipe.dataset.rules == "open-sora-1.2"
    for name in recipe.buckets:
        if not older and RESOLUTION.fullmatch(name) is None:
            foreign = name in PIXELS_1_2 or FIXED_SIZE.fullmatch(name)
            way_out = f'{ONE_OF_OURS[:-1]}; or set dataset.rules = "open-sora-1.2" for a model of Open-Sora 1.x.'
            yield Finding((("buckets", name),), f'"{name}" is not a resolution.', way_out if foreign else None)
        elif older and name not in PIXELS_1_2 and FIXED_SIZE.fullmatch(name) is None:
            names = ", ".join(PIXELS_1_2)
            yield Finding(
                (("buckets", name), ("dataset", "rules")),
                f'"{name}" is not a resolution of open-sora-1.2.',
                f"Write one of {names}, or one size as height x width: 256x256.",
            )


@rule(
    "OSR207",
    ClipsRecipe,
    reason="Each line has its own way to skip frames and to write captions; keys of the other line would be ignored.",
    fix="Leave the key out, or take the rules that it belongs to.",
    wrong="""
        _base_ = "stage1"
        [dataset]
        frame_interval = 3
    """,
    right="""
        _base_ = "stage1"
        [dataset]
        fps_max = 24
    """,
)
def dataset_keys_suit_the_rules(recipe: ClipsRecipe) -> Iterator[Finding]:
    """fps_max and vmaf go with open-sora-2.0, frame_interval with open-sora-1.2."""
    dataset = recipe.dataset
    if dataset.rules == "open-sora-2.0":
        if dataset.frame_interval != 1:
            message = f'dataset.frame_interval = {dataset.frame_interval} goes with dataset.rules = "open-sora-1.2".'
            way_out = "Limit the rate with dataset.fps_max, or set dataset.rules."
            yield Finding((("dataset", "frame_interval"), ("dataset", "rules")), message, way_out)
        return
    if dataset.fps_max is not None:
        message = f"dataset.fps_max = {dataset.fps_max}, but open-sora-1.2 takes every n-th frame, whatever the rate."
        yield Finding((("dataset", "fps_max"), ("dataset", "rules")), message, "Use dataset.frame_interval.")
    if dataset.vmaf:
        message = "dataset.vmaf = true, but open-sora-1.2 takes captions as they are."
        yield Finding((("dataset", "vmaf"), ("dataset", "rules")), message, "Write scores into the table's captions.")


@rule(
    "OSR203",
    ClipsRecipe,
    reason="A causal autoencoder makes one latent frame of the first frame, then one of every 4.",
    fix="Use 4k+1 frames: 1, 5, 9, ..., 33, 129 (4k with dc_ae).",
    wrong="""
        kind = "train"
        [buckets]
        "256px" = { 32 = [1.0, 4] }
    """,
    right="""
        kind = "train"
        [buckets]
        "256px" = { 33 = [1.0, 4] }
    """,
)
def buckets_are_causal(recipe: ClipsRecipe) -> Iterator[Finding]:
    """Frames of every bucket are 4k+1 (8k+1 for a ratio of 8); 4k, or one, where the autoencoder is not causal."""
    for name, lengths in recipe.buckets.items():
        for frames in lengths:
            wrong = frames_advice(f"buckets.{name}.{frames}", frames, recipe.ae)
            if wrong is not None:
                keys = (("buckets", name, str(frames)), ("ae", "time_compression_ratio"), ("ae", "type"))
                yield Finding(keys, *wrong)


@rule(
    "OSR210",
    TrainRecipe,
    reason="Only a model with cond_embed has an input for the frames that a condition shows.",
    fix="Set model.cond_embed = true, or the weights of all conditions but t2v to 0.",
    wrong="""
        _base_ = "stage1"
        [condition]
        i2v_head = 5.0
    """,
    right="""
        _base_ = "stage1"
        [condition]
        i2v_head = 5.0
        [model]
        cond_embed = true
    """,
)
def conditions_have_an_input(recipe: TrainRecipe) -> Iterator[Finding]:
    """A weight other than t2v's needs model.cond_embed."""
    names = [name for name in recipe.condition.weights() if name != "t2v"]
    if names and not (isinstance(recipe.model, MMDiTConfig) and recipe.model.takes_frames):
        name, (key, why) = names[0], why_no_frames(recipe.model)
        weight = recipe.condition.weights()[name]
        how = "is given frames by [mask_ratios] instead" if recipe.model.takes_frames else "takes no frames"
        yield Finding((("condition", name), key), f"condition.{name} = {weight}, but {why}: the model {how}.")


@rule(
    "OSR211",
    TrainRecipe,
    reason="A condition is drawn for every clip, by weight.",
    fix="Give at least one condition a weight above 0, for example condition.t2v = 1.0.",
    wrong="""
        _base_ = "stage1"
        [condition]
        t2v = 0.0
    """,
    right="""
        _base_ = "stage1"
        [condition]
        t2v = 1.0
    """,
)
def some_condition_is_drawn(recipe: TrainRecipe) -> Iterator[Finding]:
    """Not all weights are 0."""
    if not recipe.condition.weights():
        yield Finding((("condition", "t2v"), ("condition",)), "the weights of all conditions are 0: none can be drawn.")


@rule(
    "OSR212",
    TrainRecipe,
    reason="A condition is only drawn for clips that are longer than what it shows.",
    fix="Add a longer bucket, or set the condition's weight to 0.",
    wrong="""
        _base_ = "image"
        [condition]
        i2v_head = 5.0
        [model]
        cond_embed = true
    """,
    right="""
        _base_ = "stage1"
        [condition]
        i2v_head = 5.0
        [model]
        cond_embed = true
    """,
)
def conditions_fit_some_bucket(recipe: TrainRecipe) -> Iterator[Finding]:
    """For every weighted condition some bucket is longer than the frames it shows."""
    longest = max((frames for lengths in recipe.buckets.values() for frames in lengths), default=None)
    for name in recipe.condition.weights():
        shown = FRAMES_SHOWN.get(name, 0)
        if longest is not None and longest <= shown:
            message = f"condition.{name} shows {shown} frames of a clip, but the longest bucket has {longest}."
            yield Finding((("condition", name), ("buckets",)), message)
