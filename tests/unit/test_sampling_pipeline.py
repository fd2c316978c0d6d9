"""The Python API and whole jobs, with tiny random models: the same bytes however it is run, and failures that stay alone."""

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from opensora_cli.data.demo_clips import prepare_demo
from opensora_cli.data.media import UnreadableClip
from opensora_cli.sampling import Pipeline, Request, batches
from opensora_cli.sampling.outputs import recipe_hash
from opensora_cli.sampling.saving import write_sample
from schemas.errors import OsoraError
from tests.unit.language_model_server import running, said

PROMPTS = ("a red circle", "a blue square", "a green star")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    prepare_demo(folder / "demo", clips=2, seed=0)
    for name, shade in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Image.new("RGB", (40, 30), shade).save(folder / f"{name}.png")
    draw = torch.Generator().manual_seed(0)
    write_sample(folder / "short.mp4", torch.rand(3, 20, 32, 32, generator=draw), 8)
    return folder


def new_pipeline(demo: Path, save_dir: Path, *sets: str, console: Console | None = None) -> Pipeline:
    text = [f'text.{name}.from_pretrained="{demo / "demo" / name}"' for name in ("t5", "clip")]
    quick = ("num_steps=2", "num_frames=5", "height=32", "width=32", 'motion_score="4"', f'save_dir="{save_dir}"')
    return Pipeline.from_recipe(
        "tiny/sample",
        sets=[*text, *(f"sampling.{one}" for one in (*quick, *sets))],
        unsets=["model.from_pretrained", "ae.from_pretrained"],
        console=console,
    )


@pytest.fixture(scope="module")
def pipeline(demo: Path) -> Pipeline:
    return new_pipeline(demo, demo / "never")


def media(folder: Path, suffix: str = ".mp4") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(f"*{suffix}")}


def record(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


def test_a_call_makes_clips_in_memory(pipeline: Pipeline, tmp_path: Path) -> None:
    first, second = pipeline(["a cat", "a dog"], num_frames=9, seed=5)
    assert (first.video.shape, first.video.dtype) == ((3, 9, 32, 32), torch.float32)
    assert (first.sample.seed, second.sample.seed, second.sample.prompt) == (5, 6, "a dog")
    assert first.prompt.encoded == "a cat. 8 FPS. 4 motion score."
    assert {"text", "load", "denoise", "decode"} <= first.seconds.keys()
    assert first.peak_bytes > 0
    assert first.save(tmp_path / "cat").name == "cat.mp4"
    assert first.save(tmp_path / "cat.gif").stat().st_size > 0
    (again,) = pipeline("a dog", num_frames=9, seed=6)
    assert torch.equal(again.video, second.video)


def test_a_call_takes_references_of_its_own(pipeline: Pipeline, demo: Path) -> None:
    settings = {"cond_type": "i2v_loop", "num_samples": 2, "guidance_img": 2.0, "num_frames": 9}
    loop = f"{demo / 'red.png'};{demo / 'blue.png'}"
    first, second = pipeline("a ball", references=loop, negative="grey", **settings)
    assert (first.sample.negative, first.evaluations) == ("grey", 6)
    assert not torch.equal(first.video, second.video)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frame": 9}, "Pipeline: num_frame: Extra inputs are not permitted"),
        ({"num_frames": 6}, r"Pipeline: sampling.num_frames = 6: .*4k\+1"),
        ({"cond_type": "i2v_head"}, "the condition i2v_head needs a reference"),
        ({"solver": "ode45"}, "Pipeline: solver: .*'euler'"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(pipeline: Pipeline, settings: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        pipeline("a cat", **settings)


def test_a_short_reference_says_how_many_frames_are_needed(pipeline: Pipeline, demo: Path) -> None:
    with pytest.raises(OsoraError, match=r"short.mp4.*33 frames are needed, it has 20"):
        pipeline("a cat", references=demo / "short.mp4", cond_type="v2v_head", num_frames=37)


def test_the_bytes_are_the_same_whatever_the_batch_and_the_order(demo: Path, tmp_path: Path) -> None:
    rows = [f"{prompt},{seed},{seed}" for prompt, seed in zip(PROMPTS, (11, 12, 13), strict=True)]
    made = {}
    for name, lines, size in (("one", rows, 1), ("all", rows, 3), ("turned", rows[::-1], 2)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,seed,name", *lines]))
        new_pipeline(demo, tmp_path / name, f"batch_size={size}").run(Request(prompts_file=tmp_path / f"{name}.csv"))
        made[name] = media(tmp_path / name)
    assert sorted(made["one"]) == ["11.mp4", "12.mp4", "13.mp4"]
    assert made["one"] == made["all"] == made["turned"]
    assert len(set(made["one"].values())) == 3


def test_rows_of_other_sizes_are_made_in_batches_of_their_own(demo: Path, tmp_path: Path) -> None:
    table = "text,num_frames,height,width\na,5,32,32\nb,9,32,48\nc,,,\nd,1,,\n"
    (tmp_path / "sizes.csv").write_text(table)
    files = new_pipeline(demo, tmp_path / "out", "batch_size=4").run(Request(prompts_file=tmp_path / "sizes.csv"))
    assert [path.name for path in files] == [f"sample-000{row}.{'png' if row == 3 else 'mp4'}" for row in range(4)]
    facts = [record(path.with_suffix(".json")) for path in files]
    assert [(one["frames"], one["height"], one["width"], one["batch"]) for one in facts] == [
        (5, 32, 32, 2), (9, 32, 48, 1), (5, 32, 32, 2), (1, 32, 32, 1),
    ]  # fmt: skip


def test_the_record_says_how_a_sample_was_made(demo: Path, tmp_path: Path) -> None:
    job = new_pipeline(demo, tmp_path, "num_samples=2", "output_format=webp")
    job.run(Request(prompts=("a cat",)))
    second = record(tmp_path / "sample-0000_1.json")
    assert (second["file"], second["row"], second["number"]) == ("sample-0000_1.webp", 0, 1)
    assert second["recipe_sha256"] == recipe_hash((tmp_path / "recipe.lock.toml").read_text())
    assert {"denoise", "decode", "load", "text", "write"} <= set(second["seconds"])  # type: ignore[arg-type]
    assert second["peak_bytes"] > 1e7  # type: ignore[operator]
    assert second["seed"] != record(tmp_path / "sample-0000.json")["seed"]
    assert (second["motion_score"], second["refined_prompt"]) == ("4", None)


def test_a_failed_sample_is_reported_at_the_end_and_the_others_stay(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, gone = batches.read_references, tmp_path / "gone.png"

    def unmounted(paths: tuple[Path, ...], *rest: object, **options: object) -> object:
        """As if the file went away after all references were looked into."""
        if gone in paths:
            raise UnreadableClip(str(gone), "stale file handle")
        return read(paths, *rest, **options)  # type: ignore[arg-type]

    gone.write_bytes((demo / "blue.png").read_bytes())
    references = (demo / "red.png", gone, demo / "red.png")
    (tmp_path / "rows.csv").write_text("\n".join(["text,ref", *(f"{i},{path}" for i, path in enumerate(references))]))
    output = io.StringIO()
    job = new_pipeline(demo, tmp_path / "out", "batch_size=3", "cond_type=i2v_head", console=Console(file=output))
    with monkeypatch.context() as patch:
        patch.setattr(batches, "read_references", unmounted)
        with pytest.raises(
            OsoraError, match=r"1 of 3 samples failed, the others are written:\n  sample 1: .*stale file"
        ):
            job.run(Request(prompts_file=tmp_path / "rows.csv"))
    assert sorted(media(tmp_path / "out")) == ["sample-0000.mp4", "sample-0002.mp4"]
    assert (tmp_path / "out" / "contact-sheet.png").is_file()
    assert "sampling 2/2" in output.getvalue()

    before = media(tmp_path / "out")
    again = new_pipeline(demo, tmp_path / "out", "batch_size=3", "cond_type=i2v_head")
    again.run(Request(prompts_file=tmp_path / "rows.csv"), resume=True)
    after = media(tmp_path / "out")
    assert after.keys() - before.keys() == {"sample-0001.mp4"}
    assert before.items() <= after.items()


def test_too_little_memory_fails_one_size_and_not_the_others(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = batches.generate

    def small(models: object, config: object, *rest: object) -> object:
        if config.num_frames > 5:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")
        return generate(models, config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(batches, "generate", small)
    (tmp_path / "rows.csv").write_text("text,num_frames\na,9\nb,5\n")
    with pytest.raises(
        OsoraError, match=r"sample 0: not enough memory on cpu .*Tried to allocate 9 GiB.. Use a smaller"
    ):
        new_pipeline(demo, tmp_path / "out").run(Request(prompts_file=tmp_path / "rows.csv"))
    assert sorted(media(tmp_path / "out")) == ["sample-0001.mp4"]


def test_prompts_are_refined_scored_and_kept_under_the_users_own_words(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("refine_prompt=true", "motion_score=dynamic", "names=prompt", "output_format=gif", "num_samples=2")
    with running() as server:
        server.answers = [said("A long caption of a cat"), said("2")]  # one prompt, however many samples
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        new_pipeline(demo, tmp_path, *wanted).run(Request(prompts=("a cat",)))
    assert sorted(media(tmp_path, ".gif")) == ["a cat-0.gif", "a cat-1.gif"]
    facts = record(tmp_path / "a cat-1.json")
    assert (facts["prompt"], facts["refined_prompt"], facts["motion_score"]) == (
        "a cat",
        "A long caption of a cat",
        "2",
    )
    assert facts["encoded_prompt"] == "A long caption of a cat. 8 FPS. 2 motion score."


def test_without_an_endpoint_nothing_is_made(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OsoraError, match="OPENAI_API_KEY is not set"):
        new_pipeline(demo, tmp_path / "never", "refine_prompt=true").run(Request(prompts=("a",)))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("cfg_size=2", "= 1 x 1 x 1 x 2 = 2 does not divide the 1 processes.*--nproc"),
        ("plugin=fsdp", "in sampling each goes at its own pace"),
        ("pp_size=2", "not blocks"),
    ],
)
def test_what_one_process_cannot_do_is_said(key: str, message: str) -> None:
    sets = [f"parallel.{key}", *(["parallel.plugin=hybrid"] if key.startswith("pp") else [])]
    with pytest.raises(OsoraError, match=message):
        Pipeline.from_recipe("tiny/sample", sets=sets, unsets=["model.from_pretrained", "ae.from_pretrained"])
