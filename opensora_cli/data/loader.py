"""The loader: plans an epoch, has workers decode it, and can start anywhere in it.

The batches do not depend on the number of workers, and a rank's batch n of an epoch is the same in every run.
"""

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from typing import Any

import torch
from torch.utils.data import DataLoader

from opensora_cli.data.batches import EpochPlan, plan_epoch
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.cache.inputs import CachedInputs
from opensora_cli.data.dataset import BadClip, Batch, ClipDataset, LostBatch
from opensora_cli.data.manifest import Manifest, read_manifest
from opensora_cli.data.position import History
from opensora_cli.data.requests import EpochRequests
from schemas.data import BucketTable, DatasetConfig
from schemas.errors import OsoraError

__all__ = ["BadClip", "Batch", "Loader", "build_loader"]


def build_loader(
    recipe_dataset: DatasetConfig,
    buckets: BucketTable,
    *,
    compression: int,
    frame_compression: int = 4,
    seed: int,
    dp_rank: int = 0,
    dp_size: int = 1,
    device_pin: bool = False,
    cached: CachedInputs | None = None,
) -> "Loader":
    """Read the table, plan the first epoch and return the loader of one data-parallel rank.

    `compression` is the pixels per token and axis: autoencoder stride times patch size; `frame_compression` the frames.
    Ranks that work on one batch together (of a sequence-parallel group) have the same `dp_rank`.
    `cached` stands in for decoding.
    Raises OsoraError when there is no table, no bucket, or nothing to train on; each message says what to change.
    """
    manifest, table = open_clips(recipe_dataset, buckets, compression, frame_compression)
    return Loader(manifest, table, recipe_dataset, seed=seed, ranks=(dp_rank, dp_size), pin=device_pin, cached=cached)


def open_clips(
    dataset: DatasetConfig, buckets: BucketTable, compression: int, frame_compression: int
) -> tuple[Manifest, Buckets]:
    """Return the clips of a recipe and the buckets for them. Raises OsoraError where it names none of one or the other."""
    if dataset.data_path is None:
        raise OsoraError(
            "dataset.data_path is not set: name a csv or parquet file with columns path, text, height, width, num_frames, fps "
            "(`osora meta` makes one), or the manifest.json of `osora shard`."
        )
    if not buckets:
        raise OsoraError('[buckets] is empty: write resolution -> frames, for example "256px" = { 33 = [1.0, 12] }.')
    manifest = read_manifest(dataset.data_path, motion=dataset.vmaf)
    return manifest, Buckets(buckets, compression, frame_compression)


class Loader:
    """Batches of one data-parallel rank, epoch by epoch."""

    def __init__(
        self,
        manifest: Manifest,
        buckets: Buckets,
        config: DatasetConfig,
        *,
        seed: int,
        ranks: tuple[int, int] = (0, 1),
        pin: bool = False,
        cached: CachedInputs | None = None,
    ) -> None:
        self.manifest = manifest
        self.buckets = buckets
        self.config = config
        self.seed = seed
        self.dp_rank, self.dp_size = ranks
        self.cached = cached
        self.notes: list[str] = []
        """What `warnings` says besides, first."""
        self._pin = pin
        self._plan: tuple[int, EpochPlan] | None = None
        self.batches_per_epoch(0)
        # Not bound to this object: workers end cleanly only if no cycle of references keeps their queues.
        self._requests = EpochRequests(manifest, buckets, config, seed)
        self._data_loader = self._workers()

    @property
    def fingerprint(self) -> str:
        """Hash of the table's columns that training reads: a run can be resumed with this table and no other."""
        return self.manifest.fingerprint

    def batches_per_epoch(self, epoch: int) -> int:
        """Return the batches of this rank, and of every other; keep probabilities let the number differ between epochs.

        Raises OsoraError when there are fewer batches than ranks.
        """
        plan = self.plan(epoch)
        count = plan.batches_per_rank(self.dp_size)
        if not count:
            raise OsoraError(
                f"epoch {epoch} has {len(plan)} batches for {self.dp_size} data-parallel ranks: use fewer ranks, lower the batch "
                "sizes in [buckets], or add clips."
            )
        return count

    def plan(self, epoch: int) -> EpochPlan:
        """Return the plan of an epoch, of all ranks."""
        if self._plan is None or self._plan[0] != epoch:
            window, limit = self.config.window(epoch), self.config.fps_max
            plan = plan_epoch(self.manifest, self.buckets, limit, seed=self.seed, epoch=epoch, window=window)
            self._plan = epoch, plan
        return self._plan[1]

    def warnings(self, epoch: int = 0) -> list[str]:
        """Return one line for every kind of clip that an epoch leaves out, to be shown before training starts."""
        plan = self.plan(epoch)
        why = plan.assignment
        outside = {
            "too few pixels for every bucket": why.too_small,
            "too few frames for every bucket": why.too_short,
        }
        lines = [f"{count} of {len(self.manifest)} clips have {reason}" for reason, count in outside.items() if count]
        lines += [
            f"bucket {key} has {rows} clips, fewer than its batch size {size}: they are not used in epoch {epoch}"
            for key, (rows, size) in plan.unfilled.items()
        ]
        spare = plan.placed_rows - plan.used_rows - sum(rows for rows, _ in plan.unfilled.values())
        if spare:
            lines.append(
                f"{spare} clips are left over from full batches in epoch {epoch}; other epochs leave out others"
            )
        if unshared := len(plan) % self.dp_size:
            lines.append(f"{unshared} of {len(plan)} batches are left over from equal shares of {self.dp_size} ranks")
        return self.notes + self.manifest.warnings() + lines

    def epoch(self, epoch: int, start_batch: int = 0, before: History = ()) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch, from `start_batch` (batches of this rank that were consumed before) on.

        `before` is what was done of the epoch on other numbers of ranks. Raises OsoraError when the start lies behind the
        epoch's end (the data is not what it was), and while it is read when a batch cannot be filled with readable clips.
        """
        count = self.plan(epoch).batches_per_rank(self.dp_size, before) if before else self.batches_per_epoch(epoch)
        if not 0 <= start_batch <= count:
            raise OsoraError(
                f"cannot start at batch {start_batch} of epoch {epoch}: the rank has {count}. The table, the buckets or the "
                "number of ranks changed since the checkpoint."
            )
        self._requests.take(
            self.plan(epoch).of_rank(self.dp_rank, self.dp_size, start_batch, before), self.config.window(epoch)
        )
        return self._batches(iter(self._data_loader))

    def _batches(self, batches: Iterator[Batch | LostBatch]) -> Iterator[Batch]:
        """Pass on the batches while no other epoch was asked for: the workers serve one epoch at a time."""
        served = self._requests.served
        for batch in batches:
            assert served == self._requests.served, "two epochs of one loader were read at the same time"
            if isinstance(batch, LostBatch):
                raise OsoraError(batch.reason)
            yield batch

    def _workers(self) -> DataLoader[Batch | LostBatch]:
        """Return the workers, which live as long as the loader and wait between epochs."""
        return DataLoader(
            ClipDataset(self.config.transform_name, self.cached),
            batch_size=None,
            sampler=self._requests,
            collate_fn=as_it_is,
            pin_memory=self._pin,
            generator=torch.Generator().manual_seed(self.seed),
            **worker_options(self.config),
        )


def worker_options(config: DatasetConfig) -> dict[str, Any]:
    """Return the DataLoader options that start the recipe's decoding processes."""
    if not config.num_workers:
        return {"num_workers": 0}
    return {
        "num_workers": config.num_workers,
        "multiprocessing_context": _worker_context(),
        "prefetch_factor": config.prefetch_factor,
        "worker_init_fn": _start_worker,
        "persistent_workers": True,
    }


def as_it_is(batch: Any) -> Any:
    """Return what a worker made; a DataLoader without it would turn arrays into tensors."""
    return batch


def _worker_context() -> Any:
    """Return the way workers start: from a clean server process, which knows no threads, no GPU and no process group.

    The server inherits a blocked SIGTERM, so that one sent to the whole process group leaves the workers to the main
    process, which finishes its step first; they end with it.
    """
    context: Any = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "opensora_cli.data.dataset"])
    resource_tracker.ensure_running()  # before the mask: starting the tracker would lift it
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    return context


def _start_worker(worker: int) -> None:
    """Leave the terminal's process group, so that Ctrl-C reaches the main process alone; one thread for the arithmetic."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    """End this worker when the main process is gone, killed for example: its own parent, the server, would live on."""
    main = parent_process()
    assert main is not None
    main.join()
    os._exit(1)
