"""Caches: a run with one is the run without, and what does not fit or is not intact is named instead of used."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from opensora_cli.data.cache.contents import SAMPLE, clip_content
from opensora_cli.data.cache.job import only_job, run_cache
from opensora_cli.data.cache.opening import open_caches
from opensora_cli.data.cache.verifying import verify_cache
from opensora_cli.data.cache.weight_files import WeightFiles
from opensora_cli.data.media import UnreadableClip
from opensora_cli.distributed.process import Process
from opensora_cli.training.draws import Draws
from opensora_cli.training.job import make_loader, make_objective, run_training
from schemas.errors import OsoraError
from tests.unit.cache_fakes import (
    USES,
    entries,
    make_cache,
    make_folder,
    recipe,
    resolved,
    same_entries,
    save_autoencoder,
    write_table,
)

CPU = Process(0, 1, torch.device("cpu"))
HEAD = ("condition.t2v=0", "condition.i2v_head=1", "condition.i2v_loop=0", "condition.i2v_tail=0")
TWO = "dataset.cached_windows=2"
FRESH = {"text.t5.masked", "text.t5.cleaning"}
"""Facts that older caches know nothing of: named only where they are not as they always were."""


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose clips and captions are cached, two windows each; tests that change it take a copy."""
    folder = make_folder(tmp_path_factory.mktemp("cached"))
    make_cache(folder, TWO)
    return folder


@pytest.fixture
def copy(cached: Path, tmp_path: Path) -> Path:
    shutil.copytree(cached, tmp_path / "copy")
    return tmp_path / "copy"


def losses(folder: Path, *sets: str) -> list[float]:
    code = run_training(resolved(folder, *sets), resume=None, dry_run=False, console=Console(quiet=True))
    assert code == 0
    metrics = max((folder / "runs").glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


def refusal(folder: Path, *sets: str) -> str:
    with pytest.raises(OsoraError) as caught:
        make_loader(recipe(folder, *USES, TWO, *sets), CPU)
    return str(caught.value)


@pytest.mark.parametrize("sets", [HEAD, ("dtype=bf16",)], ids=["fp32-one-condition", "bf16-every-condition"])
def test_training_from_the_cache_is_training_without_it_bit_for_bit(copy: Path, sets: tuple[str, ...]) -> None:
    """Two epochs, two windows, sampled posteriors, dropped captions: every input of the denoiser and every loss."""
    make_cache(copy, TWO, *sets)
    plain, from_cache = recipe(copy, *sets), recipe(copy, *sets, *USES, TWO)
    loaders = [make_loader(one, CPU) for one in (plain, from_cache)]
    objectives = [
        make_objective(one, CPU, loader.cached) for one, loader in zip((plain, from_cache), loaders, strict=True)
    ]
    seen = 0
    for epoch in range(2):
        for number, batches in enumerate(zip(*(loader.epoch(epoch) for loader in loaders), strict=True)):
            assert batches[0].rows == batches[1].rows
            assert batches[1].latents and batches[1].features and not batches[1].video.numel()
            draws = Draws(3, epoch, number, 0)
            with torch.no_grad():  # as `loss` encodes
                want, got = (o.prepare(b, draws) for o, b in zip(objectives, batches, strict=True))
            assert want.inputs.keys() == got.inputs.keys()
            assert all(torch.equal(want.inputs[name], got.inputs[name]) for name in want.inputs)
            assert torch.equal(want.truth["velocity"], got.truth["velocity"])
            assert want.inputs["cond_BND"].any()
            seen += 1
    assert seen == 6
    assert losses(copy, *sets) == losses(copy, *sets, *USES, TWO)


def test_without_misses_no_encoder_is_loaded(cached: Path) -> None:
    config = recipe(cached, *USES, TWO)
    objective = make_objective(config, CPU, make_loader(config, CPU).cached)
    assert objective.text is None
    assert all(weight.is_meta for weight in objective.ae.parameters())


def test_windows_come_round_again(cached: Path) -> None:
    loader = make_loader(recipe(cached, *USES, TWO, "epochs=4"), CPU)
    epochs = []
    for epoch in range(4):
        rows = {row: b.latents.moments[i] for b in loader.epoch(epoch) for i, row in enumerate(b.rows)}
        epochs.append(torch.stack([rows[row] for row in sorted(rows)]))
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("kind", ["latents", "text"])
def test_any_flipped_byte_is_found_and_its_shard_named(
    copy: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In tensors, in the header, in the lists of names and checksums."""
    shard = max((copy / "meta.csv.cache" / kind).rglob("shard-*.safetensors"))
    config, console = recipe(copy, TWO), Console(soft_wrap=True)
    assert verify_cache(config, latents=True, text=True, console=console) == 0
    intact = shard.read_bytes()
    for place in [*range(0, len(intact), len(intact) // 40), len(intact) - 1]:
        shard.write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
        capsys.readouterr()
        code = verify_cache(config, latents=kind == "latents", text=kind == "text", console=console)
        assert (code, str(shard) in capsys.readouterr().out) == (1, True), f"byte {place} of {len(intact)}"


@pytest.mark.parametrize("workers", [0, 1])
def test_training_stops_at_a_damaged_entry(copy: Path, workers: int) -> None:
    for shard in (copy / "meta.csv.cache" / "latents").rglob("shard-*.safetensors"):
        data = bytearray(shard.read_bytes())
        data[-5] ^= 16
        shard.write_bytes(data)
    loader = make_loader(recipe(copy, *USES, TWO, f"dataset.num_workers={workers}"), CPU)
    with pytest.raises(OsoraError, match=r"shard-0000-00000\d\.safetensors: entry \w{32} has other bytes") as caught:
        list(loader.epoch(0))
    assert "Remove that file and run `osora cache` again" in str(caught.value)


def test_a_removed_shard_is_made_anew_and_nothing_else(copy: Path) -> None:
    before = entries(copy / "meta.csv.cache")
    shards = sorted((copy / "meta.csv.cache").rglob("shard-*.safetensors"))
    others = {path: path.stat().st_mtime_ns for path in shards[1:]}
    shards[0].unlink()
    make_cache(copy, TWO)
    assert same_entries(before, entries(copy / "meta.csv.cache"))
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_changed_weights_are_noticed(copy: Path) -> None:
    save_autoencoder(copy, seed=1)
    said = refusal(copy)
    assert "were made in another way" in said
    assert "ae.from_pretrained: cached with" in said
    assert "dtype" not in said
    assert "osora cache" in said


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (
            ("dataset.transform_name=center",),
            'dataset.transform_name: cached with "resize_crop", the recipe has "center"',
        ),
        (("dtype=bf16",), 'dtype: cached with "fp32", the recipe has "bf16"'),
        (("condition.i2v_tail=0", "condition.i2v_loop=0"), 'condition: cached with ["tail-1", "head-1"]'),
        (("text.t5.max_length=20",), "text.t5.max_length: cached with 24, the recipe has 20"),
        (("seed=1",), "seed: cached with 42, the recipe has 1"),
        (("dataset.cached_windows=3",), "dataset.cached_windows: cached with 2, the recipe has 3"),
        (('buckets."32px".5=[1.0, 2]',), "buckets: cached with"),
    ],
)
def test_why_a_cache_does_not_fit(cached: Path, sets: tuple[str, ...], says: str) -> None:
    said = refusal(cached, *sets)
    assert says in said
    assert 'dataset.on_cache_miss = "encode"' in said


def test_no_cache_at_all(tmp_path: Path) -> None:
    assert "has no cached latents" in refusal(make_folder(tmp_path))


def test_misses_are_encoded_where_the_recipe_says_so(copy: Path) -> None:
    """One clip was replaced, one caption is new: their batches are encoded, the others come from the cache."""
    shutil.copy(copy / "5.mp4", copy / "0.mp4")
    table = (copy / "meta.csv").read_text().replace("1.mp4,a blue square", "1.mp4,a red square")
    (copy / "meta.csv").write_text(table)
    config = recipe(copy, *USES, TWO, "dataset.on_cache_miss=encode")
    loader = make_loader(config, CPU)
    assert any("clips of dataset.data_path: cached with" in line for line in loader.warnings())
    objective = make_objective(config, CPU, loader.cached)
    for number, batch in enumerate(loader.epoch(0)):
        assert (batch.latents is None) == (0 in batch.rows)
        assert (batch.features is None) == (1 in batch.rows)
        (loss,) = objective.losses(batch, Draws(0, number, 0, 0))
        assert loss.value.isfinite()
        assert loss.metrics["latents_cached"] == float(0 not in batch.rows)
        assert loss.metrics["text_cached"] == float(1 not in batch.rows)


def test_a_replaced_clip_is_an_error_otherwise(copy: Path) -> None:
    shutil.copy(copy / "5.mp4", copy / "0.mp4")
    loader = make_loader(recipe(copy, *USES, TWO), CPU)
    with pytest.raises(OsoraError, match=r"row 0: .*0\.mp4 is not in .* with its present content"):
        list(loader.epoch(0))


def test_clips_that_cannot_be_read_are_bad_samples_as_without_a_cache(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "2.mp4").write_bytes(b"no video")
    (folder / "3.mp4").unlink()
    make_cache(folder)
    found = []
    for sets in ((), USES):
        batches = list(make_loader(recipe(folder, *sets), CPU).epoch(0))
        found.append([(batch.rows, batch.bad) for batch in batches])
    assert found[0] == found[1]
    assert {bad[0] for _, bads in found[0] for bad in bads} == {2, 3}


def test_a_longer_table_costs_what_is_new(copy: Path) -> None:
    write_table(copy, 4)
    assert "clips of dataset.data_path" in refusal(copy)
    shards = {path: path.stat().st_mtime_ns for path in (copy / "meta.csv.cache").rglob("shard-*")}
    make_cache(copy, TWO)
    assert {path: path.stat().st_mtime_ns for path in (copy / "meta.csv.cache").rglob("shard-*")} == shards
    assert list(make_loader(recipe(copy, *USES, TWO), CPU).epoch(0))


@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 0.0), ("bf16", 2e-2), ("fp16", 2e-3)])
def test_precision_on_disk(copy: Path, name: str, tolerance: float) -> None:
    sets = (TWO, f"dataset.cached_dtype={name}")
    make_cache(copy, *sets)
    exact = next(iter(make_loader(recipe(copy, *USES, TWO), CPU).epoch(0)))
    stored = next(iter(make_loader(recipe(copy, *USES, *sets), CPU).epoch(0)))
    for want, got in ((exact.latents.moments, stored.latents.moments), (exact.features["t5"], stored.features["t5"])):
        assert got.dtype == torch.float32
        assert (got - want).abs().max() <= tolerance * want.abs().max()
        assert torch.equal(got, want) == (name == "fp32")


def test_what_does_not_fit_the_precision_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    weights = load_file(folder / "vae.safetensors")
    weights["quant_conv.bias"] += 1e6
    save_file(weights, folder / "vae.safetensors")
    with pytest.raises(OsoraError, match=r"is not finite as torch\.float16. Take another dataset\.cached_dtype"):
        make_cache(folder, "dataset.cached_dtype=fp16", text=False)


def test_an_unfinished_cache_is_not_used(copy: Path) -> None:
    for manifest in (copy / "meta.csv.cache").rglob("manifest.json"):
        manifest.unlink()
    assert "the cache is not complete. Run `osora cache` again" in refusal(copy)


@pytest.mark.parametrize("pattern", ["latents/*/manifest.json", "text/*/index-*.npy"])
def test_a_damaged_manifest_or_index_is_named_and_made_anew(copy: Path, pattern: str) -> None:
    (path,) = (copy / "meta.csv.cache").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert str(path) in refusal(copy)
    path.unlink()
    make_cache(copy, TWO)
    assert open_caches(recipe(copy, *USES, TWO), []) is not None


def test_content_is_what_names_a_clip(tmp_path: Path) -> None:
    data = bytearray(bytes(range(256)) * (SAMPLE // 32))
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(data)
    other.write_bytes(data)
    name = clip_content(str(path))
    assert name == clip_content(str(other))
    for place in (0, len(data) // 2, len(data) - 1):
        changed = data.copy()
        changed[place] ^= 1
        other.write_bytes(changed)
        assert clip_content(str(other)) != name
    other.write_bytes(data + b"\0")
    assert clip_content(str(other)) != name
    with pytest.raises(UnreadableClip, match="not a regular file"):
        clip_content(str(tmp_path))
    with pytest.raises(UnreadableClip, match="No such file"):
        clip_content(str(tmp_path / "c"))


def test_fingerprints_of_weights_are_kept_while_the_file_stays(tmp_path: Path) -> None:
    weights, memo = tmp_path / "vae.safetensors", tmp_path / "memo.json"
    weights.write_bytes(b"one")
    first = WeightFiles(memo)
    one = first.autoencoder(str(weights))
    first.save()
    ((size, time, _),) = json.loads(memo.read_text()).values()
    assert (size, time) == (3, weights.stat().st_mtime_ns)
    memo.write_text(json.dumps({str(weights): [size, time, "remembered"]}))
    remembered = WeightFiles(memo).autoencoder(str(weights))
    assert remembered != one
    weights.write_bytes(b"four")
    assert WeightFiles(memo).autoencoder(str(weights)) not in (one, remembered)
    weights.rename(tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"one")
    assert WeightFiles(memo).autoencoder(str(tmp_path / "other.safetensors")) == one
    with pytest.raises(OsoraError, match="no such file or folder"):
        WeightFiles(memo).autoencoder(str(weights))


def test_one_job_at_a_time(cached: Path) -> None:
    with (
        only_job(cached / "meta.csv.cache"),
        pytest.raises(OsoraError, match=r"meta\.csv\.cache: another `osora cache` writes to it"),
    ):
        make_cache(cached, TWO)
    make_cache(cached, TWO)


def test_random_weights_are_not_cached(cached: Path) -> None:
    config = recipe(cached)
    random = config.model_copy(update={"ae": config.ae.model_copy(update={"from_pretrained": None})})
    with pytest.raises(OsoraError, match=r"ae\.from_pretrained is not set"):
        run_cache(random, latents=True, text=False, shard_mib=1, console=Console(quiet=True))


def test_plans_count_the_encoders_that_a_miss_needs(cached: Path) -> None:
    assert not recipe(cached, *USES).dataset.encodes_clips
    assert not recipe(cached, *USES).dataset.encodes_text
    assert recipe(cached, *USES, "dataset.on_cache_miss=encode").dataset.encodes_clips
    assert recipe(cached, *USES, "dataset.on_cache_miss=encode").dataset.encodes_text


class StoppingConsole(Console):
    """Ends the job by a signal with its first line of progress."""

    def print(self, *objects: object, **options: object) -> None:
        if str(objects[0]).startswith("latents of window 1/"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_keeps_what_is_encoded(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    code = run_cache(recipe(folder), latents=True, text=True, shard_mib=256, console=StoppingConsole())
    assert code == 143
    assert len({name.partition(".")[0] for name in entries(folder)}) == 2  # the batch that was in hand
    assert "the cache is not complete" in refusal(folder, "dataset.cached_windows=1")


def test_a_text_cache_of_masked_tokens_has_the_mask_and_one_of_others_has_none(copy: Path) -> None:
    pixart = 'model={_delete_=true,type="pixart",hidden_size=48,num_heads=4,depth=1,caption_channels=32}'
    others = ('diffusion={type="iddpm"}', "condition={_delete_=true,t2v=1.0}")
    masked = (pixart, *others, "text.t5.masked=true", 'text.t5.cleaning="lower"')
    make_cache(copy, *masked, latents=False)
    found = {}
    for sets in ((), masked):
        caches = open_caches(recipe(copy, "dataset.cached_text=true", *sets), [])
        assert caches is not None
        assert caches.text is not None
        found[sets] = caches.captions(["a red circle", ""])
        assert FRESH & caches.text.facts.keys() == (FRESH if sets else set())
    assert list(found[()]) == ["t5", "clip"]
    assert list(found[masked]) == ["t5", "t5_mask"]
    mask_BL = found[masked]["t5_mask"]
    assert mask_BL.dtype == torch.bool
    assert mask_BL.sum(dim=1).tolist()[0] > mask_BL.sum(dim=1).tolist()[1] >= 1
    assert not torch.equal(found[masked]["t5"], found[()]["t5"])
