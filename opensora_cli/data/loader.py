"""The loader: plans an epoch, has workers decode it, and can start anywhere in it.

The batches do not depend on the number of workers, and a rank's batch n of an epoch is the same in every run.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader

from opensora_cli.data.batches import EpochPlan, plan_epoch
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.cache.inputs import CachedInputs
from opensora_cli.data.dataset import BadClip, Batch, ClipDataset, LostBatch
from opensora_cli.data.manifest import Manifest, read_manifest
from opensora_cli.data.position import History
from opensora_cli.data.prefetch import PinnedTransfer, prefetched
from opensora_cli.data.readers import frame_reader
from opensora_cli.data.requests import EpochRequests
from opensora_cli.data.rules import rules_of
from opensora_cli.data.workers import Watch, into_shared_memory, worker_options
from schemas.data import BucketTable, DatasetConfig
from schemas.errors import OsoraError

__all__ = ["BadClip", "Batch", "Loader", "build_loader"]

T = TypeVar("T")

_CPU = torch.device("cpu")
_WORKER_ENDED = "DataLoader worker"
"""How torch's message begins when a worker is gone: it is a plain RuntimeError."""


def build_loader(
    recipe_dataset: DatasetConfig,
    buckets: BucketTable,
    *,
    compression: int,
    frame_compression: int = 4,
    seed: int,
    dp_rank: int = 0,
    dp_size: int = 1,
    device: torch.device = _CPU,
    cached: CachedInputs | None = None,
) -> "Loader":
    """Read the table, plan the first epoch and return the loader of one data-parallel rank.

    `compression` is the pixels per token and axis: autoencoder stride times patch size; `frame_compression` the frames.
    Ranks that work on one batch together (of a sequence-parallel group) have the same `dp_rank`.
    `cached` stands in for decoding. Batches come on `device`.
    Raises OsoraError when there is no table, no bucket, or nothing to train on; each message says what to change.
    """
    manifest, table = open_data(recipe_dataset, buckets, compression, frame_compression)
    return Loader(manifest, table, recipe_dataset, seed=seed, ranks=(dp_rank, dp_size), device=device, cached=cached)


def open_data(
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
    return manifest, Buckets(buckets, compression, frame_compression, rules_of(dataset))


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
        device: torch.device = _CPU,
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
        self._transfer = PinnedTransfer(device) if device.type == "cuda" else None
        self._plan: tuple[int, EpochPlan] | None = None
        self.batches_per_epoch(0)
        # Not bound to this object: workers end cleanly only if no cycle of references keeps their queues.
        self._requests = EpochRequests(manifest, buckets, config, seed)
        self._data_loader = self._workers()
        self._watch = Watch(config.worker_timeout_seconds)

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
        batches = self._batches(self._waited_for(0, self._data_loader.__iter__))
        return batches if self._transfer is None else prefetched(batches, self._transfer)

    def _batches(self, batches: Iterator[Batch | LostBatch]) -> Iterator[Batch]:
        """Pass on the batches while no other epoch was asked for: the workers serve one epoch at a time."""
        served = self._requests.served
        for place in range(len(self._requests)):
            batch = self._waited_for(place, batches.__next__)
            assert served == self._requests.served, "two epochs of one loader were read at the same time"
            if isinstance(batch, LostBatch):
                raise OsoraError(batch.reason)
            yield batch

    def _waited_for(self, place: int, result: Callable[[], T]) -> T:
        """Return what the workers have to give for the batch at a place of the epoch, or say which one it is."""
        if not self.config.num_workers:
            return result()
        try:
            with self._watch.waiting():
                return result()
        except RuntimeError as error:
            if not str(error).startswith(_WORKER_ENDED):
                raise
            raise OsoraError(self._not_come(place, error)) from error

    def _not_come(self, place: int, error: RuntimeError) -> str:
        request = self._requests[place]
        worker = f"data worker {place % self.config.num_workers}"  # they take turns, beginning with the first
        clips = "\n".join(f"  row {clip.row}: {clip.path}" for clip in request.clips[:8])
        reason = (
            f"{worker} did not deliver a batch within dataset.worker_timeout_seconds = {self._watch.seconds:g}: it hangs, or the "
            "disk or network is slower than that"
            if self._watch.expired
            else f"{worker} or one beside it ended unexpectedly ({error}). Short memory is the usual cause, the machine's "
            "or that of /dev/shm: lower dataset.num_workers or dataset.prefetch_factor"
        )
        return f"{reason}. The batch that is missing: bucket {request.bucket}\n{clips}"

    def _workers(self) -> DataLoader[Batch | LostBatch]:
        """Return the workers, which live as long as the loader and wait between epochs."""
        return DataLoader(
            ClipDataset(
                self.buckets.rules.transform(self.config.transform_name),
                self.cached,
                frame_reader(self.config.reader, self.config.decode_threads),
            ),
            batch_size=None,
            sampler=self._requests,
            collate_fn=into_shared_memory,
            generator=torch.Generator().manual_seed(self.seed),
            **worker_options(self.config),
        )
