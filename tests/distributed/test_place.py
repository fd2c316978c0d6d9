"""Where a process stands, as each launcher's environment says it."""

import pytest

from opensora_cli.distributed.data_parallel import data_parallel
from opensora_cli.distributed.place import Place, find_place, first_host
from opensora_cli.distributed.sequence import shares
from schemas.errors import UsageError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_PROCID": "9",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu[07-08],login1",
}


def test_without_a_launcher_there_is_one_process() -> None:
    assert find_place({"PATH": "/bin"}) is None


def test_torchruns_variables() -> None:
    assert find_place(TORCHRUN) == Place(3, 4, 1, "gpu1", 29500)


def test_slurms_variables() -> None:
    assert find_place(SRUN) == Place(9, 16, 1, "gpu07", 24711)
    assert find_place({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}) == Place(9, 16, 1, "10.0.0.1", 1234)


def test_a_batch_script_of_slurm_is_not_one_of_its_tasks() -> None:
    script = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_NUM_TASKS"}
    assert find_place({**script, "SLURM_NTASKS": "16"}) is None


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT"])
def test_half_a_job_is_an_error_that_names_the_missing_variable(missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        find_place({name: value for name, value in TORCHRUN.items() if name != missing})


def test_ranks_that_are_no_numbers() -> None:
    with pytest.raises(UsageError, match="'three'"):
        find_place({**TORCHRUN, "RANK": "three"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[1-4]", "gpu1"),
        ("a[003,007-9]b,c", "a003b"),
        ("x[2]-y[5-6]", "x2-y5"),
    ],
)
def test_the_first_of_slurms_hosts(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_neighbours_see_the_same_clips() -> None:
    places = [data_parallel(rank, 8, tp_size=2, sp_size=2) for rank in range(8)]
    assert [place.rank for place in places] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {place.size for place in places} == {2}


@pytest.mark.parametrize(("tokens", "processes"), [(98, 4), (98, 3), (3, 4), (8, 8)])
def test_shares_of_tokens_are_even_and_complete(tokens: int, processes: int) -> None:
    sizes = shares(tokens, processes)
    assert sum(sizes) == tokens
    assert max(sizes) - min(sizes) <= 1
