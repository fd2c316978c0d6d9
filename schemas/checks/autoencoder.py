"""OSR11x: an autoencoder must fit itself."""

from collections.abc import Iterator

from schemas.autoencoder import AutoEncoder2DConfig, AutoencoderConfig, DCAEConfig, HunyuanVAEConfig
from schemas.autoencoder.dc_ae import DCAEShape
from schemas.checks.model import autoencoders
from schemas.checks.registry import Finding, rule
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
    ae = recipe.ae
    if isinstance(ae, HunyuanVAEConfig):
        channels = {"in_channels": ae.in_channels, "out_channels": ae.out_channels}
    elif isinstance(ae, AutoEncoder2DConfig):
        channels = {"in_channels": ae.in_channels, "out_ch": ae.out_ch}
    else:
        return
    for name, count in channels.items():
        if count != 3:
            yield Finding((("ae", name),), f"ae.{name} = {count}, but a clip has 3 channels.")


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
    if not isinstance(recipe.ae, AutoEncoder2DConfig) and recipe.ae.tiling == "auto":
        yield Finding((("ae", "tiling"),), 'ae.tiling = "auto": training an autoencoder takes the tiles that are set.')
