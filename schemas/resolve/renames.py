"""Keys that people know by another name: Open-Sora's, and those of older versions of the recipe language.

One table a step of `schema_version`. `osora config migrate` rewrites files by them, and an unknown key is looked up here.
Only keys with a new place and the same meaning stand here; everything else is for `osora config import`.
"""

from schemas.resolve.keys import Path, parse_key

VERSION = 1
"""The version of the recipe language that this osora reads."""

RENAMES: dict[int, dict[str, tuple[str, ...]]] = {
    0: {
        "ckpt_every": ("checkpoint.every",),
        "keep_n_latest": ("checkpoint.keep_n_latest",),
        "async_io": ("checkpoint.async_save",),
        "log_every": ("logging.log_every",),
        "wandb_project": ("logging.wandb_project",),
        "bucket_config": ("buckets",),
        "condition_config": ("condition",),
        "vae_loss_config": ("vae_loss",),
        "sampling_option": ("sampling",),
        "plugin": ("parallel.plugin",),
        "plugin_config": ("parallel",),
        "img_flux": ("t2i2v.img_flux",),
        "img_flux_ae": ("t2i2v.img_flux_ae",),
        "img_resolution": ("t2i2v.img_resolution",),
        "t5": ("text.t5",),
        "clip": ("text.clip",),
        "grad_checkpoint": ("memory.grad_checkpoint",),
        "grad_ckpt_settings": ("memory.grad_ckpt_settings",),
        "grad_ckpt_setting": ("memory.grad_ckpt_settings",),
        "grad_ckpt_buffer_size": ("memory.grad_ckpt_buffer_size",),
        "lr": ("optim.lr",),
        "initial_lr": ("optim.initial_lr",),
        "eps": ("optim.eps",),
        "betas": ("optim.betas",),
        "weight_decay": ("optim.weight_decay",),
        "grad_clip": ("optim.grad_clip",),
        "accumulation_steps": ("optim.accumulation_steps",),
        "warmup_steps": ("optim.warmup_steps",),
        "lr_scheduler.warmup_steps": ("optim.warmup_steps",),
        "ema_decay": ("optim.ema_decay",),
        "num_workers": ("dataset.num_workers",),
        "prefetch_factor": ("dataset.prefetch_factor",),
        "save_dir": ("sampling.save_dir", "reconstruction.save_dir"),
        "fps_save": ("sampling.fps_save", "reconstruction.fps_save"),
        "num_samples": ("sampling.num_samples", "reconstruction.num_samples"),
        "cond_type": ("sampling.cond_type",),
        "motion_score": ("sampling.motion_score",),
        "batch_size": ("sampling.batch_size",),
    },
}
"""From version N to N + 1: old dotted key -> the new one, or one for each kind that has it."""


def renamed(path: Path) -> list[Path]:
    """Return where a key of an older version, or of Open-Sora, may stand now; also for keys inside a renamed table."""
    places = [path]
    for version in sorted(RENAMES):
        places = [new for place in places for new in _step(RENAMES[version], place)]
    return [place for place in places if place != path]


def _step(table: dict[str, tuple[str, ...]], path: Path) -> list[Path]:
    for old, places in table.items():
        before = parse_key(old)
        if path[: len(before)] == before:
            return [(*parse_key(new), *path[len(before) :]) for new in places]
    return [path]
