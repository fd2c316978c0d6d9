"""OSR1xx: the denoiser and the autoencoder must fit themselves and each other."""

from collections.abc import Iterator

from schemas.autoencoder import (
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    HunyuanVAEConfig,
    OpenSoraVAEConfig,
    VAETemporalConfig,
)
from schemas.checks.registry import Finding, Key, rule
from schemas.denoiser import DenoiserConfig, LatentDenoiser, MMDiTConfig
from schemas.recipes import ClipsRecipe, SampleRecipe, TrainRecipe

Diffusing = TrainRecipe | SampleRecipe


def denoisers(recipe: Diffusing) -> Iterator[tuple[Key, DenoiserConfig, Key, AutoencoderConfig]]:
    """Yield every denoiser of a recipe with the autoencoder whose latents it sees, and where both stand."""
    yield ("model",), recipe.model, ("ae",), recipe.ae
    if isinstance(recipe, SampleRecipe) and recipe.t2i2v is not None:
        above = "t2i2v"
        yield (above, "img_flux"), recipe.t2i2v.img_flux, (above, "img_flux_ae"), recipe.t2i2v.img_flux_ae


def why_no_frames(model: DenoiserConfig) -> tuple[Key, str]:
    """Return the key by which a denoiser takes no frames of a reference, and what it says."""
    if isinstance(model, MMDiTConfig):
        return ("model", "cond_embed"), "model.cond_embed = false"
    return ("model", "type"), f'model.type = "{model.type}"'


def autoencoders(recipe: ClipsRecipe | SampleRecipe) -> Iterator[tuple[Key, AutoencoderConfig]]:
    """Yield every autoencoder of a recipe and where it stands."""
    yield ("ae",), recipe.ae
    if isinstance(recipe, SampleRecipe) and recipe.t2i2v is not None:
        yield ("t2i2v", "img_flux_ae"), recipe.t2i2v.img_flux_ae


@rule(
    "OSR101",
    TrainRecipe,
    SampleRecipe,
    reason="Attention splits hidden_size evenly over the heads.",
    fix="Choose num_heads among the divisors of hidden_size.",
    wrong="""
        _base_ = "stage1"
        [model]
        num_heads = 25
    """,
    right="""
        _base_ = "stage1"
        [model]
        num_heads = 24
    """,
)
def heads_divide_the_width(recipe: Diffusing) -> Iterator[Finding]:
    """hidden_size is a multiple of num_heads."""
    for at, model, _, _ in denoisers(recipe):
        width, heads = model.hidden_size, model.num_heads
        if width % heads:
            near = sorted((n for n in range(1, width + 1) if width % n == 0), key=lambda n: (abs(n - heads), n))[:2]
            options = " or ".join(str(n) for n in sorted(near))
            name = ".".join(at)
            message = f"{name}.num_heads = {heads} does not divide {name}.hidden_size = {width}."
            yield Finding(((*at, "num_heads"), (*at, "hidden_size")), message, f"Use {options} heads.")


@rule(
    "OSR102",
    TrainRecipe,
    SampleRecipe,
    reason="The rotary features for time, height and width share out one head, in pairs.",
    fix="Make axes_dim three even numbers that add up to hidden_size / num_heads.",
    wrong="""
        _base_ = "stage1"
        [model]
        axes_dim = [16, 56, 60]
    """,
    right="""
        _base_ = "stage1"
        [model]
        axes_dim = [16, 56, 56]  # 128 = 3072 / 24
    """,
)
def axes_fill_the_head(recipe: Diffusing) -> Iterator[Finding]:
    """axes_dim adds up to the head width, each number even and above 0."""
    for at, model, _, _ in denoisers(recipe):
        if not isinstance(model, MMDiTConfig):
            continue
        axes, width, heads = model.axes_dim, model.hidden_size, model.num_heads
        said, key = f"{'.'.join(at)}.axes_dim = {list(axes)}", (*at, "axes_dim")
        if any(axis <= 0 or axis % 2 for axis in axes):
            message = f"{said}: rotary features come in pairs, so each number must be even and above 0."
            yield Finding((key,), message)
        elif width % heads == 0 and sum(axes) != width // heads:
            head = f"hidden_size / num_heads = {width} / {heads} = {width // heads}"
            keys = (key, (*at, "hidden_size"), (*at, "num_heads"))
            yield Finding(keys, f"{said} adds up to {sum(axes)}, but a head is {head} wide.")


@rule(
    "OSR103",
    TrainRecipe,
    SampleRecipe,
    reason="The denoiser takes the autoencoder's latents: MMDiT a token of patch_size x patch_size pixels, others one pixel.",
    fix="Make model.in_channels equal to ae.latent_channels, for MMDiT times model.patch_size^2.",
    wrong="""
        _base_ = "stage1"
        [model]
        in_channels = 16
    """,
    right="""
        _base_ = "stage1"
        [model]
        in_channels = 64  # 16 x 2^2
    """,
)
def token_holds_a_patch(recipe: Diffusing) -> Iterator[Finding]:
    """in_channels = latent channels, for MMDiT x patch_size^2."""
    for at, model, ae_at, ae in denoisers(recipe):
        if not isinstance(model, MMDiTConfig):
            yield from _takes_a_pixel(at, model, ae_at, ae)
            continue
        given, channels, patch = model.in_channels, ae.latent_channels, model.patch_size
        needed = channels * patch**2
        if given != needed:
            token = f"{'.'.join(ae_at)}.latent_channels x patch_size^2 = {channels} x {patch}^2 = {needed}"
            message = f"{'.'.join(at)}.in_channels = {given}, but a token holds {token} features."
            keys = ((*at, "in_channels"), (*ae_at, "latent_channels"), (*at, "patch_size"), (*ae_at, "type"))
            yield Finding(keys, message, f"Use {'.'.join(at)}.in_channels = {needed}.")


def _takes_a_pixel(at: Key, model: LatentDenoiser, ae_at: Key, ae: AutoencoderConfig) -> Iterator[Finding]:
    if model.in_channels != ae.latent_channels:
        ours, theirs = ".".join((*at, "in_channels")), ".".join((*ae_at, "latent_channels"))
        message = f"{ours} = {model.in_channels}, but {theirs} = {ae.latent_channels}."
        keys = ((*at, "in_channels"), (*ae_at, "latent_channels"), (*ae_at, "type"))
        yield Finding(keys, message, f"Use {ours} = {ae.latent_channels}, or the autoencoder that it was made for.")


@rule(
    "OSR104",
    ClipsRecipe,
    SampleRecipe,
    reason="Group norms split the channels of every resolution evenly.",
    fix="Choose ae.norm_num_groups among the common divisors of ae.block_out_channels.",
    wrong="""
        _base_ = "tiny/vae"
        [ae]
        norm_num_groups = 12
    """,
    right="""
        _base_ = "tiny/vae"
        [ae]
        norm_num_groups = 4
    """,
)
def groups_divide_the_widths(recipe: ClipsRecipe | SampleRecipe) -> Iterator[Finding]:
    """The groups of the norms divide each of the autoencoder's widths."""
    for at, groups_key, groups, widths_key, widths in _normed(("ae",), recipe.ae):
        odd = [width for width in widths if width % groups or width < 1]
        if odd:
            table = ".".join(at)
            message = (
                f"{table}.{groups_key} = {groups} does not divide {odd[0]} of {table}.{widths_key} = {list(widths)}."
            )
            yield Finding(((*at, groups_key), (*at, widths_key)), message)


def _normed(at: Key, ae: AutoencoderConfig) -> Iterator[tuple[Key, str, int, str, tuple[int, ...]]]:
    """Yield where groups and widths stand and what they are, for every stage that has both as keys."""
    match ae:
        case HunyuanVAEConfig() | AutoencoderKLConfig() | AutoencoderKLTemporalDecoderConfig():
            yield at, "norm_num_groups", ae.norm_num_groups, "block_out_channels", ae.block_out_channels
        case VAETemporalConfig():
            widths = tuple(ae.filters * factor for factor in (1, *ae.channel_multipliers))
            yield at, "num_groups", ae.num_groups, "filters", widths
        case OpenSoraVAEConfig():
            yield from _normed((*at, "vae_2d"), ae.vae_2d)
            yield from _normed((*at, "vae_temporal"), ae.vae_temporal)
        case _:
            return
