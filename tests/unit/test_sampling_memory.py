"""Weights in host memory and in 8 bits: the same clips as without, or as near as 4 significant bits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from opensora_cli.sampling.generate import generate
from opensora_cli.sampling.models import load_models
from opensora_cli.sampling.offload import SLOTS, BlockSwap, Lane, Mark, weights_of
from opensora_models.layers.float8_linear import Float8Linear, quantise, use_float8
from opensora_models.mmdit.model import MMDiT
from opensora_models.weights import save_weights
from schemas.errors import OsoraError
from schemas.recipes import SampleRecipe
from tests.unit.sampling_models import AUTOENCODER, MODEL, denoiser, randomised, text

CPU = torch.device("cpu")
CONFIG = MODEL.model_copy(update={"depth": 2, "depth_single_blocks": 3})
SIZE = (32, 32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(randomised(MMDiT(CONFIG), 1).state_dict(), path)
    return {"model": str(path), "ae": None}


def recipe(**sampling: object) -> SampleRecipe:
    defaults = {"height": 32, "width": 32, "num_frames": 5, "num_steps": 3, "resolution": None}
    return SampleRecipe.model_validate(
        {
            "kind": "sample",
            "dtype": "fp32",
            "model": CONFIG.model_dump(),
            "ae": AUTOENCODER.model_dump(),
            "sampling": defaults | sampling,
        }
    )


def clip(weights: dict[str, str | None], **sampling: object) -> Tensor:
    asked = recipe(**sampling)
    models = load_models(asked, weights, torch.float32, CPU)
    return generate(models, asked.sampling, SIZE, [7], text(1, 1), text(1, 2), [None]).video


@pytest.mark.parametrize("fp8", [False, True])
def test_what_waits_in_host_memory_changes_no_bit(weights: dict[str, str | None], fp8: bool) -> None:
    everything_here = clip(weights, fp8_weights=fp8)
    for offload in ("model", "block"):
        assert torch.equal(clip(weights, offload=offload, fp8_weights=fp8), everything_here)


def test_8_bit_weights_are_near_and_none_is_left_in_full(weights: dict[str, str | None]) -> None:
    full, near = clip(weights), clip(weights, fp8_weights=True)
    assert 0 < (near - full).norm() / full.norm() < 0.1
    model = load_models(recipe(fp8_weights=True), weights, torch.float32, CPU).denoiser
    kinds = {type(layer) for block in model.units for layer in block.modules() if hasattr(layer, "bias")}
    assert nn.Linear not in kinds
    assert Float8Linear in kinds
    assert isinstance(model.img_in, nn.Linear)


def test_quantised_rows_keep_4_significant_bits() -> None:
    weight_OI = torch.randn(6, 400, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 6)[:, None]
    weight_OI[2] = 0
    quantised_OI, scale_O1 = quantise(weight_OI)
    back_OI = quantised_OI.float() * scale_O1
    large = weight_OI.abs() > weight_OI.abs().amax(1, keepdim=True) / 1000
    assert ((back_OI - weight_OI)[large].abs() <= weight_OI[large].abs() / 16).all()
    assert (back_OI[2] == 0).all()
    assert torch.equal(scale_O1.log2(), scale_O1.log2().round())
    # So the product is exact in bf16 too.
    assert torch.equal((quantised_OI.bfloat16() * scale_O1.bfloat16()).float(), back_OI)


def test_replaced_layers_multiply_with_what_was_quantised() -> None:
    layer = nn.Sequential(nn.Linear(16, 8))
    weight_OI, x = layer[0].weight.detach().clone(), torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    quantised_OI, scale_O1 = quantise(weight_OI)
    want = nn.functional.linear(x, quantised_OI.float() * scale_O1, layer[0].bias)
    use_float8(layer)
    torch.testing.assert_close(layer(x), want, atol=0, rtol=0)


class LateLane(Lane):
    """Copies at the last moment that is allowed, and until then leaves noise in the target."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.copies = 0

    def copy(self, target_U: Tensor, source_U: Tensor, after: Mark) -> Mark:
        target_U.fill_(0xFF)  # numbers that are none, whatever their type
        self.copies += 1
        return LateMark(target_U, source_U)


class LateMark(Mark):
    def __init__(self, target_U: Tensor, source_U: Tensor) -> None:
        super().__init__(None)
        self._copy: tuple[Tensor, Tensor] | None = (target_U, source_U)

    def wait(self) -> None:
        if self._copy is not None:
            self._copy[0].copy_(self._copy[1])
            self._copy = None


def inputs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    features = text(1, 1)
    return {
        "img_BND": torch.randn(1, 4, 16, generator=draw),
        "img_ids_BN3": torch.zeros(1, 4, 3),
        "txt_BLD": features["t5"],
        "txt_ids_BL3": torch.zeros(1, 3, 3),
        "timesteps_B": torch.tensor([0.5]),
        "y_vec_BD": features["clip"],
        "cond_BND": torch.randn(1, 4, 20, generator=draw),
    }


def test_swapped_blocks_arrive_in_time_and_two_at_most_are_here() -> None:
    model, lane = denoiser(CONFIG).inner, LateLane()
    want = model(**inputs())
    blocks = model.units
    swap = BlockSwap(model, blocks, CPU, lane)
    at_rest = {tensor.untyped_storage().data_ptr() for tensor in weights_of(model)}
    here: list[int] = []
    for block in blocks:
        block.register_forward_pre_hook(
            lambda *_: here.append(
                sum(weights_of(one)[0].untyped_storage().data_ptr() not in at_rest for one in blocks)
            )
        )
    with swap.at_work():
        first, second = model(**inputs()), model(**inputs())
        slots = {tensor.untyped_storage().data_ptr() for tensor in (slot.bytes for slot in swap._slots)}
    assert torch.equal(first, want)
    assert torch.equal(second, want)
    assert here == [1] * 2 * len(blocks)
    assert len(slots) == SLOTS == 2
    assert lane.copies == 2 * len(blocks) + 1  # each block once a pass, and the first of the next pass
    assert {tensor.untyped_storage().data_ptr() for tensor in weights_of(model)} == at_rest


def test_a_block_out_of_turn_is_waited_for() -> None:
    model, lane = denoiser(CONFIG).inner, LateLane()
    block = model.double_blocks[1]
    given = torch.randn(1, 4, 32), torch.randn(1, 3, 32), torch.randn(1, 32)
    rope = model.rope(torch.zeros(1, 4, 3), torch.zeros(1, 3, 3))
    want = block(*given, rope)
    with BlockSwap(model, model.units, CPU, lane).at_work():
        got = block(*given, rope), block(*given, rope)
    for one in got:
        torch.testing.assert_close(one, want, atol=0, rtol=0)


def test_weights_that_do_not_fit_are_refused_before_they_are_read(
    weights: dict[str, str | None], tmp_path: Path
) -> None:
    other = recipe(fp8_weights=True).model_copy(update={"model": CONFIG.model_copy(update={"depth": 3})})
    with pytest.raises(OsoraError, match=r"missing from the file"):
        load_models(other, weights, torch.float32, CPU)
