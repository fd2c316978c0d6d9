"""Which process a config means."""

from opensora_models.diffusion.iddpm import IDDPM
from opensora_models.diffusion.process import Process
from opensora_models.diffusion.rectified_flow import RectifiedFlow
from opensora_models.diffusion.timestep_flow import TimestepFlow
from schemas.diffusion import AnyDiffusion, DiffusionConfig, IDDPMConfig, TimestepFlowConfig


def build_process(config: AnyDiffusion) -> Process:
    """Return the process of a config; guidance, which needs the model's branches, is not part of it."""
    match config:
        case DiffusionConfig():
            return RectifiedFlow(sigma_min=config.sigma_min)
        case TimestepFlowConfig():
            return TimestepFlow(**config.model_dump(exclude={"type"}))
        case IDDPMConfig():
            return IDDPM(**config.model_dump(exclude={"type", "cfg_channel"}))
