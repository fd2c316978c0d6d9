"""Steps: which batches the data-parallel ranks work on at the same time.

All ranks wait for the slowest one, so the batches of a step should cost the same. That depends on the number of ranks, and
the batches of an epoch do not: so a run that goes on with another number shares out what is left, and nothing else changes.
"""

import numpy as np

from opensora_cli.data.draws import Ints
from opensora_cli.data.position import History
from schemas.errors import OsoraError


def arrange(left: Ints, costs: Ints, ranks: int) -> Ints:
    """Return the batches of every step and rank, (steps, ranks), from the numbers of those that are left, in shuffled order.

    Sorted by cost, `ranks` neighbours make a step; so all steps together wait for no more than the difference between the
    cheapest and the dearest batch. Neighbouring steps turn their ranks round, so that no rank always has the dearer batch.
    The steps come in shuffled order again. The last of the batches that cannot be shared equally are left out; their place in
    the order, and so which ones they are, has nothing to do with their cost.
    """
    used = left[: len(left) - len(left) % ranks]
    steps = used[np.argsort(costs[used], kind="stable")].reshape(-1, ranks)
    steps[1::2] = steps[1::2, ::-1].copy()
    return steps[np.argsort(steps.min(axis=1), kind="stable")] if ranks > 1 else used.reshape(-1, 1)


def remaining(costs: Ints, before: History) -> Ints:
    """Return the numbers of the batches that earlier parts of an epoch have not done, in shuffled order.

    Raises OsoraError when they did more than there is: the data is not what it was.
    """
    left = np.arange(len(costs))
    for ranks, steps in before:
        arranged = arrange(left, costs, ranks)
        if steps > len(arranged):
            raise OsoraError(
                f"the checkpoint stands behind {steps} steps of {ranks} data-parallel ranks, and the epoch has {len(arranged)}. "
                "The table or the buckets changed since it was saved."
            )
        done = np.zeros(len(costs), dtype=bool)
        done[arranged[:steps]] = True
        left = left[~done[left]]
    return left
