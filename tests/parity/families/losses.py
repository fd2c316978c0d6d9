"""Losses of autoencoders: LPIPS, likelihood and KL, both sides of adversarial training, the discriminator."""

import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from opensora_models.discriminator.model import PatchDiscriminator3D
from opensora_models.layers.posterior import DiagonalGaussian
from opensora_models.vae_loss.adversarial import adaptive_weight, discriminator_loss, generator_loss
from opensora_models.vae_loss.lpips import Lpips
from opensora_models.vae_loss.reconstruction import negative_log_likelihood, reconstruction_loss
from schemas.discriminator import DiscriminatorConfig
from tests.parity.case import Case

Checks = Iterator[tuple[str, object, object]]
SETTING = re.compile(r"lv(?P<logvar>[\d.]+)\.pw(?P<weight>[\d.]+)\.kl(?P<kl>[\d.]+)\.(?P<posterior>\w+)\.(?P<part>\w+)")


def checks(case: Case) -> Checks:
    """Tell the cases apart by what they hold: their names are free."""
    if "weights_recipe" in case.info:
        return _lpips_from_recipe(case)
    if "moments" in case.inputs:
        return _vae_loss(case)
    if "last_layer" in case.inputs:
        return _gan(case)
    return _discriminator(case) if "input_nc" in case.info["ctor"] else _lpips(case)


def _lpips(case: Case) -> Checks:
    model = Lpips(case.info["ctor"]["chns"])
    model.load_state_dict(case.weights())
    a, b = case.inputs["a"], case.inputs["b"].requires_grad_()
    distance_B = model(a, b)
    (grad_b,) = torch.autograd.grad(distance_B.sum(), b)
    got = {"out": distance_B[:, None, None, None], "grad_b": grad_b}
    got |= {f"feat.{number}": features for number, features in enumerate(model.features(a))}
    for name, want in case.outputs.items():
        yield name, got[name], want


def _lpips_from_recipe(case: Case) -> Checks:
    """Draw full-width weights as the case says, and compare; its `keys` are the state dict's."""
    model = Lpips()
    state = model.state_dict()
    yield "keys", {name: list(tensor.shape) for name, tensor in state.items()}, case.info["keys"]
    generator = torch.Generator().manual_seed(116)
    for name in sorted(name for name in state if not name.startswith("scaling_layer.")):
        drawn = torch.randn(state[name].shape, generator=generator)
        if name.startswith("lin"):
            state[name] = drawn.abs() / state[name].shape[1]
        elif drawn.ndim == 4:
            state[name] = drawn * (2 / (state[name].shape[1] * 9)) ** 0.5
        else:
            state[name] = drawn * 0.05
    model.load_state_dict(state)
    yield "out", model(case.inputs["a"], case.inputs["b"])[:, None, None, None], case.outputs["out"]
    for number, features in enumerate(model.features(case.inputs["a"])):
        yield f"feat_mean.{number}", features.mean(), case.outputs[f"feat_mean.{number}"]


def _vae_loss(case: Case) -> Checks:
    lpips = Lpips(case.weight_source().info["ctor"]["chns"])
    lpips.load_state_dict(case.weights())
    video, recon = case.inputs["video"], case.inputs["recon"]
    values = video[0, :, 0].numel()
    frames = [rearrange(x, "b c t h w -> (b t) c h w") for x in (video, recon)]
    perceptual = values * lpips(*frames).mean()
    absolute = reconstruction_loss(recon, video, "l1")
    moments = case.inputs["moments"]
    kl = {
        "hunyuan_post": DiagonalGaussian(moments).kl().mean(),
        "ae2d_post": DiagonalGaussian(rearrange(moments, "b c t h w -> (b t) c 1 h w")).kl().mean(),
        "no_post": torch.zeros(()),
    }
    for name, want in case.outputs.items():
        setting = SETTING.fullmatch(name)
        assert setting is not None, name
        weight = float(setting["weight"])
        parts = {
            "recon_loss": absolute,
            "perceptual_loss": perceptual,
            "nll_loss": negative_log_likelihood(absolute + weight * perceptual, values, float(setting["logvar"])),
            "kl_loss": float(setting["kl"]) * kl[setting["posterior"]],
        }
        yield name, parts[setting["part"]], want


def build_discriminator(ctor: dict[str, Any]) -> PatchDiscriminator3D:
    """Return the discriminator that upstream's constructor arguments describe."""
    config = {"ndf": ctor["ndf"], "n_layers": ctor["n_layers"], "dropout": ctor.get("dropout", 0.3)}
    return PatchDiscriminator3D(DiscriminatorConfig.model_validate(config), channels=ctor["input_nc"])


def _discriminator(case: Case) -> Checks:
    model = build_discriminator(case.info["ctor"])
    model.load_state_dict(case.weights())
    model.eval()
    for name in ("x", "x_image"):
        yield f"eval.{name}", model(case.inputs[name]), case.outputs[f"eval.{name}"]
    model.train()
    x = case.inputs["x"].requires_grad_()
    logits = model(x)
    logits.square().mean().backward()
    got: dict[str, Tensor] = {"train.x": logits, "train.grad_x_norm": x.grad.norm()}
    got |= {f"train.grad_norm.{name}": p.grad.norm() for name, p in model.named_parameters()}
    got |= {f"after_train.{name}": buffer for name, buffer in model.named_buffers()}
    for name, want in case.outputs.items():
        if not name.startswith("eval."):
            yield name, got[name], want


def _gan(case: Case) -> Checks:
    """Compare the losses; upstream multiplies by 0 before a start step, where osora leaves the term out."""
    real, fake = case.inputs["real"], case.inputs["fake"]
    for name, want in case.outputs.items():
        if name.startswith("disc.") and name != "disc.factor0":
            kind, factor, step = re.fullmatch(r"disc\.([\w-]+)\.factor([\d.]+)\.step(\d+)", name).groups()
            started = float(int(step) >= 10)
            yield name, started * float(factor) * discriminator_loss(real, fake, kind), want
    yield "disc.factor0", 0.0 * discriminator_loss(real, fake, "hinge"), case.outputs["disc.factor0"]
    yield from _generator(case)
    # Two of upstream's functions that none of its losses calls: osora has no use for them but the check.
    lecam = F.relu(torch.tensor(0.5 - 0.1)) ** 2 + F.relu(torch.tensor(0.4 + 0.2)) ** 2
    yield "lecam", lecam, case.outputs["lecam"]
    labels = (real > 0).float()
    yield "sce", F.binary_cross_entropy_with_logits(fake, labels, reduction="none"), case.outputs["sce"]


def _generator(case: Case) -> Checks:
    last_layer = case.inputs["last_layer"].requires_grad_()
    y = F.conv3d(case.inputs["h"], last_layer, padding=1)
    likelihood = (y - case.inputs["target"]).abs().mean()
    discriminator: nn.Module = build_discriminator({"input_nc": 3, "ndf": 3, "n_layers": 2}).eval()
    discriminator.load_state_dict(case.weights())
    adversarial = generator_loss(discriminator(y))
    weight = adaptive_weight(likelihood, adversarial, last_layer)
    for name, want in case.outputs.items():
        if setting := re.fullmatch(r"gen\.w([\d.]+)\.start(\d+)\.step(\d+)\.(\w+)", name):
            scale, start, step, part = setting.groups()
            started = float(int(step) >= int(start))
            yield name, adversarial if part == "g_loss" else started * float(scale) * weight * adversarial, want
        elif setting := re.fullmatch(r"gen\.w([\d.]+)\.adaptive_weight", name):
            yield name, float(setting[1]) * weight, want
    yield "gen.factor0.weighted", 0.0 * adversarial, case.outputs["gen.factor0.weighted"]
    yield "gen.factor0.g_loss", adversarial, case.outputs["gen.factor0.g_loss"]
    clamped = adaptive_weight(1e9 * likelihood, adversarial, last_layer)
    yield "gen.adaptive_weight_clamped", 0.5 * clamped, case.outputs["gen.adaptive_weight_clamped"]
    (grad,) = torch.autograd.grad(likelihood + 0.05 * weight * adversarial, last_layer)
    name = "gen.grad_last_layer_of_nll_plus_weighted"
    yield name, grad, case.outputs[name]
