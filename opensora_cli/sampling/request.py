"""What a user asks of one sampling job, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from opensora_cli.sampling.prompts_v1 import split_references
from opensora_cli.sampling.rows import Row, read_rows
from opensora_cli.sampling.seeds import row_seeds, sample_seed
from opensora_models.diffusion.condition import reference_count
from opensora_models.diffusion.mask_strategy import parse_strategy
from schemas.checks import run_checks
from schemas.denoiser import LatentDenoiser
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig

SEPARATOR = ";"


@dataclass(frozen=True)
class Request:
    """The options of the command line that are no keys of the recipe."""

    prompts: tuple[str, ...] = ()
    prompts_file: Path | None = None
    references: tuple[str, ...] = ()
    negative: str | None = None
    start_index: int = 0
    end_index: int | None = None
    """Rows to make: from `start_index` up to, not including, `end_index`."""


@dataclass(frozen=True)
class Sample:
    """One clip or image to make: sample `number` of the prompt in row `row`, with the row's own settings in `config`."""

    row: int
    number: int
    prompt: str
    negative: str
    seed: int
    references: tuple[Path, ...]
    config: SamplingConfig
    name: str | None = None

    @property
    def needs_image(self) -> bool:
        """Whether its first frame is still to be made, by an image model."""
        return self.config.cond_type == "i2v_head" and not self.references

    @property
    def label(self) -> str:
        """Return how it is called in messages."""
        return f"sample {self.row}" + (f" ({self.number})" if self.number else "")


def plan_samples(request: Request, recipe: SampleRecipe) -> list[Sample]:
    """Return every sample of a job: for each prompt in turn, `sampling.num_samples` of them.

    A sample's row and seed do not depend on which rows are chosen, so that a job may be made in parts. Raises UsageError or
    OsoraError for missing prompts, for rows that cannot be made, and for references that do not go with the condition.
    """
    rows = _rows(request)
    if isinstance(recipe.model, LatentDenoiser):
        rows = [with_json(row) for row in rows]
    given = {"cond_type": recipe.condition}  # with [t2i2v] something else than the recipe's own
    configs = {row.place: with_settings(recipe, row.settings, row.place).model_copy(update=given) for row in rows}
    wanted = [needed_references(configs[row.place]) for row in rows]
    references = [()] * len(rows) if recipe.t2i2v else _references(request.references, wanted, rows)
    if recipe.t2i2v is not None:
        _refuse_references(request.references, rows, "[t2i2v]: the image model makes the first frame")
    _check_negative(request, rows, recipe)
    seeds = row_seeds([row.seed for row in rows], recipe.sampling.seed)
    return [
        Sample(
            row=index,
            number=number,
            prompt=row.text,
            negative=row.negative or request.negative or "",
            seed=sample_seed(seeds[index], number),
            references=references[index],
            config=configs[row.place],
            name=row.name,
        )
        for index, row in _chosen(rows, request)
        for number in range(recipe.sampling.num_samples)
    ]


def _rows(request: Request) -> list[Row]:
    rows = [Row(prompt, f"--prompt {number}") for number, prompt in enumerate(request.prompts, 1)]
    if blank := [number for number, row in enumerate(rows, 1) if not row.text.strip()]:
        raise UsageError(f"prompt {blank[0]} is blank. Describe what the clip should show, or leave it out.")
    rows += read_rows(request.prompts_file) if request.prompts_file else []
    if not rows:
        raise UsageError(
            'no prompt: give --prompt "..." (repeatable), or --prompts FILE: one prompt a line, or a table with a column text.'
        )
    return rows


def _chosen(rows: list[Row], request: Request) -> list[tuple[int, Row]]:
    end = len(rows) if request.end_index is None else request.end_index
    chosen = list(enumerate(rows))[request.start_index : end] if end >= 0 <= request.start_index else []
    if not chosen:
        raise UsageError(
            f"--start-index {request.start_index} --end-index {end}: no row is left of {len(rows)}. Rows count from 0, and "
            "the end is not included."
        )
    return chosen


def with_settings(recipe: SampleRecipe, settings: Mapping[str, Any], place: str) -> SamplingConfig:
    """Return [sampling] with other values for some keys, after all rules have looked at them.

    A resolution or aspect ratio takes the place of the recipe's height and width. Raises OsoraError, with the `place`.
    """
    if not settings:
        return recipe.sampling
    values = {**recipe.sampling.model_dump(), **settings}
    if {"resolution", "aspect_ratio"} & settings.keys() and not {"height", "width"} & settings.keys():
        values |= {"height": None, "width": None}
    try:
        config = SamplingConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise OsoraError(f"{place}: {first['loc'][0]}: {first['msg']}, not {first['input']!r}.") from error
    for problem in run_checks(recipe.model_copy(update={"sampling": config})):
        if problem.severity == "error":
            raise OsoraError(f"{place}: {problem.message} {problem.help}")
    return config


class Wanted(NamedTuple):
    """How many references a row takes, and what says so."""

    files: int
    why: str
    exactly: bool = True


def needed_references(config: SamplingConfig) -> Wanted:
    """Return how many references a row takes: as its strategy names, or else its condition."""
    if config.mask_strategy:
        named = [group.reference for group in parse_strategy(config.mask_strategy) if group.loop == 0]
        return Wanted(max(named, default=-1) + 1, f"the mask strategy {config.mask_strategy!r}", exactly=False)
    return Wanted(reference_count(config.cond_type), f"the condition {config.cond_type}")


def _references(given: Sequence[str], wanted: Sequence[Wanted], rows: list[Row]) -> list[tuple[Path, ...]]:
    """Return each row's reference files: its own, or of `--ref`: one serves all other rows that want any, several go in order."""
    none = [row for row, want in zip(rows, wanted, strict=True) if not want.files]
    _refuse_references((), none, "the condition is t2v")
    others = [row for row, want in zip(rows, wanted, strict=True) if want.files and not row.references]
    if len(none) == len(rows):
        _refuse_references(given, rows, "the condition is t2v")
    if not given and others:
        want = wanted[rows.index(others[0])]
        what = "a reference" if want.files == 1 else f"{want.files} references"
        example = SEPARATOR.join(("first.png", "last.png", "more.mp4")[: want.files]) if want.files > 1 else "image.png"
        if "v2v" in want.why:
            example = "clip.mp4"
        raise UsageError(f"{others[0].place}: {want.why} needs {what}: give --ref {example!r}, or use --cond t2v.")
    if given and len(given) not in (1, len(others)):
        raise UsageError(
            f"{len(given)} --ref for {len(others)} prompts: give one for all of them, or one for each, in the same order."
        )
    shared = iter([given[0]] * len(others) if len(given) == 1 else given)
    return [
        ()
        if not want.files
        else _files(row.references, row.place, row.folder, want)
        if row.references
        else _files(next(shared), "--ref", Path(), want)
        for row, want in zip(rows, wanted, strict=True)
    ]


def _refuse_references(given: Sequence[str], rows: list[Row], why: str) -> None:
    found = [f"--ref {given[0]}"] if given else [f"{row.place}: ref {row.references}" for row in rows if row.references]
    if found:
        raise UsageError(
            f"{found[0]}: {why}, which takes no reference. Say what it is for, for example --cond i2v_head, or leave it out."
        )


def _files(text: str, place: str, folder: Path, want: Wanted) -> tuple[Path, ...]:
    paths = tuple(folder / Path(part.strip()).expanduser() for part in text.split(SEPARATOR) if part.strip())
    if len(paths) < want.files or (want.exactly and len(paths) > want.files):
        hint = (
            f"Separate them by {SEPARATOR!r}; the same image twice makes a loop" if want.files > 1 else "Give one file"
        )
        least = "" if want.exactly else "at least "
        raise UsageError(f"{place} {text!r}: {want.why} takes {least}{want.files} file(s), not {len(paths)}. {hint}.")
    for path in paths:
        if not path.is_file():
            raise OsoraError(f"{place} {path}: there is no such file. Give the path of an image or a video.")
    return paths


def with_json(row: Row) -> Row:
    """Return a row without the JSON behind its prompt, which may name references and a strategy (Open-Sora 1.x)."""
    parts = split_references(row.text)
    settings = {"mask_strategy": parts.strategy} if parts.strategy else {}
    references = row.references or parts.reference
    return replace(row, text=parts.text, references=references, settings={**settings, **row.settings})


def _check_negative(request: Request, rows: list[Row], recipe: SampleRecipe) -> None:
    place = "--neg" if request.negative else next((f"{row.place}: neg" for row in rows if row.negative), None)
    if place and isinstance(recipe.model, LatentDenoiser):
        raise UsageError(
            f"{place}: {recipe.model.type} is guided by what it learned of clips without a caption, and never sees a negative "
            "prompt. Leave it out."
        )
    if place and recipe.model.guidance_embed:
        raise UsageError(
            f"{place}: this model takes the guidance scale as an input (model.guidance_embed = true) and never sees a "
            "negative prompt. Leave it out."
        )
