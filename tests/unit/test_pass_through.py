import torch

from opensora_cli.data.demo_clips import clip_frames, draw_clip
from opensora_cli.data.transforms import transform_video
from opensora_cli.training.draws import seeded_init
from opensora_models.hunyuan_vae.model import HunyuanVAE
from opensora_models.hunyuan_vae.pass_through import can_pass_through, init_pass_through
from opensora_models.quality import psnr
from schemas.autoencoder import HunyuanVAEConfig

TINY = {"latent_channels": 4, "layers_per_block": 1, "block_out_channels": (8, 16, 32, 32), "norm_num_groups": 1}


def model(**changes: object) -> HunyuanVAE:
    with seeded_init(0):
        return HunyuanVAE(HunyuanVAEConfig.model_validate(TINY | changes))


def clips() -> torch.Tensor:
    made = [transform_video(torch.from_numpy(clip_frames(draw_clip(7, n))), "resize_crop", 64, 64) for n in range(4)]
    return torch.stack([clip_TCHW.transpose(0, 1)[:, :9] for clip_TCHW in made])


@torch.no_grad()
def test_pictures_pass_through_before_the_first_step_and_do_not_without_it() -> None:
    video_BCTHW = clips()
    plain, ready = model(), model()
    init_pass_through(ready, torch.Generator().manual_seed(0))
    assert psnr(ready.decode(ready.encode(video_BCTHW)), video_BCTHW).mean() > 19
    assert psnr(plain.decode(plain.encode(video_BCTHW)), video_BCTHW).mean() < 14


@torch.no_grad()
def test_the_start_depends_on_the_generator_alone() -> None:
    one, two = model(), model(scale_factor=2.0)
    for each in (one, two):
        torch.manual_seed(int(each.config.scale_factor * 100))
        init_pass_through(each, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_only_models_with_room_for_it_start_that_way() -> None:
    assert can_pass_through(model())
    assert not can_pass_through(model(norm_num_groups=4))
    assert not can_pass_through(model(block_out_channels=(4, 8, 8, 8)))
    assert not can_pass_through(model(latent_channels=2))
