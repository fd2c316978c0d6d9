"""What a user asks of one sampling job, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from opensora_models.diffusion.condition import reference_count
from schemas.condition import ConditionName
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe

SEPARATOR = ";"


@dataclass(frozen=True)
class Request:
    """The options of the command line that are no keys of the recipe."""

    prompts: tuple[str, ...] = ()
    prompts_file: Path | None = None
    references: tuple[str, ...] = ()
    negative: str | None = None


@dataclass(frozen=True)
class Sample:
    """One clip or image to make; `index` counts over the whole job."""

    index: int
    prompt: str
    negative: str
    seed: int
    references: tuple[Path, ...]


def plan_samples(request: Request, recipe: SampleRecipe) -> list[Sample]:
    """Return every sample of a job: for each prompt in turn, `sampling.num_samples` of them.

    Raises UsageError or OsoraError for missing prompts, and for references that do not go with the condition. What the
    recipe alone can get wrong has been checked with the recipe.
    """
    prompts = _prompts(request)
    references = _references(request.references, recipe.sampling.cond_type, len(prompts))
    _check_negative(request, recipe)
    pairs = product(zip(prompts, references, strict=True), range(recipe.sampling.num_samples))
    return [
        Sample(index, prompt, request.negative or "", recipe.sampling.seed + index, paths)
        for index, ((prompt, paths), _) in enumerate(pairs)
    ]


def _prompts(request: Request) -> list[str]:
    prompts = [*request.prompts, *(_read_prompts(request.prompts_file) if request.prompts_file else ())]
    if not prompts:
        raise UsageError('no prompt: give --prompt "..." (repeatable), or --prompts FILE with one prompt a line.')
    if blank := [number for number, prompt in enumerate(prompts, 1) if not prompt.strip()]:
        raise UsageError(f"prompt {blank[0]} is blank. Describe what the clip should show, or leave it out.")
    return prompts


def _read_prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts {path}: cannot read it: {error}. It must be a UTF-8 text file.") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UsageError(f"--prompts {path}: the file has no prompt in it. Write one a line.")
    return prompts


def _references(given: Sequence[str], condition: ConditionName, prompts: int) -> list[tuple[Path, ...]]:
    """Return each prompt's reference files: one `--ref` serves all prompts, several go with the prompts in order."""
    needed = reference_count(condition)
    if not needed:
        if given:
            raise UsageError(
                f"--ref {given[0]}: the condition is t2v, which takes no reference. Say what it is for, for example "
                "--cond i2v_head, or leave --ref out."
            )
        return [()] * prompts
    if not given:
        what = "2 references, for the first and the last frame" if needed == 2 else "a reference"
        example = f"first.png{SEPARATOR}last.png" if needed == 2 else "clip.mp4" if "v2v" in condition else "image.png"
        raise UsageError(f"the condition {condition} needs {what}: give --ref {example!r}, or use --cond t2v.")
    if len(given) not in (1, prompts):
        raise UsageError(
            f"{len(given)} --ref for {prompts} prompts: give one for all of them, or one for each, in the same order."
        )
    parsed = [_files(text, condition, needed) for text in given]
    return parsed * prompts if len(parsed) == 1 else parsed


def _files(text: str, condition: ConditionName, needed: int) -> tuple[Path, ...]:
    paths = tuple(Path(part.strip()).expanduser() for part in text.split(SEPARATOR) if part.strip())
    if len(paths) != needed:
        hint = f"Separate them by {SEPARATOR!r}; the same image twice makes a loop" if needed == 2 else "Give one file"
        raise UsageError(f"--ref {text!r}: {condition} takes {needed} file(s), not {len(paths)}. {hint}.")
    for path in paths:
        if not path.is_file():
            raise OsoraError(f"--ref {path}: there is no such file. Give the path of an image or a video.")
    return paths


def _check_negative(request: Request, recipe: SampleRecipe) -> None:
    if request.negative and recipe.model.guidance_embed:
        raise UsageError(
            "--neg: this model takes the guidance scale as an input (model.guidance_embed = true) and never sees a "
            "negative prompt. Leave --neg out."
        )
