from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opensora_models.diffusion import condition
from schemas.condition import ConditionName

EVERY: tuple[ConditionName, ...] = ("t2v", "i2v_head", "i2v_tail", "i2v_loop", "v2v_head", "v2v_tail")


class MeanEncoder:
    """Causal: the first frame, then means of four. Otherwise means of four. Remembers what it was given."""

    def __init__(self, *, causal: bool = True) -> None:
        self.causal = causal
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, video: Tensor) -> Tensor:
        self.shapes.append(tuple(video.shape))
        frames = video.shape[2]
        first = [video[:, :, :1]] if self.causal else []
        rest = [video[:, :, start : start + 4] for start in range(len(first), frames, 4)]
        return F.avg_pool3d(torch.cat([part.mean(dim=2, keepdim=True) for part in first + rest], dim=2), (1, 2, 2))


def clips(batch: int, frames: int) -> Tensor:
    return torch.randn(batch, 3, frames, 4, 4, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize(("causal", "frames"), [(True, 37), (False, 36)])
def test_a_mixed_batch_equals_its_items_one_by_one(causal: bool, frames: int) -> None:
    video = clips(len(EVERY), frames)
    together = condition.training_condition(video, EVERY, MeanEncoder(causal=causal), time_stride=4, causal=causal)
    for item, name in enumerate(EVERY):
        alone = condition.training_condition(
            video[item : item + 1], [name], MeanEncoder(causal=causal), time_stride=4, causal=causal
        )
        for got, want in zip(together, alone, strict=True):
            assert torch.equal(got[item : item + 1], want)


def test_references_of_one_length_are_encoded_together() -> None:
    encode = MeanEncoder()
    condition.training_condition(clips(len(EVERY), 37), EVERY, encode, time_stride=4, causal=True)
    images = (4, 3, 1, 4, 4)  # head, tail, and both ends of loop
    assert sorted(encode.shapes) == sorted([(6, 3, 37, 4, 4), images, (2, 3, 33, 4, 4)])


def test_nothing_of_the_other_frames_leaks_into_a_tail() -> None:
    video = clips(1, 9)
    changed = video.clone()
    changed[:, :, :-1] += 1
    conditions = [
        condition.training_condition(x, ["i2v_tail"], MeanEncoder(), time_stride=4, causal=True)[1]
        for x in (video, changed)
    ]
    assert torch.equal(*conditions)
    assert conditions[0][0, 0, :, 0, 0].tolist() == [0, 0, 1]


def test_a_padded_tail_is_the_last_frame() -> None:
    video = clips(1, 12)
    _, cond = condition.training_condition(
        video, ["i2v_tail"], MeanEncoder(causal=False), time_stride=4, causal=False, pad=True
    )
    assert torch.allclose(cond[:, 1:, -1:], F.avg_pool3d(video[:, :, -1:], (1, 2, 2)))


def test_images_have_no_condition() -> None:
    names = condition.pick_conditions({"i2v_head": 1.0}, torch.rand(2), 1, time_stride=4)
    assert names == ("t2v", "t2v")
    x_0, cond = condition.training_condition(clips(2, 1), ["i2v_head"] * 2, MeanEncoder(), time_stride=4, causal=True)
    assert x_0.any()
    assert not cond.any()


def test_picking_leaves_out_what_is_too_long_and_the_weights_alone() -> None:
    weights = MappingProxyType({"t2v": 1.0, "v2v_head": 5.0, "v2v_tail_easy": 4.0})
    draws = torch.linspace(0, 0.999, 50)
    assert set(condition.pick_conditions(weights, draws, 3, time_stride=4)) == {"t2v"}
    assert set(condition.pick_conditions(weights, draws, 10, time_stride=4)) == {"t2v", "v2v_head"}
    assert set(condition.pick_conditions(weights, draws, 18, time_stride=4)) == set(weights)


def test_picking_follows_the_weights() -> None:
    picked = condition.pick_conditions({"t2v": 1.0, "i2v_head": 3.0}, torch.linspace(0, 0.999, 400), 3, time_stride=4)
    assert abs(picked.count("i2v_head") - 300) <= 1


def test_no_condition_left_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"clip of 3 latent frames: of v2v_head, .* Give t2v or an i2v"):
        condition.pick_conditions({"v2v_head": 1.0}, torch.rand(1), 3, time_stride=4)


def test_every_item_gets_its_own_references() -> None:
    latent = torch.zeros(2, 4, 5, 2, 2)
    references = [[torch.full((4, 1, 2, 2), 1.0)], [torch.full((4, 1, 2, 2), 2.0)]]
    placed = condition.place_references(latent, "i2v_head", references, time_stride=4, causal=True)
    assert placed[:, 0, 0, 0, 0].tolist() == [1.0, 2.0]
    assert not placed[:, :, 1:].any()
    assert not latent.any()


def test_loop_takes_the_first_reference_for_the_head_and_the_last_for_the_tail() -> None:
    pair = [torch.full((4, 1, 2, 2), 1.0), torch.full((4, 1, 2, 2), 2.0)]
    cond = condition.inference_condition(torch.ones(1, 4, 3, 2, 2), "i2v_loop", [pair], time_stride=4, causal=True)
    assert cond[0, :2, :, 0, 0].tolist() == [[1, 0, 1], [1, 0, 2]]


def test_an_item_without_references_has_no_condition() -> None:
    references = [None, [torch.ones(4, 1, 2, 2)]]
    cond = condition.inference_condition(torch.ones(2, 4, 3, 2, 2), "i2v_head", references, time_stride=4, causal=True)
    assert not cond[0].any()
    assert cond[1].any()


def test_a_short_reference_is_an_error() -> None:
    short = [[torch.ones(4, 5, 2, 2)]]
    with pytest.raises(ValueError, match="v2v_head needs a reference of 9 latent frames, but one has 5"):
        condition.inference_condition(torch.ones(1, 4, 12, 2, 2), "v2v_head", short, time_stride=4, causal=True)


def test_a_short_clip_is_an_error() -> None:
    with pytest.raises(ValueError, match="v2v_tail gives 9 latent frames, but the clip has only 5"):
        condition.condition_mask(["v2v_tail"], 5, time_stride=4, causal=True)


def test_the_stride_of_the_autoencoder_counts() -> None:
    mask = condition.condition_mask(["v2v_head"], 10, time_stride=8, causal=True)
    assert mask.sum() == 5  # 33 frames


def test_repeats_of_a_given_image_are_dropped_without_causality() -> None:
    video = torch.arange(12.0).view(1, 1, 12, 1, 1)
    loop = condition.trim_repeats(video, "i2v_loop", time_stride=4, causal=False)
    assert loop.flatten().tolist() == [3, 4, 5, 6, 7, 8]
    assert torch.equal(condition.trim_repeats(video, "i2v_loop", time_stride=4, causal=True), video)


@pytest.mark.parametrize(
    ("weights", "latent_frames", "causal", "cuts"),
    [
        ({"t2v": 1.0, "i2v_head": 1.0}, 5, True, ((1, True),)),
        ({"i2v_loop": 1.0}, 5, True, ((1, False), (1, True))),
        ({"i2v_tail": 0.0, "v2v_head": 1.0}, 17, True, ((33, True),)),
        ({"i2v_tail": 1.0, "v2v_head": 1.0, "v2v_tail_easy": 1.0}, 17, True, ((1, False), (33, True), (65, False))),
        ({"i2v_tail": 1.0, "v2v_head": 1.0}, 8, True, ((1, False),)),
        ({"i2v_tail": 1.0, "v2v_head": 1.0}, 17, False, ((1, False),)),
        ({"i2v_tail": 1.0}, 1, True, ()),
        ({}, 5, True, ()),
    ],
)
def test_what_conditions_encode_apart(
    weights: dict[str, float], latent_frames: int, causal: bool, cuts: tuple[tuple[int, bool], ...]
) -> None:
    assert condition.possible_cuts(weights, latent_frames, time_stride=4, causal=causal) == cuts


@pytest.mark.parametrize("causal", [True, False])
def test_the_possible_cuts_are_those_that_training_encodes(causal: bool) -> None:
    encoder, video = MeanEncoder(causal=causal), clips(len(EVERY), 69 if causal else 72)
    condition.training_condition(video, EVERY, encoder, time_stride=4, causal=causal)
    cuts = condition.possible_cuts(dict.fromkeys(EVERY, 1.0), 18, time_stride=4, causal=causal)
    assert {shape[2] for shape in encoder.shapes[1:]} == {frames for frames, _ in cuts}
