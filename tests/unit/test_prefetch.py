"""Batches on their way to the device: in order, bounded, and gone when nobody wants them."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from opensora_cli.data.buckets import BucketKey
from opensora_cli.data.dataset import Batch
from opensora_cli.data.prefetch import AHEAD, PinnedTransfer, Sent, prefetched


def batch(number: int, video: Tensor | None = None) -> Batch:
    x_BCTHW = torch.full((1, 3, 1, 2, 2), float(number)) if video is None else video
    return Batch(x_BCTHW, [f"clip {number}"], [number], BucketKey("32px", 1, "1:1"), [0.0], [])


class CountingTransfer:
    """Hands batches over as they are, and knows how many are between the two halves of the copy."""

    def __init__(self) -> None:
        self.sent = 0
        self.threads: set[str] = set()

    def send(self, batch: Batch) -> Sent:
        self.sent += 1
        self.threads.add(threading.current_thread().name)
        return Sent(batch, None)  # type: ignore[arg-type]  # nothing is copied: there is no event

    def receive(self, sent: Sent) -> Batch:
        return sent.batch


def test_batches_come_in_order_from_a_thread_that_stays_few_batches_ahead() -> None:
    transfer, received = CountingTransfer(), []
    for number, got in enumerate(prefetched(map(batch, range(20)), transfer), start=1):
        received.append(got.rows[0])
        assert transfer.sent <= number - 1 + AHEAD
    assert received == list(range(20))
    assert transfer.threads == {"prefetch"}
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_an_error_comes_after_the_batches_before_it() -> None:
    def failing() -> Iterator[Batch]:
        yield from map(batch, range(3))
        raise OSError("the disk is gone")

    received = []
    with pytest.raises(OSError, match="the disk is gone"):
        for got in prefetched(failing(), CountingTransfer()):
            received.append(got.rows[0])
    assert received == [0, 1, 2]


def test_leaving_early_ends_the_thread() -> None:
    transfer = CountingTransfer()
    batches = prefetched(map(batch, range(1000)), transfer)
    next(batches)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]
    assert transfer.sent <= 1 + AHEAD


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies to a GPU need one")
def test_pixels_arrive_whole_on_the_device_through_two_pinned_buffers() -> None:
    transfer = PinnedTransfer(torch.device("cuda"))
    random = torch.Generator().manual_seed(0)
    wanted = [batch(n, torch.randn(1 + n % 3, 3, 5, 64, 64, generator=random)) for n in range(12)]
    places = set()
    for want, got in zip(wanted, prefetched(iter(wanted), transfer), strict=True):
        torch.cuda._sleep(1_000_000)  # the step before is still computed
        assert got.video.is_cuda
        assert torch.equal(got.video.cpu(), want.video)
        places |= {buffer.data_ptr() for buffer in transfer._buffers if buffer.nbytes}
    assert all(buffer.is_pinned() for buffer in transfer._buffers)
    assert len(places) <= 2 * AHEAD  # each was made once, or once more for the largest batch
