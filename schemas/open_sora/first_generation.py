"""Open-Sora 1.x: the keys that have a counterpart, while its model families have none here."""

from collections.abc import Mapping
from typing import Any

from schemas.open_sora.pairs import BUCKETS, KEEPING, MIXED, SAVING, WARMUP, Conversion, NoCounterpartError, Pair


def _side(index: int) -> Conversion:
    def side(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            raise NoCounterpartError("no pair of height and width")
        return value[index]

    return Conversion(side)


RUN = (
    Pair("seed", "seed"),
    Pair("dtype", "dtype"),
    Pair("outputs", "outputs"),
    Pair("epochs", "epochs"),
    Pair("ckpt_every", "checkpoint.every", conversion=SAVING),
    Pair("keep_n_latest", "checkpoint.keep_n_latest", conversion=KEEPING),
    Pair("log_every", "logging.log_every"),
    Pair("lr", "optim.lr"),
    Pair("adam_eps", "optim.eps"),
    Pair("weight_decay", "optim.weight_decay"),
    Pair("grad_clip", "optim.grad_clip"),
    Pair("ema_decay", "optim.ema_decay"),
    Pair("accumulation_steps", "optim.accumulation_steps"),
    Pair("warmup_steps", "optim.warmup_steps", conversion=WARMUP),
    Pair("grad_checkpoint", "memory.grad_checkpoint"),
    Pair("num_workers", "dataset.num_workers"),
    Pair("dataset.data_path", "dataset.data_path"),
    Pair("data_path", "dataset.data_path"),
    Pair("dataset.transform_name", "dataset.transform_name"),
    Pair("bucket_config", "buckets", conversion=BUCKETS),
    Pair("sp_size", "parallel.sp_size"),
)
SAMPLE = (
    Pair("seed", "sampling.seed"),
    Pair("dtype", "dtype"),
    Pair("save_dir", "sampling.save_dir"),
    Pair("batch_size", "sampling.batch_size"),
    Pair("num_frames", "sampling.num_frames"),
    Pair("resolution", "sampling.resolution"),
    Pair("aspect_ratio", "sampling.aspect_ratio"),
    Pair("image_size", "sampling.height", conversion=_side(0)),
    Pair("image_size", "sampling.width", conversion=_side(1)),
    Pair("save_fps", "sampling.fps_save"),
    Pair("num_sample", "sampling.num_samples"),
    Pair("scheduler.num_sampling_steps", "sampling.num_steps"),
    Pair("scheduler.cfg_scale", "sampling.guidance"),
)
VAE_TRAIN = (
    *RUN,
    Pair("kl_loss_weight", "vae_loss.kl_loss_weight"),
    Pair("perceptual_loss_weight", "vae_loss.perceptual_loss_weight"),
    Pair("mixed_strategy", "mixed_strategy", conversion=MIXED),
    Pair("mixed_image_ratio", "mixed_image_ratio"),
)
VAE_SAMPLE = (
    Pair("seed", "seed"),
    Pair("dtype", "dtype"),
    Pair("save_dir", "reconstruction.save_dir"),
    Pair("num_samples", "reconstruction.num_samples"),
    Pair("num_workers", "dataset.num_workers"),
    Pair("dataset.data_path", "dataset.data_path"),
)
PAIRS: Mapping[str, tuple[Pair, ...]] = {
    "train": RUN,
    "sample": SAMPLE,
    "vae-train": VAE_TRAIN,
    "vae-sample": VAE_SAMPLE,
    "vae-stats": VAE_SAMPLE[:2] + VAE_SAMPLE[4:],
}


def fixed_bucket(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the one bucket of a config without buckets, which has one square size, and the keys that say so; else nothing."""
    dataset = values.get("dataset")
    tables = {"": values, "dataset.": dataset if isinstance(dataset, Mapping) else {}}
    if values.get("bucket_config") is not None:
        return {}, []
    read: list[str] = []
    size: dict[str, Any] = {"batch_size": 1}
    for prefix, table in tables.items():
        for name in ("image_size", "num_frames", "batch_size"):
            if table.get(name) is not None and size.get(name, table[name]) in (table[name], 1):
                size[name] = table[name]
                read.append(f"{prefix}{name}")
    match size:
        case {"image_size": [int(height), int(width)], "num_frames": int(frames), "batch_size": int(batch)}:
            if height == width:
                return {f"{height}px_ar1:1": {str(frames): [1.0, batch]}}, read
    return {}, []


def is_first_generation(values: Mapping[str, Any]) -> bool:
    """Whether a config is one of 1.x: those name their autoencoder `vae`, and have a `scheduler` and other families."""
    model = values.get("model")
    family = model.get("type") if isinstance(model, Mapping) else None
    known = (None, "flux", "hunyuan_vae", "dc_ae", "autoencoder_2d")
    return family not in known or any(name in values for name in ("vae", "text_encoder", "scheduler"))
