"""The plan of a recipe: its models, its shapes with their cost, its data, and whether all of it fits a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never

from opensora_cli.planning.autoencoders import AutoencoderRun, AutoencoderTraining
from opensora_cli.planning.clips import Clips, count_clips
from opensora_cli.planning.estimate import Estimate, Estimator
from opensora_cli.planning.hardware import memory_of, usable
from opensora_cli.planning.modules import Counted, count_autoencoder, count_denoiser
from opensora_cli.planning.precision import Device
from opensora_cli.planning.sample import Sampling
from opensora_cli.planning.shapes import ClipShape, shapes_of
from opensora_cli.planning.sharing import Sharing
from opensora_cli.planning.text import TextEncoder, text_encoders
from opensora_cli.planning.train import DenoiserTraining
from opensora_cli.sampling.image_recipe import image_recipe
from schemas.autoencoder import TiledConfig
from schemas.recipes import AnyRecipe, SampleRecipe, TrainRecipe, VaeSampleRecipe, VaeStatsRecipe, VaeTrainRecipe


@dataclass(frozen=True)
class Target:
    """What is planned for: processes, each with a GPU of that name and memory (bytes); None leaves it open."""

    world_size: int
    gpu: str | None = None
    memory: int | None = None

    @classmethod
    def of(cls, world_size: int, gpu: str | None, memory_gib: float | None) -> "Target":
        """Return a target from options. Raises UsageError for an unknown GPU."""
        if memory_gib is not None:
            return cls(world_size, gpu, int(memory_gib * 2**30))
        return cls(world_size, gpu, None if gpu is None else memory_of(gpu))

    @property
    def device(self) -> Device:
        """The rules of autocast that count."""
        return "cpu" if self.gpu == "cpu" else "cuda"

    @property
    def usable(self) -> int | None:
        """Bytes that tensors can have."""
        return None if self.memory is None else usable(self.memory, self.device)


@dataclass(frozen=True)
class ShapePlan:
    """A shape with its cost on one process, states included in `total`."""

    shape: ClipShape
    cost: Estimate
    total: int
    fits: bool | None
    clips: int | None = None
    batches: int | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that `osora config plan` shows."""

    recipe: AnyRecipe
    target: Target
    sharing: Sharing
    parameters: Mapping[str, Counted]
    states: Mapping[str, int]
    gradients: int
    shapes: tuple[ShapePlan, ...]
    clips: Clips | None
    estimator: Estimator
    notes: tuple[str, ...] = field(default=())

    @property
    def too_large(self) -> list[ShapePlan]:
        """The shapes that do not fit."""
        return [one for one in self.shapes if one.fits is False]

    @property
    def steps(self) -> int | None:
        """Optimizer updates of the first epoch, where there is data and something is trained."""
        if self.clips is None or not isinstance(self.recipe, TrainRecipe | VaeTrainRecipe):
            return None
        return self.clips.steps(self.sharing.data, self.recipe.optim.accumulation_steps)


def make_plan(recipe: AnyRecipe, target: Target, data: Path | None = None) -> Plan:
    """Plan a recipe. `data` is a table of clips that takes the place of the recipe's.

    Raises OsoraError for a table that training would refuse, and for sizes of the mesh that do not divide the processes.
    """
    sharing = Sharing(1, 1, 1, target.world_size, 0, False, 0)
    if isinstance(recipe, TrainRecipe | VaeTrainRecipe | SampleRecipe):
        sharing = Sharing.of(recipe.parallel, target.world_size)
    estimator, parameters, notes = _estimator(recipe, target, sharing)
    clips, about_data = _clips(recipe, data)
    if isinstance(recipe.ae, TiledConfig) and recipe.ae.tiling == "auto":
        notes.append(
            'ae.tiling = "auto": the autoencoder is counted in its smallest tiles; it takes larger ones that fit'
        )
    shapes = tuple(_shape_plan(estimator, shape, shape.batch_size, target, clips) for shape in shapes_of(recipe))
    return Plan(
        recipe=recipe,
        target=target,
        sharing=sharing,
        parameters=parameters,
        states=estimator.models if isinstance(estimator, Sampling) else estimator.states,
        gradients=estimator.gradients,
        shapes=shapes,
        clips=clips,
        estimator=estimator,
        notes=(*notes, *about_data),
    )


def _shape_plan(estimator: Estimator, shape: ClipShape, batch: int, target: Target, clips: Clips | None) -> ShapePlan:
    cost = estimator.estimate(shape, batch)
    total = cost.peak + sum(estimator.states.values())
    fits = None if target.usable is None else total <= target.usable
    length = shape.name, shape.frames
    planned = ShapePlan(shape, cost, total, fits)
    return planned if clips is None else replace(planned, clips=clips.clips[length], batches=clips.batches[length])


def _estimator(recipe: AnyRecipe, target: Target, sharing: Sharing) -> tuple[Estimator, dict[str, Counted], list[str]]:
    """Return what knows the recipe's models, their parameters, and notes on what cannot be counted."""
    device = target.device
    match recipe:
        case TrainRecipe() | SampleRecipe():
            lora = recipe.lora if isinstance(recipe, TrainRecipe) else None
            counts = count_denoiser(recipe.model, lora, sharing.tensor)
            autoencoder = count_autoencoder(recipe.ae)
            text, notes = text_encoders(recipe.text, recipe.model.texts)
            parameters = {"denoiser": counts.counted, "autoencoder": autoencoder}
            parameters |= {f"text.{name}": Counted(one.weights, {}) for name, one in text.items()}
            if isinstance(recipe, TrainRecipe):
                training = DenoiserTraining(recipe, device, sharing, counts, autoencoder, text)
                return training, parameters, [*notes, *training.host_notes()]
            images = None if recipe.t2i2v is None else _images(recipe, device, sharing, text)
            if images is not None:
                parameters |= {"image model": images.counts.counted, "image autoencoder": images.autoencoder}
            return Sampling(recipe, device, sharing, counts, autoencoder, text, images), parameters, notes
        case VaeTrainRecipe():
            counted = count_autoencoder(recipe.ae)
            of_autoencoder = AutoencoderTraining(recipe, recipe.ae, device, sharing, counted)
            return of_autoencoder, {"autoencoder": counted}, []
        case VaeSampleRecipe() | VaeStatsRecipe():
            counted = count_autoencoder(recipe.ae)
            return AutoencoderRun(recipe, recipe.ae, device, counted), {"autoencoder": counted}, []
        case _:
            assert_never(recipe)


def _images(recipe: SampleRecipe, device: Device, sharing: Sharing, text: Mapping[str, TextEncoder]) -> Sampling:
    stage = image_recipe(recipe)
    counts = count_denoiser(stage.model, None, sharing.tensor)
    return Sampling(stage, device, sharing, counts, count_autoencoder(stage.ae), text)


def _clips(recipe: AnyRecipe, data: Path | None) -> tuple[Clips | None, list[str]]:
    """Return how the table fills the buckets, or a note that says why the plan is without data."""
    if isinstance(recipe, SampleRecipe):
        return None, [] if data is None else ["sampling reads no table of clips: --data is not used"]
    own = recipe.dataset.data_path
    if data is None and own is None:
        return None, ["no data: neither dataset.data_path nor --data names a table; clips and steps are left out"]
    if data is None and own is not None and not Path(own).is_file():
        return None, [f"no data: dataset.data_path = {own} is not on this machine; clips and steps are left out"]
    source: Any = data or own
    return count_clips(source, recipe.dataset, recipe.buckets, recipe.pixels_per_token, recipe.seed), []


def modules_below(counted: Counted) -> list[tuple[str, int]]:
    """Return a model's children by size, largest first."""
    return sorted(counted.children.items(), key=lambda item: -item[1])
