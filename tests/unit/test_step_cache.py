"""The step cache: exact where nothing is reused, counted and near where something is."""

import torch

from opensora_cli.sampling.denoise import Denoised, denoise
from opensora_models.diffusion.guidance import GuidanceScales
from opensora_models.diffusion.schedule import get_schedule
from tests.unit.sampling_models import MODEL, denoiser, text

MODEL_2 = MODEL.model_copy(update={"depth": 2, "cond_embed": False})
TINY = 1e-9
"""A threshold that nothing stays within."""


def run(threshold: float, *, batch: int = 1, steps: int = 12, in_turn: bool = False) -> tuple[Denoised, int]:
    model = denoiser(MODEL_2).inner
    with torch.no_grad():
        model.time_in.out_layer.weight.zero_()  # random ones make every time another world; trained ones do not
    passes: list[int] = []
    model.double_blocks[1].register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    noise = torch.stack([torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(row)) for row in range(batch)])
    done = denoise(
        model,
        noise,
        text(batch, 1),
        text(batch, 2),
        times=get_schedule(steps, 4, 2),
        scales=GuidanceScales(3.0, text_oscillates=True),
        patch_size=2,
        in_turn=in_turn,
        cache_threshold=threshold,
    )
    return done, sum(passes)


def test_without_reuse_the_result_is_the_same() -> None:
    (off, all_passes), (on, passes) = run(0.0), run(TINY)
    torch.testing.assert_close(on.latent, off.latent, atol=1e-6, rtol=1e-5)
    assert (on.reused, passes) == ((0,), all_passes)


def test_reuse_saves_passes_is_counted_and_stays_near() -> None:
    (off, all_passes), (on, passes) = run(0.0), run(0.3)
    assert 0 < on.reused[0] == all_passes - passes
    assert passes >= 4  # the first and the last step of both branches are never cut short
    assert on.evaluations == off.evaluations
    assert 0 < (on.latent - off.latent).norm() / off.latent.norm() < 0.2


def test_branches_and_samples_have_a_memory_of_their_own() -> None:
    alone, _ = run(0.3)
    in_turn, _ = run(0.3, in_turn=True)
    together, _ = run(0.3, batch=2)
    torch.testing.assert_close(in_turn.latent, alone.latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.latent[:1], alone.latent, atol=0, rtol=0)
    assert in_turn.reused == alone.reused == together.reused[:1]
