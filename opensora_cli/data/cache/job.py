"""`osora cache` from recipe to index: each process encodes its share, the first one lists what there is.

A pass first looks at what complete shards hold, so that a job that was stopped, or a table that grew, costs only what
is missing.
"""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from opensora_cli.data.buckets import Buckets
from opensora_cli.data.cache.contents import text_id
from opensora_cli.data.cache.decoding import Decoded, Decoder, plan_window
from opensora_cli.data.cache.encoding import STORED, encode_captions, encode_clips
from opensora_cli.data.cache.index import Collected, collect, write_index
from opensora_cli.data.cache.keys import (
    CacheKey,
    Facts,
    cache_folder,
    latents_key,
    latents_pass,
    stored_dtype,
    text_key,
    text_pass,
)
from opensora_cli.data.cache.opening import MEMO, cut_plan
from opensora_cli.data.cache.shards import ShardWriter
from opensora_cli.data.cache.weight_files import WeightFiles
from opensora_cli.data.loader import open_data
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.rules import rules_of
from opensora_cli.distributed.launched import any_process, launched_process
from opensora_cli.distributed.process import DTYPES, Process
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.progress import JobProgress
from opensora_cli.training.interrupt import Interrupt
from opensora_models.build import build_text_encoders
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe

CAPTIONS = 16
"""Captions that are encoded together."""


@dataclass(frozen=True)
class CacheJob:
    """What every step of the job needs to know."""

    recipe: TrainRecipe
    manifest: Manifest
    buckets: Buckets
    process: Process
    interrupt: Interrupt
    shard_bytes: int
    console: Console

    def say(self, text: str) -> None:
        """Print a line, from the first process."""
        if self.process.is_main:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, title: str, total: int) -> JobProgress:
        """Return the display of this process's share; only that of the first is shown."""
        return JobProgress(title, total, console=self.console if self.process.is_main else Console(quiet=True))

    def mine(self, number: int) -> bool:
        """Whether work of that number is this process's."""
        return number % self.process.world_size == self.process.rank

    def together(self) -> bool:
        """Wait for the other processes; return whether a signal asked one of them to stop."""
        return any_process(self.process, self.interrupt.signal is not None)


def run_cache(recipe: TrainRecipe, *, latents: bool, text: bool, shard_mib: float, console: Console) -> int:
    """Cache latents and text features of a recipe's clips; return the exit code (0, 130 or 143).

    Raises OsoraError where data or weights are missing, or the disk refuses; complete shards stay.
    """
    with launched_process(recipe.device) as process, Interrupt() as interrupt, ExitStack() as stack:
        manifest, buckets = open_data(
            recipe.dataset, recipe.buckets, recipe.pixels_per_token, recipe.ae.time_compression_ratio
        )
        job = CacheJob(recipe, manifest, buckets, process, interrupt, int(shard_mib * 2**20), console)
        cache = cache_folder(recipe)
        if process.is_main:
            stack.enter_context(only_job(cache))
        keys = _keys(job, cache, latents=latents, text=text)
        for key in keys:
            step = _cache_latents if key.kind == "latents" else _cache_text
            if not step(job, key, _prepare(job, key.folder(cache))):
                job.say("stopped; `osora cache` again goes on from there")
                return interrupt.exit_code or 1
        job.say(_how_to_use(recipe, keys))
        return 0


@contextmanager
def only_job(cache: Path) -> Iterator[None]:
    """Make the cache's folder and lock it: two jobs would take one another's shards. Raises OsoraError if another has it."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        file = (cache / ".lock").open("w")
    except OSError as error:
        raise OsoraError(f"cannot write to the folder {cache}: {error.strerror}. Set dataset.cache_dir.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OsoraError(f"{cache}: another `osora cache` writes to it. Wait for its end.") from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # some network disks know no locks
                raise
        yield


def _how_to_use(recipe: TrainRecipe, keys: list[CacheKey]) -> str:
    names = {"latents": "dataset.cached_video=true", "text": "dataset.cached_text=true"}
    sets = [names[key.kind] for key in keys]
    if keys[0].kind == "latents" and recipe.dataset.cached_windows > 1:
        sets.append(f"dataset.cached_windows={recipe.dataset.cached_windows}")
    return "to train from it: " + " ".join(f"--set {text}" for text in sets)


def _keys(job: CacheJob, cache: Path, *, latents: bool, text: bool) -> list[CacheKey]:
    """Fingerprint the encoders. The first process keeps the fingerprints, so that training need not make them again."""
    job.say(f"cache: {cache}")
    files = WeightFiles(cache / MEMO)
    keys = [latents_key(job.recipe, files)] if latents else []
    keys += [text_key(job.recipe, files)] if text else []
    job.together()  # nobody reads the fingerprints while they are written
    if job.process.is_main:
        files.save()
    return keys


def _prepare(job: CacheJob, folder: Path) -> Path:
    """Make a key's folder, and clear away what killed jobs left half-written."""
    folder.mkdir(parents=True, exist_ok=True)
    if job.process.is_main:
        for leftover in folder.glob(".*.partial"):
            leftover.unlink()
    job.together()
    return folder


def _cache_latents(job: CacheJob, key: CacheKey, folder: Path) -> bool:
    """Encode every window; return whether it came to the end."""
    recipe, process = job.recipe, job.process
    autoencoder = frozen_autoencoder(
        recipe.ae, recipe.ae.from_pretrained, seed=recipe.seed, dtype=DTYPES[recipe.dtype], device=process.device
    )
    stored, cuts = STORED[stored_dtype(recipe)], cut_plan(recipe)
    writer = ShardWriter(folder, process.rank, job.shard_bytes)
    for window in range(recipe.dataset.cached_windows):
        # Windows of clips that are no longer than one are all the same: what the last pass wrote counts as done.
        decoder = Decoder(job.manifest, job.buckets, recipe.dataset, recipe.seed, collect(folder))
        planned = plan_window(job.manifest, job.buckets, recipe.dataset, recipe.seed, window)
        share = [batch for number, batch in enumerate(planned) if job.mine(number)]
        fresh = cached = bad = 0
        with job.progress(f"latents of window {window + 1}/{recipe.dataset.cached_windows}", len(share)) as display:
            for decoded in decoder.window(share, window):
                for name, parts in encode_clips(autoencoder, decoded, cuts, stored):
                    writer.add(name, parts)
                _note_bad(decoded, writer, display)
                fresh, cached, bad = fresh + len(decoded.names), cached + decoded.cached, bad + len(decoded.bad)
                display.advance(f"{fresh} encoded  {cached} cached before  {bad} unreadable")
                if job.interrupt.signal is not None:
                    break
        writer.flush()
        if job.together():
            return False
    facts = latents_pass(recipe, job.manifest.fingerprint, job.buckets.compression)
    return _finish(job, key, folder, facts, recipe.dataset.cached_windows)


def _note_bad(decoded: Decoded, writer: ShardWriter, display: JobProgress) -> None:
    for row, path, reason in decoded.bad:
        display.note(f"row {row} cannot be read: {path}: {reason}")
    for name, reason in decoded.undecodable.items():
        writer.add_unreadable(name, reason)


def _cache_text(job: CacheJob, key: CacheKey, folder: Path) -> bool:
    """Encode every caption, the empty one among them; return whether it came to the end."""
    recipe, process = job.recipe, job.process
    encoders = build_text_encoders(recipe.text, recipe.model.texts, DTYPES[recipe.dtype], process.device)
    writer = ShardWriter(folder, process.rank, job.shard_bytes)
    stored = STORED[stored_dtype(recipe)]
    captions = dict(_captions(job, collect(folder)))
    names = list(captions)
    with job.progress("captions", len(names)) as display:
        for first in range(0, len(names), CAPTIONS):
            group = names[first : first + CAPTIONS]
            entries = encode_captions(encoders, [captions[name] for name in group], stored)
            for name, parts in zip(group, entries, strict=True):
                writer.add(name, parts)
            display.advance(steps=len(group))
            if job.interrupt.signal is not None:
                break
    writer.flush()
    if job.together():
        return False
    return _finish(job, key, folder, text_pass(recipe, job.manifest.fingerprint), 1)


def _captions(job: CacheJob, done: Collected) -> Iterator[tuple[bytes, str]]:
    """Yield this process's share of the captions that are not there yet, by name; equal captions are one."""
    manifest, limit = job.manifest, job.recipe.dataset.fps_max
    rules = rules_of(job.recipe.dataset)
    for row in range(-1, len(manifest)):
        caption = (
            rules.caption(manifest.text(row), manifest.fps_of(row), limit, manifest.motion_of(row)) if row >= 0 else ""
        )
        name = text_id(caption)
        if job.mine(int.from_bytes(name[:4], "little")) and name not in done:
            yield name, caption


def _finish(job: CacheJob, key: CacheKey, folder: Path, facts: Facts, windows: int) -> bool:
    """Have the first process list what all of them wrote."""
    if job.process.is_main:
        collected = write_index(folder, key, facts, windows)
        size = sum((folder / shard).stat().st_size for shard in collected.shards)
        lost = f", {len(collected.unreadable)} clips unreadable" if collected.unreadable else ""
        job.say(f"{key.kind}: {len(collected.index)} entries, {size / 2**20:.1f} MiB{lost} -> {folder}")
    job.together()
    return True
