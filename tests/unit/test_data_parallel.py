"""Which processes see the same data: a loader for each process, as a job would make them."""

from pathlib import Path

import pytest
import torch

from opensora_cli.data.loader import Loader, build_loader
from opensora_cli.distributed.data_parallel import DataParallel, data_parallel
from opensora_cli.distributed.process import Process
from schemas.data import DatasetConfig
from tests.unit.data_fakes import numbered_mp4


def loader_of(table: Path, process: Process) -> Loader:
    config = DatasetConfig(data_path=str(table), num_workers=0)
    place = process.data_parallel
    return build_loader(config, {"32px": {5: (1.0, 1)}}, compression=8, seed=0, dp_rank=place.rank, dp_size=place.size)


def test_ranks_of_a_sequence_parallel_group_receive_identical_batches(tmp_path: Path) -> None:
    lines = ["path,text,height,width,num_frames,fps"]
    for number in range(8):
        numbered_mp4(tmp_path / f"{number}.mp4", frames=9, size=(32, 32))
        lines.append(f"{number}.mp4,clip {number},32,32,9,8")
    (tmp_path / "meta.csv").write_text("\n".join(lines) + "\n")
    cpu = torch.device("cpu")
    batches = [list(loader_of(tmp_path / "meta.csv", Process(rank, 4, cpu, together=2)).epoch(0)) for rank in range(4)]
    for one, two in ((0, 1), (2, 3)):
        assert len(batches[one]) == len(batches[two]) == 4
        for a, b in zip(batches[one], batches[two], strict=True):
            assert torch.equal(a.video, b.video)
            assert (a.rows, a.text, a.bucket, a.fps) == (b.rows, b.text, b.bucket, b.fps)
    seen = [row for rank in (0, 2) for batch in batches[rank] for row in batch.rows]
    assert sorted(seen) == list(range(8))


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
