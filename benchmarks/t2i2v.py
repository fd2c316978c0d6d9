"""Text to image to video by its two stages, through files: seconds, peak memory, and what the plan says of it.

    python -m benchmarks.t2i2v [--recipe sample/t2i2v_256px] [--device cuda] [--steps 10] [--clips 1]

Weights are random, written to a temporary folder and loaded by both stages (50 GB for the recipe's real size); text features
are random too. Exits 1 when a stage takes over 10 % more memory than planned, or when the image models stay (on a GPU).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from opensora_cli.distributed.process import DTYPES
from opensora_cli.distributed.team import Team
from opensora_cli.planning.plan import Target, make_plan
from opensora_cli.progress import JobProgress
from opensora_cli.sampling.batches import Made, make_batch, plan_batches
from opensora_cli.sampling.image_recipe import image_recipe
from opensora_cli.sampling.image_stage import ImageStage
from opensora_cli.sampling.models import load_models
from opensora_cli.sampling.prompts import PromptTable, write_prompt
from opensora_cli.sampling.request import Request, plan_samples
from opensora_cli.sampling.size import sample_size
from opensora_cli.sampling.stages import Stages
from opensora_models.build import build_autoencoder, build_denoiser
from opensora_models.weights import save_weights
from schemas.recipes import SampleRecipe
from schemas.resolve import resolve

GIB = 2**30
MORE_THAN_PLANNED = 1.1
LEFT_OVER = GIB // 2


def write_weights(path: Path, make: Callable[[], nn.Module], dtype: torch.dtype, device: torch.device) -> str:
    """Write small random weights of a model, one parameter at a time on the device."""
    with torch.device("meta"):
        state = make().state_dict()
    drawn = {key: torch.randn(one.shape, device=device, dtype=dtype).mul_(0.02).cpu() for key, one in state.items()}
    save_weights(drawn, path)
    return str(path)


def all_weights(recipe: SampleRecipe, folder: Path, device: torch.device) -> dict[str, str | None]:
    """Write the four models of a recipe with an image stage."""
    stage, dtype = recipe.t2i2v, DTYPES[recipe.dtype]
    assert stage is not None, "the recipe makes no first frames"
    models: dict[str, Callable[[], nn.Module]] = {
        "model": lambda: build_denoiser(recipe.model),
        "ae": lambda: build_autoencoder(recipe.ae),  # type: ignore[dict-item,return-value]
        "t2i2v.img_flux": lambda: build_denoiser(stage.img_flux),
        "t2i2v.img_flux_ae": lambda: build_autoencoder(stage.img_flux_ae),  # type: ignore[dict-item,return-value]
    }
    return {key: write_weights(folder / f"{key}.safetensors", make, dtype, device) for key, make in models.items()}


def peak(device: torch.device) -> int:
    """Return the most memory allocated since the last call, bytes; 0 without a GPU."""
    if device.type != "cuda":
        return 0
    found = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return found


def planned(recipe: SampleRecipe, gpu: bool) -> dict[str, int]:
    """Return the planned peaks of the two stages, bytes."""
    target = Target(1, "h200" if gpu else "cpu")
    stages = {"images": image_recipe(recipe), "clips": recipe.model_copy(update={"t2i2v": None})}
    return {name: make_plan(stage, target).shapes[0].cost.peak for name, stage in stages.items()}


def run(recipe: SampleRecipe, device: torch.device, clips: int) -> dict[str, int]:
    """Make clips in two stages, print what each took and return the peaks by stage, with what the first left behind."""
    samples = plan_samples(Request(("rain on a tin roof",) * clips), recipe)
    written = {sample: write_prompt(sample, None) for sample in samples}
    with tempfile.TemporaryDirectory() as folder:
        weights = all_weights(recipe, Path(folder), device)
        stage = ImageStage(recipe, weights, device, Team())
        said = {text for one in samples for text in (written[one].encoded, stage.prompt(one, written[one]).encoded)}
        texts = PromptTable(
            {text: torch.randn(recipe.text.t5.max_length, recipe.model.context_in_dim) for text in {*said, ""}},
            {text: torch.randn(recipe.model.vec_in_dim) for text in {*said, ""}},
        )
        batches = plan_batches(samples, recipe.sampling.batch_size)
        peak(device)
        started = time.perf_counter()
        found = stage.make(batches, written, texts, Console(quiet=True))
        images = {sample: one for sample, one in found.items() if isinstance(one, Made)}
        left = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        peaks = {"images": peak(device), "left": left}
        print(f"images: {time.perf_counter() - started:.1f} s in all, {_stages(list(images.values()))}", flush=True)

        job, started = Stages(device), time.perf_counter()
        with job.stage("load"):
            models = load_models(recipe, weights, DTYPES[recipe.dtype], device)
        size = sample_size(recipe.sampling, models.autoencoder.strides[1] * recipe.model.patch_size)
        made = []
        with JobProgress("sampling", None, console=Console(quiet=True)) as progress:
            for batch in batches:
                prompts = [written[sample] for sample in batch]
                made += make_batch(models, texts, batch, prompts, size, job, progress, images=images)
        done = [one for one in made if isinstance(one, Made)]
        assert len(done) == len(images) == clips
        print(f"clips: {time.perf_counter() - started:.1f} s in all, {_stages(done)}", flush=True)
        peaks["clips"] = peak(device)
    return peaks


def _stages(made: list[Made]) -> str:
    names = made[0].seconds
    found = [f"{name} {statistics.median(one.seconds[name] for one in made):.2f} s" for name in names]
    return f"{tuple(made[0].video.shape)}, {made[0].evaluations} evaluations: {', '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="sample/t2i2v_256px")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--clips", type=int, default=1)
    args = parser.parse_args()
    recipe = resolve(args.recipe, sets=[f"sampling.num_steps={args.steps}"]).recipe
    assert isinstance(recipe, SampleRecipe)
    device = torch.device(args.device)
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    torch.manual_seed(0)
    peaks, plan = run(recipe, device, args.clips), planned(recipe, device.type == "cuda")
    for name in ("images", "clips"):
        print(f"{name}: peak {peaks[name] / GIB:.1f} GiB, planned {plan[name] / GIB:.1f} GiB", flush=True)
    print(f"left by the image stage: {peaks['left'] / GIB:.2f} GiB", flush=True)
    if device.type == "cuda":
        too_much = [name for name in plan if peaks[name] > MORE_THAN_PLANNED * plan[name]]
        if too_much or peaks["left"] > LEFT_OVER:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
