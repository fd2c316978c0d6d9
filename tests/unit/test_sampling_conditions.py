"""Every condition, causal or not, alone or in a batch: the given latent frames are the reference's, the others are made."""

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_cli.sampling.generate import Generator, encode_references, generate
from opensora_models.diffusion.condition import given_ends, reference_count, reference_frames
from opensora_models.diffusion.latent_packing import unpack
from schemas.condition import ConditionName
from schemas.sampling import SamplingConfig
from tests.unit.sampling_models import MODEL, denoiser, text

SIDE, STRIDE, CHANNELS = 32, 4, 4


class MeanAutoencoder:
    """Means of eight by eight pixels and four frames; causal: the first frame alone. Remembers what it decodes."""

    strides = (STRIDE, 8, 8)
    latent_channels = CHANNELS

    def __init__(self, *, causal: bool) -> None:
        self.causal = causal
        self.decoded: list[Tensor] = []

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return (frames - 1) // STRIDE + 1 if self.causal else frames // STRIDE, height // 8, width // 8

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        frames = x_BCTHW.shape[2]
        starts = [0, *range(1, frames, STRIDE)] if self.causal else range(0, frames, STRIDE)
        groups = [x_BCTHW[:, :, a:b] for a, b in zip(starts, [*list(starts)[1:], frames], strict=True)]
        means = torch.cat([group.mean(dim=2, keepdim=True) for group in groups], dim=2)
        colours = F.avg_pool3d(means, (1, 8, 8))
        return torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1)

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        self.decoded.append(z_BCTHW)
        frames = z_BCTHW.repeat_interleave(STRIDE, dim=2)[:, :, STRIDE - 1 if self.causal else 0 :]
        return frames[:, :3].repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)

    def parameters(self) -> Iterator[nn.Parameter]:
        yield nn.Parameter(torch.zeros(1))


class Remembering(nn.Module):
    """A denoiser that keeps the conditions it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = denoiser().inner
        self.conditions: list[Tensor] = []

    def forward(self, cond_BND: Tensor, **inputs: Tensor) -> Tensor:
        self.conditions.append(cond_BND)
        return self.inner(cond_BND=cond_BND, **inputs)


def clips(name: ConditionName, item: int, *, causal: bool) -> list[Tensor]:
    draw = torch.Generator().manual_seed(100 + item)
    frames = reference_frames(name, causal=causal)
    return [torch.rand(3, frames, SIDE, SIDE, generator=draw) for _ in range(reference_count(name))]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", get_args(ConditionName))
def test_the_given_frames_are_the_references_and_no_others(name: ConditionName, causal: bool, batch: int) -> None:
    ae, model = MeanAutoencoder(causal=causal), Remembering()
    frames = {"v2v": 41, "i2v": 13}.get(name[:3], 9) + 32 * name.endswith("easy") - (not causal)
    config = SamplingConfig(cond_type=name, num_frames=frames, num_steps=1, height=SIDE, width=SIDE)
    references = [encode_references(ae, clips(name, item, causal=causal)) or None for item in range(batch)]
    made = generate(
        Generator(model, ae, MODEL),
        config,
        (SIDE, SIDE),
        list(range(batch)),
        text(batch, 1),
        text(batch, 2),
        references,
    )
    latent_frames = ae.latent_size(frames, SIDE, SIDE)[0]
    head, tail = given_ends(name, latent_frames, time_stride=STRIDE, causal=causal)
    assert head + tail < latent_frames
    assert (head + tail > 0) == (name != "t2v")
    assert len(model.conditions) == batch  # each sample on its own, as on every CPU
    for item, given in enumerate(model.conditions):
        condition = unpack(given[:1, :], latent_frames, SIDE // 8, SIDE // 8, 2)
        mask, latent = condition[0, 0], condition[0, 1:]
        shown = [frame for frame in range(latent_frames) if mask[frame].all()]
        assert shown == [*range(head), *range(latent_frames - tail, latent_frames)]
        assert not condition[0][:, head : latent_frames - tail].any()
        clip = references[item]
        if clip is None:
            continue
        assert torch.equal(latent[:, :head], clip[0][:, :head])
        assert torch.equal(latent[:, latent_frames - tail :], clip[-1][:, clip[-1].shape[1] - tail :])
        if name.startswith("i2v"):  # these go into the result as they are; the rest is the denoiser's
            decoded = ae.decoded[item][0]
            assert torch.equal(decoded[:, :head], clip[0][:, :head])
            assert torch.equal(decoded[:, latent_frames - tail :], clip[-1][:, 1 - tail :])
            assert not (decoded[:, head : latent_frames - tail] == 0).any()
    trimmed = 0 if causal or name[:3] != "i2v" else (STRIDE - 1) * ((head > 0) + (tail > 0))
    assert made.video.shape == (batch, 3, frames - trimmed, SIDE, SIDE)


@pytest.mark.parametrize(("alias", "name"), [("v2v_head_half", "v2v_head_easy"), ("v2v_tail_half", "v2v_tail_easy")])
def test_open_soras_names_of_halves_are_understood(alias: str, name: str) -> None:
    assert SamplingConfig.model_validate({"cond_type": alias}).cond_type == name
