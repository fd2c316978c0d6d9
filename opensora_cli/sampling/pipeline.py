"""Sampling as a Python object: `Pipeline` makes clips from prompts, in memory or as a job that writes files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from opensora_cli.distributed.process import DTYPES, Process, pick_device
from opensora_cli.distributed.team import form_team
from opensora_cli.progress import JobProgress
from opensora_cli.sampling.batches import Failed, Made, make_batch, plan_batches, steps_of
from opensora_cli.sampling.files import run_job
from opensora_cli.sampling.generate import Generator
from opensora_cli.sampling.image_stage import ImageStage, free_memory
from opensora_cli.sampling.language_model import LanguageModel
from opensora_cli.sampling.models import autoencoder_facts, load_models
from opensora_cli.sampling.prompts import PromptTable, WrittenPrompt, encode_prompts, needs_language_model, write_prompt
from opensora_cli.sampling.references import check_references
from opensora_cli.sampling.request import Request, Sample, plan_samples, with_settings
from opensora_cli.sampling.size import sample_size
from opensora_cli.sampling.source import find_source
from opensora_cli.sampling.stages import Stages
from opensora_cli.sampling.weights import find_adapter, find_weights
from opensora_cli.supported import check_supported
from schemas.checks.parallel import world_size_problem
from schemas.denoiser import LatentDenoiser
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe
from schemas.resolve import Resolved, resolve
from schemas.sampling import SamplingConfig

__all__ = ["Failed", "Made", "Pipeline"]


class Pipeline:
    """The models of one recipe, loaded when the first sample is made and kept; text encoders are freed after each use.

    `from_recipe` is the usual way to one. `recipe`, `weights` (the files in use) and `device` can be read.
    """

    def __init__(
        self,
        resolved: Resolved,
        *,
        ema: bool = False,
        console: Console | None = None,
        process: Process | None = None,
    ) -> None:
        """Check a resolved recipe and find its weights, without loading them. `console` shows progress; None is silent.

        `process` is this one's place in a job of several, each of which has a pipeline and makes the same calls
        (`opensora_cli.distributed.process.start_process`); without, it is the only one.
        Raises OsoraError for a recipe that this version cannot run, and for weights that are not there.
        """
        recipe = resolved.recipe
        assert isinstance(recipe, SampleRecipe)
        check_supported(recipe)
        self.resolved = resolved
        self.recipe = recipe
        self.process = process or Process(rank=0, world_size=1, device=pick_device(recipe.device))
        if problem := world_size_problem(recipe.parallel, self.process.world_size):
            raise OsoraError(f"{problem} The option --nproc starts processes.")
        self.device = self.process.device
        self.adapters = {find_adapter(source, ema=ema): weight for source, weight in recipe.adapters.items()}
        self.weights: dict[str, str | None] = {
            "model": _weights(recipe.model.from_pretrained, "model.from_pretrained", ema and not self.adapters),
            "ae": _weights(recipe.ae.from_pretrained, "ae.from_pretrained", False),
            **{f"adapter {path}": f"{weight:g}" for path, weight in self.adapters.items()},
        }
        if self.adapters and self.weights["model"] is None:
            raise OsoraError("adapters: model.from_pretrained is not set. Name the weights that they were trained on.")
        if stage := recipe.t2i2v:
            for key, model in (("t2i2v.img_flux", stage.img_flux), ("t2i2v.img_flux_ae", stage.img_flux_ae)):
                self.weights[key] = _weights(model.from_pretrained, f"{key}.from_pretrained", False)
        self.console = console if console and self.process.is_main else Console(quiet=True)
        self._team = form_team(recipe.parallel, self.process)
        self._images = ImageStage(recipe, self.weights, self.device, self._team) if recipe.t2i2v else None
        self._facts = autoencoder_facts(recipe.ae)
        self._stages = Stages(self.device)
        self._texts = PromptTable({})
        self._models: Generator | None = None

    @classmethod
    def from_recipe(
        cls,
        recipe: str | Path,
        *,
        layers: Sequence[str | Path] = (),
        sets: Sequence[str] = (),
        unsets: Sequence[str] = (),
        ema: bool = False,
        console: Console | None = None,
        process: Process | None = None,
    ) -> Self:
        """Return the pipeline of a recipe's file or packaged name, of a run folder or of one of its checkpoints.

        `sets` are `KEY=VALUE` texts as for `--set`, `unsets` keys to go without; `ema` takes the averaged weights. Raises
        OsoraError.
        """
        source = find_source(str(recipe), sets)
        resolved = resolve(
            source.recipe,
            layers=layers,
            sets=sets,
            unsets=[*source.unsets, *unsets],
            kind="sample",
            injected=source.injected,
        )
        return cls(resolved, ema=ema, console=console, process=process)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        references: str | Path | Sequence[str | Path] = (),
        negative: str | None = None,
        **sampling: Any,
    ) -> list["Made"]:
        """Make `sampling.num_samples` samples of every prompt and return them, prompts outermost.

        `references` are image or video files, one for all prompts or one for each, the two of i2v_loop joined by ";".
        `sampling` are keys of the recipe's [sampling] table with other values for this call, such as seed=7. Raises
        OsoraError for whatever is wrong with them, and for the first sample that cannot be made.
        """
        config = with_settings(self.recipe, sampling, "Pipeline")
        recipe = self.recipe.model_copy(update={"sampling": config})
        request = Request(_texts(prompts), references=_texts(references), negative=negative)
        made = []
        for one in self.make(plan_samples(request, recipe)):
            if isinstance(one, Failed):
                raise one.error
            made.append(one)
        return made

    def run(self, request: Request, *, overwrite: bool = False, resume: bool = False) -> list[Path]:
        """Make every sample of a job and return the files: clips or images, a record of each, and a contact sheet.

        Existing files stop the job unless `resume` skips the finished ones or `overwrite` makes all again. Raises
        OsoraError, before any model is loaded, for whatever is wrong with the request; and at the end when samples
        failed, the others being written.
        """
        return run_job(self, request, overwrite=overwrite, resume=resume)

    def plan(self, request: Request) -> list[Sample]:
        """Return the samples that a request stands for; see `plan_samples`."""
        return plan_samples(request, self.recipe)

    def make(self, samples: Sequence[Sample]) -> Iterator["Made | Failed"]:
        """Yield every sample, made or failed, batch by batch: those of one size together, in order.

        Of several processes each yields those that it finishes, and all together every one once.
        Raises OsoraError at once, before any model is loaded, for sizes that do not exist, for references that are missing
        or too short, and for a language model without a key.
        """
        for config in dict.fromkeys(sample.config for sample in samples):
            self._size(config)
            if self._images is not None:
                self._images.size(config)
            same = (sample.references for sample in samples if sample.config == config)
            check_references(same, config, causal=self._facts.causal)
        return self._make(samples, self._language_model(samples))

    def _make(self, samples: Sequence[Sample], writer: LanguageModel | None) -> Iterator["Made | Failed"]:
        prompts = self._write_prompts(samples, writer)
        written = {sample: prompts[_key(sample)] for sample in samples}
        batches = self._team.batches(plan_batches(samples, self.recipe.sampling.batch_size))
        if not batches:
            return
        self._encode([sample for batch in batches for sample in batch], written)
        found = self._make_images(batches, written)
        if self._team.is_leader:
            yield from (one for one in found.values() if isinstance(one, Failed))
        images = {sample: one for sample, one in found.items() if isinstance(one, Made)}
        batches = [[one for one in batch if one in images or not one.needs_image] for batch in batches]
        yield from self._make_clips([batch for batch in batches if batch], written, images)

    def _make_images(
        self, batches: Sequence[Sequence[Sample]], written: Mapping[Sample, WrittenPrompt]
    ) -> dict[Sample, "Made | Failed"]:
        """Make the first frames that are needed; the image models and the video models are never in memory together."""
        if self._images is None:
            return {}
        self._models = None
        free_memory(self.device)
        return self._images.make(batches, written, self._texts, self.console)

    def _make_clips(
        self,
        batches: Sequence[Sequence[Sample]],
        written: Mapping[Sample, WrittenPrompt],
        images: Mapping[Sample, "Made"],
    ) -> Iterator["Made | Failed"]:
        if not batches:
            return
        models = self._load()
        steps = sum(map(steps_of, batches))
        with JobProgress("sampling", steps, console=self.console) as progress:
            for batch in batches:
                size = self._size(batch[0].config)
                prompts = [written[sample] for sample in batch]
                job = self._stages, progress, self._team, images
                yield from make_batch(models, self._texts, batch, prompts, size, *job)

    def _size(self, config: SamplingConfig) -> tuple[int, int]:
        return sample_size(config, self.recipe.pixels_per_token)

    def _language_model(self, samples: Sequence[Sample]) -> LanguageModel | None:
        if not any(needs_language_model(sample.config) for sample in samples):
            return None
        return LanguageModel.from_environment(self.recipe.sampling.language_model)

    def _write_prompts(
        self, samples: Sequence[Sample], model: LanguageModel | None
    ) -> dict[tuple[str, SamplingConfig], WrittenPrompt]:
        """Write each prompt once, whatever the number of its samples."""
        first = {_key(sample): sample for sample in samples}
        if model is None:
            return {key: write_prompt(sample, None) for key, sample in first.items()}
        written: list[WrittenPrompt] = []
        if self.process.is_main:  # it never says the same twice, and all have to work with the same
            with JobProgress("writing prompts", len(first), console=self.console) as progress:
                for sample in first.values():
                    written.append(write_prompt(sample, model))
                    progress.advance()
        told = self.process.from_main(json.dumps([asdict(prompt) for prompt in written]))
        return dict(zip(first, (WrittenPrompt(**values) for values in json.loads(told or "[]")), strict=True))

    def _encode(self, samples: Sequence[Sample], written: Mapping[Sample, WrittenPrompt]) -> None:
        texts = {text for sample in samples for text in self._texts_of(sample, written[sample])}
        if self._images is not None:
            texts |= {self._images.prompt(sample, written[sample]).encoded for sample in samples}
        missing = texts - self._texts.features.keys()
        if missing:
            recipe, dtype = self.recipe, DTYPES[self.recipe.dtype]
            with self._stages.stage("text"):
                table = encode_prompts(missing, recipe.text, recipe.model.texts, dtype, self.device)
            self._texts.features.update(table.features)

    def _texts_of(self, sample: Sample, prompt: WrittenPrompt) -> list[str]:
        """Return what is encoded of a sample: denoisers of latents have learned what the empty caption is to them."""
        if isinstance(self.recipe.model, LatentDenoiser):
            return prompt.of_loops(sample.config.loop)
        return [prompt.encoded, sample.negative]

    def _load(self) -> Generator:
        if self._models is None:
            with self._stages.stage("load"):
                self._models = load_models(
                    self.recipe, self.weights, DTYPES[self.recipe.dtype], self.device, self._team, self.adapters
                )
        return self._models


def _key(sample: Sample) -> tuple[str, SamplingConfig]:
    return sample.prompt, sample.config


def _texts(given: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))


def _weights(source: str | None, key: str, ema: bool) -> str | None:
    return None if source is None else str(find_weights(source, key, ema=ema))
