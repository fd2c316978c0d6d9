"""Keys of Open-Sora whose value osora does not choose: always the same, or following from other keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.autoencoder import AutoencoderConfig
from schemas.recipes import AnyRecipe, SampleRecipe, TrainRecipe

ADAMW = "osora's AdamW is the decoupled one"
CONSTANTS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "train": {
        "dataset.type": ("video_text", "osora has one kind of data set: a table of clips"),
        "optim.adamw_mode": (True, ADAMW),
        "load_master_weights": (True, "a checkpoint always holds fp32 weights, and a resumed run starts from them"),
        "save_master_weights": (True, "a checkpoint always holds fp32 weights"),
        "update_warmup_steps": (True, "the schedule is a function of the update, resumed or not"),
    },
    "vae-train": {
        "dataset.type": ("video_text", "osora has one kind of data set: a table of clips"),
        "optim.adamw_mode": (True, ADAMW),
        "update_warmup_steps": (True, "the schedule is a function of the update, resumed or not"),
    },
    "sample": {"dataset.type": ("text", "prompts come from the command line or a file")},
    "vae-sample": {"dataset.type": ("video_text", "osora has one kind of data set: a table of clips")},
    "vae-stats": {"dataset.type": ("video_text", "osora has one kind of data set: a table of clips")},
}
TEXT_TYPE = {
    f"{encoder}.type": ("text_embedder", "osora knows the family by the table's name") for encoder in ("t5", "clip")
}
DISCRIMINATOR = {
    "discriminator.type": ("N_Layer_discriminator_3D", "osora has one family of discriminators"),
    "discriminator.input_nc": (3, "the colour channels of the autoencoder"),
    "discriminator.conv_cls": ("conv3d", "the discriminator looks at clips"),
    "optim_discriminator.cls": ("HybridAdam", ADAMW),
    "optim_discriminator.adamw_mode": (True, ADAMW),
}
DC_AE = {"from_scratch": (True, "osora downloads nothing: weights come from from_pretrained alone")}
AUTOENCODER_2D = {"resolution": (256, "no layer of the autoencoder depends on it")}
BY_FAMILY: Mapping[str, Mapping[str, tuple[Any, str]]] = {"dc_ae": DC_AE, "autoencoder_2d": AUTOENCODER_2D}


def constants(kind: str, family: Mapping[str, str], tables: set[str], ae_table: str) -> dict[str, tuple[Any, str]]:
    """Return what an export always writes for such a recipe: dotted key -> (value, reason)."""
    found = dict(CONSTANTS[kind])
    if kind in ("train", "sample"):
        found |= TEXT_TYPE
    if "discriminator" in tables:
        found |= DISCRIMINATOR
    for ours, theirs in (("ae", ae_table), ("t2i2v.img_flux_ae", "img_flux_ae")):
        within = BY_FAMILY.get(family.get(ours, ""), {})
        found |= {f"{theirs}.{name}": fixed for name, fixed in within.items()}
    return found


def derived(recipe: AnyRecipe) -> dict[str, tuple[Any, str]]:
    """Return the keys of Open-Sora that state again what other keys say: dotted key -> (value, where it comes from)."""
    match recipe:
        case TrainRecipe():
            return dict(_train(recipe))
        case SampleRecipe():
            return dict(_sample(recipe))
    return {}


def _train(recipe: TrainRecipe) -> Iterator[tuple[str, tuple[Any, str]]]:
    yield "lr", (recipe.optim.lr, "optim.lr; Open-Sora reads this one when it resumes")
    yield "eps", (recipe.optim.eps, "optim.eps; Open-Sora reads this one when it resumes")
    yield (
        "grad_ckpt_settings",
        (list(recipe.memory.grad_ckpt_settings), "memory.grad_ckpt_settings; Open-Sora reads model's"),
    )
    yield "is_causal_vae", (recipe.ae.causal, "the family of the autoencoder (ae.type)")
    yield from _sizes(recipe.ae, recipe.model.patch_side)


def _sample(recipe: SampleRecipe) -> Iterator[tuple[str, tuple[Any, str]]]:
    method = "distill" if recipe.model.guidance_embed else "i2v"
    yield "sampling_option.method", (method, "model.guidance_embed")
    yield "sampling_option.is_causal_vae", (recipe.ae.causal, "the family of the autoencoder (ae.type)")
    ratio = recipe.ae.time_compression_ratio
    yield "sampling_option.temporal_reduction", (ratio, "the autoencoder's frames per latent frame")
    yield "sampling_option.seed", (None, "sampling.seed, which is written as `seed`")
    yield from _sizes(recipe.ae, recipe.model.patch_side)


def _sizes(ae: AutoencoderConfig, patch_size: int) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Open-Sora assumes a patch of 2 and 16 pixels a token where nothing else is said."""
    if patch_size != 2:
        yield "patch_size", (patch_size, "model.patch_size")
    if (pixels := ae.spatial_compression_ratio * patch_size) != 16:
        yield "ae_spatial_compression", (pixels, "the autoencoder's pixels per latent pixel x model.patch_size")
