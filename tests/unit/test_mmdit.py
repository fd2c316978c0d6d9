"""The MMDiT: what its interface promises, and its equality with diffusers' Flux."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from opensora_models.mmdit.blocks import RMSNorm, modulate
from opensora_models.mmdit.diffusers_names import diffusers_config, from_diffusers, is_diffusers, to_diffusers
from opensora_models.mmdit.model import MMDiT
from opensora_models.mmdit.recognise import recognise
from opensora_models.mmdit.rope import build_rope
from opensora_models.mmdit.weights import convert_layout
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError

SMALL = MMDiTConfig(
    in_channels=16,
    vec_in_dim=12,
    context_in_dim=20,
    hidden_size=32,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
    axes_dim=(4, 6, 6),
)


def build(**changes: object) -> MMDiT:
    """A model with no weight left at zero, the same one at each call."""
    model = MMDiT(SMALL.model_copy(update=changes))
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator) * 0.15
        weight.data = 1 + noise if name.endswith("scale") else noise
    return model


def inputs(model: MMDiT, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    config = model.config
    axes = torch.meshgrid(torch.arange(2), torch.arange(2), torch.arange(3), indexing="ij")
    ids = torch.stack(axes, -1).flatten(0, 2).float().expand(batch, -1, -1)
    tokens, text = ids.shape[1], 5
    made = {
        "img_BND": torch.randn(batch, tokens, config.in_channels, generator=generator),
        "img_ids_BN3": ids,
        "txt_BLD": torch.randn(batch, text, config.context_in_dim, generator=generator),
        "txt_ids_BL3": torch.zeros(batch, text, 3),
        "timesteps_B": torch.rand(batch, generator=generator),
        "y_vec_BD": torch.randn(batch, config.vec_in_dim, generator=generator),
    }
    if config.cond_embed:
        width = config.in_channels + config.patch_size**2
        made["cond_BND"] = torch.randn(batch, tokens, width, generator=generator)
    if config.guidance_embed:
        made["guidance_B"] = torch.full((batch,), 4.0)
    return made


@pytest.mark.parametrize("guidance", [False, True])
@pytest.mark.parametrize("layout", [(True, False), (False, True)])
def test_equals_diffusers_flux(guidance: bool, layout: tuple[bool, bool]) -> None:
    ours = build(guidance_embed=guidance, fused_qkv=layout[0], use_liger_rope=layout[1])
    theirs = FluxTransformer2DModel.from_config(diffusers_config(ours.config))
    theirs.load_state_dict(to_diffusers(plain(ours), hidden_size=32))
    given = inputs(ours)
    want = theirs(
        hidden_states=given["img_BND"],
        encoder_hidden_states=given["txt_BLD"],
        pooled_projections=given["y_vec_BD"],
        timestep=given["timesteps_B"],
        img_ids=given["img_ids_BN3"][0],
        txt_ids=given["txt_ids_BL3"][0],
        guidance=given.get("guidance_B"),
        return_dict=False,
    )[0]
    # Sines of 1000 t carry the last bit of their angles, and the two compute those in another order.
    torch.testing.assert_close(ours(**given), want, atol=2e-4, rtol=1e-3)


def plain(model: MMDiT) -> dict[str, Tensor]:
    """Three projections, neighbouring pairs: what diffusers' names stand for."""
    target = model.config.model_copy(update={"fused_qkv": False, "use_liger_rope": False})
    return convert_layout(model.state_dict(), model.config, target)


def test_diffusers_names_lead_back() -> None:
    state = plain(build(guidance_embed=True))
    named = to_diffusers(state, hidden_size=32)
    assert is_diffusers(named)
    assert not is_diffusers(state)
    torch.testing.assert_close(from_diffusers(named), state, atol=0, rtol=0)


def test_what_diffusers_does_not_have_is_refused() -> None:
    with pytest.raises(OsoraError, match=r"cond_in\.weight: .* takes no visual condition"):
        to_diffusers(plain(build(cond_embed=True)), hidden_size=32)
    with pytest.raises(OsoraError, match=r"model\.mlp_ratio = 2\.0: diffusers' Flux transformer has 4\.0 alone"):
        diffusers_config(SMALL.model_copy(update={"mlp_ratio": 2.0}))
    with pytest.raises(OsoraError, match=r"time_text_embed\.x\.weight: not a part"):
        from_diffusers({"time_text_embed.x.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fused_qkv": False, "use_liger_rope": True, "cond_embed": True, "patch_size": 1},
        {"guidance_embed": True, "qkv_bias": False},
        {"depth": 0, "mlp_ratio": 3.0},
        {"depth_single_blocks": 0, "depth": 3},
    ],
)
def test_shapes_tell_the_config(changes: dict[str, object]) -> None:
    config = SMALL.model_copy(update=changes)
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in MMDiT(config).state_dict().items()}
    found = recognise(shapes)
    assert found is not None
    assert found == {key: value for key, value in config.model_dump().items() if key in found}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("halves", [False, True])
def test_every_layout_computes_the_same_and_converts_back(fused: bool, halves: bool) -> None:
    flux = build()
    config = flux.config.model_copy(update={"fused_qkv": fused, "use_liger_rope": halves})
    other = MMDiT(config)
    other.load_state_dict(convert_layout(flux.state_dict(), flux.config, config))
    torch.testing.assert_close(other(**inputs(flux)), flux(**inputs(flux)), atol=1e-5, rtol=1e-4)
    back = convert_layout(other.state_dict(), config, flux.config)
    torch.testing.assert_close(back, dict(flux.state_dict()), atol=0, rtol=0)


def test_layouts_of_other_sizes_do_not_convert() -> None:
    with pytest.raises(OsoraError, match=r"model\.depth: weights keep their sizes"):
        convert_layout(build().state_dict(), SMALL, SMALL.model_copy(update={"depth": 3}))


@pytest.mark.parametrize("halves", [False, True])
def test_recomputation_changes_no_gradient(halves: bool) -> None:
    gradients = []
    for settings in [(0, 0), (1, 2)]:
        model = build(use_liger_rope=halves)
        model.set_grad_checkpointing(*settings)
        model(**inputs(model)).square().mean().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], atol=0, rtol=0)


def test_recomputation_runs_the_chosen_blocks_twice() -> None:
    model = build()
    model.set_grad_checkpointing(1, 1)
    runs: list[str] = []
    for name in ("double_blocks.0", "double_blocks.1", "single_blocks.0", "single_blocks.1"):
        model.get_submodule(name).register_forward_pre_hook(lambda _module, _inputs, name=name: runs.append(name))
    model(**inputs(model)).sum().backward()
    counts = {name: runs.count(name) for name in runs}
    assert counts == {"double_blocks.0": 2, "double_blocks.1": 1, "single_blocks.0": 2, "single_blocks.1": 1}


@pytest.mark.parametrize("layout", [{}, {"fused_qkv": False, "use_liger_rope": True}])
def test_skipped_tokens_are_attended_to_but_not_returned(layout: dict[str, bool]) -> None:
    model = build(**layout)
    given = inputs(model)
    generator = torch.Generator().manual_seed(5)
    x, act = torch.randn(2, 17, 32, generator=generator), torch.randn(2, 32, generator=generator)
    rope = model.rope(given["img_ids_BN3"], given["txt_ids_BL3"])
    block = model.single_blocks[0]
    torch.testing.assert_close(block(x, act, rope, 5), block(x, act, rope)[:, 5:], atol=1e-6, rtol=1e-5)


def test_a_new_model_ignores_the_condition() -> None:
    torch.manual_seed(0)
    model = MMDiT(SMALL.model_copy(update={"cond_embed": True}))
    given = inputs(model)
    without = given | {"cond_BND": torch.zeros_like(given["cond_BND"])}
    torch.testing.assert_close(model(**given), model(**without), atol=0, rtol=0)
    assert model.final_layer.linear.weight.abs().min() > 0


@pytest.mark.parametrize(("argument", "key"), [("cond_BND", "cond_embed"), ("guidance_B", "guidance_embed")])
def test_inputs_and_config_must_agree(argument: str, key: str) -> None:
    with_it, without = build(**{key: True}), build()
    given = inputs(with_it)
    with pytest.raises(ValueError, match=rf"{argument} was given, but the model has `model\.{key} = false`"):
        without(**given)
    del given[argument]
    with pytest.raises(ValueError, match=rf"{argument} is missing, and the model has `model\.{key} = true`"):
        with_it(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, r"model\.hidden_size = 32 is no multiple of model\.num_heads = 3"),
        ({"axes_dim": (4, 6, 8)}, r"add up to the head width .* = 16, and they add up to 18"),
        ({"axes_dim": (5, 5, 6)}, r"three even numbers"),
    ],
)
def test_impossible_shapes_are_explained(change: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        MMDiT(SMALL.model_copy(update=change))


def test_items_of_a_batch_do_not_touch() -> None:
    model = build(use_liger_rope=True)
    given = inputs(model)
    given["img_ids_BN3"] = torch.stack([given["img_ids_BN3"][0], given["img_ids_BN3"][0].flip(0)])
    alone = [model(**{name: value[i : i + 1] for name, value in given.items()}) for i in range(2)]
    torch.testing.assert_close(model(**given), torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("interleaved", [False, True])
def test_attention_scores_depend_on_distance_only(interleaved: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator)
    scores = []
    for shift in (0.0, 7.0):
        ids = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 0.0, 5.0]]]) + shift
        q_rope, k_rope = (build_rope(one[None], (4, 6, 6), 10_000, interleaved) for one in ids)
        scores.append((q_rope.rotate(q) * k_rope.rotate(k)).sum())
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-4)


def test_bf16_keeps_fp32_statistics() -> None:
    generator = torch.Generator().manual_seed(4)
    x = (torch.randn(1, 3, 2, 64, generator=generator) * 5).bfloat16()
    norm = RMSNorm(64)
    exact = norm(x.float())
    assert norm.bfloat16()(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x).float(), exact, atol=2**-7, rtol=2**-7)
    rows = (torch.randn(1, 4, 512, generator=generator) + 100).bfloat16()
    zero = torch.zeros(1, 1, 512, dtype=torch.bfloat16)
    torch.testing.assert_close(
        modulate(rows, zero, zero).float(), modulate(rows.float(), zero.float(), zero.float()), atol=2**-6, rtol=2**-7
    )


def test_bf16_stays_near_fp32() -> None:
    model = build(use_liger_rope=True, fused_qkv=False)
    given = inputs(model)
    exact = model(**given)
    fp32 = {"img_ids_BN3", "txt_ids_BL3", "timesteps_B"}
    low = model.bfloat16()(**{name: value if name in fp32 else value.bfloat16() for name, value in given.items()})
    assert low.dtype == torch.bfloat16
    error = (low.float() - exact).norm() / exact.norm()
    assert 1e-6 < error < 0.03


def test_autocast_trains_fp32_weights_near_fp32() -> None:
    model = build(use_liger_rope=True, fused_qkv=False)
    given = inputs(model)
    exact = model(**given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(**given)
    assert 1e-6 < (low.float() - exact).norm() / exact.norm() < 0.03
    low.float().square().mean().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())
