from pathlib import Path
from typing import Any

import pytest

from opensora_cli.sampling.request import Request, plan_samples
from opensora_cli.sampling.size import sample_size
from schemas.denoiser import MMDiTConfig
from schemas.errors import OsoraError, UsageError
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig


def recipe(*, guidance_embed: bool = False, **sampling: Any) -> SampleRecipe:
    model = MMDiTConfig(cond_embed=True, guidance_embed=guidance_embed)
    return SampleRecipe(kind="sample", model=model, sampling=SamplingConfig(**sampling))


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    path.touch()
    return str(path)


def test_samples_run_over_prompts_with_seeds_of_their_own(image: str) -> None:
    request = Request(prompts=("a", "b"), references=(image,), negative="blur")
    samples = plan_samples(request, recipe(cond_type="i2v_head", num_samples=2, seed=5))
    assert [(s.row, s.number, s.prompt) for s in samples] == [(0, 0, "a"), (0, 1, "a"), (1, 0, "b"), (1, 1, "b")]
    assert [s.seed for s in samples if s.number == 0] == [5, 6]
    assert len({s.seed for s in samples}) == 4
    assert {s.negative for s in samples} == {"blur"}
    assert {s.references for s in samples} == {(Path(image),)}


def test_each_prompt_may_have_its_own_reference(tmp_path: Path, image: str) -> None:
    other = tmp_path / "other.png"
    other.touch()
    samples = plan_samples(
        Request(prompts=("a", "b"), references=(f"{image};{other}", f"{other} ; {image}")), recipe(cond_type="i2v_loop")
    )
    assert [s.references for s in samples] == [(Path(image), other), (other, Path(image))]


def test_prompts_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text('a "quoted" cat, with a comma\n\n  ein Küken  \n', encoding="utf-8")
    samples = plan_samples(Request(prompts=("first",), prompts_file=file), recipe())
    assert [s.prompt for s in samples] == ["first", 'a "quoted" cat, with a comma', "ein Küken"]


@pytest.mark.parametrize(
    ("request_", "kind", "error", "message"),
    [
        (Request(), "t2v", UsageError, "no prompt: give --prompt"),
        (Request(prompts=(" ",)), "t2v", UsageError, "prompt 1 is blank"),
        (Request(prompts=("a",), prompts_file=Path("no.txt")), "t2v", UsageError, "--prompts no.txt: cannot read it"),
        (Request(prompts=("a",), references=("x.png",)), "t2v", UsageError, "the condition is t2v.*--cond i2v_head"),
        (Request(prompts=("a",)), "i2v_head", UsageError, "i2v_head needs a reference: give --ref 'image.png'"),
        (Request(prompts=("a",)), "i2v_loop", UsageError, "needs 2 references.*'first.png;last.png'"),
        (Request(prompts=("a",), references=("x.png",)), "i2v_loop", UsageError, "takes 2 file.s., not 1.*same image"),
        (Request(prompts=("a",), references=("x;y",)), "i2v_head", UsageError, "takes 1 file.s., not 2"),
        (Request(prompts=("a",), references=("no.png",)), "i2v_head", OsoraError, "--ref no.png: there is no such"),
        (Request(prompts=("a",), references=("x", "y")), "i2v_head", UsageError, "2 --ref for 1 prompts"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_loaded(
    request_: Request, kind: str, error: type[OsoraError], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_samples(request_, recipe(cond_type=kind))


def test_a_distilled_model_takes_no_negative_prompt() -> None:
    with pytest.raises(UsageError, match="never sees a negative prompt"):
        plan_samples(Request(prompts=("a",), negative="blur"), recipe(guidance_embed=True))


def test_sizes_come_from_the_table_or_from_both_sides() -> None:
    assert sample_size(SamplingConfig(resolution="256px", aspect_ratio="16:9"), 16) == (192, 336)
    assert sample_size(SamplingConfig(height=64, width=96), 16) == (64, 96)


def test_an_aspect_ratio_without_a_size_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(OsoraError, match=r"'7:3'.*16:9"):
        sample_size(SamplingConfig(aspect_ratio="7:3"), 16)
