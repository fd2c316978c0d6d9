"""The order of rows in shards: as they come, or shuffled by a seed without holding the table in memory."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from opensora_cli.data.draws import Ints, Purpose, hashes

PILE_ROWS = 1 << 18
"""Rows of a shuffled table that are put in order at a time; all of them are in memory together."""
MOST_PILES = 256
"""Piles are files that are open at the same time; with more rows than this allows, the piles get larger."""


def shuffled(parts: Iterable[Any], rows: int, seed: int, schema: pa.Schema, scratch: Path) -> Iterator[Any]:
    """Yield all rows in an order that depends on their number and the seed alone.

    Two rounds: every row goes to the pile that its new place belongs to, a file in `scratch`; then one pile after the other
    is put in order. Takes 8 bytes of memory per row of the table, and the disk space of the table.
    """
    places = _new_places(rows, seed)
    size = max(PILE_ROWS, -(-rows // MOST_PILES))
    names = [scratch / f"pile-{number:03d}.arrow" for number in range(-(-rows // size))]
    _deal(parts, places, size, names, schema.append(_PLACE))
    for name in names:
        with pa.OSFile(str(name)) as file, pa.ipc.open_stream(file) as reader:
            pile = reader.read_all()
        name.unlink()
        yield from pile.sort_by(_PLACE.name).drop_columns([_PLACE.name]).combine_chunks().to_batches()


_PLACE = pa.field("\0place", pa.int64())
"""Where a row goes; no csv header or sensible parquet column has such a name."""


def _new_places(rows: int, seed: int) -> Ints:
    """Return the new place of every row: the rank of its hash."""
    keys = hashes(Purpose.SHARD_ORDER, seed, 0, np.arange(rows))
    places = np.empty(rows, dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(rows)
    return places


def _deal(parts: Iterable[Any], places: Ints, size: int, names: list[Path], schema: pa.Schema) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(pa.OSFile(str(name), "wb")) for name in names]
        piles = [stack.enter_context(pa.ipc.new_stream(file, schema)) for file in files]
        row = 0
        for part in parts:
            there = places[row : row + part.num_rows]
            whole = pa.RecordBatch.from_arrays([*part.columns, pa.array(there)], schema=schema)
            for number in np.unique(there // size).tolist():
                piles[number].write_batch(whole.take(pa.array(np.flatnonzero(there // size == number))))
            row += part.num_rows
