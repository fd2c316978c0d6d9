"""OSR3xx: what is asked of a sample must be possible."""

import re
from collections.abc import Iterator

from schemas.checks.data import FRAMES_SHOWN, RESOLUTION
from schemas.checks.frames import frames_advice
from schemas.checks.model import why_no_frames
from schemas.checks.registry import Finding, rule
from schemas.data import PIXELS_1_2
from schemas.denoiser import MMDiTConfig
from schemas.recipes import SampleRecipe

RATIO = re.compile(r"[0-9]+(\.[0-9]+)?:[0-9]+(\.[0-9]+)?")


@rule(
    "OSR301",
    SampleRecipe,
    reason="A causal autoencoder makes one latent frame of the first frame, then one of every 4.",
    fix="Use 4k+1 frames (4k with dc_ae).",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        num_frames = 128
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        num_frames = 129
    """,
)
def frames_are_causal(recipe: SampleRecipe) -> Iterator[Finding]:
    """num_frames is 4k+1 (8k+1 for a ratio of 8); 4k, or one, where the autoencoder is not causal."""
    frames = recipe.sampling.num_frames
    wrong = frames_advice(f"sampling.num_frames = {frames}", frames, recipe.ae)
    if wrong is not None:
        yield Finding((("sampling", "num_frames"), ("ae", "time_compression_ratio"), ("ae", "type")), *wrong)


@rule(
    "OSR302",
    SampleRecipe,
    reason="Height and width replace the resolution only together.",
    fix="Give both, or neither.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        height = 256
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        height = 256
        width = 448
    """,
)
def height_goes_with_width(recipe: SampleRecipe) -> Iterator[Finding]:
    """Height and width are given together, each a multiple of what one token of MMDiT covers; the others fill tokens up."""
    sizes = {"height": recipe.sampling.height, "width": recipe.sampling.width}
    given = [name for name, size in sizes.items() if size is not None]
    if len(given) == 1:
        other = "width" if given == ["height"] else "height"
        yield Finding(
            (("sampling", given[0]),),
            f"sampling.{given[0]} is given without sampling.{other}.",
            f"Add {other}, or leave {given[0]} out.",
        )
    side = recipe.pixels_per_token if isinstance(recipe.model, MMDiTConfig) else 1
    for name in given:
        size = sizes[name] or 0
        if size % side:
            near = size // side * side
            options = " or ".join(str(n) for n in (near, near + side) if n >= side)
            message = (
                f"sampling.{name} = {size}: a token covers {side} x {side} pixels, so sides are multiples of {side}."
            )
            yield Finding((("sampling", name),), message, f"Use {options}.")


@rule(
    "OSR303",
    SampleRecipe,
    reason="The resolution names how many pixels a frame has.",
    fix='Write "256px" (256 x 256 pixels), "480p" or "768px".',
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        aspect_ratio = "wide"
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        aspect_ratio = "16:9"
    """,
)
def resolution_is_known(recipe: SampleRecipe) -> Iterator[Finding]:
    """`<N>px` or `<N>p`, with open-sora-1.2 one of its own, and a ratio of two numbers."""
    resolution, ratio = recipe.sampling.resolution, recipe.sampling.aspect_ratio
    if recipe.sampling.rules == "open-sora-1.2":
        yield from _of_1_2(recipe)
    elif resolution is not None and RESOLUTION.fullmatch(resolution) is None:
        yield Finding((("sampling", "resolution"),), f'sampling.resolution: "{resolution}" is not a resolution.')
    if RATIO.fullmatch(ratio) is None:
        message = f'sampling.aspect_ratio: "{ratio}" is not width:height.'
        yield Finding((("sampling", "aspect_ratio"),), message, 'Write for example "16:9", "1:1" or "9:16".')


def _of_1_2(recipe: SampleRecipe) -> Iterator[Finding]:
    """Resolutions have names; where height and width are given nothing reads them."""
    resolution = recipe.sampling.resolution
    if resolution in PIXELS_1_2 or recipe.sampling.height is not None:
        return
    yield Finding(
        (("sampling", "resolution"), ("sampling", "rules")),
        f'sampling.resolution: "{resolution}" is not a resolution of open-sora-1.2.',
        f"Write one of {', '.join(PIXELS_1_2)}, or give height and width in pixels.",
    )


@rule(
    "OSR310",
    SampleRecipe,
    reason="Only a model with cond_embed has an input for the frames of a reference.",
    fix='Use a model with cond_embed = true, or sampling.cond_type = "t2v".',
    wrong="""
        _base_ = "sample/256px"
        [model]
        cond_embed = false
        [sampling]
        cond_type = "i2v_head"
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        cond_type = "i2v_head"
    """,
)
def condition_has_an_input(recipe: SampleRecipe) -> Iterator[Finding]:
    """A cond_type other than t2v needs model.cond_embed."""
    if recipe.sampling.cond_type != "t2v" and not recipe.model.takes_frames:
        key, why = why_no_frames(recipe.model)
        message = f'sampling.cond_type = "{recipe.sampling.cond_type}", but {why}: the model takes no frames.'
        yield Finding((("sampling", "cond_type"), key), message)


@rule(
    "OSR311",
    SampleRecipe,
    reason="A condition shows frames of the clip; the rest is what is made.",
    fix="Make the clip longer, or choose another cond_type.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        cond_type = "v2v_head"
        num_frames = 33
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        cond_type = "v2v_head"
        num_frames = 65
    """,
)
def condition_leaves_frames_to_make(recipe: SampleRecipe) -> Iterator[Finding]:
    """num_frames is more than what cond_type shows."""
    shown = FRAMES_SHOWN.get(recipe.condition, 0)
    if recipe.sampling.num_frames <= shown:
        what = recipe.condition if recipe.t2i2v is None else "[t2i2v]"
        message = f"sampling.num_frames = {recipe.sampling.num_frames}, but {what} shows {shown} of them."
        yield Finding((("sampling", "num_frames"), ("sampling", "cond_type")), message)


@rule(
    "OSR312",
    SampleRecipe,
    severity="warning",
    reason="A model that takes the guidance scale as an input is evaluated once a step: there is nothing to guide the image by.",
    fix='Use weights without guidance_embed, or sampling.cond_type = "t2v".',
    wrong="""
        _base_ = "sample/256px"
        [model]
        guidance_embed = true
        [sampling]
        cond_type = "i2v_head"
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        cond_type = "i2v_head"
    """,
)
def image_guidance_has_an_effect(recipe: SampleRecipe) -> Iterator[Finding]:
    """guidance_embed goes without image guidance and oscillation."""
    cond = recipe.sampling.cond_type
    if recipe.model.guidance_embed and cond != "t2v":
        message = f'model.guidance_embed = true: guidance_img does nothing for sampling.cond_type = "{cond}".'
        yield Finding((("model", "guidance_embed"), ("sampling", "cond_type")), message)


@rule(
    "OSR313",
    SampleRecipe,
    reason="Guidance acts between two times; a distilled model has none that could be switched off.",
    fix="Make guidance_t_min smaller than guidance_t_max, and leave both out with model.guidance_embed.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        guidance_t_min = 0.9
        guidance_t_max = 0.2
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        guidance_t_min = 0.2
        guidance_t_max = 0.9
    """,
)
def guidance_acts_between_two_times(recipe: SampleRecipe) -> Iterator[Finding]:
    """guidance_t_min is below guidance_t_max; with model.guidance_embed they are 0 and 1."""
    low, high = recipe.sampling.guidance_t_min, recipe.sampling.guidance_t_max
    keys = (("sampling", "guidance_t_min"), ("sampling", "guidance_t_max"))
    if low >= high:
        yield Finding(keys, f"sampling.guidance_t_min = {low} is not below sampling.guidance_t_max = {high}.")
    elif recipe.model.guidance_embed and (low, high) != (0, 1):
        message = (
            f"sampling: guidance from {low} to {high}, but model.guidance_embed = true: it is an input of every step."
        )
        yield Finding((*keys, ("model", "guidance_embed")), message)


@rule(
    "OSR314",
    SampleRecipe,
    reason="flow_shift says how far the schedule is shifted; without a shift nothing reads it.",
    fix="Set shift = true, or leave flow_shift out.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        shift = false
        flow_shift = 3.0
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        flow_shift = 3.0
    """,
)
def flow_shift_goes_with_shift(recipe: SampleRecipe) -> Iterator[Finding]:
    """flow_shift needs shift = true."""
    if recipe.sampling.flow_shift is not None and not recipe.sampling.shift:
        message = f"sampling.flow_shift = {recipe.sampling.flow_shift}, but sampling.shift = false."
        yield Finding((("sampling", "flow_shift"), ("sampling", "shift")), message)


@rule(
    "OSR320",
    SampleRecipe,
    reason="The video model goes on from the image that the image model made, so it needs an input for it.",
    fix="Set model.cond_embed = true with weights that have it, or remove [t2i2v].",
    wrong="""
        _base_ = "sample/t2i2v_256px"
        [model]
        cond_embed = false
    """,
    right="""
        _base_ = "sample/t2i2v_256px"
    """,
)
def the_first_frame_has_an_input(recipe: SampleRecipe) -> Iterator[Finding]:
    """[t2i2v] needs model.cond_embed."""
    if recipe.t2i2v is not None and not recipe.model.takes_frames:
        key, why = why_no_frames(recipe.model)
        yield Finding((("t2i2v",), key), f"[t2i2v] makes a first frame, but {why}: the model takes no frames.")


@rule(
    "OSR321",
    SampleRecipe,
    reason="The resolution names how many pixels the image has.",
    fix='Write "768px", "480p" or another budget.',
    wrong="""
        _base_ = "sample/t2i2v_256px"
        [t2i2v]
        img_resolution = "768x768"
    """,
    right="""
        _base_ = "sample/t2i2v_256px"
        [t2i2v]
        img_resolution = "768px"
    """,
)
def the_images_resolution_is_known(recipe: SampleRecipe) -> Iterator[Finding]:
    """img_resolution is `<N>px` or `<N>p`."""
    if recipe.t2i2v is not None and RESOLUTION.fullmatch(recipe.t2i2v.img_resolution) is None:
        message = f't2i2v.img_resolution: "{recipe.t2i2v.img_resolution}" is not a resolution.'
        yield Finding((("t2i2v", "img_resolution"),), message)


@rule(
    "OSR322",
    SampleRecipe,
    reason="The image model makes the first frame and nothing else of a clip.",
    fix='Leave sampling.cond_type at "t2v", or take [t2i2v] out for references of your own.',
    wrong="""
        _base_ = "sample/t2i2v_256px"
        [sampling]
        cond_type = "i2v_loop"
    """,
    right="""
        _base_ = "sample/t2i2v_256px"
    """,
)
def nothing_but_the_first_frame_is_given(recipe: SampleRecipe) -> Iterator[Finding]:
    """[t2i2v] goes with cond_type = "t2v" or "i2v_head"."""
    given = recipe.sampling.cond_type
    if recipe.t2i2v is not None and given not in ("t2v", "i2v_head"):
        message = f'[t2i2v] makes a first frame, but sampling.cond_type = "{given}" takes references.'
        yield Finding((("sampling", "cond_type"), ("t2i2v",)), message)
