"""The loader against decoding everything and cutting the window then: the same windows, one worker each, interleaved runs.

    python benchmarks/loader.py [FOLDER] [--rounds N] [--runs N] [--memory-clips N] [--only speed|memory]

Speed: real clips of FOLDER, 33 frames at 256px; clips too short or too small for that bucket are left out and named. The
ratio counts the workers' processor time, which other programs on the machine hardly change; clips a second are printed beside it.
Memory: many made clips through two workers; resident memory after a tenth of them against that at the end.
Exit code 1 when the pixels differ, the ratio is below 3, or memory changes by more than 5 %.
"""

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from opensora_cli.data.dataset import Batch, BatchRequest, ClipDataset, ClipRequest
from opensora_cli.data.demo_clips import write_mp4
from opensora_cli.data.frames import crop_indices
from opensora_cli.data.loader import Loader, build_loader
from opensora_cli.data.probe import probe
from opensora_cli.data.transforms import cut_of
from opensora_cli.data.workers import start_worker, worker_context
from schemas.data import BucketTable, DatasetConfig

LEAST_RATIO = 3
MOST_GROWTH = 0.05
SPEED_BUCKETS: BucketTable = {"256px": {33: (1.0, 1)}}
MEMORY_BUCKETS: BucketTable = {"64px": {17: (1.0, 4)}}
MADE_CLIPS = 50


class DecodeEverything(Dataset[Tensor]):
    """What upstream does: decode the whole clip to RGB, stack it, cut the window, then resize and crop."""

    def __getitem__(self, request: BatchRequest) -> Tensor:
        return torch.stack([self.clip(clip, request) for clip in request.clips])

    def clip(self, clip: ClipRequest, request: BatchRequest) -> Tensor:
        with av.open(clip.path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        x_THWC = torch.from_numpy(np.stack(frames))
        shape = request.shape
        x_THWC = x_THWC[crop_indices(len(x_THWC), shape.frames, clip.interval, clip.start)]
        x_TCHW = x_THWC.permute(0, 3, 1, 2).float() / 255
        cut = cut_of("resize_crop", *x_TCHW.shape[2:], shape.height, shape.width, image=False)
        x_TCHW = F.interpolate(x_TCHW, (cut.height, cut.width), mode="bilinear", align_corners=False)
        x_TCHW = x_TCHW[..., cut.top : cut.top + shape.height, cut.left : cut.left + shape.width]
        return ((x_TCHW - 0.5) / 0.5).permute(1, 0, 2, 3).contiguous()


def write_table(path: Path, clips: list[Path], rounds: int) -> None:
    """A table with every clip `rounds` times, so that an epoch takes several windows of each."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "text", "height", "width", "num_frames", "fps"])
        for clip in clips:
            info = probe(str(clip))
            writer.writerows([[clip, "a clip", info.height, info.width, info.num_frames, info.fps]] * rounds)


def loader_of(table: Path, buckets: BucketTable, workers: int) -> Loader:
    return build_loader(DatasetConfig(data_path=str(table), num_workers=workers), buckets, compression=16, seed=0)


def peer_of(loader: Loader) -> DataLoader[Tensor]:
    """The other way behind the same kind of worker, asked for the same windows."""
    return DataLoader(
        DecodeEverything(),
        batch_size=None,
        sampler=loader._requests,
        num_workers=1,
        multiprocessing_context=worker_context(),
        prefetch_factor=loader.config.prefetch_factor,
        worker_init_fn=start_worker,
        persistent_workers=True,
    )


def speed(folder: Path, rounds: int, runs: int) -> bool:
    clips = [path for path in sorted(folder.iterdir()) if path.suffix in (".mp4", ".mkv", ".webm")]
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "meta.csv"
        write_table(table, clips, rounds)
        loader = loader_of(table, SPEED_BUCKETS, workers=1)
        used = {loader.manifest.path(row) for batch in loader.plan(0).of_rank(0, 1) for row in batch.rows}
        print("clips:", ", ".join(sorted(Path(path).name for path in used)), f"({rounds} windows of each)")
        print("left out:", ", ".join(path.name for path in clips if str(path) not in used), "(too short or too small)")
        each_clip(loader)
        return against_peer(loader, runs)


def each_clip(loader: Loader) -> None:
    """Print the ratio of each clip, measured in this process without queues."""
    ways = {"osora": ClipDataset(loader.config.transform_name), "peer": DecodeEverything()}
    loader._requests.take(list(loader.plan(0).of_rank(0, 1)), 0)
    seconds: dict[str, dict[str, float]] = {}
    torch.set_num_threads(1)
    for request in map(loader._requests.__getitem__, range(len(loader._requests))):
        name = Path(request.clips[0].path).name
        for way, dataset in ways.items():
            started = time.process_time()
            dataset[request]
            times = seconds.setdefault(name, dict.fromkeys(ways, 0.0))
            times[way] += time.process_time() - started
    for name, times in sorted(seconds.items()):
        print(f"  {name:22} {times['peer'] / times['osora']:5.1f}x")


def against_peer(loader: Loader, runs: int) -> bool:
    peer = peer_of(loader)
    ours = Way("osora", lambda epoch: (batch.video for batch in loader.epoch(epoch)))
    theirs = Way("decode everything, then cut", lambda _: iter(peer))
    error = 0.0
    for run in range(runs + 1):
        # The first run starts the processes and fills the file cache.
        got, want = ours.read(run, counts=run > 0), theirs.read(run, counts=run > 0)
        error = max([error, *(float((a - b).abs().max()) for a, b in zip(got, want, strict=True))])
    print(f"one worker, medians of {runs} epochs:")
    for way in (ours, theirs):
        print(
            f"  {way.name:28} {way.per_second():7.2f} clips a second, {1 / way.cpu_a_clip():7.2f} a second of its processor time"
        )
    ratio = theirs.cpu_a_clip() / ours.cpu_a_clip()
    print(
        f"ratio {ratio:.2f} by processor time, at least {LEAST_RATIO} wanted ({ours.per_second() / theirs.per_second():.2f} by "
        f"the clock); largest difference of a pixel in [-1, 1]: {error:.1e}"
    )
    return ratio >= LEAST_RATIO and error < 1e-4


class Way:
    """One way to read an epoch with a worker of its own: seconds and processor seconds a clip, epoch by epoch."""

    def __init__(self, name: str, epoch: Callable[[int], Iterator[Tensor]]) -> None:
        self.name = name
        self.epoch = epoch
        self.pid = 0
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def read(self, number: int, *, counts: bool) -> list[Tensor]:
        before = {process.pid or 0 for process in active_children()}
        started, cpu = time.perf_counter(), cpu_seconds(self.pid)
        videos = list(self.epoch(number))
        if counts:
            self.seconds.append((time.perf_counter() - started) / len(videos))
            self.cpu.append((cpu_seconds(self.pid) - cpu) / len(videos))
        else:
            (self.pid,) = {process.pid or 0 for process in active_children()} - before
        return videos

    def per_second(self) -> float:
        return 1 / statistics.median(self.seconds)

    def cpu_a_clip(self) -> float:
        return statistics.median(self.cpu)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, its own and the kernel's; 0 for the process that is not there yet."""
    if not pid:
        return 0.0
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(count: int) -> bool:
    """Whether resident memory of the main process and its workers stays what it was after a tenth of the clips."""
    with tempfile.TemporaryDirectory() as scratch:
        clips = [Path(scratch) / f"{number}.mp4" for number in range(MADE_CLIPS)]
        random = np.random.default_rng(0)
        for clip in clips:
            coarse = random.integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
            write_mp4(clip, coarse.repeat(12, axis=1).repeat(12, axis=2), 24)
        table = Path(scratch) / "meta.csv"
        write_table(table, clips, -(-count // MADE_CLIPS))
        loader = loader_of(table, MEMORY_BUCKETS, workers=2)
        samples = list(resident(loader.epoch(0)))
    tenth = len(samples) // 10
    processes = ["main", *(f"worker {number}" for number in range(len(samples[0]) - 1))]
    flat = True
    for number, name in enumerate(processes):
        first = statistics.median(sample[number] for sample in samples[tenth : 2 * tenth])
        last = statistics.median(sample[number] for sample in samples[-tenth:])
        flat &= abs(last / first - 1) <= MOST_GROWTH
        print(f"{name:9} {first:7.1f} MiB after a tenth, {last:7.1f} MiB at the end: {100 * (last / first - 1):+.1f} %")
    print(f"{len(samples) * 4} clips through 2 workers, at most {100 * MOST_GROWTH:.0f} % wanted")
    return flat


def resident(batches: Iterator[Batch]) -> Iterator[list[float]]:
    """Yield the resident memory (MiB) of this process and of its workers after every batch."""
    for _ in batches:
        pids = ["self", *sorted(str(process.pid) for process in active_children())]
        yield [resident_mib(pid) for pid in pids]


def resident_mib(pid: str) -> float:
    status = (Path("/proc") / pid / "status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "media"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory-clips", type=int, default=5000)
    parser.add_argument("--only", choices=["speed", "memory"])
    args = parser.parse_args()
    if args.only != "memory" and not args.folder.is_dir():
        print(f"no clips in {args.folder}", file=sys.stderr)
        return 2
    fine = [] if args.only == "memory" else [speed(args.folder, args.rounds, args.runs)]
    if args.only != "speed":
        fine.append(memory(args.memory_clips))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
