"""OSR204 and on: buckets that can be filled, and data that suits the job."""

from collections.abc import Iterator
from itertools import combinations

from schemas.checks.data import FIXED_SIZE, RESOLUTION
from schemas.checks.registry import Finding, rule
from schemas.data import PIXELS_1_2, RulesName
from schemas.recipes import ClipsRecipe, SampleRecipe, TrainRecipe, VaeSampleRecipe, VaeTrainRecipe


def pixels(resolution: str, rules: RulesName = "open-sora-2.0") -> int | None:
    """Return the pixels of a frame that a resolution's name stands for, or None for no resolution."""
    if rules == "open-sora-1.2":
        fixed = FIXED_SIZE.fullmatch(resolution)
        return int(fixed[1]) * int(fixed[2]) if fixed else PIXELS_1_2.get(resolution)
    match = RESOLUTION.fullmatch(resolution)
    if match is None:
        return None
    lines = int(resolution[: match.start(1)])
    return lines * lines if match[1] == "px" else lines * lines * 16 // 9


@rule(
    "OSR204",
    ClipsRecipe,
    severity="warning",
    reason="A bucket that is kept with probability 0 takes no clip; a longer one keeps its clips from the shorter lengths too.",
    fix="Remove the bucket, or give it a probability above 0.",
    wrong="""
        _base_ = "stage1"
        [buckets]
        "480p" = { 33 = [0.0, 4] }
    """,
    right="""
        _base_ = "stage1"
        [buckets]
        "480p" = { 33 = [0.5, 4] }
    """,
)
def buckets_take_clips(recipe: ClipsRecipe) -> Iterator[Finding]:
    """Every bucket's probability is above 0, but for a length that sends clips to a smaller resolution."""
    for name, lengths in recipe.buckets.items():
        for frames, (probability, _) in lengths.items():
            keep = probability[0] if isinstance(probability, tuple) else probability
            sends_on = any(1 < shorter < frames for shorter in lengths)
            if keep == 0 and not sends_on:
                message = f"buckets.{name}.{frames} is kept with probability 0: no clip falls into it."
                yield Finding((("buckets", name, str(frames)),), message)


@rule(
    "OSR205",
    ClipsRecipe,
    severity="warning",
    reason="Of two resolutions with as many pixels the first takes every clip that it keeps; the other gets the rest.",
    fix="Keep one of them.",
    wrong="""
        _base_ = "stage1"
        [buckets]
        "480p" = { 33 = [1.0, 4] }
        "640px" = { 33 = [1.0, 4] }
    """,
    right="""
        _base_ = "stage1"
        [buckets]
        "480p" = { 33 = [1.0, 4] }
    """,
)
def resolutions_differ(recipe: ClipsRecipe) -> Iterator[Finding]:
    """No two resolutions of all aspect ratios have the same number of pixels and a length in common."""
    plain = {name: pixels(name, recipe.dataset.rules) for name in recipe.buckets if "_" not in name}
    for first, second in combinations(plain, 2):
        shared = recipe.buckets[first].keys() & recipe.buckets[second].keys()
        if plain[first] is not None and plain[first] == plain[second] and shared:
            message = f"buckets.{second} and buckets.{first} both have {plain[first]} pixels and {min(shared)} frames."
            yield Finding((("buckets", second), ("buckets", first)), message)


@rule(
    "OSR206",
    ClipsRecipe,
    SampleRecipe,
    reason="A frame has at least one token: the autoencoder's stride times the denoiser's patch, on each side.",
    fix="Take a larger resolution.",
    wrong="""
        _base_ = "stage1"
        [buckets]
        "8px" = { 33 = [1.0, 4] }
    """,
    right="""
        _base_ = "stage1"
        [buckets]
        "64px" = { 33 = [1.0, 4] }
    """,
)
def frames_hold_a_token(recipe: ClipsRecipe | SampleRecipe) -> Iterator[Finding]:
    """A resolution has at least as many pixels as one token covers."""
    side = recipe.pixels_per_token
    named = [(("buckets", name), name) for name in recipe.buckets] if isinstance(recipe, ClipsRecipe) else []
    if isinstance(recipe, SampleRecipe) and recipe.sampling.resolution is not None:
        named = [(("sampling", "resolution"), recipe.sampling.resolution)]
    rules: RulesName = recipe.dataset.rules if isinstance(recipe, ClipsRecipe) else "open-sora-2.0"
    for key, name in named:
        count = pixels(name, rules)
        if count is not None and count < side**2:
            yield Finding((key,), f"{name} has {count} pixels, but a token covers {side} x {side} = {side**2}.")


@rule(
    "OSR220",
    VaeTrainRecipe,
    VaeSampleRecipe,
    reason="An autoencoder works on pixels; cached latents are what another one made of them.",
    fix="Set dataset.cached_video = false.",
    wrong="""
        _base_ = "tiny/vae"
        [dataset]
        cached_video = true
    """,
    right="""
        _base_ = "tiny/vae"
        [dataset]
        cached_video = false
    """,
)
def autoencoders_see_pixels(recipe: VaeTrainRecipe | VaeSampleRecipe) -> Iterator[Finding]:
    """cached_video is for training a denoiser."""
    if recipe.dataset.cached_video:
        yield Finding(
            (("dataset", "cached_video"),), "dataset.cached_video = true, but an autoencoder needs the clips."
        )


@rule(
    "OSR221",
    TrainRecipe,
    reason="Cached latents are cut and encoded once; what changes how clips are cut or encoded makes them stale.",
    fix="Name the weights that the cache was made with in ae.from_pretrained.",
    wrong="""
        _base_ = "stage1"
        [dataset]
        cached_video = true
        [ae]
        _delete_ = ["from_pretrained"]
    """,
    right="""
        _base_ = "stage1"
        [dataset]
        cached_video = true
    """,
)
def caches_have_an_autoencoder(recipe: TrainRecipe) -> Iterator[Finding]:
    """Cached latents need the autoencoder's weights to be named: random ones made none of them."""
    if recipe.dataset.cached_video and recipe.ae.from_pretrained is None:
        message = "dataset.cached_video = true, but ae.from_pretrained is not set: random weights made no cache."
        yield Finding((("dataset", "cached_video"), ("ae", "from_pretrained")), message)
