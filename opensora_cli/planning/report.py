"""A plan as lines for people, and as a table for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from opensora_cli.planning.hardware import GIB
from opensora_cli.planning.plan import Plan, ShapePlan, modules_below
from schemas.recipes import SampleRecipe, TrainRecipe, VaeTrainRecipe

Line = tuple[str, str]
NAMED = 8
"""Buckets that a line names before it counts the rest."""


def plan_lines(name: str, plan: Plan) -> Iterator[Line]:
    """Yield (role, line) of a plan, top to bottom."""
    yield "title", f"{name}: plan ({plan.recipe.kind}, {plan.recipe.dtype}, {_processes(plan)})"
    yield from _parameters(plan)
    yield from _states(plan)
    yield from _shapes(plan)
    yield from _data(plan)
    yield from (("note", f"note: {note}") for note in plan.notes)
    yield from _verdict(plan)


def plan_json(name: str, plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON would hold it: bytes and FLOPs as whole numbers."""
    target = plan.target
    return {
        "recipe": name,
        "kind": plan.recipe.kind,
        "world_size": target.world_size,
        "gpu": target.gpu,
        "memory_bytes": target.memory,
        "usable_bytes": target.usable,
        "sharing": list(plan.sharing.lines()),
        "parameters": {name: {"total": one.total, "modules": one.children} for name, one in plan.parameters.items()},
        "states_bytes": {**plan.states, **({"gradients": plan.gradients} if plan.gradients else {})},
        "buckets": [_shape_json(plan, one) for one in plan.shapes],
        "data": _data_json(plan),
        "fits": None if target.usable is None else not plan.too_large,
        "notes": list(plan.notes),
    }


def _shape_json(plan: Plan, one: ShapePlan) -> dict[str, Any]:
    shape, cost = one.shape, one.cost
    return {
        "resolution": shape.name,
        "frames": shape.frames,
        "height": shape.height,
        "width": shape.width,
        "batch_size": shape.batch_size,
        "tokens": cost.tokens,
        "forward_flops": cost.forward_flops,
        "flops": cost.flops,
        "flops_without_recomputing": cost.flops_without_recomputing,
        "activation_bytes": cost.activations,
        "activation_bytes_without_recomputing": cost.activations_without_recomputing,
        "gradient_bytes_at_peak": cost.gradients_at_peak,
        "total_bytes": one.total,
        "peak_at": cost.moment,
        "fits": one.fits,
        "clips": one.clips,
        "batches": one.batches,
    }


def _data_json(plan: Plan) -> dict[str, Any] | None:
    clips = plan.clips
    if clips is None:
        return None
    return {
        "source": clips.source,
        "rows": clips.rows,
        "too_small": clips.too_small,
        "too_short": clips.too_short,
        "not_drawn": clips.not_drawn,
        "empty": [{"resolution": name, "frames": frames} for name, frames in clips.empty],
        "unfilled": {name: {"clips": count, "batch_size": size} for name, (count, size) in clips.unfilled.items()},
        "steps_per_epoch": plan.steps,
    }


def _processes(plan: Plan) -> str:
    target = plan.target
    count = f"{target.world_size} process{'es' if target.world_size > 1 else ''}"
    if target.memory is None or target.usable is None:
        return f"{count}; no --gpu, so nothing is compared with a memory"
    where = f" on {target.gpu}" if target.gpu else ""
    return f"{count}{where} with {target.memory / GIB:.1f} GiB, {target.usable / GIB:.1f} of it for tensors"


def _parameters(plan: Plan) -> Iterator[Line]:
    for name, counted in plan.parameters.items():
        yield "title", f"{name}: {counted.total:,} parameters"
        for child, count in modules_below(counted):
            yield "dim", f"  {child:<16} {count:>16,}"


def _states(plan: Plan) -> Iterator[Line]:
    head = "models while they are at work" if isinstance(plan.recipe, SampleRecipe) else "states of one process"
    yield "title", f"{head}, GiB"
    sizes = {**plan.states, **({"gradients": plan.gradients} if plan.gradients else {})}
    for name, size in sizes.items():
        if size:
            yield "plain", f"  {name:<16} {size / GIB:>10.3f}"
    yield from (("dim", f"  {line}") for line in plan.sharing.lines())


def _shapes(plan: Plan) -> Iterator[Line]:
    trains = isinstance(plan.recipe, TrainRecipe | VaeTrainRecipe)
    columns = ["size", "frames", "batch", "tokens", "TFLOPs/clip"]
    columns += ["no recompute", "kept GiB", "all kept GiB"] if trains else []
    columns += ["total GiB", "peak at"]
    columns += ["fits"] if plan.target.usable is not None else []
    columns += ["clips", "batches"] if plan.clips is not None else []
    rows = [_row(plan, one, trains) for one in plan.shapes]
    yield "title", "one batch of each " + ("size" if isinstance(plan.recipe, SampleRecipe) else "bucket")
    yield from _aligned(columns, rows)
    if trains:
        yield (
            "dim",
            "  TFLOPs: forward and backward, recomputing and frozen encoders included; `no recompute` without it",
        )
        yield "dim", "  kept: activations between forward and backward; all kept: the same if no block were recomputed"


def _row(plan: Plan, one: ShapePlan, trains: bool) -> list[str]:
    shape, cost = one.shape, one.cost
    cells = [
        f"{shape.name} ({shape.height}x{shape.width})",
        str(shape.frames),
        str(shape.batch_size),
        f"{cost.tokens:,}",
    ]
    cells.append(_tera(cost.flops))
    if trains:
        cells += [_tera(cost.flops_without_recomputing)]
        cells += [f"{size / GIB:.3f}" for size in (cost.activations, cost.activations_without_recomputing)]
    cells += [f"{one.total / GIB:.3f}", cost.moment]
    if one.fits is not None:
        cells.append("yes" if one.fits else "NO")
    if plan.clips is not None:
        cells += [str(one.clips), str(one.batches)]
    return cells


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[Line]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    yield "dim", "  " + "  ".join(cell.rjust(width) for cell, width in zip(columns, widths, strict=True))
    for row in rows:
        role = "warning" if "NO" in row else "plain"
        yield role, "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _data(plan: Plan) -> Iterator[Line]:
    clips = plan.clips
    if clips is None:
        return
    yield "title", f"data: {clips.source}, {clips.rows:,} clips"
    outside = {"too few pixels": clips.too_small, "too few frames": clips.too_short}
    yield from (("plain", f"  {count:,} have {reason} for every bucket") for reason, count in outside.items() if count)
    if clips.not_drawn:
        yield "plain", f"  {clips.not_drawn:,} are left out by their keep probabilities in the first epoch"
    if clips.empty:
        yield "warning", f"  empty: {_some([f'{name} {frames} frames' for name, frames in clips.empty])}"
    if clips.unfilled:
        full = [f"{name} ({count} clips, batch {size})" for name, (count, size) in clips.unfilled.items()]
        yield "warning", f"  too few for one batch: {_some(full)}"
    if plan.steps is not None:
        yield "plain", f"  {plan.steps:,} updates in the first epoch"


def _verdict(plan: Plan) -> Iterator[Line]:
    if plan.target.usable is None:
        return
    if not plan.too_large:
        yield "ok", "every batch fits"
        return
    names = [f"{one.shape.name} {one.shape.frames} frames" for one in plan.too_large]
    yield "head", f"does not fit: {_some(names)}"


def _tera(flops: int) -> str:
    return f"{flops / 1e12:,.2f}" if flops >= 1e10 else f"{flops / 1e12:.1e}"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
