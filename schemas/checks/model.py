"""OSR1xx: the denoiser and the autoencoder must fit themselves and each other."""

from collections.abc import Iterator

from schemas.autoencoder import HunyuanVAEConfig
from schemas.checks.registry import Finding, rule
from schemas.recipes import ClipsRecipe, SampleRecipe, TrainRecipe

Diffusing = TrainRecipe | SampleRecipe
HIDDEN, HEADS = ("model", "hidden_size"), ("model", "num_heads")


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
    width, heads = recipe.model.hidden_size, recipe.model.num_heads
    if width % heads:
        near = sorted((n for n in range(1, width + 1) if width % n == 0), key=lambda n: (abs(n - heads), n))[:2]
        options = " or ".join(str(n) for n in sorted(near))
        message = f"model.num_heads = {heads} does not divide model.hidden_size = {width}."
        yield Finding((HEADS, HIDDEN), message, f"Use {options} heads.")


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
    axes, width, heads = recipe.model.axes_dim, recipe.model.hidden_size, recipe.model.num_heads
    if any(axis <= 0 or axis % 2 for axis in axes):
        message = (
            f"model.axes_dim = {list(axes)}: rotary features come in pairs, so each number must be even and above 0."
        )
        yield Finding((("model", "axes_dim"),), message)
    elif width % heads == 0 and sum(axes) != width // heads:
        message = (
            f"model.axes_dim = {list(axes)} adds up to {sum(axes)}, but a head is "
            f"hidden_size / num_heads = {width} / {heads} = {width // heads} wide."
        )
        yield Finding((("model", "axes_dim"), HIDDEN, HEADS), message)


@rule(
    "OSR103",
    TrainRecipe,
    SampleRecipe,
    reason="A token of the denoiser holds patch_size x patch_size latent pixels of the autoencoder.",
    fix="Make model.in_channels equal to ae.latent_channels x model.patch_size^2.",
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
    """in_channels = latent channels x patch_size^2."""
    given, channels, patch = recipe.model.in_channels, recipe.ae.latent_channels, recipe.model.patch_size
    if given != channels * patch**2:
        message = (
            f"model.in_channels = {given}, but a token holds ae.latent_channels x patch_size^2 = "
            f"{channels} x {patch}^2 = {channels * patch**2} features."
        )
        keys = (("model", "in_channels"), ("ae", "latent_channels"), ("model", "patch_size"))
        yield Finding(keys, message, f"Use model.in_channels = {channels * patch**2}.")


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
    """norm_num_groups divides each of the autoencoder's widths."""
    if not isinstance(recipe.ae, HunyuanVAEConfig):
        return
    groups, widths = recipe.ae.norm_num_groups, recipe.ae.block_out_channels
    odd = [width for width in widths if width % groups or width < 1]
    if odd:
        message = f"ae.norm_num_groups = {groups} does not divide {odd[0]} of ae.block_out_channels = {list(widths)}."
        yield Finding((("ae", "norm_num_groups"), ("ae", "block_out_channels")), message)
