"""What this machine has, for the rules between recipes and machines (`osora config validate --hardware here`)."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist

from opensora_cli.distributed.place import find_place
from opensora_cli.planning.disk import checkpoint_bytes
from opensora_cli.planning.plan import Target, make_plan
from schemas.checks import run_machine_checks
from schemas.checks.parallel import world_size_problem
from schemas.machine import Gpu, Machine, Need
from schemas.parallel import ParallelConfig
from schemas.recipes import (
    AnyRecipe,
    RunRecipe,
    SampleRecipe,
    TrainRecipe,
    VaeSampleRecipe,
    VaeStatsRecipe,
    VaeTrainRecipe,
)
from schemas.resolve import Diagnostic, Place, Resolved
from schemas.resolve.keys import show_key
from schemas.resolve.resolved import DEFAULT

BY_CHOICE = ("torch", "colossalai", "wandb", "peft", "bitsandbytes", "torchcodec", "flash_attn")
"""Modules that recipes use by choice."""
MEMINFO = Path("/proc/meminfo")


def machine_diagnostics(resolved: Resolved, machine: Machine) -> list[Diagnostic]:
    """Return what keeps a recipe from running well on a machine, each at the key that asks for it."""
    found = []
    for problem in run_machine_checks(resolved.recipe, machine):
        places = [(key, resolved.place(show_key(key))) for key in problem.keys]
        given = [(key, place) for key, place in places if place.file != DEFAULT.name]
        first = given[0][1] if given else Place(resolved.source)
        second, note = next(
            ((place, f"`{show_key(key)}` comes from") for key, place in given if place != first), (None, None)
        )
        found.append(Diagnostic(problem.code, problem.message, first, second, note, problem.help, problem.severity))
    return found


def look_around(recipe: AnyRecipe) -> Machine:
    """Return what this machine has, and what of it a recipe would need. Memory and disk are what is free now."""
    gpus = _gpus()
    processes = _processes(recipe, gpus)
    folder = _folder(recipe)
    return Machine(
        gpus=gpus,
        packages=frozenset(name for name in BY_CHOICE if find_spec(name) is not None),
        backends=_backends(),
        processes=processes,
        folder=str(folder),
        disk=shutil.disk_usage(folder).free,
        checkpoint=checkpoint_bytes(recipe) if isinstance(recipe, TrainRecipe | VaeTrainRecipe) else None,
        too_large=_too_large(recipe, gpus, processes),
    )


def _gpus() -> tuple[Gpu, ...]:
    found = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found.append(Gpu(about.name, (about.major, about.minor), torch.cuda.mem_get_info(number)[0]))
    return tuple(found)


def _backends() -> frozenset[str]:
    if not dist.is_available():
        return frozenset()
    there = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    return frozenset(name for name, found in there.items() if found)


def _processes(recipe: AnyRecipe, gpus: tuple[Gpu, ...]) -> int | None:
    """Return how many processes a job of a recipe has: those of the launcher, or one for every GPU."""
    place = find_place(os.environ)
    if place is not None:
        return place.world_size
    return len(gpus) if gpus and recipe.device != "cpu" else None


def _folder(recipe: AnyRecipe) -> Path:
    """Return where a recipe writes, or the nearest folder above it that is there."""
    wanted = Path(recipe.outputs if isinstance(recipe, RunRecipe) else ".").expanduser().absolute()
    return next(folder for folder in (wanted, *wanted.parents) if folder.is_dir())


def _too_large(recipe: AnyRecipe, gpus: tuple[Gpu, ...], processes: int | None) -> tuple[Need, ...]:
    """Return the batches that do not fit, by the planner's estimate; none where the mesh itself does not fit."""
    spread = recipe.parallel if isinstance(recipe, RunRecipe | SampleRecipe) else ParallelConfig()
    count = processes or spread.together
    if world_size_problem(spread, count):
        return ()
    on_gpu = gpus and recipe.device != "cpu"
    # On a CPU the processes share the memory of one machine.
    memory = min(gpu.free for gpu in gpus) if on_gpu else _free_memory() // count
    plan = make_plan(_without_data(recipe), Target(count, None if on_gpu else "cpu", memory))
    return tuple(
        Need(
            f"a batch of {one.shape.batch_size} x {one.shape.name}, {one.shape.frames} frames",
            one.total,
            plan.target.usable or 0,
        )
        for one in plan.too_large
    )


def _without_data(recipe: AnyRecipe) -> AnyRecipe:
    """Leave out the table of clips: its rows do not change what a batch takes."""
    if isinstance(recipe, RunRecipe | VaeSampleRecipe | VaeStatsRecipe):
        return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"data_path": None})})
    return recipe


def _free_memory() -> int:
    """Return the bytes that programs can have: on Linux with what the kernel would give back of its caches."""
    if MEMINFO.is_file():
        table = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        return int(table["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
