"""Open-Sora 1.0 to 1.2: which key of their configs is which of osora's, and what their scripts do without a key."""

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.frame_mask import OLD_NAMES, MaskRatios
from schemas.open_sora.first_models import (
    AUTOENCODERS,
    DENOISERS,
    SCHEDULERS,
    SOLVERS,
    STAGES,
    allow_missing,
    autoencoder_pairs,
    denoiser_pairs,
    scheduler_pairs,
    text_pairs,
)
from schemas.open_sora.pairs import (
    BUCKETS_1_2,
    FRAMES,
    HALF,
    KEEPING,
    MIXED,
    ONE_FOR_ALL,
    PLACEHOLDER,
    SAVING,
    WARMUP,
    WIDTH_FIRST,
    Conversion,
    NoCounterpartError,
    Pair,
    optional,
)
from schemas.open_sora.tables import AUTOENCODER_TABLE, look_up

RULES = "open-sora-1.2"


def _side(index: int) -> Conversion:
    def side(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            raise NoCounterpartError("no pair of height and width")
        return value[index]

    return Conversion(side)


CLIPS = (
    optional("seed", "seed", 1024),
    Pair("dtype", "dtype", conversion=HALF),
    Pair("num_workers", "dataset.num_workers"),
    Pair("dataset.data_path", "dataset.data_path", conversion=PLACEHOLDER),
    Pair("data_path", "dataset.data_path", conversion=PLACEHOLDER),
    Pair("dataset.frame_interval", "dataset.frame_interval"),
    Pair("frame_interval", "dataset.frame_interval"),
    optional("dataset.transform_name", "dataset.transform_name", "center"),
    Pair("bucket_config", "buckets", conversion=BUCKETS_1_2),
)
RUN = (
    *CLIPS,
    Pair("outputs", "outputs"),
    optional("epochs", "epochs", 1000),
    Pair("ckpt_every", "checkpoint.every", conversion=SAVING),
    Pair("keep_n_latest", "checkpoint.keep_n_latest", conversion=KEEPING),
    Pair("log_every", "logging.log_every"),
    Pair("lr", "optim.lr"),
    Pair("adam_eps", "optim.eps"),
    Pair("weight_decay", "optim.weight_decay"),
    optional("grad_clip", "optim.grad_clip", 0.0),
    Pair("accumulation_steps", "optim.accumulation_steps"),
    Pair("warmup_steps", "optim.warmup_steps", conversion=WARMUP),
    Pair("grad_checkpoint", "memory.grad_checkpoint"),
)
TRAIN = (
    *RUN,
    optional("ema_decay", "optim.ema_decay", 0.9999),
    *(Pair(f"mask_ratios.{name}", f"mask_ratios.{name}") for name in MaskRatios.model_fields),
    *(Pair(f"mask_ratios.{old}", f"mask_ratios.{new}") for old, new in OLD_NAMES.items()),
)
SAMPLE = (
    optional("seed", "sampling.seed", 1024),
    Pair("dtype", "dtype", conversion=HALF),
    Pair("save_dir", "sampling.save_dir"),
    Pair("batch_size", "sampling.batch_size"),
    Pair("num_frames", "sampling.num_frames", conversion=FRAMES),
    Pair("resolution", "sampling.resolution"),
    Pair("aspect_ratio", "sampling.aspect_ratio", conversion=WIDTH_FIRST),
    Pair("image_size", "sampling.height", conversion=_side(0)),
    Pair("image_size", "sampling.width", conversion=_side(1)),
    Pair("save_fps", "sampling.fps_save"),
    Pair("fps", "sampling.fps_save"),
    Pair("num_sample", "sampling.num_samples"),
    Pair("scheduler.num_sampling_steps", "sampling.num_steps"),
    optional("scheduler.cfg_scale", "sampling.guidance", 4.0),
    Pair("loop", "sampling.loop"),
    Pair("condition_frame_length", "sampling.condition_frame_length"),
    Pair("condition_frame_edit", "sampling.condition_frame_edit"),
    Pair("align", "sampling.align"),
    Pair("aes", "sampling.aes"),
    Pair("flow", "sampling.flow"),
    Pair("camera_motion", "sampling.camera_motion"),
    Pair("mask_strategy", "sampling.mask_strategy", conversion=ONE_FOR_ALL),
)
VAE_TRAIN = (
    *RUN,
    Pair("kl_loss_weight", "vae_loss.kl_loss_weight"),
    optional("perceptual_loss_weight", "vae_loss.perceptual_loss_weight", 0.1),
    optional("use_real_rec_loss", "vae_loss.use_real_rec_loss", False),
    Pair("use_z_rec_loss", "vae_loss.use_z_rec_loss"),
    Pair("use_image_identity_loss", "vae_loss.use_image_identity_loss"),
    Pair("mixed_strategy", "mixed_strategy", conversion=MIXED),
    Pair("mixed_image_ratio", "mixed_image_ratio"),
)
VAE_SAMPLE = (
    *CLIPS,
    Pair("save_dir", "reconstruction.save_dir"),
    Pair("num_samples", "reconstruction.num_samples"),
)
PAIRS: Mapping[str, tuple[Pair, ...]] = {
    "train": TRAIN,
    "sample": SAMPLE,
    "vae-train": VAE_TRAIN,
    "vae-sample": VAE_SAMPLE,
    "vae-stats": CLIPS,
}
"""The pairs of a kind that no other key decides about."""


def first_pairs(kind: str, values: Mapping[str, Any]) -> tuple[Pair, ...]:
    """Return every pair of such a config: those of its kind, and those of the models that it names."""
    return tuple(_first_pairs(kind, values))


def _first_pairs(kind: str, values: Mapping[str, Any]) -> Iterator[Pair]:
    yield from PAIRS[kind]
    table = _ae_table(kind)
    yield from autoencoder_pairs(_word(values, f"{table}.type"), table)
    if kind in ("train", "sample"):
        name = _word(values, "model.type")
        yield from denoiser_pairs(name)
        yield from text_pairs(_word(values, "text_encoder.type"), name)
        yield from scheduler_pairs(_word(values, "scheduler.type"))


def said_by_names(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield (osora's key, value, the key that says so) for what a name or the script stands for; "" is the script."""
    yield from _models(kind, values)
    if kind == "sample":
        yield "sampling.rules", RULES, ""
        yield "sampling.motion_score", "none", ""
        for name in ("text_osci", "image_osci", "scale_temporal_osci"):
            yield f"sampling.{name}", False, ""
        scheduler = _word(values, "scheduler.type")
        if scheduler in SOLVERS:
            yield "sampling.solver", SOLVERS[scheduler], "scheduler.type"
    else:
        yield "dataset.rules", RULES, ""


def _models(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    table = _ae_table(kind)
    for key, value in AUTOENCODERS.get(_word(values, f"{table}.type"), {}).items():
        yield f"ae.{key}", value, f"{table}.type"
    for stage, names in STAGES.items():
        name = _word(values, f"{table}.{stage}.type")
        if name in names:
            yield f"ae.{stage}.type", names[name], f"{table}.{stage}.type"
    if kind in ("train", "sample"):
        yield from _denoiser(kind, values)


def _denoiser(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    name, scheduler = _word(values, "model.type"), _word(values, "scheduler.type")
    if name in DENOISERS:
        yield "model.type", DENOISERS[name].family, "model.type"
        for key, value in DENOISERS[name].values.items():
            yield f"model.{key}", value, "model.type"
        if not scheduler:
            yield "diffusion.type", DENOISERS[name].diffusion, "model.type"
    source, condition = _value(values, "model.from_pretrained"), _value(values, "model.condition")
    if kind == "train" and (anew := allow_missing(name, source, condition)):
        yield "model.allow_missing", anew, "model.from_pretrained"
    for key, value in SCHEDULERS.get(scheduler, {}).items():
        yield f"diffusion.{key}", value, "scheduler.type"
    if scheduler.startswith("iddpm") and is_1_0(values):
        yield "diffusion.cfg_channel", 3, ""
    if _word(values, "text_encoder.type") == "t5":
        yield "text.t5.cleaning", "clean", "text_encoder.type"
        yield "text.t5.masked", True, "text_encoder.type"


def is_1_0(values: Mapping[str, Any]) -> bool:
    """Whether a config is one of 1.0, which guides three channels alone: its keys have other names than those of 1.1."""
    return "root" in values or _value(values, "model.enable_flashattn") is not None


def said_elsewhere(kind: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that a recipe says by another key, or by not saying anything."""
    if _value(values, "dataset.type") in ("VideoTextDataset", "VariableVideoTextDataset"):
        yield "dataset.type"
    if kind == "train":
        yield "mask_ratios.identity"  # what the other masks leave
    encoder, condition = _word(values, "text_encoder.type"), _word(values, "model.condition")
    if encoder in ("t5", "clip") or (encoder == "classes" and condition.startswith("label_")):
        yield "text_encoder.type"
    if condition and condition == f"label_{_value(values, 'text_encoder.num_classes')}":
        yield "text_encoder.num_classes"


def disagreements_within(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield keys that say otherwise than another key, which counts, with the reason."""
    shown, saved = values.get("fps"), values.get("save_fps")
    if kind == "sample" and shown is not None and saved not in (None, shown):
        yield "save_fps", "clips play at the rate that the denoiser is told, which is `fps`"


def fixed_bucket(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the one bucket of a config without buckets, which has one size, and the keys that say so; else nothing."""
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
            return {f"{height}x{width}": {str(frames): [1.0, batch]}}, read
    return {}, []


def is_first_generation(values: Mapping[str, Any]) -> bool:
    """Whether a config is one of 1.x: those name their autoencoder `vae`, and have a `scheduler` and other families."""
    model = values.get("model")
    family = model.get("type") if isinstance(model, Mapping) else None
    known = (None, "flux", "hunyuan_vae", "dc_ae", "autoencoder_2d")
    return family not in known or any(name in values for name in ("vae", "text_encoder", "scheduler"))


def _ae_table(kind: str) -> str:
    return "vae" if AUTOENCODER_TABLE[kind] == "ae" else "model"


def _value(values: Mapping[str, Any], key: str) -> Any:
    try:
        return look_up(values, key)
    except KeyError:
        return None


def _word(values: Mapping[str, Any], key: str) -> str:
    value = _value(values, key)
    return value if isinstance(value, str) else ""
