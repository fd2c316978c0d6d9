"""Diffusers' image and video transformers, with the same weights carried over by key tables, give the same numbers.

Diffusers' Latte is Latte-T2V (text by cross attention, one shared modulation), Open-Sora's is not: compared without text.
"""

import pytest
import torch
from torch import Tensor, nn

from opensora_models.dit.model import DiT
from opensora_models.latte.model import Latte
from opensora_models.pixart.model import PixArt
from schemas.denoiser.dit import DiTConfig
from schemas.denoiser.latte import LatteConfig
from schemas.denoiser.pixart import PixArtConfig
from tests.parity.diffusers_denoisers import dit_peer, latte_peer, pixart_peer

SIDE = 8
SIZES = {"hidden_size": 24, "num_heads": 2, "depth": 4}
TIMES = torch.tensor([3.0, 700.0])


def randomised(model: nn.Module) -> nn.Module:
    """Draw every weight, so that each one counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return model.eval().requires_grad_(False)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_dit(learn_sigma: bool) -> None:
    config = DiTConfig(**SIZES, condition="label_5", learn_sigma=learn_sigma, no_temporal_pos_emb=True)
    ours = randomised(DiT(config))
    x, labels = noise(2, 4, SIDE, SIDE), torch.tensor([3, 0])
    want = dit_peer(ours, SIDE)(x, TIMES, labels).sample
    close(ours(x[:, :, None], TIMES, labels_B=labels)[:, :, 0], want)


@pytest.mark.parametrize(
    ("changes", "rows", "columns"),
    [({}, SIDE, SIDE), ({"multi_scale": True, "space_scale": 2.0}, 12, 6), ({"space_scale": 0.5}, 6, SIDE)],
    ids=["alpha", "multi-scale", "sigma"],
)
def test_pixart(changes: dict[str, object], rows: int, columns: int) -> None:
    keys = {"caption_channels": 10, "model_max_length": 5, "no_temporal_pos_emb": True, "base_size": SIDE}
    ours = randomised(PixArt(PixArtConfig.model_validate(SIZES | keys | changes)))
    x, text = noise(2, 4, rows, columns), noise(2, 5, 10)
    mask = torch.tensor([[True, True, False, False, False], [True, True, True, True, False]])
    sizes: dict[str, Tensor] = {}
    added = None
    if ours.config.multi_scale:
        sizes = {"height_B": torch.tensor([96.0, 512.0]), "width_B": torch.tensor([48.0, 300.0])}
        sizes["aspect_B"] = sizes["height_B"] / sizes["width_B"]
        resolution = torch.stack([sizes["height_B"], sizes["width_B"]], 1)
        added = {"resolution": resolution, "aspect_ratio": sizes["aspect_B"][:, None]}
    peer = pixart_peer(ours, SIDE)
    want = peer(x, text, TIMES, added_cond_kwargs=added, encoder_attention_mask=mask).sample
    close(ours(x[:, :, None], TIMES, text, mask, **sizes)[:, :, 0], want)


def test_latte_where_no_text_gets_through() -> None:
    ours = randomised(Latte(LatteConfig(**SIZES, condition="label_5")))
    peer = latte_peer(ours, SIDE, frames=3, timestep=TIMES[1])
    x, times = noise(2, 4, 3, SIDE, SIDE), TIMES[1].expand(2)
    want = peer(x, times, encoder_hidden_states=noise(2, 5, 8)).sample
    close(ours(x, times, labels_B=torch.tensor([1, 2])), want)
