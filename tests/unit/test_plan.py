"""Plans of whole recipes: parameters, how states are shared out, data, and batch sizes that fit."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from opensora_cli.planning.hardware import GIB, GPUS, memory_of
from opensora_cli.planning.plan import Plan, Target, make_plan
from opensora_cli.planning.suggest import largest_batch, suggest, write_layer
from opensora_cli.planning.text import text_encoders
from schemas.errors import OsoraError, UsageError
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve
from schemas.text import TextConfig, TextEncoderConfig

BUCKETS = 'buckets={ "256px" = { 1 = [1.0, 3], 17 = [0.5, 2], 33 = [[0.9, 0.1], 2] } }'
SHARING = ["parallel.plugin=hybrid", "memory.grad_checkpoint=true", "memory.grad_ckpt_settings=[100, 100]"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where no demo was run: plans of the tiny recipes would count its clips."""
    monkeypatch.chdir(tmp_path)


def planned(name: str, *sets: str, target: Target | None = None, data: Path | None = None) -> Plan:
    return make_plan(resolve(name, sets=sets).recipe, target or Target(1, "h200", memory_of("h200")), data)


def table(folder: Path, rows: list[tuple[int, int, int]]) -> Path:
    frame = pd.DataFrame(rows, columns=["num_frames", "height", "width"])
    path = folder / "meta.csv"
    frame.assign(path=[f"{row}.mp4" for row in range(len(rows))], text="a clip", fps=24).to_csv(path, index=False)
    return path


def test_parameters_of_the_published_models() -> None:
    counted = planned("stage1_i2v").parameters
    assert counted["denoiser"].total == 11_891_390_528
    assert counted["autoencoder"].total == 246_478_803
    assert counted["text.t5"].total == 4_762_310_656
    assert counted["text.clip"].total == 123_060_480
    for name in ("denoiser", "autoencoder"):
        assert sum(counted[name].children.values()) == counted[name].total


def test_text_encoders_are_counted_from_their_config(tmp_path: Path) -> None:
    with torch.device("meta"):
        t5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj="relu")
        t5.save_pretrained(tmp_path / "t5")
        clip = CLIPTextConfig(
            vocab_size=60, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2
        )
        clip.save_pretrained(tmp_path / "clip")
        real = {"t5": T5EncoderModel(t5), "clip": CLIPTextModel(clip)}
    config = TextConfig(
        t5=TextEncoderConfig(from_pretrained=str(tmp_path / "t5"), max_length=32),
        clip=TextEncoderConfig(from_pretrained=str(tmp_path / "clip"), max_length=32),
    )
    found, notes = text_encoders(config)
    assert notes == []
    for name, module in real.items():
        assert found[name].weights == sum(p.numel() for p in module.parameters()), name


def test_a_text_encoder_that_is_nowhere_is_a_note_and_a_broken_one_an_error(tmp_path: Path) -> None:
    config = TextConfig(t5=TextEncoderConfig(from_pretrained="someone/else", max_length=8))
    found, notes = text_encoders(config)
    assert list(found) == ["clip"]
    assert notes[0].startswith("text.t5.from_pretrained = 'someone/else'")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 4}))
    with pytest.raises(OsoraError, match="lacks 'num_heads'"):
        text_encoders(TextConfig(t5=TextEncoderConfig(from_pretrained=str(tmp_path), max_length=8)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OsoraError, match="cannot be read"):
        text_encoders(TextConfig(t5=TextEncoderConfig(from_pretrained=str(tmp_path), max_length=8)))


def test_states_are_four_bytes_a_number_each() -> None:
    plan = planned("stage1_i2v", "parallel.plugin=none", "optim.ema_decay=0.99")
    number = 11_891_390_528
    assert plan.states["weights"] == 4 * number
    assert plan.states["optimizer"] == 8 * number
    assert plan.states["average (EMA)"] == 4 * number
    assert plan.states["autoencoder"] == 2 * 246_478_803
    assert plan.states["text encoders"] == 2 * (4_762_310_656 + 123_060_480)
    assert plan.gradients == 4 * number


@pytest.mark.parametrize(
    ("stage", "divided"),
    [(0, ()), (1, ("optimizer", "weights")), *((stage, ("optimizer", "weights", "gradients")) for stage in (2, 3))],
)
def test_zero_stages_divide_by_the_equal_processes(stage: int, divided: tuple[str, ...]) -> None:
    target = Target(16, "h200", memory_of("h200"))
    plan = planned("stage1", *SHARING, f"parallel.zero_stage={stage}", "parallel.sp_size=4", target=target)
    whole = planned("stage1", *SHARING)
    for name in ("weights", "optimizer", "gradients"):
        here, there = ({**one.states, "gradients": one.gradients}[name] for one in (plan, whole))
        assert here == there // (16 if name in divided else 1), name
    gathered = whole.states["weights"] // 2 if stage in (1, 2) else 0
    assert plan.states["gathered weights"] == gathered, "bf16"


def test_the_average_stays_whole_where_colossalai_shares_out_the_optimizer() -> None:
    target = Target(8, "h200", memory_of("h200"))
    sets = ("optim.ema_decay=0.99", "parallel.plugin=zero2", "parallel.engine=")
    torch, colossalai = (
        planned("stage1", *sets[:2], sets[2] + engine, target=target) for engine in ("torch", "colossalai")
    )
    assert colossalai.states["optimizer"] == torch.states["optimizer"]
    assert colossalai.states["average (EMA)"] == colossalai.states["weights"] == 8 * torch.states["average (EMA)"]


def test_tensor_and_sequence_parallel_shrink_the_activations() -> None:
    target = Target(8, "h200", memory_of("h200"))
    whole, tensor, sequence, pipeline = (
        planned("stage2", *SHARING, *sizes, "parallel.zero_stage=0", target=target)
        .shapes[-1]
        .cost.activations_without_recomputing
        for sizes in (
            ("parallel.sp_size=1",),
            ("parallel.sp_size=1", "parallel.tp_size=8"),
            ("parallel.sp_size=8",),
            ("parallel.sp_size=1", "parallel.pp_size=8"),
        )
    )
    assert sequence == pytest.approx(whole / 8, rel=0.01)
    assert pipeline == pytest.approx(whole / 8, rel=0.01)
    assert whole / 8 < tensor < whole / 2


def test_processes_that_the_mesh_does_not_divide() -> None:
    with pytest.raises(UsageError, match=r"--world-size 6: .*sp_size.* does not divide the 6 processes"):
        planned("stage2", target=Target(6))


def test_adapters_train_little_and_hold_the_model_in_bf16() -> None:
    plan, whole = planned("stage1", "lora.r=16"), planned("stage1")
    assert plan.gradients < 0.01 * whole.gradients
    assert plan.states["weights"] == pytest.approx(whole.states["weights"] / 2, rel=0.02)


def test_cached_inputs_need_no_encoders() -> None:
    plan = planned("stage1", "dataset.cached_video=true", "dataset.cached_text=true")
    assert (plan.states["autoencoder"], plan.states["text encoders"]) == (0, 0)


def test_accumulation_adds_gradients_and_recomputing_flops() -> None:
    once, twice = planned("stage1"), planned("stage1", "optim.accumulation_steps=2")
    assert twice.shapes[0].total > once.shapes[0].total
    cost = once.shapes[0].cost
    assert cost.flops > cost.flops_without_recomputing > 3 * cost.forward_flops
    assert cost.activations < cost.activations_without_recomputing


def test_sampling_has_no_gradients_and_offloading_lowers_the_peak() -> None:
    plans = [planned("sample/256px", f"sampling.offload={way}") for way in ("none", "model", "block")]
    assert [plan.gradients for plan in plans] == [0, 0, 0]
    totals = [plan.shapes[0].total for plan in plans]
    assert totals == sorted(totals, reverse=True)
    assert plans[0].steps is None
    assert planned("sample/256px", "sampling.fp8_weights=true").states["denoiser"] < 0.55 * plans[0].states["denoiser"]


@pytest.mark.parametrize("resolution", ["256px", "768px"])
def test_low_vram_samples_the_published_model_within_24_gb(resolution: str) -> None:
    recipe = resolve(
        "sample/256px",
        layers=["layers/low_vram"],
        sets=[f"sampling.resolution={resolution}", "sampling.num_frames=129"],
    ).recipe
    plan = make_plan(recipe, Target(1, "rtx4090", memory_of("rtx4090")))
    assert plan.parameters["denoiser"].total > 11e9
    assert plan.shapes[0].fits
    assert not planned("sample/256px", target=plan.target).shapes[0].fits


def test_other_autoencoders_are_counted_too() -> None:
    plan = planned("vae/dc_ae")
    assert plan.parameters["autoencoder"].total == 459_462_147
    assert plan.shapes[0].cost.activations > 0
    flux = planned("vae/dc_ae", 'ae={ _delete_ = true, type = "autoencoder_2d" }')
    assert flux.parameters["autoencoder"].total == 83_819_683
    assert planned("high_compression").states["autoencoder"] == 2 * 459_462_147


def test_an_autoencoder_alone() -> None:
    plan = planned("tiny/vae")
    assert plan.states["weights"] == 4 * plan.parameters["autoencoder"].total
    assert plan.shapes[0].cost.activations > 0
    run = planned("vae/sample_hunyuan", 'buckets={ "256px" = { 33 = [1.0, 1] } }')
    assert run.gradients == run.shapes[0].cost.activations == 0


def test_judges_of_an_autoencoder_are_counted() -> None:
    alone, against, seen = (
        planned("tiny/vae", *sets) for sets in ((), ("discriminator.ndf=16",), ("vae_loss.perceptual_loss_weight=1.0",))
    )
    assert against.states["discriminator"] > 0 and seen.states["LPIPS"] == 4 * 14_716_160
    assert not against.notes[:-1] and not any("not counted" in note for plan in (against, seen) for note in plan.notes)
    for judged in (against, seen):
        assert judged.shapes[0].cost.activations > alone.shapes[0].cost.activations
        assert judged.shapes[0].cost.flops > alone.shapes[0].cost.flops


def test_tiles_that_are_chosen_later_count_as_the_smallest() -> None:
    whole = planned("sample/256px", "ae.use_spatial_tiling=false")
    open_ = planned("sample/256px", "ae.tiling=auto")
    assert any("smallest tiles" in note for note in open_.notes)
    assert (
        open_.estimator.estimate(open_.shapes[0].shape, 1).peak
        <= whole.estimator.estimate(whole.shapes[0].shape, 1).peak
    )


def test_data_is_counted_by_bucket(tmp_path: Path) -> None:
    rows = [(1, 256, 256)] * 7 + [(40, 256, 256)] * 5 + [(1, 16, 16)] * 2 + [(9, 256, 256)]
    buckets = BUCKETS.replace("[0.5, 2]", "[1.0, 2]").replace("[[0.9, 0.1], 2]", "[1.0, 2]")
    rows += [(40, 64, 64)]
    plan = planned("tiny/train", buckets, data=table(tmp_path, rows), target=Target(2, "h200", GIB))
    clips = plan.clips
    assert clips is not None
    taken = {key: (clips.clips[key], clips.batches[key]) for key in clips.clips if key[0] == "256px"}
    assert taken == {("256px", 1): (7, 2), ("256px", 17): (0, 0), ("256px", 33): (5, 2)}
    assert ("256px", 17) in clips.empty
    assert clips.unfilled == {"64px 17 frames 3:2": (1, 2)}
    assert (clips.rows, clips.too_small, clips.too_short) == (16, 2, 1)
    assert plan.steps == 2  # 4 batches, two processes


def test_without_data_the_plan_says_so(tmp_path: Path) -> None:
    assert any(note.startswith("no data: neither") for note in planned("stage1").notes)
    assert any("not on this machine" in note for note in planned("stage1", "dataset.data_path=none.csv").notes)
    with pytest.raises(OsoraError, match="no such file"):
        planned("stage1", data=tmp_path / "none.csv")


@given(st.integers(0, 10**6), st.integers(1, 10**4), st.integers(1, 10**7), st.integers(1, 2000))
def test_the_largest_batch_fits_and_the_next_does_not(still: int, each: int, limit: int, most: int) -> None:
    size = largest_batch(lambda batch: still + batch * each, limit, most)
    if size is None:
        assert still + each > limit
    else:
        assert still + size * each <= limit
        assert size == most or still + (size + 1) * each > limit


def test_suggested_sizes_fit_and_keep_their_probabilities(tmp_path: Path) -> None:
    target = Target(1, None, 3 * GIB)
    plan = planned("tiny/train", BUCKETS, target=target)
    sizes = suggest(plan)
    write_layer(plan, sizes, tmp_path / "sizes.toml")
    layered = resolve("tiny/train", layers=[tmp_path / "sizes.toml"]).recipe
    assert isinstance(layered, TrainRecipe)
    assert layered.buckets["256px"][33] == ((0.9, 0.1), sizes["256px", 33])
    again = make_plan(layered, target)
    assert [one.fits for one in again.shapes] == [True] * 4
    for one in again.shapes:
        assert one.shape.batch_size < 1024
        more = again.estimator.estimate(one.shape, one.shape.batch_size + 1)
        assert more.peak + sum(again.states.values()) > (target.usable or 0)


def test_lengths_that_never_fit_are_named_in_the_layer(tmp_path: Path) -> None:
    plan = planned("tiny/train", BUCKETS, target=Target(1, None, int(1.1 * GIB)))
    sizes = suggest(plan)
    assert sizes["256px", 33] is None
    assert sizes["64px", 17]
    write_layer(plan, sizes, tmp_path / "sizes.toml")
    assert "# 33 frames do not fit, not even with one clip" in (tmp_path / "sizes.toml").read_text()
    assert resolve("tiny/train", layers=[tmp_path / "sizes.toml"], sets=[BUCKETS]).recipe.kind == "train"


def test_suggesting_needs_a_limit_and_room() -> None:
    with pytest.raises(UsageError, match="--gpu"):
        suggest(planned("stage1", target=Target(1)))
    with pytest.raises(OsoraError, match="no bucket fits"):
        suggest(planned("stage1", target=Target(1, "rtx4090", memory_of("rtx4090"))))
    with pytest.raises(UsageError, match="sample recipe"):
        suggest(planned("sample/256px"))


def test_gpus_by_name() -> None:
    assert all(memory_of(name) == int(size * GIB) for name, size in GPUS.items())
    assert memory_of("cpu") > GIB // 4
    with pytest.raises(UsageError, match="h200, h100"):
        memory_of("h100-sxm")
    assert Target.of(1, None, 48).memory == 48 * GIB
    assert Target.of(1, None, None).usable is None
