"""Telling which model a file of weights belongs to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from opensora_models.autoencoder_kl import recognise as autoencoder_kl
from opensora_models.dit import recognise as dit
from opensora_models.hunyuan_vae import recognise as hunyuan_vae
from opensora_models.latte import recognise as latte
from opensora_models.mmdit import recognise as mmdit
from opensora_models.mmdit.diffusers_names import is_diffusers
from opensora_models.open_sora_vae import recognise as open_sora_vae
from opensora_models.pixart import recognise as pixart
from opensora_models.stdit import recognise as stdit
from opensora_models.stdit2 import recognise as stdit2
from opensora_models.stdit3 import recognise as stdit3

DENOISERS = (mmdit, stdit3, stdit2, stdit, latte, dit, pixart)
"""In the order in which they are asked: Latte's weights would pass for a DiT's."""
AUTOENCODERS = (hunyuan_vae, autoencoder_kl)


class Recognised(NamedTuple):
    """The recipe table that these weights fill, and the keys of it that their shapes settle."""

    table: str
    config: dict[str, Any]


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Recognised | None:
    """Return what the weights are, or None where no family knows them; diffusers' names are for conversion, not a family."""
    families = [*(("model", family) for family in DENOISERS), *(("ae", family) for family in AUTOENCODERS)]
    for table, family in families:
        if (config := family.recognise(shapes)) is not None:
            return Recognised(table, config)
    if (config := open_sora_vae.recognise(shapes, autoencoder_kl.recognise)) is not None:
        return Recognised("ae", config)
    return None


def described(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return in a few words whose weights these are."""
    found = recognise(shapes)
    if found is not None:
        return f"{found.config['type']} (a recipe's [{found.table}])"
    if is_diffusers(shapes):
        return "diffusers' Flux transformer (`osora ckpt import` makes osora's of it)"
    return "no family that osora knows"
