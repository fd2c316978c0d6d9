"""What the cases of Open-Sora 1.x's denoisers have in common: names of inputs, and weights that models compute."""

from typing import TypeVar

from torch import Tensor, nn

from opensora_models.layers.published_weights import from_image_weights
from tests.parity.case import Case

M = TypeVar("M", bound=nn.Module)

NOT_CONFIGURED = (
    *("input_size", "dtype", "drop_path", "no_temporal_pos_emb", "enable_flashattn", "enable_flash_attn"),
    *("enable_layernorm_kernel", "enable_sequence_parallelism"),
)
"""Constructor arguments that are no keys: tables follow the input's shape, and how it is computed changes nothing."""

NAMES = {"x": "x_BCTHW", "timestep": "timesteps_B", "y": "text_BLD", "mask": "text_mask_BL", "x_mask": "x_mask_BT"}
NAMES |= {"fps": "fps_B", "height": "height_B", "width": "width_B", "num_frames": "num_frames_B", "ar": "aspect_B"}
MASKS = ("mask", "x_mask")


def latent_inputs(case: Case) -> dict[str, Tensor]:
    """Return a denoiser's arguments; inputs with fewer rows than the batch are repeated along it, as upstream does."""
    batch = len(case.inputs["x"])
    made: dict[str, Tensor] = {}
    for name, value in case.inputs.items():
        value = value[:, 0] if name == "y" else value
        value = value.bool() if name in MASKS else value
        made[NAMES[name]] = value.repeat(batch // len(value), *[1] * (value.dim() - 1))
    return made


def load_published(model: M, case: Case) -> M:
    """Return the model with the case's weights, all but those it computes loaded strictly."""
    model.load_state_dict(from_image_weights(case.weights(), type(model).computed_keys))
    return model.eval()
