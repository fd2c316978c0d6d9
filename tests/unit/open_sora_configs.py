"""Open-Sora's resolved configs: a few are in the repository, all of them beside it where there is such a folder."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "tests" / "golden" / "configs" / "v2"
ALL = ROOT.parent / "shared" / "golden" / "configs"

RECIPE_OF = {
    "diffusion/train/image": "image",
    "diffusion/train/stage1": "stage1",
    "diffusion/train/stage1_i2v": "stage1_i2v",
    "diffusion/train/stage2": "stage2",
    "diffusion/train/demo": "demo",
    "diffusion/inference/256px": "sample/256px",
    "diffusion/inference/256px_tp": "sample/256px_tp",
    "diffusion/inference/768px": "sample/768px",
    "diffusion/inference/t2i2v_256px": "sample/t2i2v_256px",
    "diffusion/inference/high_compression": "sample/high_compression",
    "diffusion/inference/plugins/sp": "layers/sp",
    "diffusion/inference/plugins/tp": "layers/tp",
    "diffusion/inference/plugins/t2i2v": "layers/t2i2v",
    "vae/train/video_dc_ae": "vae/dc_ae",
    "vae/inference/video_dc_ae": "vae/sample_dc_ae",
    "vae/inference/hunyuanvideo_vae": "vae/sample_hunyuan",
}
"""Config -> the packaged recipe or layer that says the same."""


def config_file(name: str) -> Path:
    """Return a config of Open-Sora 2.0; the test is skipped where it is not at hand."""
    for folder in (COMMITTED, ALL / "v2"):
        if (folder / f"{name}.json").is_file():
            return folder / f"{name}.json"
    pytest.skip(f"{name}.json is neither committed nor in {ALL}")
