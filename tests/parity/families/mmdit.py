"""The MMDiT: output, loss, gradients and intermediates."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.mmdit.blocks import timestep_embedding
from opensora_models.mmdit.model import MMDiT
from opensora_models.mmdit.rope import rope_angles
from schemas.denoiser.mmdit import MMDiTConfig
from tests.parity.case import Case, build_config

FORWARD_NAMES = {"img": "img_BND", "img_ids": "img_ids_BN3", "txt": "txt_BLD", "txt_ids": "txt_ids_BL3"}
FORWARD_NAMES |= {"timesteps": "timesteps_B", "y_vec": "y_vec_BD", "cond": "cond_BND", "guidance": "guidance_B"}


def checks(case: Case) -> Iterator[tuple[str, object, object]]:
    model = build_mmdit(case)
    inputs = {FORWARD_NAMES[name]: value for name, value in case.inputs.items() if name != "target"}
    seen = _watch(model)
    out = model(**inputs)
    loss = F.mse_loss(out, case.inputs["target"]) if "target" in case.inputs else out.square().mean()
    loss.backward()
    got = {"out": out, "loss": loss, **seen, **_tables(model, inputs), **_gradients(model)}
    with torch.no_grad():
        vec = model.embed_vector(inputs["timesteps_B"], inputs["y_vec_BD"], inputs.get("guidance_B"))
    got["mid.vec"] = vec
    got["mid.timestep_embedding"] = timestep_embedding(inputs["timesteps_B"])
    if "mid.img_in" in seen and "mid.img_in_plus_cond" not in seen:  # a model without double blocks
        got["mid.img_in_plus_cond"] = seen["mid.img_in"] + seen.get("mid.cond_in", 0.0)
    for name, want in case.outputs.items():
        yield name, got.get(name, f"{name} is nothing that the model has"), want


def build_mmdit(case: Case) -> MMDiT:
    """Return the model of a case, with its weights loaded strictly."""
    model = MMDiT(build_config(MMDiTConfig, case.info["ctor"], ignore=["cache_dir"]))
    model.load_state_dict(case.weights())
    return model.eval()


def _watch(model: MMDiT) -> dict[str, Tensor]:
    """Record submodules' outputs as they go by."""
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: seen.update({f"mid.{name}": output}))

    def keep_pair(index: int, block: nn.Module) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]) -> None:
            seen[f"mid.double{index}_img"], seen[f"mid.double{index}_txt"] = outputs
            seen.setdefault("mid.img_in_plus_cond", inputs[0])

        block.register_forward_hook(hook)

    def keep_all_tokens(index: int, block: nn.Module) -> None:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            with torch.no_grad():  # the model's last block leaves the text out, the reference does not
                seen[f"mid.single{index}"] = block.forward(*inputs[:3])

        block.register_forward_hook(hook)

    for name in ("img_in", "time_in", "vector_in", "guidance_in", "cond_in", "txt_in"):
        if (module := model.get_submodule(name) if name in dict(model.named_children()) else None) is not None:
            keep(module, name)
    for index, block in enumerate(model.double_blocks):
        keep_pair(index, block)
    for index, block in enumerate(model.single_blocks):
        keep_all_tokens(index, block)
    return seen


def _tables(model: MMDiT, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the rotation tables in the reference's layouts."""
    ids_BS3 = torch.cat([inputs["txt_ids_BL3"], inputs["img_ids_BN3"]], 1)
    config = model.config
    dtype = torch.float32 if config.use_liger_rope else torch.float64
    angles_BSK = rope_angles(ids_BS3, config.axes_dim, config.theta, dtype)
    cos, sin = angles_BSK.cos().float(), angles_BSK.sin().float()
    rotation = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
    return {"mid.pe_cos": cos.repeat(1, 1, 2), "mid.pe_sin": sin.repeat(1, 1, 2), "mid.pe": rotation[:, None]}


def _gradients(model: MMDiT) -> dict[str, Tensor]:
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    norms = {f"grad_norm.{name}": gradient.norm() for name, gradient in found.items()}
    return {f"grad.{name}": gradient for name, gradient in found.items()} | norms
