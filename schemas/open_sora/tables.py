"""Which key of Open-Sora 2.0 is which key of osora, for each kind of recipe."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas.open_sora.pairs import (
    BUCKETS,
    COSINE,
    EVERY_BLOCK,
    FACTOR,
    FAMILY,
    KEEPING,
    MIXED,
    MOTION,
    NAME,
    OFFLOAD,
    OPTIMIZER,
    SAVING,
    WARMUP,
    Pair,
    optional,
)

MMDIT = (
    Pair("type", "type", conversion=FAMILY),
    Pair("from_pretrained", "from_pretrained", None),
    *(
        Pair(name, name)
        for name in (
            "guidance_embed",
            "in_channels",
            "vec_in_dim",
            "context_in_dim",
            "hidden_size",
            "mlp_ratio",
            "num_heads",
            "depth",
            "depth_single_blocks",
            "axes_dim",
            "theta",
            "qkv_bias",
        )
    ),
    optional("fused_qkv", "fused_qkv", True),
    optional("use_liger_rope", "use_liger_rope", False),
    optional("patch_size", "patch_size", 2),
)
VIDEO_MMDIT = (*MMDIT, optional("cond_embed", "cond_embed", False))
IMAGE_MMDIT = (*MMDIT, Pair("cond_embed", "cond_embed", False))

HUNYUAN_VAE = (
    Pair("type", "type"),
    Pair("from_pretrained", "from_pretrained", None),
    Pair("in_channels", "in_channels", 3),
    Pair("out_channels", "out_channels", 3),
    Pair("layers_per_block", "layers_per_block", 2),
    Pair("latent_channels", "latent_channels", 16),
    Pair("use_spatial_tiling", "use_spatial_tiling", False),
    Pair("use_temporal_tiling", "use_temporal_tiling", False),
    optional("block_out_channels", "block_out_channels", [128, 256, 512, 512]),
    optional("norm_num_groups", "norm_num_groups", 32),
    optional("spatial_compression_ratio", "spatial_compression_ratio", 8),
    optional("mid_block_add_attention", "mid_block_add_attention", True),
    optional("sample_size", "sample_size", 256),
    optional("sample_tsize", "sample_tsize", 64),
    optional("tile_overlap_factor", "tile_overlap_factor", 0.25),
)
HUNYUAN_SCALE = (("scale_factor", 0.476986), ("shift_factor", 0.0), ("time_compression_ratio", 4))
DC_AE = (
    Pair("type", "type"),
    Pair("from_pretrained", "from_pretrained", None),
    Pair("model_name", "model_name", "dc-ae-f32t4c128", conversion=NAME),
    optional("scaling_factor", "scaling_factor", None, FACTOR),
)
DC_AE_TILES = (
    ("use_spatial_tiling", False),
    ("use_temporal_tiling", False),
    ("spatial_tile_size", 256),
    ("temporal_tile_size", 32),
    ("tile_overlap_factor", 0.25),
)
AUTOENCODER_2D = (
    Pair("type", "type"),
    Pair("from_pretrained", "from_pretrained", None),
    *(
        Pair(name, name)
        for name in (
            "in_channels",
            "ch",
            "out_ch",
            "ch_mult",
            "num_res_blocks",
            "z_channels",
            "scale_factor",
            "shift_factor",
        )
    ),
)

DATASET = (
    optional("dataset.data_path", "dataset.data_path", None),
    Pair("dataset.transform_name", "dataset.transform_name"),
    Pair("dataset.fps_max", "dataset.fps_max", 16),
    optional("dataset.vmaf", "dataset.vmaf", False),
    Pair("num_workers", "dataset.num_workers", 4),
    Pair("prefetch_factor", "dataset.prefetch_factor", 2),
    Pair("bucket_config", "buckets", conversion=BUCKETS),
    Pair("seed", "seed", 1024),
)
RUN = (
    *DATASET,
    Pair("dtype", "dtype", "bf16"),
    Pair("outputs", "outputs", "./outputs"),
    Pair("epochs", "epochs", 1000),
    Pair("ckpt_every", "checkpoint.every", 0, conversion=SAVING),
    Pair("keep_n_latest", "checkpoint.keep_n_latest", -1, conversion=KEEPING),
    Pair("log_every", "logging.log_every", 1),
    Pair("grad_clip", "optim.grad_clip", 0.0),
    Pair("ema_decay", "optim.ema_decay", None),
    Pair("optim.cls", "optim.cls", "HybridAdam", conversion=OPTIMIZER),
    Pair("optim.lr", "optim.lr"),
    Pair("optim.eps", "optim.eps", 1e-8),
    Pair("optim.weight_decay", "optim.weight_decay", 0.0),
    optional("optim.betas", "optim.betas", [0.9, 0.999]),
)
LORA = (
    Pair("lora_config.r", "lora.r", 8),
    Pair("lora_config.lora_alpha", "lora.lora_alpha", 8),
    Pair("lora_config.lora_dropout", "lora.lora_dropout", 0.0),
    Pair("lora_config.target_modules", "lora.target_modules"),
    optional("lora_checkpoint", "lora.from_pretrained", None),
)
TRAIN = (
    *RUN,
    Pair("grad_checkpoint", "memory.grad_checkpoint", True),
    Pair("model.grad_ckpt_settings", "memory.grad_ckpt_settings", None, conversion=EVERY_BLOCK),
    optional("grad_ckpt_buffer_size", "memory.grad_ckpt_buffer_size", 0),
    Pair("async_io", "checkpoint.async_save", False),
    Pair("accumulation_steps", "optim.accumulation_steps", 1),
    Pair("warmup_steps", "optim.warmup_steps", None, conversion=WARMUP),
    optional("use_cosine_scheduler", "optim.schedule", False, COSINE),
    Pair("dropout_ratio.t5", "dropout_ratio.t5", 0.0),
    Pair("dropout_ratio.clip", "dropout_ratio.clip", 0.0),
    optional("sigma_min", "diffusion.sigma_min", 1e-5),
    optional("guidance", "diffusion.guidance", 4.0),
    optional("cached_video", "dataset.cached_video", False),
    optional("cached_text", "dataset.cached_text", False),
)
TEXT = tuple(
    pair.below(encoder, f"text.{encoder}")
    for encoder in ("t5", "clip")
    for pair in (
        Pair("from_pretrained", "from_pretrained"),
        Pair("max_length", "max_length"),
        optional("shardformer", "shardformer", False),
    )
)
VAE_TRAIN = (
    *RUN,
    Pair("grad_checkpoint", "memory.grad_checkpoint", False),
    optional("grad_checkpoint_buffer_size", "memory.grad_ckpt_buffer_size", 0),
    optional("accumulation_steps", "optim.accumulation_steps", 1),
    Pair("lr_scheduler.warmup_steps", "optim.warmup_steps", None, conversion=WARMUP),
    optional("lr_scheduler.use_cosine_scheduler", "optim.schedule", False, COSINE),
    Pair("vae_loss_config.perceptual_loss_weight", "vae_loss.perceptual_loss_weight", 1.0),
    Pair("vae_loss_config.kl_loss_weight", "vae_loss.kl_loss_weight", 5e-4),
    optional("vae_loss_config.logvar_init", "vae_loss.logvar_init", 0.0),
    optional("opl_loss_weight", "vae_loss.opl_loss_weight", 0),
    optional("mixed_strategy", "mixed_strategy", None, MIXED),
    optional("mixed_image_ratio", "mixed_image_ratio", 0.0),
)
DISCRIMINATOR = (
    Pair("discriminator.from_pretrained", "discriminator.from_pretrained", None),
    Pair("discriminator.n_layers", "discriminator.n_layers", 5),
    optional("discriminator.ndf", "discriminator.ndf", 64),
    optional("discriminator.dropout", "discriminator.dropout", 0.3),
    optional("alter_train_gen_disc", "discriminator.alter_train_gen_disc", False),
    Pair("gen_loss_config.gen_start", "discriminator.gen_loss.gen_start"),
    Pair("gen_loss_config.disc_factor", "discriminator.gen_loss.disc_factor", 1.0),
    Pair("gen_loss_config.disc_weight", "discriminator.gen_loss.disc_weight", 0.5),
    Pair("disc_loss_config.disc_start", "discriminator.disc_loss.disc_start"),
    Pair("disc_loss_config.disc_factor", "discriminator.disc_loss.disc_factor", 1.0),
    Pair("disc_loss_config.disc_loss_type", "discriminator.disc_loss.disc_loss_type", "hinge"),
    Pair("optim_discriminator.lr", "discriminator.optim.lr"),
    Pair("optim_discriminator.eps", "discriminator.optim.eps", 1e-8),
    Pair("optim_discriminator.weight_decay", "discriminator.optim.weight_decay", 0.0),
    optional("optim_discriminator.betas", "discriminator.optim.betas", [0.9, 0.999]),
    Pair("disc_lr_scheduler.warmup_steps", "discriminator.optim.warmup_steps", None, conversion=WARMUP),
)
SAMPLE = (
    Pair("dtype", "dtype", "bf16"),
    Pair("seed", "sampling.seed", 1024),
    Pair("save_dir", "sampling.save_dir"),
    Pair("batch_size", "sampling.batch_size", 1),
    Pair("cond_type", "sampling.cond_type", "t2v"),
    Pair("fps_save", "sampling.fps_save", 16),
    optional("motion_score", "sampling.motion_score", None, MOTION),
    optional("prompt_refine", "sampling.refine_prompt", False),
    optional("num_sample", "sampling.num_samples", 1),
    optional("offload_model", "sampling.offload", False, OFFLOAD),
    *(
        pair.below("sampling_option", "sampling")
        for pair in (
            optional("height", "height", None),
            optional("width", "width", None),
            optional("flow_shift", "flow_shift", None),
            Pair("resolution", "resolution"),
            Pair("aspect_ratio", "aspect_ratio"),
            Pair("num_frames", "num_frames", 1),
            Pair("num_steps", "num_steps", 50),
            Pair("guidance", "guidance", 4.0),
            Pair("guidance_img", "guidance_img"),
            Pair("text_osci", "text_osci", False),
            Pair("image_osci", "image_osci", False),
            Pair("scale_temporal_osci", "scale_temporal_osci", False),
            Pair("shift", "shift", True),
        )
    ),
)
VAE_SAMPLE = (
    *DATASET,
    Pair("dtype", "dtype", "fp32"),
    Pair("save_dir", "reconstruction.save_dir"),
    optional("fps", "reconstruction.fps_save", 16),
)
VAE_STATS = (*DATASET, Pair("dtype", "dtype", "bf16"))

SIMPLE: Mapping[str, tuple[Pair, ...]] = {
    "train": (*TRAIN, *TEXT),
    "vae-train": VAE_TRAIN,
    "sample": (*SAMPLE, *TEXT),
    "vae-sample": VAE_SAMPLE,
    "vae-stats": VAE_STATS,
}
"""The pairs of a kind that no other key decides about."""
AUTOENCODER_TABLE = {"train": "ae", "sample": "ae", "vae-train": "model", "vae-sample": "model", "vae-stats": "model"}
"""Where Open-Sora keeps the autoencoder that osora keeps in [ae]."""


def pairs_of(kind: str, family: Mapping[str, str], tables: Iterable[str], tiled: bool = True) -> tuple[Pair, ...]:
    """Return every pair of a recipe.

    `family` is the `type` of the tables that hold an autoencoder, by osora's key; `tables` the optional tables of osora
    that the recipe has; `tiled` whether a DC-AE works in tiles, since only then its tile sizes are written.
    """
    return tuple(_pairs(kind, family, set(tables), tiled))


def _pairs(kind: str, family: Mapping[str, str], tables: set[str], tiled: bool) -> Iterator[Pair]:
    yield from SIMPLE[kind]
    scale = kind not in ("train", "sample")
    yield from _below(autoencoder_pairs(family.get("ae"), scale=scale, tiled=tiled), AUTOENCODER_TABLE[kind], "ae")
    if kind in ("train", "sample"):
        yield from _below(VIDEO_MMDIT, "model", "model")
    if "lora" in tables:
        yield from LORA
    if "discriminator" in tables:
        yield from DISCRIMINATOR
    if "t2i2v" in tables:
        yield Pair("img_resolution", "t2i2v.img_resolution", "768px")
        yield from _below(IMAGE_MMDIT, "img_flux", "t2i2v.img_flux")
        image_ae = autoencoder_pairs(family.get("t2i2v.img_flux_ae"), scale=False, tiled=True)
        yield from _below(image_ae, "img_flux_ae", "t2i2v.img_flux_ae")


def autoencoder_pairs(family: str | None, *, scale: bool, tiled: bool) -> tuple[Pair, ...]:
    """Return the pairs inside an autoencoder's table; nothing for a family that osora does not know."""
    match family:
        case "hunyuan_vae":
            return (*HUNYUAN_VAE, *(Pair(name, name, default, written=scale) for name, default in HUNYUAN_SCALE))
        case "dc_ae":
            return (*DC_AE, *(Pair(name, name, default, written=tiled) for name, default in DC_AE_TILES))
        case "autoencoder_2d":
            return AUTOENCODER_2D
    return ()


def _below(pairs: Iterable[Pair], theirs: str, ours: str) -> Iterator[Pair]:
    return (pair.below(theirs, ours) for pair in pairs)


def look_up(values: Any, key: str) -> Any:
    """Return the value of a dotted key in nested dicts; `KeyError` where there is none. Names hold no dots here."""
    for part in key.split("."):
        if not isinstance(values, Mapping):
            raise KeyError(key)
        values = values[part]
    return values
