"""The image stage of text to image to video, as a recipe of its own."""

from opensora_cli.data.aspect import aspect_table, closest_ratio
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig


def image_recipe(recipe: SampleRecipe) -> SampleRecipe:
    """Return the image stage of a recipe with [t2i2v] as a job of its own, which makes images of one prompt each."""
    stage = recipe.t2i2v
    assert stage is not None, "asked for where there is one"
    settings = image_settings(recipe, recipe.sampling)
    return recipe.model_copy(
        update={"model": stage.img_flux, "ae": stage.img_flux_ae, "sampling": settings, "t2i2v": None}
    )


def image_settings(recipe: SampleRecipe, config: SamplingConfig) -> SamplingConfig:
    """Return the settings of a clip's image: one frame at `img_resolution`, of the ratio that is nearest to the clip's.

    Steps and schedule are the clip's, as in Open-Sora 2.0 (utils/sampling.py, modify_option_to_t2i).
    """
    stage = recipe.t2i2v
    assert stage is not None, "asked for where there is one"
    ratio = config.aspect_ratio
    if config.height is not None and config.width is not None:
        pixels = stage.img_flux_ae.spatial_compression_ratio * stage.img_flux.patch_size
        ratio = closest_ratio(config.height, config.width, aspect_table(stage.img_resolution, pixels, training=False))
    return config.model_copy(
        update={
            "num_frames": 1,
            "cond_type": "t2v",
            "guidance": stage.img_guidance,
            "resolution": stage.img_resolution,
            "aspect_ratio": ratio,
            "height": None,
            "width": None,
        }
    )
