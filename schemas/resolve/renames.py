"""Keys that people know by another name: Open-Sora's, and those of older versions of the recipe language.

One table a step of `schema_version`. `osora config migrate` rewrites files by them, and an unknown key is looked up here.
Only keys with a new place and the same meaning stand here; everything else is for `osora config import`.
"""

from schemas.resolve.keys import Path, parse_key

VERSION = 1
"""The version of the recipe language that this osora reads."""

RENAMES: dict[int, dict[str, str]] = {
    0: {
        "ckpt_every": "checkpoint.every",
        "keep_n_latest": "checkpoint.keep_n_latest",
        "async_io": "checkpoint.async_save",
        "log_every": "logging.log_every",
        "bucket_config": "buckets",
        "condition_config": "condition",
        "vae_loss_config": "vae_loss",
        "sampling_option": "sampling",
        "t5": "text.t5",
        "clip": "text.clip",
        "grad_checkpoint": "memory.grad_checkpoint",
        "grad_ckpt_settings": "memory.grad_ckpt_settings",
        "grad_ckpt_setting": "memory.grad_ckpt_settings",
        "lr": "optim.lr",
        "eps": "optim.eps",
        "betas": "optim.betas",
        "weight_decay": "optim.weight_decay",
        "grad_clip": "optim.grad_clip",
        "accumulation_steps": "optim.accumulation_steps",
        "warmup_steps": "optim.warmup_steps",
        "lr_scheduler.warmup_steps": "optim.warmup_steps",
        "ema_decay": "optim.ema_decay",
        "num_workers": "dataset.num_workers",
        "prefetch_factor": "dataset.prefetch_factor",
        "save_dir": "sampling.save_dir",
        "fps_save": "sampling.fps_save",
        "cond_type": "sampling.cond_type",
        "motion_score": "sampling.motion_score",
        "batch_size": "sampling.batch_size",
        "num_samples": "sampling.num_samples",
    },
}
"""From version N to N + 1: old dotted key -> new one."""


def renamed(path: Path) -> Path | None:
    """Return where a key of an older version, or of Open-Sora, stands now; also for keys inside a renamed table."""
    here = path
    for version in sorted(RENAMES):
        here = _step(RENAMES[version], here)
    return None if here == path else here


def _step(table: dict[str, str], path: Path) -> Path:
    for old, new in table.items():
        before = parse_key(old)
        if path[: len(before)] == before:
            return (*parse_key(new), *path[len(before) :])
    return path
