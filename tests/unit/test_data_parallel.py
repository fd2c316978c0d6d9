"""Which processes see the same data: a loader for each process, as a job would make them."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from opensora_cli.data.loader import Loader, build_loader
from opensora_cli.data.position import Position
from opensora_cli.distributed.data_parallel import DataParallel, data_parallel
from opensora_cli.distributed.process import Process
from schemas.data import DatasetConfig
from tests.unit.data_fakes import numbered_mp4

CLIPS = 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips of nine frames."""
    folder = tmp_path_factory.mktemp("clips")
    lines = ["path,text,height,width,num_frames,fps"]
    for number in range(CLIPS):
        numbered_mp4(folder / f"{number}.mp4", frames=9, size=(32, 32))
        lines.append(f"{number}.mp4,clip {number},32,32,9,8")
    (folder / "meta.csv").write_text("\n".join(lines) + "\n")
    return folder / "meta.csv"


def loader_of(table: Path, process: Process) -> Loader:
    """The loader of one process, as a job would make it."""
    config = DatasetConfig(data_path=str(table), num_workers=0)
    place = process.data_parallel
    return build_loader(config, {"32px": {5: (1.0, 1)}}, compression=8, seed=0, dp_rank=place.rank, dp_size=place.size)


def test_ranks_of_a_sequence_parallel_group_receive_identical_batches(table: Path) -> None:
    batches = [list(loader_of(table, Process(rank, 4, CPU, together=2)).epoch(0)) for rank in range(4)]
    for one, two in ((0, 1), (2, 3)):
        assert len(batches[one]) == len(batches[two]) == CLIPS // 2
        for a, b in zip(batches[one], batches[two], strict=True):
            assert torch.equal(a.video, b.video)
            assert (a.rows, a.text, a.bucket, a.fps) == (b.rows, b.text, b.bucket, b.fps)
    seen = [row for rank in (0, 2) for batch in batches[rank] for row in batch.rows]
    assert sorted(seen) == list(range(CLIPS))


def test_an_epoch_on_two_then_four_then_one_rank_reads_every_clip_once(table: Path) -> None:
    seen: list[int] = []
    position = Position(epoch=3)
    for ranks, steps in ((2, 3), (4, 2), (1, 2)):
        position = position.on(ranks)
        for rank in range(ranks):
            batches = loader_of(table, Process(rank, ranks, CPU)).epoch(3, position.batch, position.before)
            seen += [row for batch in islice(batches, steps) for row in batch.rows]
        position = position.at(steps)
    assert sorted(seen) == list(range(CLIPS))
    assert list(loader_of(table, Process(0, 1, CPU)).epoch(3, position.batch, position.before)) == []


@pytest.mark.parametrize(
    ("sizes", "ranks"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"sp_size": 2}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({"tp_size": 2, "sp_size": 2}, [0, 0, 0, 0, 1, 1, 1, 1]),
        ({"tp_size": 2, "sp_size": 2, "pp_size": 2}, [0] * 8),
    ],
)
def test_places(sizes: dict[str, int], ranks: list[int]) -> None:
    size = max(ranks) + 1
    assert [data_parallel(rank, 8, **sizes) for rank in range(8)] == [DataParallel(rank, size) for rank in ranks]


@pytest.mark.parametrize(("rank", "world", "sp"), [(0, 8, 3), (8, 8, 1), (-1, 8, 1), (0, 2, 4)])
def test_places_that_there_are_not(rank: int, world: int, sp: int) -> None:
    with pytest.raises(ValueError, match=rf"rank {rank} of {world} processes in groups of {sp}"):
        data_parallel(rank, world, sp_size=sp)
