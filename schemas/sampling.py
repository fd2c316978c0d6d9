"""Sampling: size, steps, guidance and output of a generated clip."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from schemas.base import Schema, cost
from schemas.condition import AnyConditionName, ConditionName, full_name
from schemas.data import RulesName
from schemas.language_model import LanguageModelConfig

NUMERICS = cost("changes_numerics")
BOTH = cost("changes_numerics", "changes_memory")


class SamplingConfig(Schema):
    """Steps of a solver over a shifted schedule, guided by text and by image."""

    resolution: str | None = Field(
        "256px",
        description="Pixel budget: 256px, 480p, 768px, ...; unset when height and width are given.",
        json_schema_extra=BOTH,
    )
    aspect_ratio: str = Field(
        "16:9",
        description="Width:height; the nearest size of the resolution's table is taken.",
        json_schema_extra=NUMERICS,
    )
    height: int | None = Field(
        None, ge=16, description="Pixels; goes with width, and takes the place of resolution.", json_schema_extra=BOTH
    )
    width: int | None = Field(None, ge=16, description="Pixels; goes with height.", json_schema_extra=BOTH)
    rules: RulesName = Field(
        "open-sora-2.0",
        description="Which line's table of sizes resolution and aspect_ratio name; open-sora-1.2 knows 144p to 4k.",
        json_schema_extra=BOTH,
    )
    num_frames: int = Field(
        129, ge=1, description="Frames to make: 4k+1 with a causal autoencoder.", json_schema_extra=BOTH
    )
    num_steps: int = Field(50, ge=1, description="Steps of the solver.", json_schema_extra=NUMERICS)
    solver: Literal["euler", "heun", "dpmpp_2m", "ddpm", "ddim"] = Field(
        "euler",
        description=(
            "euler as Open-Sora; heun: second order, two evaluations a step; dpmpp_2m: second order, one. With diffusion.type "
            '= "iddpm": ddpm (draws noise at every step), ddim, or dpmpp_2m.'
        ),
        json_schema_extra=NUMERICS,
    )
    guidance: float = Field(7.5, ge=0, description="Scale of the text guidance.", json_schema_extra=NUMERICS)
    guidance_img: float = Field(3.0, ge=0, description="Scale of the image guidance.", json_schema_extra=NUMERICS)
    guidance_t_min: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Steps that start at an earlier time than this go without guidance (1 is noise, 0 is the clip).",
        json_schema_extra=NUMERICS,
    )
    guidance_t_max: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Steps that start at a later time than this go without guidance (1 is noise, 0 is the clip).",
        json_schema_extra=NUMERICS,
    )
    cfg_branches: Literal["auto", "batched", "in_turn"] = Field(
        "auto",
        description=(
            "The guidance branches of a step: batched in one forward, or in_turn in less memory; auto takes turns where "
            "a GPU has too little free."
        ),
        json_schema_extra=cost("changes_memory"),
    )
    text_osci: bool = Field(
        True, description="From step 10 on, use text scale 1 on every second step.", json_schema_extra=NUMERICS
    )
    image_osci: bool = Field(
        True, description="From step 10 on, use image scale 1 on every second step.", json_schema_extra=NUMERICS
    )
    scale_temporal_osci: bool = Field(
        True, description="Let the image scale grow over the frames, from 1 at the first.", json_schema_extra=NUMERICS
    )
    shift: bool = Field(
        True, description="Shift the schedule towards noise for larger and longer clips.", json_schema_extra=NUMERICS
    )
    flow_shift: float | None = Field(
        None,
        gt=0,
        description="Shift of the schedule (unitless, 1 is none); unset takes it from the clip's size.",
        json_schema_extra=NUMERICS,
    )
    offload: Literal["none", "model", "block"] = Field(
        "none",
        description="What waits in host memory: nothing, the models that are not at work, or the blocks too.",
        json_schema_extra=cost("changes_memory"),
    )
    fp8_weights: bool = Field(
        False,
        description="Keep the denoiser's matrices in 8-bit floats and multiply in dtype.",
        json_schema_extra=BOTH,
    )
    attention: Literal["auto", "sdpa", "flash", "flex"] = Field(
        "auto",
        description=(
            "Kernel of the attention: PyTorch's (sdpa), of these cuDNN's first where it is the fastest (auto), "
            "FlashAttention's (flash, an extra), or FlexAttention's (flex)."
        ),
        json_schema_extra=NUMERICS,
    )
    cache_threshold: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "Above 0, a step whose first block changes the clip by about as much as before (to this share) reuses what the "
            "other blocks added then. Faster, and not the same clip: 0.1 is cautious. 0 is off."
        ),
        json_schema_extra=BOTH,
    )
    compile: bool = Field(
        False,
        description="Compile the denoiser's blocks: a minute for the first clip of a size, then faster steps.",
        json_schema_extra=NUMERICS,
    )
    cond_type: Annotated[ConditionName, BeforeValidator(full_name, json_schema_input_type=AnyConditionName)] = Field(
        "t2v",
        description="Which frames come from a reference; v2v_head_half and v2v_tail_half are v2v_head_easy and v2v_tail_easy.",
        json_schema_extra=NUMERICS,
    )
    mask_strategy: str = Field(
        "",
        description=(
            'Which frames of which references are given to a denoiser of Open-Sora 1.x, in place of cond_type: "loop,reference,'
            'start there,start here,length,edit ratio", in latent frames, several divided by ";".'
        ),
        json_schema_extra=NUMERICS,
    )
    loop: int = Field(
        1,
        ge=1,
        description="Clips in a row, each of which goes on from the end of the one before; they are joined to one.",
        json_schema_extra=NUMERICS,
    )
    condition_frame_length: int = Field(
        5,
        ge=1,
        description="With loop: latent frames of one clip that the next goes on from.",
        json_schema_extra=NUMERICS,
    )
    condition_frame_edit: float = Field(
        0.0,
        ge=0,
        le=1,
        description="With loop: how much these frames may change, from 0 (not at all) to 1.",
        json_schema_extra=NUMERICS,
    )
    align: int | None = Field(
        None,
        ge=1,
        description="Latent frames that starts of given frames are rounded to multiples of (Open-Sora 1.2: 5).",
        json_schema_extra=NUMERICS,
    )
    aes: float | None = Field(
        None, description="Aesthetic score written behind the prompt (Open-Sora 1.2: 6.5).", json_schema_extra=NUMERICS
    )
    flow: float | None = Field(
        None, description="Motion score written behind the prompt of Open-Sora 1.x.", json_schema_extra=NUMERICS
    )
    camera_motion: str | None = Field(
        None, description='Camera motion written behind the prompt, such as "pan right".', json_schema_extra=NUMERICS
    )
    seed: int = Field(
        42,
        ge=0,
        lt=2**63,
        description="Seed of the first prompt's noise; prompt i uses seed + i, its further samples seeds made from that.",
        json_schema_extra=NUMERICS,
    )
    num_samples: int = Field(1, ge=1, description="Samples per prompt.")
    batch_size: int = Field(1, ge=1, description="Prompts denoised together.", json_schema_extra=cost("changes_memory"))
    fps_save: int = Field(24, ge=1, description="Frames per second of the written file.")
    motion_score: Literal["1", "2", "3", "4", "5", "6", "7", "dynamic", "none"] = Field(
        "4",
        description="Motion score written behind the prompt, 1 (still) to 7; dynamic asks a language model, none writes none.",
        json_schema_extra=NUMERICS,
    )
    refine_prompt: bool = Field(
        False, description="Let a language model write each prompt out.", json_schema_extra=NUMERICS
    )
    language_model: LanguageModelConfig = Field(
        LanguageModelConfig.model_construct(), description="Which one, for refine_prompt and the dynamic motion score."
    )
    output_format: Literal["mp4", "lossless", "gif", "webp"] = Field(
        "mp4",
        description="Clips: H.264, FFV1 in mkv, GIF or animated WebP. Images are PNG, with webp lossless WebP.",
    )
    names: Literal["auto", "index", "name", "prompt"] = Field(
        "auto",
        description="What files are called after: the row's name, or else its index; or always one of them. prompt is VBench's.",
    )
    save_dir: str = Field("samples", description="Folder for the results.")
