"""Prompts from tables: what each row has of its own, seeds that do not collide, names of files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensora_cli.sampling.outputs import plan_outputs
from opensora_cli.sampling.request import Request, Sample, plan_samples
from opensora_cli.sampling.rows import read_rows
from opensora_cli.sampling.seeds import row_seeds, sample_seed
from schemas.denoiser import MMDiTConfig
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig

CSV = """text,ref,name,neg,seed,num_frames,aspect_ratio
"a ""quoted"" cat, running",one.png,cat,blur,7,17,1:1
a dog,,,,,,
ein Küken,two.png,,,,,
"""


def recipe(**sampling: Any) -> SampleRecipe:
    return SampleRecipe(kind="sample", model=MMDiTConfig(cond_embed=True), sampling=SamplingConfig(**sampling))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name in ("one.png", "two.png", "shared.png"):
        (tmp_path / name).touch()
    path = tmp_path / "prompts.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def test_a_row_has_what_it_says_and_the_rest_from_command_and_recipe(table: Path) -> None:
    shared = table.parent / "shared.png"
    request = Request(prompts_file=table, references=(str(shared),), negative="grey")
    cat, dog, chick = plan_samples(request, recipe(cond_type="i2v_head", height=64, width=96, num_frames=33))
    assert (cat.prompt, cat.name, cat.negative, cat.seed) == ('a "quoted" cat, running', "cat", "blur", 7)
    assert (cat.config.num_frames, cat.config.aspect_ratio, cat.config.height) == (17, "1:1", None)
    assert (dog.negative, dog.seed, dog.config.num_frames, dog.config.height) == ("grey", 43, 33, 64)
    assert [one.references for one in (cat, dog, chick)] == [
        (table.parent / "one.png",),
        (shared,),
        (table.parent / "two.png",),
    ]
    assert chick.prompt == "ein Küken"


def test_a_parquet_table_says_the_same_as_the_csv(table: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "seed": [7, None], "num_frames": [17.0, None], "neg": [None, "x"]})
    frame.to_parquet(table.with_suffix(".parquet"))
    first, second = read_rows(table.with_suffix(".parquet"))
    assert (first.seed, first.settings, first.negative) == (7, {"num_frames": 17}, None)
    assert (second.seed, second.settings, second.negative) == (None, {}, "x")


def test_a_part_of_the_rows_is_what_it_is_in_the_whole_job(table: Path) -> None:
    text = table.with_suffix(".txt")
    text.write_text("\n".join("abcdefg"))
    whole = plan_samples(Request(prompts_file=text), recipe(num_samples=2))
    part = plan_samples(Request(prompts_file=text, start_index=2, end_index=5), recipe(num_samples=2))
    assert part == [sample for sample in whole if 2 <= sample.row < 5]
    assert plan_samples(Request(prompts_file=text, start_index=6), recipe())[0].prompt == "g"


@pytest.mark.parametrize(("start", "end"), [(7, None), (3, 3), (5, 2)])
def test_no_row_left_is_an_error(start: int, end: int | None) -> None:
    request = Request(prompts=("a", "b", "c"), start_index=start, end_index=end)
    with pytest.raises(OsoraError, match=r"no row is left of 3\. Rows count from 0"):
        plan_samples(request, recipe())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt\na\n", "no column text, the prompts .found: prompt."),
        ("text,nane\na,b\n", "nothing reads a column nane; .* Did you mean name?"),
        ("text,caption\na,b\n", "nothing reads a column caption; there are text, ref"),
        ("text\n", "a header and no rows"),
        ("text,seed\na,\n ,3\n", r"row 1: the prompt is blank"),
        ("text,seed\na,-1\n", "row 0: seed is '-1'; it has to be a whole number"),
        ("text,seed\na,99999999999999999999\n", "of at most 18 digits"),
        ("text,num_frames\na,1.5\n", "row 0: num_frames is '1.5'"),
        ("text,num_frames\na,50\n", r"row 0: sampling.num_frames = 50: .*4k\+1"),
        ("text,num_frames\na,0\n", "row 0: num_frames: Input should be greater than or equal to 1, not 0"),
        ("text,height\na,64\n", "row 0: sampling.height is given without sampling.width"),
        ("text,ref\na,x.png\n", "row 0: ref x.png: the condition is t2v"),
    ],
)
def test_a_table_that_cannot_be_used_says_where_and_why(table: Path, content: str, message: str) -> None:
    table.write_text(content)
    with pytest.raises(OsoraError, match=message):
        plan_samples(Request(prompts_file=table), recipe())


def test_a_row_without_a_reference_is_named(table: Path) -> None:
    with pytest.raises(OsoraError, match=r"prompts.csv row 1: the condition i2v_head needs a reference"):
        plan_samples(Request(prompts_file=table), recipe(cond_type="i2v_head"))


@given(
    own=st.lists(st.none() | st.integers(0, 60), max_size=40),
    first=st.integers(0, 50),
    numbers=st.integers(1, 5),
)
def test_seeds_never_collide_unless_the_rows_say_so(own: list[int | None], first: int, numbers: int) -> None:
    seeds = row_seeds(own, first)
    assert all(seed == mine for seed, mine in zip(seeds, own, strict=True) if mine is not None)
    unlike = list(dict.fromkeys(seeds))
    said = [seed for seed in own if seed is not None]
    assert len(seeds) - len(unlike) == len(said) - len(set(said))
    every = [sample_seed(seed, number) for seed in unlike for number in range(numbers)]
    assert len(set(every)) == len(every)
    assert all(0 <= seed < 2**63 for seed in every)


def test_more_samples_keep_the_seeds_of_the_first_ones() -> None:
    few, many = (plan_samples(Request(prompts=("a", "b")), recipe(num_samples=count)) for count in (2, 3))
    assert [one.seed for one in few] == [one.seed for one in many if one.number < 2]


def names(samples: list[Sample]) -> list[str]:
    return [output.media.name for output in plan_outputs(samples, Path("out"))]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("auto", ["cat.mp4", "cat_1.mp4", "sample-0001.mp4", "sample-0001_1.mp4"]),
        ("index", ["sample-0000.mp4", "sample-0000_1.mp4", "sample-0001.mp4", "sample-0001_1.mp4"]),
        ("prompt", ["a cat. sits-0.mp4", "a cat. sits-1.mp4", "a dog-0.mp4", "a dog-1.mp4"]),
    ],
)
def test_files_are_called_after_the_name_the_index_or_the_prompt(
    tmp_path: Path, kind: str, expected: list[str]
) -> None:
    (tmp_path / "p.csv").write_text("text,name\na cat. sits.,cat\na dog,\n")
    assert names(plan_samples(Request(prompts_file=tmp_path / "p.csv"), recipe(names=kind, num_samples=2))) == expected


@pytest.mark.parametrize(
    ("table", "kind", "message"),
    [
        ("text,name\na,x\nb,x\n", "auto", "2 files would be called 'x'"),
        ("text,name\na,../x\n", "auto", "'../x' cannot be the name of a file"),
        ("text,name\na,contact-sheet\n", "auto", "2 files would be called 'contact-sheet'"),
        ("text,name\na,\n", "name", 'sample 0: sampling.names = "name", and the row has none'),
        (f"text\n{'long ' * 60}\n", "prompt", "at most 230 bytes"),
        ("text\na\na\n", "prompt", "2 files would be called 'a-0'"),
    ],
)
def test_names_that_no_file_can_have_are_said_at_once(tmp_path: Path, table: str, kind: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(table)
    samples = plan_samples(Request(prompts_file=tmp_path / "p.csv"), recipe(names=kind))
    with pytest.raises(OsoraError, match=message):
        names(samples)
