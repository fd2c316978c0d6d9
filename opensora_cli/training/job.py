"""A training job from resolved recipe to exit code: data first, then models, then the run folder, then the loop."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from opensora_cli.data.cache.inputs import CachedInputs
from opensora_cli.data.cache.opening import check_passes, open_caches
from opensora_cli.data.loader import Loader, build_loader
from opensora_cli.distributed.launch import end_with_launcher, tell_run_folder
from opensora_cli.distributed.layout import lay_out
from opensora_cli.distributed.process import DTYPES, Process, leave, start_process
from opensora_cli.progress import TrainingProgress
from opensora_cli.supported import check_supported
from opensora_cli.training import run_folder
from opensora_cli.training.boards import wandb_module
from opensora_cli.training.checkpoint import Checkpoints
from opensora_cli.training.denoise_objective import DenoiserObjective
from opensora_cli.training.latent_objective import LatentObjective
from opensora_cli.training.looks import Look
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.objective import Objective
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.samples import training_samples
from opensora_cli.training.token_objective import TokenObjective
from opensora_cli.training.trainer import Trainer
from opensora_cli.training.vae_objective import VaeObjective
from opensora_cli.training.validation import reconstruction_look
from opensora_cli.training.validation_loss import validation_loss
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.compiled import compile_blocks
from opensora_models.discriminator.model import PatchDiscriminator3D
from schemas.denoiser import MMDiTConfig
from schemas.errors import OsoraError
from schemas.recipes import TrainRecipe, VaeTrainRecipe
from schemas.resolve import Resolved

Trainable = TrainRecipe | VaeTrainRecipe


def run_training(resolved: Resolved, *, resume: str | None, dry_run: bool, console: Console) -> int:
    """Run a train or vae-train recipe and return the exit code. `resume` is None, "auto" or a run folder."""
    recipe = resolved.recipe
    assert isinstance(recipe, Trainable)
    check_supported(recipe)
    process = start_process(recipe.device, recipe.parallel)
    end_with_launcher()
    code = train_one(resolved, process, console if process.is_main else Console(quiet=True), resume, dry_run=dry_run)
    leave()  # not after an error: the others may not be able to, and would be waited for
    return code


def train_one(
    resolved: Resolved,
    process: Process,
    console: Console,
    resume: str | None = None,
    *,
    place: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Run a recipe in a process that has joined the job, and return the exit code.

    `place` is the run's own folder, new or to go on with; without it the run gets a new one, or that which `resume` says.
    """
    recipe = resolved.recipe
    assert isinstance(recipe, Trainable)
    if recipe.logging.wandb_project is not None and process.is_main:
        wandb_module()  # a missing package is said before hours of work
    loader = make_loader(recipe, process)
    updates = planned_updates(recipe, loader)
    for line in loader.warnings():
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        print_plan(recipe, loader, updates, process, console)
        return 0
    if place is not None and (place / run_folder.LOCK).is_file():
        resume = str(place)
    continued = _folder_to_resume(recipe, resume, console) if process.is_main else None
    if continued is not None:
        run_folder.check_data(continued, loader.fingerprint)
    objective = make_objective(recipe, process, loader.cached)
    looks = make_looks(objective, process)
    if process.is_main:
        folder = continued or (
            run_folder.create(resolved, recipe, Path(str(resolved.source)).stem)
            if place is None
            else run_folder.create_at(place, resolved)
        )
        tell_run_folder(folder.path)
        run_folder.write_run_json(
            folder,
            {
                "data": {"path": recipe.dataset.data_path, "fingerprint": loader.fingerprint},
                "seed": recipe.seed,
                "world_size": process.world_size,
                "device": _device_name(process.device),
                "parameters": sum(p.numel() for p in objective.module.parameters()),
                "resumed": continued is not None,
            },
        )
    folder = RunFolder(Path(process.from_main(str(folder.path) if process.is_main else None) or ""))
    console.print(f"run folder: {folder.path}", markup=False, highlight=False, soft_wrap=True)
    return train_in(folder, recipe, objective, loader, process, updates, console, looks)


def train_in(
    folder: RunFolder,
    recipe: Trainable,
    objective: Objective,
    loader: Loader,
    process: Process,
    updates: int,
    console: Console,
    looks: Sequence[Look] = (),
) -> int:
    """Train in a run folder, from its newest checkpoint if it has one; return the exit code."""
    layout = lay_out(objective.module, recipe.parallel, process, DTYPES[recipe.dtype])
    if recipe.memory.compile:
        compile_blocks(objective.module, any_size=True)
    checkpoints = Checkpoints(folder.checkpoints, recipe.checkpoint, DTYPES[recipe.dtype], process, layout)
    done = checkpoints.latest()
    start = int(done.name.removeprefix("step-")) if done else 0
    with TrainingProgress(recipe.kind, updates, done=start, console=console) as display:
        metrics = Metrics(
            folder,
            display,
            rank=process.rank,
            log_every=recipe.logging.log_every,
            tensorboard=recipe.logging.tensorboard,
            wandb_project=recipe.logging.wandb_project,
        )
        if done:
            display.note(f"resuming after update {start}")
        return Trainer(recipe, objective, loader, checkpoints, metrics, process, layout, looks).fit()


def make_loader(recipe: Trainable, process: Process) -> Loader:
    """Open the data of a recipe. Raises OsoraError when it cannot fill a batch."""
    notes: list[str] = []
    cached = open_caches(recipe, notes) if isinstance(recipe, TrainRecipe) else None
    loader = build_loader(
        recipe.dataset,
        recipe.buckets,
        compression=recipe.pixels_per_token,
        frame_compression=recipe.ae.time_compression_ratio,
        seed=recipe.seed,
        dp_rank=process.data_parallel.rank,
        dp_size=process.data_parallel.size,
        device=process.device,
        cached=cached,
    )
    if cached is not None and isinstance(recipe, TrainRecipe):
        check_passes(cached, recipe, loader.fingerprint, recipe.pixels_per_token, notes)
    loader.notes += notes
    return loader


def make_objective(recipe: Trainable, process: Process, cached: CachedInputs | None = None) -> Objective:
    """Build the modules that the recipe trains, and those it needs for that."""
    match recipe:
        case TrainRecipe():
            match recipe.model:
                case MMDiTConfig():
                    return TokenObjective(recipe, process.device, cached)
                case _:
                    return LatentObjective(recipe, process.device, cached)
        case VaeTrainRecipe():
            return VaeObjective(recipe, process.device)


def make_looks(objective: Objective, process: Process) -> list[Look]:
    """Read and encode what the recipe wants to look at while it trains."""
    looks: list[Look | None] = []
    if isinstance(objective, DenoiserObjective):
        looks = [validation_loss(objective, process), training_samples(objective, process)]
    elif isinstance(objective, VaeObjective):
        looks = [reconstruction_look(objective, process)]
    return [look for look in looks if look is not None]


def planned_updates(recipe: Trainable, loader: Loader) -> int:
    """Return how many optimizer updates the recipe asks for; at least one, or the data is too small."""
    batches = sum(loader.batches_per_epoch(epoch) for epoch in range(min(recipe.epochs, 3)))
    batches = batches * recipe.epochs // min(recipe.epochs, 3)  # the draws of later epochs differ a little
    updates = batches // recipe.optim.accumulation_steps
    if updates == 0:
        raise OsoraError(
            f"the data gives {batches} batches in {recipe.epochs} epochs, fewer than optim.accumulation_steps = "
            f"{recipe.optim.accumulation_steps}. Raise `epochs`, lower accumulation_steps or the batch sizes in [buckets]."
        )
    return min(updates, recipe.max_steps) if recipe.max_steps is not None else updates


def print_plan(recipe: Trainable, loader: Loader, updates: int, process: Process, console: Console) -> None:
    """Print what a run would do: sizes of the models (built without memory), data, updates, device."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {"autoencoder": build_autoencoder(recipe.ae)}
        if isinstance(recipe, TrainRecipe):
            modules = {"denoiser": build_denoiser(recipe.model), **modules}
        elif recipe.discriminator is not None:
            modules["discriminator"] = PatchDiscriminator3D(recipe.discriminator)
    table = Table(title=f"{recipe.kind}: plan", show_header=False)
    for name, module in modules.items():
        table.add_row(f"{name} parameters", f"{sum(p.numel() for p in module.parameters()):,}")
    table.add_row("data", f"{recipe.dataset.data_path} (fingerprint {loader.fingerprint[:12]})")
    table.add_row("batches in the first epoch", f"{loader.batches_per_epoch(0):,}")
    table.add_row("updates", f"{updates:,}")
    table.add_row("precision", recipe.dtype)
    table.add_row("device", _device_name(process.device))
    table.add_row("processes", str(process.world_size))
    console.print(table)


def _folder_to_resume(recipe: Trainable, resume: str | None, console: Console) -> RunFolder | None:
    if resume is None:
        return None
    if resume != "auto":
        return run_folder.open_existing(Path(resume), recipe)
    folder = run_folder.find_latest(recipe)
    if folder is None:
        console.print(f"--resume auto: no run of this recipe below {recipe.outputs}, starting a new one", markup=False)
    return folder


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
