"""Where in the data a run stands: what a checkpoint has to hold so that no clip is seen twice or left out."""

from dataclasses import dataclass, replace

History = tuple[tuple[int, int], ...]
"""(data-parallel ranks, steps they did) for every part of an epoch that was done on another number of ranks, in order."""


@dataclass(frozen=True)
class Position:
    """The next batch of every rank: number `batch` of those that `dp_size` ranks share out after `before`."""

    epoch: int = 0
    batch: int = 0
    dp_size: int = 1
    before: History = ()

    def on(self, dp_size: int) -> "Position":
        """Return the same place in the data for another number of ranks: the rest of the epoch is shared out anew."""
        if dp_size == self.dp_size:
            return self
        done = ((self.dp_size, self.batch),) if self.batch else ()
        return Position(self.epoch, 0, dp_size, (*self.before, *done))

    def at(self, batch: int) -> "Position":
        """Return another place of the same epoch, for the same ranks."""
        return replace(self, batch=batch)

    def next_epoch(self) -> "Position":
        """Return the start of the next epoch."""
        return Position(self.epoch + 1, 0, self.dp_size)


START = Position()
