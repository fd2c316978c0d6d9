"""Low-rank adapters: what they change, what is trained, and which files they go to and come from."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from opensora_cli.ckpt.contents import contents
from opensora_cli.training.draws import seeded_init
from opensora_cli.training.ema import Ema
from opensora_models.adapter import (
    Adapter,
    Layers,
    LowRank,
    add_to_weights,
    folded,
    read_adapter,
    save_adapter,
    save_for_diffusers,
)
from opensora_models.layers.float8_linear import Float8Linear
from opensora_models.lora import (
    AdapterDropout,
    adapted_layers,
    adapter_of,
    add_adapters,
    keep_matrices_in,
    set_dropout_key,
)
from opensora_models.mmdit.adapter_layout import adapter_as, convert, to_diffusers
from opensora_models.mmdit.diffusers_names import to_diffusers as weights_to_diffusers
from opensora_models.mmdit.model import MMDiT
from opensora_models.mmdit.weights import convert_layout
from schemas.errors import OsoraError
from schemas.lora import LoraConfig
from tests.unit.test_mmdit import build, inputs

FLUX = {"fused_qkv": True, "use_liger_rope": False}
OPEN_SORA = {"fused_qkv": False, "use_liger_rope": True}
EVERYTHING = (*LoraConfig(r=4).target_modules, "img_in", "img_mlp.0", "adaLN_modulation.1", "modulation.lin")


def adapted(layout: dict[str, bool] | None = None, *, trained: bool = True, **settings: object) -> MMDiT:
    """A model with adapters; trained ones change it."""
    model = build(**(layout or OPEN_SORA))
    with seeded_init(0):
        add_adapters(model, LoraConfig.model_validate({"r": 4, "lora_alpha": 6.0, **settings}))
        for _, layer in adapted_layers(model) if trained else ():
            torch.nn.init.normal_(layer.lora_B.default.weight, std=0.2)
    return model


def adapter(model: MMDiT) -> Adapter:
    return adapter_of(model.state_dict(), model.adapter_config)


def pairs(layers: Layers) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (layer.down, layer.up) for name, layer in layers.items()}


def merged(model: MMDiT, given: Adapter, weight: float = 1.0) -> MMDiT:
    """A model of the same config whose weights have the adapter in them."""
    state = build(**{key: getattr(model.config, key) for key in OPEN_SORA}).state_dict()
    add_to_weights(state, given, weight)
    plain = MMDiT(model.config)
    plain.load_state_dict(state)
    return plain


@pytest.mark.parametrize("layout", [FLUX, OPEN_SORA])
def test_new_adapters_change_nothing(layout: dict[str, bool]) -> None:
    model, plain = adapted(layout, trained=False), build(**layout)
    assert torch.equal(model(**inputs(model)), plain(**inputs(plain)))


def test_only_adapters_are_trained_and_averaged() -> None:
    model = adapted()
    model(**inputs(model)).square().sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name in model.state_dict() if ".lora_" in name}
    ends = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained}
    assert ends == {"q_proj", "k_proj", "v_proj", "proj", "v_mlp", "linear2"}
    assert Ema(model, 0.9, trained_only=True).averages.keys() == trained


@torch.no_grad()
@pytest.mark.parametrize("layout", [FLUX, OPEN_SORA])
def test_merged_weights_compute_what_the_adapters_do(layout: dict[str, bool]) -> None:
    model = adapted(layout, target_modules=EVERYTHING)
    want, plain = model(**inputs(model)), build(**layout)
    assert float((want - plain(**inputs(plain))).abs().max()) > 0.1
    torch.testing.assert_close(merged(model, adapter(model))(**inputs(model)), want, atol=1e-5, rtol=1e-5)
    for name, layer in adapted_layers(model):
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        weight = merged(model, adapter(model)).get_submodule(name)
        assert float((weight(x) - layer(x)).abs().max()) < 1e-6 * max(1.0, float(layer(x).abs().max()))


def test_half_an_adapter_is_half_its_change() -> None:
    model = adapted()
    whole, half, none = (merged(model, adapter(model), weight).state_dict() for weight in (1.0, 0.5, 0.0))
    for key in whole:
        torch.testing.assert_close(half[key] - none[key], (whole[key] - none[key]) / 2, atol=1e-6, rtol=0)


def test_frozen_matrices_in_bf16_compute_as_they_would_under_autocast() -> None:
    whole, frozen = build(**OPEN_SORA), build(**OPEN_SORA)
    keep_matrices_in(frozen, torch.bfloat16)
    for model in (whole, frozen):
        with seeded_init(0):
            add_adapters(model, LoraConfig(r=4))
        for _, layer in adapted_layers(model):
            torch.nn.init.constant_(layer.lora_B.default.weight, 0.1)
        with torch.autocast("cpu", torch.bfloat16):
            model(**inputs(model)).float().square().sum().backward()
    assert {p.dtype for p in frozen.parameters() if p.requires_grad} == {torch.float32}
    for ours, theirs in zip(frozen.parameters(), whole.parameters(), strict=True):
        if ours.requires_grad:
            assert torch.equal(ours.grad, theirs.grad)


def test_adapters_beside_weights_in_8_bits_learn_what_they_learn_beside_the_same_weights_written_out() -> None:
    narrow, wide = build(**OPEN_SORA), build(**OPEN_SORA)
    keep_matrices_in(narrow, torch.float32, float8=True)
    layers = {name: layer for name, layer in narrow.named_modules() if isinstance(layer, Float8Linear)}
    assert "double_blocks.0.img_attn.proj" in layers
    assert "img_in" not in layers
    for name, layer in layers.items():
        wide.get_submodule(name).weight.data = layer.weight.float() * layer.weight_scale
    kept = []
    for model in (narrow, wide):
        with seeded_init(0):
            add_adapters(model, LoraConfig(r=4))
        for _, layer in adapted_layers(model):
            torch.nn.init.constant_(layer.lora_B.default.weight, 0.1)
        shapes: set[tuple[int, ...]] = set()
        with saved_tensors_hooks(partial(noted, shapes), lambda x: x):
            loss = model(**inputs(model)).square().sum()
        kept.append(shapes)
        loss.backward()
    for ours, theirs in zip(trained(narrow), trained(wide), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)
    matrices = {tuple(sorted(layer.weight.shape)) for layer in layers.values()}
    assert kept[1] & matrices, "plain layers keep their weights for the backward pass"
    assert not kept[0] & matrices, "a written-out weight is no more there between forward and backward"


def noted(shapes: set[tuple[int, ...]], x: Tensor) -> Tensor:
    if x.dtype == torch.float32:
        shapes.add(tuple(sorted(x.shape)))
    return x


def trained(model: MMDiT) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def test_dropout_follows_its_key_also_when_recomputed() -> None:
    model = adapted(lora_dropout=0.3).train()
    gradients = []
    for recompute, key in ((0, 5), (100, 5), (0, 6)):
        model.zero_grad()
        model.set_grad_checkpointing(recompute, recompute)
        set_dropout_key(model, key)
        model(**inputs(model)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(map(torch.equal, gradients[0], gradients[1]))
    assert not all(map(torch.equal, gradients[0], gradients[2]))
    dropout = AdapterDropout(0.3, 1)
    x = torch.ones(10_000)
    assert abs(float((dropout(x) == 0).float().mean()) - 0.3) < 0.03
    assert abs(float(dropout(x).mean()) - 1) < 0.03
    assert torch.equal(dropout.eval()(x), x)


def test_pefts_own_loader_reads_what_is_written(tmp_path: Path) -> None:
    model = adapted()
    save_adapter(adapter(model), tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(build(**OPEN_SORA), tmp_path / "adapter")
    assert torch.equal(theirs(**inputs(model)), model(**inputs(model)))
    assert contents(tmp_path / "adapter")["family"].startswith("adapter of rank 4 for 24 layers")
    read = read_adapter(tmp_path / "adapter")
    assert (read.scale, read.rotary, read.ranks) == (1.5, "halves", [4])
    torch.testing.assert_close(pairs(read.layers), pairs(adapter(model).layers), atol=0, rtol=0)


def test_what_peft_writes_is_read(tmp_path: Path) -> None:
    theirs = get_peft_model(build(**OPEN_SORA), PeftConfig(r=4, lora_alpha=8, target_modules=["q_proj", "linear2"]))
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path)
    model = adapted(trained=False, from_pretrained=str(tmp_path), target_modules=("linear2", "q_proj"), lora_alpha=4.0)
    torch.testing.assert_close(model(**inputs(model)), theirs(**inputs(model)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [FLUX, OPEN_SORA])
def test_diffusers_file_changes_diffusers_weights_alike(layout: dict[str, bool], tmp_path: Path) -> None:
    """Merging and converting give the same, whichever comes first."""
    model = adapted(layout, target_modules=EVERYTHING)
    neighbours = model.config.model_copy(update={"fused_qkv": False, "use_liger_rope": False})

    def named(plain: MMDiT) -> dict[str, Tensor]:
        return weights_to_diffusers(convert_layout(plain.state_dict(), model.config, neighbours), 32)

    file = save_for_diffusers(to_diffusers(adapter(model), model.config), tmp_path / "pytorch_lora_weights.safetensors")
    assert "transformer.single_transformer_blocks.0.proj_mlp.lora_A.weight" in load_file(file)
    state = named(build(**layout))
    add_to_weights(state, read_adapter(file))
    torch.testing.assert_close(state, named(merged(model, adapter(model))), atol=1e-6, rtol=1e-6)
    back = adapter_as(read_adapter(file), model.config)
    assert back.ranks == [4]
    torch.testing.assert_close(pairs(folded(back)), pairs(folded(adapter(model))), atol=1e-7, rtol=1e-6)


def test_parts_of_a_fused_layer_that_were_trained_alone_add_up_their_ranks() -> None:
    model = adapted(OPEN_SORA, target_modules=("q_proj", "v_proj"))
    fused = model.config.model_copy(update=FLUX)
    layers = convert(folded(adapter(model)), model.config, fused)
    assert {name.rsplit(".", 1)[1]: layer.rank for name, layer in layers.items()} == {"qkv": 8, "linear1": 4}
    state = build(**OPEN_SORA).state_dict()
    one_way = convert_layout(merged(model, adapter(model)).state_dict(), model.config, fused)
    other_way = convert_layout(state, model.config, fused)
    add_to_weights(other_way, Adapter(layers, 1.0))
    torch.testing.assert_close(one_way, other_way, atol=1e-6, rtol=1e-6)


def files(state: dict[str, Tensor], config: dict[str, object], folder: Path) -> Path:
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def refused(folder: Path) -> Iterator[tuple[Path, str]]:
    pair = {"base_model.model.a.lora_A.weight": torch.ones(2, 3), "base_model.model.a.lora_B.weight": torch.ones(3, 2)}
    lora = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    yield folder / "none", "no adapter"
    yield (
        files(pair, lora | {"use_dora": True}, folder / "dora"),
        "use_dora = True: osora knows adapters with use_dora = False",
    )
    yield files(pair, {"peft_type": "IA3"}, folder / "ia3"), "peft_type = 'IA3'"
    yield (
        files({**pair, "base_model.model.b": torch.ones(1)}, lora, folder / "odd"),
        "base_model.model.b is not one of a pair",
    )
    torn = {**pair, "base_model.model.a.lora_B.weight": torch.ones(3, 5)}
    yield files(torn, lora, folder / "torn"), "do not multiply"


def test_files_that_are_no_such_adapter(tmp_path: Path) -> None:
    for path, message in refused(tmp_path):
        with pytest.raises(OsoraError, match=re.escape(message)):
            read_adapter(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ("q_prj",)}, "no layer's name ends with 'q_prj'. There are adaLN_modulation.1, img_in, "),
        ({"target_modules": ("img_attn",)}, "'img_attn' is no linear layer"),
        ({"target_modules": ("qkv", "linear1")}, "none of them is a layer of this model"),
    ],
)
def test_targets_that_are_not_there(settings: dict[str, object], message: str) -> None:
    with pytest.raises(OsoraError, match=re.escape(message)):
        adapted(OPEN_SORA, **settings)


def test_adapters_that_do_not_fit_the_recipe(tmp_path: Path) -> None:
    path = str(save_adapter(adapter(adapted()), tmp_path / "adapter")[0].parent)
    with pytest.raises(OsoraError, match=r"rank 4 in this model's layout, lora\.r = 8\. Set lora\.r = 4"):
        adapted(r=8, from_pretrained=path)
    with pytest.raises(OsoraError, match=r"the file has an adapter of double_blocks\.0\.img_attn\.k_proj"):
        adapted(target_modules=("q_proj",), from_pretrained=path)
    with pytest.raises(OsoraError, match=r"rank 4, 12 in this model's layout.*train with fused_qkv = false"):
        adapted(FLUX, from_pretrained=path)
    with pytest.raises(OsoraError, match="it was trained on another model"):
        add_to_weights({}, Adapter({"a": LowRank(torch.ones(1, 2), torch.ones(2, 1))}, 1.0))
