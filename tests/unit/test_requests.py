"""From planned batches to requests: the right rows, and no caption looked up long before it is needed."""

from opensora_cli.data.batches import plan_epoch
from opensora_cli.data.buckets import Buckets
from opensora_cli.data.manifest import Manifest
from opensora_cli.data.requests import AHEAD, EpochRequests
from schemas.data import DatasetConfig
from tests.unit.manifest_fakes import Names, manifest

BUCKETS = Buckets({"256px": {17: (1.0, 2), 1: (1.0, 3)}})


def requests_of(data: Manifest, epoch: int = 0) -> EpochRequests:
    requests = EpochRequests(data, BUCKETS, DatasetConfig(fps_max=24), seed=1)
    requests.take(plan_epoch(data, BUCKETS, 24, seed=1, epoch=epoch).of_rank(0, 1), epoch)
    return requests


def test_requests_in_order_are_those_of_their_places() -> None:
    requests = requests_of(manifest(90))
    in_order = list(requests)
    assert in_order == [requests[place] for place in range(len(requests))]
    plan = plan_epoch(manifest(90), BUCKETS, 24, seed=1, epoch=0)
    for number, request in enumerate(in_order):
        batch = plan.batch(number)
        assert tuple(clip.row for clip in request.clips) == batch.rows
        assert tuple(clip.row for clip in request.substitutes) == batch.substitutes
        for clip in request.clips:
            assert (clip.path, clip.text) == (f"{clip.row}.mp4", f"clip {clip.row} 24 FPS.")


def test_only_the_next_few_are_looked_up() -> None:
    data = manifest(300)
    names = data.texts
    assert isinstance(names, Names)
    requests = requests_of(data)
    batches = iter(requests)
    next(batches)
    next(batches)
    batches.close()
    most = max(len(request.clips) + len(request.substitutes) for request in requests_of(manifest(300)))
    assert 0 < len(names.asked) <= (AHEAD + 2) * most
    assert len(requests) > 3 * (AHEAD + 2)


def test_another_epoch_leaves_requests_that_are_being_read_alone() -> None:
    data = manifest(90)
    requests = requests_of(data)
    want = list(requests)
    half_read = iter(requests)
    got = [next(half_read)]
    requests.take(plan_epoch(data, BUCKETS, 24, seed=1, epoch=1).of_rank(0, 1), 1)
    assert [*got, *half_read] == want != list(requests)
