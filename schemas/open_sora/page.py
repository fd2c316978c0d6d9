"""The page docs/open-sora-keys.md, made from the tables: `python -m schemas.open_sora.page > docs/open-sora-keys.md`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.open_sora.differences import ALL_KINDS, DIFFERENCES
from schemas.open_sora.first_generation import PAIRS as FIRST_PAIRS
from schemas.open_sora.first_models import (
    AUTOENCODERS,
    DENOISERS,
    SCHEDULERS,
    SOLVERS,
    scheduler_pairs,
    text_pairs,
)
from schemas.open_sora.first_models import (
    autoencoder_pairs as first_autoencoder_pairs,
)
from schemas.open_sora.fixed import CONSTANTS, constants, derived
from schemas.open_sora.leftovers import FIRST_GENERATION, REASONS
from schemas.open_sora.pairs import NOTHING, Pair
from schemas.open_sora.tables import AUTOENCODER_TABLE, SIMPLE, autoencoder_pairs, pairs_of
from schemas.resolve import resolve

INTRODUCTION = """\
# Open-Sora's keys and osora's

<!-- Made by `python -m schemas.open_sora.page > docs/open-sora-keys.md`; a test compares. -->

    osora config import FILE.py --out recipe.toml        an Open-Sora config becomes a recipe
    osora config export RECIPE --to open-sora            a recipe becomes JSON under Open-Sora's keys

`import` reads MMEngine-style Python through its syntax tree and runs nothing: assignments of literals, names, arithmetic,
lists, dicts and `dict(...)`, with `_base_` (relative files) and `_delete_`. Anything else is an error with
file:line:column. JSON with the same keys works too. Every key that has no counterpart is listed with its place and the
reason, on stderr and as a comment above the recipe; a key that is `None` counts as absent. Where the config leaves a key
out, the recipe gets Open-Sora's default, unless osora's is the same.

`export` gives Open-Sora's own resolved configs back for the packaged recipes, but for the differences below. What a
recipe sets and Open-Sora cannot say is listed on stderr. Of a layer (a file without `kind`) the export is what it adds.
"""
FAMILIES = ("hunyuan_vae", "dc_ae", "autoencoder_2d")


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION, *_differences(), *_keys(), *_fixed(), *_imports(), *_first()]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _differences() -> Iterable[str]:
    yield "## Deliberate differences\n"
    rows = [
        (f"`{entry.key}`", entry.form, "all" if entry.kinds == ALL_KINDS else ", ".join(entry.kinds), entry.reason)
        for entry in DIFFERENCES
    ]
    yield _table(("Open-Sora's key", "in an export", "kinds", "why"), rows)


def _keys() -> Iterable[str]:
    yield "## Keys\n"
    yield (
        "`plugin` with `plugin_config` is `[parallel]`, `condition_config` is `[condition]`,\n"
        "`use_t2i2v` is whether there is a table `[t2i2v]`, and `wandb` with `wandb_project` is `logging.wandb_project`."
    )
    for kind, pairs in SIMPLE.items():
        yield f"### {kind}\n"
        extra = [pair for pair in pairs_of(kind, {}, ("lora", "discriminator")) if pair not in pairs]
        yield _pairs([*pairs, *(pair for pair in extra if _belongs(kind, pair))])
    for family in FAMILIES:
        yield f"### The autoencoder {family}\n"
        yield f"In {_places()}."
        yield _pairs(autoencoder_pairs(family, scale=True, tiled=True))


def _belongs(kind: str, pair: Pair) -> bool:
    """The optional tables belong to one kind each."""
    return {"lora": "train", "discriminator": "vae-train"}.get(pair.ours.split(".")[0], kind) == kind


def _places() -> str:
    tables = sorted(set(AUTOENCODER_TABLE.values()))
    return f"Open-Sora's {' or '.join(f'`{name}`' for name in tables)}, which is osora's `[ae]`"


def _fixed() -> Iterable[str]:
    yield "## Always the same, or following from other keys\n"
    yield "An export writes these; an import compares them, and says so where they differ.\n"
    rows = []
    for kind in CONSTANTS:
        for key, (value, why) in constants(kind, {}, {"discriminator"} if kind == "vae-train" else set(), "").items():
            rows.append((f"`{key}`", kind, f"`{_shown(value)}`", why))
    for family, (theirs, name) in {
        "dc_ae": ("ae", "dc_ae"),
        "autoencoder_2d": ("img_flux_ae", "autoencoder_2d"),
    }.items():
        for key, (value, why) in constants("sample", {"ae": family}, set(), theirs).items():
            if key.startswith(f"{theirs}."):
                rows.append((f"`{key}`", f"autoencoder {name}", f"`{_shown(value)}`", why))
    for recipe in ("high_compression", "sample/high_compression"):
        resolved = resolve(recipe).recipe
        rows += [(f"`{key}`", resolved.kind, "follows from", why) for key, (_, why) in derived(resolved).items()]
    yield _table(("Open-Sora's key", "where", "value", "why"), rows)


def _imports() -> Iterable[str]:
    yield "## Keys that only an import meets\n"
    yield _table(("Open-Sora's key", "why it is not taken over"), [(f"`{key}`", reason) for key, reason in REASONS])


def _first() -> Iterable[str]:
    yield "## Open-Sora 1.0 to 1.2\n"
    yield (
        "Only an import knows these configs. A name stands for a family, and every other key of `model` is the family's of\n"
        "the same name. One `image_size` with `num_frames` and `batch_size`, where there is no `bucket_config`, becomes one\n"
        "bucket. `aspect_ratio` is height:width there. A bucket of probability 0 keeps its place, with any batch size."
    )
    rows = [(f"`{name}`", named.family, _said(named.values)) for name, named in DENOISERS.items()]
    yield _table(("`model.type`", "`model.type` of osora", "and"), rows)
    rows = [(f"`{name}`", str(values["type"]), _said(values)) for name, values in AUTOENCODERS.items()]
    yield _table(("`vae.type`", "`ae.type`", "and"), rows)
    processes = [
        (f"`{name}`", str(values["type"]), _said(values), f"`{SOLVERS[name]}`") for name, values in SCHEDULERS.items()
    ]
    yield _table(("`scheduler.type`", "`diffusion.type`", "and", "`sampling.solver`"), processes)
    yield "### 1.x: the models' keys\n"
    yield _pairs(
        [
            *dict.fromkeys(pair for name in AUTOENCODERS for pair in first_autoencoder_pairs(name, "vae")),
            *(pair for encoder in ("t5", "clip") for pair in text_pairs(encoder, "STDiT3-XL/2" * (encoder == "t5"))),
            *(pair for name in ("iddpm", "rflow") for pair in scheduler_pairs(name)),
        ]
    )
    for kind, pairs in FIRST_PAIRS.items():
        yield f"### 1.x: {kind}\n"
        yield _pairs(pairs)
    yield "### 1.x: keys that are not taken over\n"
    yield _table(
        ("Open-Sora's key", "why it is not taken over"), [(f"`{key}`", reason) for key, reason in FIRST_GENERATION]
    )


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key} = {_shown(value)}`" for key, value in values.items() if key != "type")


def _pairs(pairs: Iterable[Pair]) -> str:
    rows = [(f"`{p.theirs}`", f"`{p.ours}`", "" if p.default is NOTHING else f"`{_shown(p.default)}`") for p in pairs]
    return _table(("Open-Sora", "osora", "Open-Sora's default"), rows)


def _shown(value: Any) -> str:
    return json.dumps(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return (
        "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])
        + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
