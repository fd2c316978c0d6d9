"""OSR13x: what only some families of denoisers can do, and which diffusion each was made for."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, Key, rule
from schemas.denoiser import LatentDenoiser, MMDiTConfig
from schemas.diffusion import DiffusionConfig, IDDPMConfig
from schemas.recipes import SampleRecipe, TrainRecipe

Diffusing = TrainRecipe | SampleRecipe
SOLVERS = {
    "rectified_flow": ("euler", "heun", "dpmpp_2m"),
    "rflow": ("euler", "heun", "dpmpp_2m"),
    "iddpm": ("ddpm", "ddim", "dpmpp_2m"),
}
"""Diffusion -> what can sample it."""
ROUNDING = 1e-6
WITH_FRAMES = {"rectified_flow": SOLVERS["rectified_flow"], "rflow": ("euler",), "iddpm": ("ddpm", "ddim")}
"""The same where frames of the clip are given: some solvers remember steps in which other frames took part."""


@rule(
    "OSR131",
    TrainRecipe,
    SampleRecipe,
    reason="MMDiT takes packed latents at times from 0 to 1, the families of Open-Sora 1.x take latents at 1000 timesteps.",
    fix='Set diffusion.type = "rectified_flow" for MMDiT, "rflow" or "iddpm" for the others.',
    wrong="""
        _base_ = "tiny/stdit3"
        [diffusion]
        _delete_ = true
        type = "rectified_flow"
    """,
    right="""
        _base_ = "tiny/stdit3"
    """,
)
def the_diffusion_suits_the_denoiser(recipe: Diffusing) -> Iterator[Finding]:
    """rectified_flow is for mmdit, rflow and iddpm are for the others."""
    packed, flows = isinstance(recipe.model, MMDiTConfig), isinstance(recipe.diffusion, DiffusionConfig)
    if packed != flows:
        message = f'diffusion.type = "{recipe.diffusion.type}", but model.type = "{recipe.model.type}".'
        yield Finding((("diffusion", "type"), ("model", "type")), message)


@rule(
    "OSR132",
    TrainRecipe,
    SampleRecipe,
    reason="A model that predicts the variance answers with twice the channels, which iddpm reads only with learn_sigma.",
    fix="Set both to the same.",
    wrong="""
        _base_ = "tiny/dit"
        [diffusion]
        learn_sigma = false
    """,
    right="""
        _base_ = "tiny/dit"
    """,
)
def the_variance_is_predicted_and_read(recipe: Diffusing) -> Iterator[Finding]:
    """iddpm's learn_sigma is that of the model (pred_sigma in some families)."""
    if not isinstance(recipe.model, LatentDenoiser) or not isinstance(recipe.diffusion, IDDPMConfig):
        return
    key = "learn_sigma" if "learn_sigma" in type(recipe.model).model_fields else "pred_sigma"
    predicts = recipe.model.output_channels > recipe.model.in_channels
    if predicts != recipe.diffusion.learn_sigma:
        told = str(recipe.diffusion.learn_sigma).lower()
        message = f"diffusion.learn_sigma = {told}, but model.{key} = {str(predicts).lower()}."
        yield Finding((("diffusion", "learn_sigma"), ("model", key)), message)


@rule(
    "OSR133",
    SampleRecipe,
    reason="Each diffusion has solvers of its own: a flow follows a velocity, iddpm goes from one noise level to the next.",
    fix="Choose one of those.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        solver = "ddim"
    """,
    right="""
        _base_ = "sample/256px"
        [sampling]
        solver = "heun"
    """,
)
def the_solver_suits_the_diffusion(recipe: SampleRecipe) -> Iterator[Finding]:
    """euler, heun and dpmpp_2m are for flows, ddpm, ddim and dpmpp_2m for iddpm; with given frames euler, ddpm and ddim."""
    sampling, kind = recipe.sampling, recipe.diffusion.type
    gives = sampling.cond_type != "t2v" or bool(sampling.mask_strategy) or sampling.loop > 1
    known = (WITH_FRAMES if gives else SOLVERS)[kind]
    if sampling.solver not in known:
        what = " with given frames" if gives and sampling.solver in SOLVERS[kind] else ""
        options = " or ".join(known)
        message = f'sampling.solver = "{sampling.solver}", but diffusion.type = "{kind}"{what} is sampled by {options}.'
        yield Finding((("sampling", "solver"), ("diffusion", "type")), message)


@rule(
    "OSR134",
    TrainRecipe,
    SampleRecipe,
    reason="Adapters, products in 8 bits and sharing out features or branches follow the layers of MMDiT.",
    fix="Leave it out.",
    wrong="""
        _base_ = "tiny/stdit3"
        [parallel]
        plugin = "hybrid"
        tp_size = 2
    """,
    right="""
        _base_ = "tiny/stdit3"
    """,
)
def the_family_can_do_that(recipe: Diffusing) -> Iterator[Finding]:
    """[lora], adapters, fp8_linear, tp_size and cfg_size are for mmdit."""
    if isinstance(recipe.model, MMDiTConfig):
        return
    for key, wanted in _asked_of_mmdit(recipe):
        if wanted:
            message = f'{".".join(key)}: model.type = "{recipe.model.type}" has no plan for that; mmdit has.'
            yield Finding((key, ("model", "type")), message)


def _asked_of_mmdit(recipe: Diffusing) -> Iterator[tuple[Key, bool]]:
    yield ("parallel", "tp_size"), recipe.parallel.tp_size > 1
    if isinstance(recipe, TrainRecipe):
        yield ("lora",), recipe.lora is not None
        yield ("memory", "fp8_linear"), recipe.memory.fp8_linear
    else:
        yield ("adapters",), bool(recipe.adapters)
        yield ("parallel", "cfg_size"), recipe.parallel.cfg_size > 1


@rule(
    "OSR135",
    TrainRecipe,
    reason="The families of Open-Sora 1.x are given frames by [mask_ratios]; MMDiT by [condition], others take none.",
    fix="Leave [mask_ratios] out, or use a model that takes them.",
    wrong="""
        _base_ = "tiny/train"
        [mask_ratios]
        image_head = 0.1
    """,
    right="""
        _base_ = "tiny/stdit3"
        [mask_ratios]
        image_head = 0.1
    """,
)
def masked_frames_have_an_input(recipe: TrainRecipe) -> Iterator[Finding]:
    """[mask_ratios] needs a family that takes frames, and is not for mmdit."""
    takes = isinstance(recipe.model, LatentDenoiser) and recipe.model.takes_frames
    if recipe.mask_ratios.ratios() and not takes:
        yield Finding((("mask_ratios",), ("model", "type")), f'[mask_ratios], but model.type = "{recipe.model.type}".')


@rule(
    "OSR137",
    TrainRecipe,
    reason="Each clip has one kind of mask; what the probabilities leave to 1 is for clips with no frame given.",
    fix="Lower some of them.",
    wrong="""
        _base_ = "tiny/stdit3"
        [mask_ratios]
        image_head = 0.7
        image_tail = 0.7
    """,
    right="""
        _base_ = "tiny/stdit3"
        [mask_ratios]
        image_head = 0.4
        image_tail = 0.4
    """,
)
def kinds_of_masks_share_out_one(recipe: TrainRecipe) -> Iterator[Finding]:
    """[mask_ratios] add up to 1 at most."""
    ratios = recipe.mask_ratios.ratios()
    if (total := sum(ratios.values())) > 1 + ROUNDING:
        keys = tuple(("mask_ratios", name) for name in sorted(ratios, key=lambda name: -ratios[name])[:2])
        yield Finding(keys, f"[mask_ratios] add up to {total:g}, more than 1.")


@rule(
    "OSR136",
    SampleRecipe,
    reason="Strategies for frames and clips in a row are for denoisers that are given frames of the clip itself.",
    fix="Use stdit, stdit2 or stdit3, or leave it out; MMDiT is given frames by cond_type.",
    wrong="""
        _base_ = "sample/256px"
        [sampling]
        loop = 3
    """,
    right="""
        _base_ = "sample/256px"
    """,
)
def clips_in_a_row_go_on_from_frames(recipe: SampleRecipe) -> Iterator[Finding]:
    """Loop above 1 and mask_strategy need a family of Open-Sora 1.x that takes frames."""
    if isinstance(recipe.model, LatentDenoiser) and recipe.model.takes_frames:
        return
    for name, wanted in (("loop", recipe.sampling.loop > 1), ("mask_strategy", bool(recipe.sampling.mask_strategy))):
        if wanted:
            value = getattr(recipe.sampling, name)
            message = f'sampling.{name} = {value!r}, but model.type = "{recipe.model.type}".'
            yield Finding((("sampling", name), ("model", "type")), message)
