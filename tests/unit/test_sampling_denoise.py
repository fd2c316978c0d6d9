from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from opensora_cli.sampling import denoise as denoise_module
from opensora_cli.sampling.denoise import Denoised, denoise, denoise_distilled
from opensora_cli.sampling.generate import Clips, encode_references, generate, guidance_scales
from opensora_models.diffusion.condition import inference_condition
from opensora_models.diffusion.guidance import GuidanceScales, step_scales
from opensora_models.diffusion.latent_packing import image_ids, pack, text_ids, unpack
from opensora_models.diffusion.schedule import clip_shift, get_schedule
from opensora_models.diffusion.solver import SolverName
from opensora_models.text.features import TextFeatures
from schemas.sampling import SamplingConfig
from tests.unit.sampling_models import DISTILLED, Counting, denoiser, models, text

SIZE = (32, 32)
CONFIG = SamplingConfig(num_frames=9, num_steps=3, height=32, width=32)
NOISE = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(5))


def reference(value: float) -> list[Tensor]:
    return [torch.full((4, 1, 4, 4), value)]


def three_branches(
    model: nn.Module, noise: Tensor, caption: TextFeatures, negative: TextFeatures, cond: Tensor, config: SamplingConfig
) -> Tensor:
    """Every branch at every step, as the formula is written."""
    frames, height, width = noise.shape[2:]
    times = get_schedule(config.num_steps, height * width // 4, frames)
    img = pack(noise, 2)
    for step, (now, then) in enumerate(pairwise(times.tolist())):
        c, u, u2 = (
            model(
                img_BND=img,
                img_ids_BN3=image_ids(frames, height, width, 2, batch=1),
                txt_BLD=words["t5"],
                txt_ids_BL3=text_ids(3, batch=1),
                timesteps_B=torch.tensor([now]),
                y_vec_BD=words["clip"],
                cond_BND=pack(given, 2),
            )
            for words, given in ((caption, cond), (negative, cond), (negative, torch.zeros_like(cond)))
        )
        text_scale, image_T = step_scales(guidance_scales(config), step, config.num_steps, frames)
        image_N1 = image_T.repeat_interleave(height * width // 4)[:, None]
        img = img + (then - now) * (u2 + image_N1 * (u - u2) + text_scale * (c - u))
    return unpack(img, frames, height, width, 2)


@pytest.mark.parametrize(("kind", "evaluations"), [("t2v", 80), ("i2v_head", 110)])
def test_fifty_steps_cost_fewer_evaluations_and_give_the_full_sum(kind: str, evaluations: int) -> None:
    config = SamplingConfig(cond_type=kind)
    assert config.num_steps == 50
    model, caption, negative = denoiser(), text(1, 10), text(1, 20)
    references = [reference(0.5)] if kind == "i2v_head" else [None]
    cond = inference_condition(NOISE, config.cond_type, references, time_stride=4, causal=True)
    done = denoise(
        model,
        NOISE,
        caption,
        negative,
        times=get_schedule(50, 4, 3),
        scales=guidance_scales(config),
        patch_size=2,
        condition_BCTHW=cond,
    )
    assert (done.evaluations, model.rows, model.calls) == (evaluations, evaluations, 50)
    full = three_branches(model.inner, NOISE, caption, negative, cond, config)
    assert (done.latent - full).abs().max() <= 1e-5 * full.abs().max()


def test_a_distilled_model_is_evaluated_once_a_step() -> None:
    model = denoiser(DISTILLED)
    steps: list[tuple[int, int]] = []
    done = denoise_distilled(
        model,
        NOISE,
        text(1, 10),
        times=get_schedule(4, 4, 3),
        guidance=4.0,
        patch_size=2,
        on_step=lambda step, of: steps.append((step, of)),
    )
    assert (done.evaluations, model.rows) == (4, 4)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def make(config: SamplingConfig, seeds: list[int], references: list[list[Tensor] | None], first_row: int = 0) -> Clips:
    rows = len(seeds)
    return generate(models(), config, SIZE, seeds, text(rows, 10 + first_row), text(rows, 90), references)


def test_a_seed_fixes_the_result_bit_for_bit() -> None:
    first, second, other = (make(CONFIG, [seed], [None]).video for seed in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == (1, 3, 9, 32, 32)


def test_every_item_is_decoded_from_its_own_reference() -> None:
    config = CONFIG.model_copy(update={"cond_type": "i2v_head"})
    made = models()
    latents: list[Tensor] = []
    decode = made.autoencoder.decode

    def remember(z_BCTHW: Tensor) -> Tensor:
        latents.append(z_BCTHW)
        return decode(z_BCTHW)

    made.autoencoder.decode = remember
    generate(made, config, SIZE, [1, 2], text(2, 10), text(2, 90), [reference(0.5), reference(-2.0)])
    assert [z[0, 0, 0, 0, 0].item() for z in latents] == [0.5, -2.0]


def test_an_image_is_one_frame_without_a_condition() -> None:
    assert make(CONFIG.model_copy(update={"num_frames": 1}), [7], [None]).video.shape == (1, 3, 1, 32, 32)


def test_references_are_encoded_to_their_mean() -> None:
    autoencoder = models().autoencoder
    clip = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second = encode_references(autoencoder, [clip, clip])
    assert torch.equal(first, second)
    assert first.shape == (4, 1, 4, 4)


def test_bf16_models_work_on_a_float32_latent() -> None:
    made = models()
    for module in (made.denoiser, made.autoencoder):
        module.to(torch.bfloat16)
    clips = generate(made, CONFIG, SIZE, [7], text(1, 10), text(1, 90), [None])
    assert clips.video.dtype == torch.float32
    assert clips.video.isfinite().all()
    assert isinstance(made.denoiser, Counting)


def both(config: SamplingConfig, *, in_turn: bool) -> tuple[Denoised, Counting]:
    model = denoiser()
    cond = inference_condition(NOISE, "i2v_head", [reference(0.5)], time_stride=4, causal=True)
    times = get_schedule(config.num_steps, 4, 3)
    done = denoise(
        model, NOISE, text(1, 10), text(1, 20), times=times, scales=guidance_scales(config), patch_size=2,
        condition_BCTHW=cond, in_turn=in_turn, solver=config.solver,
    )  # fmt: skip
    return done, model


def test_branches_in_turn_give_what_branches_together_give() -> None:
    together, one_forward = both(CONFIG, in_turn=False)
    in_turn, three_forwards = both(CONFIG, in_turn=True)
    assert (one_forward.calls, three_forwards.calls) == (3, 9)
    assert together.evaluations == in_turn.evaluations == one_forward.rows == three_forwards.rows == 9
    assert torch.allclose(together.latent, in_turn.latent, atol=1e-5)


def test_outside_the_guidance_interval_only_the_caption_is_evaluated() -> None:
    times = get_schedule(10, 4, 3).tolist()[:-1]
    config = SamplingConfig(num_steps=10, guidance_t_min=0.3, guidance_t_max=0.8)
    inside = [time for time in times if 0.3 <= time <= 0.8]
    done, _ = both(config, in_turn=False)
    assert 0 < len(inside) < 10
    assert done.evaluations == 10 + 2 * len(inside)
    assert not torch.equal(done.latent, both(SamplingConfig(num_steps=10), in_turn=False)[0].latent)


def test_a_schedule_that_starts_a_rounding_error_above_one_is_guided() -> None:
    assert get_schedule(5, 6, 4)[0] > 1
    assert step_scales(GuidanceScales(7.5, 3.0), 0, 5, 4, time=float(get_schedule(5, 6, 4)[0]))[0] == 7.5


@pytest.mark.parametrize(("solver", "evaluations"), [("heun", 5 * 3), ("dpmpp_2m", 3 * 3)])
def test_other_solvers_go_another_way_at_their_own_price(solver: SolverName, evaluations: int) -> None:
    config = CONFIG.model_copy(update={"solver": solver, "cond_type": "i2v_head"})
    done, _ = both(config, in_turn=False)
    assert done.evaluations == evaluations
    assert not torch.equal(done.latent, both(CONFIG, in_turn=False)[0].latent)
    assert generate(models(), config, SIZE, [1], text(1, 1), text(1, 2), [reference(0.5)]).evaluations == evaluations


def test_flow_shift_takes_the_place_of_the_clips_own_shift() -> None:
    size, seed, words = SIZE, [7], (text(1, 10), text(1, 90))
    tokens = 4  # of one frame of 32 x 32 pixels
    same = CONFIG.model_copy(update={"flow_shift": clip_shift(tokens, 3)})
    other = CONFIG.model_copy(update={"flow_shift": 5.0})
    usual, explicit, shifted = (generate(models(), c, size, seed, *words, [None]).video for c in (CONFIG, same, other))
    assert torch.equal(usual, explicit)
    assert not torch.equal(usual, shifted)


def test_on_a_cpu_a_sample_has_the_same_bits_in_every_batch() -> None:
    config = CONFIG.model_copy(update={"cond_type": "i2v_head"})
    references = [reference(0.5), reference(-2.0), reference(1.0)]
    caption, negative = text(3, 10), text(3, 90)
    together = generate(models(), config, SIZE, [7, 8, 9], caption, negative, references).video
    for item in (2, 0, 1):
        words = (one.rows(item, item + 1) for one in (caption, negative))
        alone = generate(models(), config, SIZE, [7 + item], *words, [references[item]]).video
        assert torch.equal(alone[0], together[item])


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_batch_that_goes_through_the_model_together_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, in_turn: bool
) -> None:
    config = CONFIG.model_copy(
        update={"cond_type": "i2v_head", "cfg_branches": "in_turn" if in_turn else "batched", "num_steps": 2}
    )
    references = [reference(0.5), reference(-2.0), reference(1.0)]
    alone, together = models(), models()
    rows = [7, 8, 9], text(3, 10), text(3, 90), references
    one_by_one = generate(alone, config, SIZE, *rows)
    monkeypatch.setattr(denoise_module, "ALONE_ON", frozenset())  # as on a GPU
    at_once = generate(together, config, SIZE, *rows)
    assert (alone.denoiser.calls, together.denoiser.calls) == ((18, 6) if in_turn else (6, 2))
    assert alone.denoiser.rows == together.denoiser.rows == 18
    assert one_by_one.evaluations == at_once.evaluations == 6
    assert torch.allclose(one_by_one.video, at_once.video, atol=1e-4)
