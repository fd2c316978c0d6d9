"""OSR11x: an autoencoder must fit itself."""

from collections.abc import Iterator
from typing import assert_never

from schemas.autoencoder import (
    AutoEncoder2DConfig,
    AutoencoderConfig,
    AutoencoderKLConfig,
    AutoencoderKLTemporalDecoderConfig,
    DCAEConfig,
    HunyuanVAEConfig,
    OpenSoraVAEConfig,
    TiledConfig,
    VAETemporalConfig,
)
from schemas.autoencoder.dc_ae import DCAEShape
from schemas.checks.model import autoencoders
from schemas.checks.registry import Finding, Key, rule
from schemas.recipes import ClipsRecipe, SampleRecipe, VaeTrainRecipe

Recipe = ClipsRecipe | SampleRecipe
LISTS = ("width_list", "encoder_depth_list", "decoder_depth_list", "block_type", "temporal_downsample")


@rule(
    "OSR111",
    ClipsRecipe,
    SampleRecipe,
    reason="Tiles are cut in pixels and joined in latents, so a tile is a whole number of latents.",
    fix="Make the tile's side a multiple of the spatial ratio, and its length one of the temporal ratio.",
    wrong="""
        _base_ = "stage1"
        [ae]
        sample_size = 250
        use_spatial_tiling = true
    """,
    right="""
        _base_ = "stage1"
        [ae]
        sample_size = 256
        use_spatial_tiling = true
    """,
)
def tiles_are_whole_latents(recipe: Recipe) -> Iterator[Finding]:
    """Sides and lengths of the tiles that are used are multiples of the compression."""
    for at, ae in autoencoders(recipe):
        for key, size, ratio in _tiles(ae):
            if size % ratio:
                near = [n for n in (size // ratio * ratio, size // ratio * ratio + ratio) if n > 0]
                message = f"{'.'.join(at)}.{key} = {size}: a latent covers {ratio}, so tiles are multiples of {ratio}."
                yield Finding(((*at, key),), message, f"Use {' or '.join(map(str, near))}.")


def _tiles(ae: AutoencoderConfig) -> Iterator[tuple[str, int, int]]:
    """Yield key, size and ratio of the tilings that are switched on."""
    if isinstance(ae, HunyuanVAEConfig):
        keys = ("sample_size", ae.sample_size), ("sample_tsize", ae.sample_tsize)
    elif isinstance(ae, DCAEConfig):
        keys = ("spatial_tile_size", ae.spatial_tile_size), ("temporal_tile_size", ae.temporal_tile_size)
    else:
        return
    if ae.use_spatial_tiling:
        yield (*keys[0], ae.spatial_compression_ratio)
    if ae.use_temporal_tiling:
        yield (*keys[1], ae.time_compression_ratio)


@rule(
    "OSR112",
    ClipsRecipe,
    SampleRecipe,
    reason="Each entry of the lists describes one stage of the autoencoder.",
    fix="Give every list one entry a stage.",
    wrong="""
        kind = "vae-train"
        [ae]
        type = "dc_ae"
        model_name = "custom"
        [ae.shape]
        width_list = [32, 64, 64]
        [buckets]
        "256px" = { 16 = [1.0, 1] }
    """,
    right="""
        kind = "vae-train"
        [ae]
        type = "dc_ae"
        model_name = "custom"
        [ae.shape]
        width_list = [32, 64, 64]
        encoder_depth_list = [1, 1, 1]
        decoder_depth_list = [1, 1, 1]
        block_type = ["ResBlock", "ResBlock", "EViTS5_GLU"]
        temporal_downsample = [false, true, false]
        [buckets]
        "256px" = { 16 = [1.0, 1] }
    """,
)
def every_stage_is_described(recipe: Recipe) -> Iterator[Finding]:
    """The lists of a custom shape have one length."""
    for at, ae in autoencoders(recipe):
        if not isinstance(ae, DCAEConfig) or ae.model_name != "custom":
            continue
        lengths = {name: len(getattr(ae.shape, name)) for name in LISTS}
        odd = [name for name in LISTS if lengths[name] != lengths["width_list"]]
        if odd:
            where = ".".join((*at, "shape"))
            message = f"{where}.{odd[0]} has {lengths[odd[0]]} entries, {where}.width_list has {lengths['width_list']}."
            yield Finding(((*at, "shape", "width_list"), (*at, "shape", odd[0])), message)


@rule(
    "OSR113",
    ClipsRecipe,
    SampleRecipe,
    reason="A published shape is fixed; [ae.shape] counts only for a shape of one's own.",
    fix='Set ae.model_name = "custom", or leave [ae.shape] out.',
    wrong="""
        kind = "vae-train"
        [ae]
        type = "dc_ae"
        shape = { latent_channels = 64 }
        [buckets]
        "256px" = { 16 = [1.0, 1] }
    """,
    right="""
        kind = "vae-train"
        [ae]
        type = "dc_ae"
        model_name = "custom"
        shape = { latent_channels = 64 }
        [buckets]
        "256px" = { 16 = [1.0, 1] }
    """,
)
def a_named_shape_is_not_changed(recipe: Recipe) -> Iterator[Finding]:
    """[ae.shape] differs from the defaults only with model_name = "custom"."""
    for at, ae in autoencoders(recipe):
        if isinstance(ae, DCAEConfig) and ae.model_name != "custom" and ae.shape != DCAEShape():
            name = ".".join(at)
            message = f'{name}.shape is changed, but {name}.model_name = "{ae.model_name}" says the shape.'
            yield Finding(((*at, "shape"), (*at, "model_name")), message)


@rule(
    "OSR114",
    VaeTrainRecipe,
    reason="The loss compares a clip with its reconstruction, channel by channel.",
    fix="Use as many channels out as in; clips have 3.",
    wrong="""
        _base_ = "tiny/vae"
        [ae]
        out_channels = 4
    """,
    right="""
        _base_ = "tiny/vae"
        [ae]
        out_channels = 3
    """,
)
def reconstructions_have_the_clips_channels(recipe: VaeTrainRecipe) -> Iterator[Finding]:
    """Channels in and out are 3."""
    for key, count in _channels(recipe.ae).items():
        if count != 3:
            path = ("ae", *key.split("."))
            yield Finding((path,), f"ae.{key} = {count}, but a clip has 3 channels.")


def _channels(ae: AutoencoderConfig) -> dict[str, int]:
    """Return the channels that pixels have, by the key that says it."""
    match ae:
        case HunyuanVAEConfig() | AutoencoderKLConfig() | AutoencoderKLTemporalDecoderConfig():
            return {"in_channels": ae.in_channels, "out_channels": ae.out_channels}
        case AutoEncoder2DConfig():
            return {"in_channels": ae.in_channels, "out_ch": ae.out_ch}
        case VAETemporalConfig():
            return {"in_out_channels": ae.in_out_channels}
        case OpenSoraVAEConfig():
            return {f"vae_2d.{key}": count for key, count in _channels(ae.vae_2d).items()}
        case DCAEConfig():
            return {}
        case _:
            assert_never(ae)


@rule(
    "OSR115",
    VaeTrainRecipe,
    reason="Free memory says nothing of what a training update will take: tiles are chosen where nothing is trained.",
    fix='Set ae.tiling = "set", and tiles by their own keys where they are wanted.',
    wrong="""
        _base_ = "tiny/vae"
        [ae]
        tiling = "auto"
    """,
    right="""
        _base_ = "tiny/vae"
        [ae]
        tiling = "set"
    """,
)
def trained_tiles_are_set(recipe: VaeTrainRecipe) -> Iterator[Finding]:
    """tiling = "auto" is for autoencoders that are not trained."""
    if isinstance(recipe.ae, TiledConfig) and recipe.ae.tiling == "auto":
        yield Finding((("ae", "tiling"),), 'ae.tiling = "auto": training an autoencoder takes the tiles that are set.')


@rule(
    "OSR116",
    ClipsRecipe,
    SampleRecipe,
    reason="The stage along time takes the latents of pictures and halves time between blocks; latents are scaled by channel.",
    fix="Make channels, steps and values as many as the stages have.",
    wrong="""
        kind = "vae-train"
        [ae]
        type = "open_sora_vae"
        shift = [0.1, 0.2]
        [buckets]
        "256px" = { 17 = [1.0, 1] }
    """,
    right="""
        kind = "vae-train"
        [ae]
        type = "open_sora_vae"
        shift = 0.1
        [buckets]
        "256px" = { 17 = [1.0, 1] }
    """,
)
def stages_fit(recipe: Recipe) -> Iterator[Finding]:
    """Both stages have the same latents of pictures; lists have an entry for each step or channel."""
    for at, ae in autoencoders(recipe):
        if isinstance(ae, OpenSoraVAEConfig):
            yield from _joined(at, ae)
            yield from _steps((*at, "vae_temporal"), ae.vae_temporal)
        elif isinstance(ae, VAETemporalConfig):
            yield from _steps(at, ae)


def _joined(at: Key, ae: OpenSoraVAEConfig) -> Iterator[Finding]:
    table = ".".join(at)
    given, taken = ae.vae_2d.latent_channels, ae.vae_temporal.in_out_channels
    if given != taken:
        message = f"{table}.vae_2d.latent_channels = {given}, but {table}.vae_temporal.in_out_channels = {taken}."
        yield Finding(((*at, "vae_2d", "latent_channels"), (*at, "vae_temporal", "in_out_channels")), message)
    for name, values in (("shift", ae.shift), ("scale", ae.scale)):
        if isinstance(values, tuple) and len(values) != ae.latent_channels:
            message = f"{table}.{name} has {len(values)} values, but there are {ae.latent_channels} latent channels."
            yield Finding(
                ((*at, name), (*at, "vae_temporal", "embed_dim")), message, "Give one for each, or one number."
            )


def _steps(at: Key, ae: VAETemporalConfig) -> Iterator[Finding]:
    steps, table = len(ae.channel_multipliers) - 1, ".".join(at)
    if len(ae.temporal_downsample) != steps:
        message = f"{table}.temporal_downsample has {len(ae.temporal_downsample)} entries, but there are {steps} steps."
        yield Finding(((*at, "temporal_downsample"), (*at, "channel_multipliers")), message)


@rule(
    "OSR117",
    VaeTrainRecipe,
    reason="A loss compares what the autoencoder has: latents of pictures are between the two stages of open_sora_vae alone.",
    fix='Set ae.type = "open_sora_vae", or leave vae_loss.use_real_rec_loss = true and the other two false.',
    wrong="""
        _base_ = "tiny/vae"
        [vae_loss]
        use_z_rec_loss = true
    """,
    right="""
        _base_ = "tiny/vae"
        [vae_loss]
        use_real_rec_loss = true
    """,
)
def losses_have_their_stages(recipe: VaeTrainRecipe) -> Iterator[Finding]:
    """Losses of latents go with open_sora_vae, some loss counts in every update, and a discriminator sees pixels that learn."""
    loss = recipe.vae_loss
    for name in ("use_z_rec_loss", "use_image_identity_loss"):
        if getattr(loss, name) and not isinstance(recipe.ae, OpenSoraVAEConfig):
            message = f'vae_loss.{name} = true, but ae.type = "{recipe.ae.type}" has no two stages.'
            yield Finding((("vae_loss", name), ("ae", "type")), message)
    if loss.use_real_rec_loss:
        return
    real = ("vae_loss", "use_real_rec_loss")
    if not loss.use_z_rec_loss:
        message = "vae_loss.use_real_rec_loss = false and vae_loss.use_z_rec_loss = false: clips have no loss."
        yield Finding((real, ("vae_loss", "use_z_rec_loss")), message, "Set one of them.")
    if recipe.discriminator is not None:
        message = "vae_loss.use_real_rec_loss = false, but [discriminator] judges the pixels, which then do not learn."
        yield Finding((real, ("discriminator",)), message, "Set vae_loss.use_real_rec_loss = true.")
