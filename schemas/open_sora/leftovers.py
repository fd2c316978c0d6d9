"""Keys of Open-Sora that osora has no use for, with the reason: what an import says about them."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from schemas.open_sora.differences import covered

RESUMING = "`osora train RECIPE --resume` goes on where a run stopped"
COMMAND_LINE = "an option of the command, not of the recipe"
TIMING = "metrics.jsonl has the seconds of every update"
NO_EFFECT = "it has no effect in Open-Sora"
FIRST = "Open-Sora 1.x, without a counterpart in this version"

REASONS: tuple[tuple[str, str], ...] = (
    ("load", RESUMING),
    ("start_epoch", RESUMING),
    ("start_step", RESUMING),
    ("exp_name", RESUMING),
    ("reset_optimizer", RESUMING),
    ("restart_disc", RESUMING),
    ("load_optimizer", RESUMING),
    ("disc_lr", RESUMING),
    ("initial_lr", "Open-Sora reads it only when it resumes; optim.initial_lr is where the warm-up starts"),
    ("lr_scheduler.initial_lr", NO_EFFECT),
    ("record_time", TIMING),
    ("record_barrier", TIMING),
    ("nsys*", "profiling is no part of a recipe"),
    ("warmup_ae", "encoders are not compiled per shape, so there is nothing to warm up"),
    ("no_i2v_ref_loss", NO_EFFECT),
    ("wandb", "logging.wandb_project both names and enables it"),
    ("wandb_expr_name", "a run is called by its folder"),
    ("ae.batch_size", "it only warmed up the compiled encoder"),
    ("*.is_training", NO_EFFECT),
    ("*.train_decoder_only", NO_EFFECT),
    ("*.sample", "training draws from the posterior, everything else takes its mean"),
    ("*.disc_off_grad_ckpt", "the discriminator's pass never recomputes the decoder"),
    ("*.rename_keys", "weights load under their own names"),
    ("*.cache_dir", "the hub's cache is where HF_HOME says"),
    ("disc_plugin*", "the discriminator is spread like the autoencoder ([parallel])"),
    ("discriminator.norm", "the discriminator has batch norms"),
    ("prompt", COMMAND_LINE),
    ("ref", COMMAND_LINE),
    ("neg_prompt", COMMAND_LINE),
    ("start_index", COMMAND_LINE),
    ("end_index", COMMAND_LINE),
    ("num_samples", COMMAND_LINE),
    ("save_prefix", COMMAND_LINE),
    ("verbose", COMMAND_LINE),
    ("num_workers", "sampling reads no clips"),
    ("prefetch_factor", "sampling reads no clips"),
    ("eval_setting", "write the bucket it stands for"),
    ("ckpt_path", "write it as ae.from_pretrained"),
    ("use_t2i2v", "the table [t2i2v] enables it"),
    ("img_flux*", "without `use_t2i2v = True` nothing reads it"),
    ("img_resolution", "without `use_t2i2v = True` nothing reads it"),
)
FIRST_GENERATION: tuple[tuple[str, str], ...] = (
    ("model.*", f"{FIRST}: the family of models is another"),
    ("vae.*", f"{FIRST}: the autoencoder is another"),
    ("text_encoder.*", f"{FIRST}: it has one text encoder, the denoiser here takes two"),
    ("scheduler.*", f"{FIRST}: the diffusion process is part of the family"),
    ("mask_ratios.*", f"{FIRST}: its masks are osora's [condition], drawn in another way"),
    ("*", FIRST),
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A key that is not taken over: where it stands, its value, and why."""

    place: str
    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        shown = repr(self.value)
        return f"{self.key} = {shown if len(shown) <= 60 else shown[:57] + '...'}: {self.reason}"


def reason_for(kind: str, key: str, *, first_generation: bool) -> str:
    """Return why a key is not taken over."""
    difference = covered(kind, key)
    if difference is not None:
        return difference.reason
    for pattern, reason in (*REASONS, *(FIRST_GENERATION if first_generation else ())):
        if fnmatchcase(key, pattern):
            return reason
    return "osora has no such key"
