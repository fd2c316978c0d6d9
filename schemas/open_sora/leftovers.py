"""Keys of Open-Sora that osora has no use for, with the reason: what an import says about them."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from schemas.open_sora.differences import covered

RESUMING = "`osora train RECIPE --resume` goes on where a run stopped"
COMMAND_LINE = "an option of the command, not of the recipe"
TIMING = "metrics.jsonl has the seconds of every update"
NO_EFFECT = "it has no effect in Open-Sora"
FIRST = "Open-Sora 1.x alone has it"
KERNELS = "kernels are chosen by what the machine has, not by the recipe"
FEATURES = "`osora cache` writes the features of clips and captions"
BATCH_SIZES = "`osora config plan` says which batch sizes fit a machine"
MEASURED = "`osora vae-sample` measures PSNR, SSIM and LPIPS, `osora vae-stats` the latents"

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
    ("model.type", "no family of osora's has this name"),
    ("vae.type", "no autoencoder of osora's has this name"),
    ("text_encoder.type", "osora has t5, clip and, for a model with a `condition`, classes"),
    ("scheduler.type", "osora has iddpm, iddpm-speed, dpm-solver and rflow"),
    ("plugin", "Open-Sora 1.x has zero2 and zero2-seq"),
    ("sp_size", "the plugin zero2 shares out no tokens; zero2-seq does"),
    ("model.enable_sequence_parallelism", "parallel.sp_size says so"),
    ("*.enable_*", KERNELS),
    (
        "model.skip_y_embedder",
        "captions are cached as the text encoder gives them, so the denoiser always projects them",
    ),
    ("model.drop_path", NO_EFFECT),
    ("model.cal_loss", NO_EFFECT),
    ("model.no_temporal_pos_emb", NO_EFFECT),
    ("model.input_size", "a denoiser takes any size"),
    ("*.local_files_only", "nothing is ever downloaded unasked"),
    ("*.subfolder", "a folder's `vae` is found by itself"),
    ("text_encoder.num_classes", "`model.condition` says how many classes there are"),
    ("scheduler.num_sampling_steps", "training takes no steps of a solver; [samples] and a sample recipe do"),
    ("scheduler.cfg_scale", "training is not guided; [samples] and a sample recipe are"),
    ("mask_ratios.*", "Open-Sora 1.2 has no mask of this name either, and stops at it"),
    ("dataset.type", "osora has one kind of data set: a table of clips"),
    ("dataset.image_size", "each bucket says how large its clips are"),
    ("dataset.num_frames", "each bucket says how long its clips are"),
    ("dataset.dummy_text_feature", FEATURES),
    ("image_size", "each bucket says how large its clips are"),
    ("num_frames", "each bucket says how long its clips are"),
    ("use_image_transform", "whether a file is a picture is seen from the file"),
    ("root", "relative paths in a table count from its own folder"),
    ("load_*_features", f"{FEATURES}, and dataset.cached_video and cached_text read them"),
    ("save_*features", FEATURES),
    ("text_encoder_output_dim", "it follows from the text encoder"),
    ("vae_out_channels", "it follows from the autoencoder"),
    ("model_max_length", "the text encoder's own key says so"),
    ("bin_size", FEATURES),
    ("log_time", TIMING),
    ("base", BATCH_SIZES),
    ("base_step_time", BATCH_SIZES),
    ("num_eval_timesteps", "[validation] looks at held-out clips while training; its time_bins is how many times"),
    ("kl_loss_weight", MEASURED),
    ("perceptual_loss_weight", MEASURED),
    ("cal_stats", MEASURED),
    ("log_stats_every", MEASURED),
    ("multi_resolution", "the family says which sizes it is told"),
    ("prompt_path", COMMAND_LINE),
    ("reference_path", f"{COMMAND_LINE}; with --prompts, the column ref of the table"),
    ("llm_refine", "sampling.refine_prompt has a language model write prompts out"),
    ("frame_interval", "clips play at the rate that the denoiser is told, which is `fps`"),
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
    reasons = (*FIRST_GENERATION, *REASONS, ("*", FIRST)) if first_generation else REASONS
    for pattern, reason in reasons:
        if fnmatchcase(key, pattern):
            return reason
    return "osora has no such key"
