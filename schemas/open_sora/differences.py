"""What osora deliberately does otherwise: keys that an export leaves out or writes differently, each with the reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Form = Literal["left out", "differs"]
ALL_KINDS = ("train", "vae-train", "sample", "vae-sample", "vae-stats")
MISSING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """A key (dotted, `*` for any name) that an export leaves out, or gives another value than Open-Sora's configs do."""

    key: str
    reason: str
    form: Form = "left out"
    kinds: tuple[str, ...] = ALL_KINDS

    def covers(self, kind: str, key: str) -> bool:
        """Whether the entry is about this key, or a table that it is in."""
        return kind in self.kinds and (fnmatchcase(key, self.key) or fnmatchcase(key, f"{self.key}.*"))


BUCKETS_HAVE_SIZES = "read only without buckets; each bucket has a batch size of its own"
DECODING = "the autoencoder is not cut up: the processes that make a batch together share out its clips for decoding"
CLIPS = ("train", "vae-train", "vae-sample", "vae-stats")
DIFFERENCES: tuple[Difference, ...] = (
    Difference("t5.cache_dir", "a path of a private cluster; the hub's cache is where HF_HOME says"),
    Difference("clip.cache_dir", "a path of a private cluster; the hub's cache is where HF_HOME says"),
    Difference("model.strict_load", "weights always load strictly, so that a wrong file never trains as noise"),
    Difference("num_bucket_build_workers", "buckets are assigned in one pass over the columns, without workers"),
    Difference(
        "pin_memory_cache_pre_alloc_numels",
        "the loader pins each batch as it comes; a cache that is too small hangs Open-Sora after its first epoch",
    ),
    Difference(
        "dataset.memory_efficient", "the workers that decode hold no table, so their memory does not grow with it"
    ),
    Difference(
        "wandb_project",
        "nothing reads it without `wandb = True`; logging.wandb_project both names and enables",
        kinds=CLIPS,
    ),
    Difference("batch_size", BUCKETS_HAVE_SIZES, kinds=CLIPS),
    Difference(
        "plugin", "Open-Sora's script that reconstructs clips does not read it", kinds=("vae-sample", "vae-stats")
    ),
    Difference("plugin", "null, which is the same as no such key", kinds=("sample",)),
    Difference("plugin_ae", DECODING, kinds=("sample",)),
    Difference("plugin_config", "null, which is the same as no such key", kinds=("sample",)),
    Difference("plugin_config_ae", DECODING, kinds=("sample",)),
    Difference(
        "sampling_option.is_causal_vae",
        "osora takes it from the autoencoder; the high-compression config inherits true for a DC-AE, which is not causal",
        form="differs",
        kinds=("sample",),
    ),
)
"""All that an export of osora's own recipes does not give back of Open-Sora's resolved configs; a test holds it to that."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A key on which two configs disagree; `MISSING` stands for no such key."""

    key: str
    want: Any
    got: Any

    def explained_by(self, kind: str) -> Difference | None:
        """Return the deliberate difference that this is, if it is one."""
        form: Form = "left out" if self.got is MISSING else "differs"
        for difference in DIFFERENCES:
            if difference.form == form and difference.covers(kind, self.key):
                null = difference.reason.startswith("null")
                if not null or self.want is None:
                    return difference
        return None


def disagreements(want: Any, got: Any, key: str = "") -> Iterator[Disagreement]:
    """Yield every key on which two configs disagree; 5 and 5.0 are one number."""
    if isinstance(want, Mapping) and isinstance(got, Mapping):
        for name in sorted(want.keys() | got.keys()):
            inner = f"{key}.{name}" if key else name
            yield from disagreements(want.get(name, MISSING), got.get(name, MISSING), inner)
    elif want is MISSING or got is MISSING or type(want) is bool or type(got) is bool:
        if want is not got:
            yield Disagreement(key, want, got)
    elif want != got:
        yield Disagreement(key, want, got)


def covered(kind: str, key: str) -> Difference | None:
    """Return the entry because of which an import leaves out a key that no other table knows."""
    for difference in DIFFERENCES:
        if difference.form == "left out" and difference.covers(kind, key):
            return difference
    return None
