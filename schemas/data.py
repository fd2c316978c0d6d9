"""Training data: where the clips are, how they are cut, and the buckets they are sorted into."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from schemas.base import Schema, cost

ReaderName = Literal["pyav", "torchcodec"]
RulesName = Literal["open-sora-2.0", "open-sora-1.2"]

PIXELS_1_2 = {
    "144p": 36864,
    "256": 65536,
    "240p": 102240,
    "360p": 230400,
    "512": 262144,
    "480p": 409920,
    "720p": 921600,
    "1024": 1048576,
    "1080p": 2073600,
    "2k": 3686400,
    "2048": 4194304,
    "2880": 8294400,
    "4k": 8294400,
}
"""Resolutions of Open-Sora 1.1 and 1.2, with the pixels of a frame."""
LENGTHS_1_2 = {
    **{f"{times}x": 51 * times for times in (1, 2, 4, 8, 16)},
    **{f"{seconds}s": 51 * seconds // 2 for seconds in (2, 4, 8, 16, 32)},
}
"""Lengths that have names there, in frames: multiples of 51, and seconds at 25.5 frames a second."""


class DatasetConfig(Schema):
    """A table of clips (csv or parquet, as `osora meta` writes it, or shards) and how a training clip is cut from each."""

    data_path: str | None = Field(
        None,
        description=(
            "csv or parquet with path, text, height, width, num_frames, fps, relative paths from its folder on; or the "
            "manifest.json of `osora shard`."
        ),
        json_schema_extra=cost("breaks_resume"),
    )
    rules: RulesName = Field(
        "open-sora-2.0",
        description=(
            "Which line's rules say how large clips become, which frames are taken and what a pair of probabilities means: "
            "open-sora-1.2 is for the models of Open-Sora 1.0 to 1.2."
        ),
        json_schema_extra=cost("breaks_resume", "changes_numerics", "needs_recache"),
    )
    frame_interval: int = Field(
        1,
        ge=1,
        description="open-sora-1.2: spread a clip's frames over this many times their number; 2.0 has fps_max for that.",
        json_schema_extra=cost("breaks_resume", "needs_recache"),
    )
    transform_name: Literal["resize_crop", "center", "rand_size_crop"] = Field(
        "resize_crop",
        description="resize_crop covers the bucket's size and crops the middle; center resizes the short side to it first; "
        "rand_size_crop takes a part of random size from a random place.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    fps_max: int | None = Field(
        None,
        ge=1,
        description="Clips faster than this skip frames (frames per second); unset keeps every frame.",
        json_schema_extra=cost("breaks_resume", "needs_recache"),
    )
    vmaf: bool = Field(
        False,
        description="Add the motion score (column vmaf_motion) to the caption.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    cached_video: bool = Field(
        False,
        description="Read latents that `osora cache` wrote instead of decoding and encoding the clips.",
        json_schema_extra=cost("breaks_resume", "changes_numerics", "changes_memory"),
    )
    cached_text: bool = Field(
        False,
        description="Read text features that `osora cache` wrote instead of encoding the captions.",
        json_schema_extra=cost("changes_memory"),
    )
    cache_dir: str = Field(
        "auto", description='Folder of `osora cache`; auto is the table\'s own name with ".cache" behind it.'
    )
    cached_windows: int = Field(
        1,
        ge=1,
        description="Windows (and buckets) drawn for each clip and cached; epoch e uses number e modulo this.",
        json_schema_extra=cost("breaks_resume", "changes_numerics", "needs_recache"),
    )
    cached_dtype: Literal["recipe", "bf16", "fp16", "fp32"] = Field(
        "recipe",
        description="Precision on disk; recipe is that of `dtype`, which loses nothing.",
        json_schema_extra=cost("changes_numerics", "needs_recache"),
    )
    on_cache_miss: Literal["error", "encode"] = Field(
        "error",
        description="What is not cached as the recipe wants it stops the run, or is encoded while it trains.",
        json_schema_extra=cost("changes_memory"),
    )
    num_workers: int = Field(
        4,
        ge=0,
        description="Decoding processes per rank; 0 decodes in the training process.",
        json_schema_extra=cost("changes_memory"),
    )
    prefetch_factor: int = Field(
        2, ge=1, description="Batches each worker keeps ready.", json_schema_extra=cost("changes_memory")
    )
    reader: ReaderName = Field(
        "pyav",
        description="Library that decodes clips; torchcodec must be installed to fit torch.",
        json_schema_extra=cost("changes_numerics"),
    )
    decode_threads: int = Field(
        1, ge=1, le=64, description="Threads of one worker's decoder; more help few workers with large pictures."
    )
    worker_timeout_seconds: float = Field(
        600.0, ge=1, description="Longest wait for a worker's batch (seconds); then the run stops and names it."
    )
    max_bad_share: float = Field(
        0.05, ge=0, le=1, description="Share of unreadable clips, of those read so far, at which the run stops."
    )

    @property
    def encodes_clips(self) -> bool:
        """Whether a run may have to encode a clip, and needs the autoencoder for that."""
        return not self.cached_video or self.on_cache_miss == "encode"

    @property
    def encodes_text(self) -> bool:
        """Whether a run may have to encode a caption, and needs the text encoders for that."""
        return not self.cached_text or self.on_cache_miss == "encode"

    def window(self, epoch: int) -> int:
        """Return the number of the draws of buckets and windows that an epoch uses: cached ones come round again."""
        return epoch % self.cached_windows if self.cached_video else epoch


def _frame_count(key: Any) -> Any:
    """TOML keys are always strings: `33 = [1.0, 12]` has the key "33"; "033" would be the same bucket a second time."""
    is_count = isinstance(key, str) and key.isascii() and key.isdecimal() and not key.startswith("0")
    return int(key) if is_count else key


Probability = Annotated[float, Field(ge=0, le=1)]
FrameCount = Annotated[int, BeforeValidator(_frame_count), Field(ge=1)]
Bucket = tuple[Probability | tuple[Probability, Probability], Annotated[int, Field(ge=1)]]
"""[keep probability, batch size]; a pair of probabilities is (take the bucket, skip to the next shorter length).

With `rules = "open-sora-1.2"` the pair is (take the bucket, consider its length at all).
"""
BucketTable = dict[str, dict[FrameCount, Bucket]]
"""resolution name ("256px", "480p", "512px_ar1:1", "768px_max") -> frames -> bucket."""
