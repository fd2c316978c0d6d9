"""Batches whose losses or gradients were not finite, kept so that the update can be done again."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file

from opensora_cli.data.dataset import Batch
from opensora_cli.files import whole_file, write_text


def keep_faulty(
    folder: Path, batches: Sequence[Batch], values: Mapping[str, float], *, seed: int, update: int, rank: int
) -> None:
    """Write one data-parallel rank's micro-batches of an update: tensors, and as JSON what they are.

    `draws` are the arguments of `training.draws.Draws` that give the update's times and noise again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{number}.{name}": tensor.detach().cpu().contiguous()
        for number, batch in enumerate(batches)
        for name, tensor in batch.named_tensors().items()
    }
    with whole_file(folder / f"rank-{rank}.safetensors") as path:
        save_file(tensors, path)
    record = {
        "update": update + 1,
        "values": {name: value if math.isfinite(value) else str(value) for name, value in values.items()},
        "micro_batches": [
            {
                "rows": batch.rows,
                "captions": batch.text,
                "bucket": str(batch.bucket),
                "fps": batch.fps,
                "draws": {"seed": seed, "update": update, "micro_batch": number, "rank": rank},
            }
            for number, batch in enumerate(batches)
        ],
    }
    write_text(folder / f"rank-{rank}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
