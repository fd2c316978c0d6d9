"""Open-Sora's resolved configs: a few are in the repository, all of them beside it where there is such a folder."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "tests" / "golden" / "configs"
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


FIRST_RECIPE_OF = {
    **{
        f"v1.0/opensora/train/{size}": f"v1/stdit_{size}"
        for size in ("16x256x256", "16x512x512", "64x512x512", "360x512x512")
    },
    **{f"v1.0/dit/train/{size}": f"v1/dit_{size}" for size in ("16x256x256", "1x256x256")},
    "v1.0/latte/train/16x256x256": "v1/latte_16x256x256",
    **{f"v1.0/pixart/train/{size}": f"v1/pixart_{size}" for size in ("16x256x256", "1x512x512", "64x512x512")},
    **{f"v1.2/opensora-v1-1/train/stage{stage}": f"v1/stdit2_stage{stage}" for stage in (1, 2, 3)},
    **{f"v1.2/opensora-v1-2/train/stage{stage}": f"v1/stdit3_stage{stage}" for stage in (1, 2, 3)},
    **{f"v1.2/vae/train/stage{stage}": f"v1/vae_stage{stage}" for stage in (1, 2, 3)},
    **{
        f"v1.0/opensora/inference/{size}": f"v1/sample/stdit_{size}"
        for size in ("16x256x256", "16x512x512", "64x512x512")
    },
    **{f"v1.0/dit/inference/{size}": f"v1/sample/dit_{size}" for size in ("16x256x256", "1x256x256")},
    "v1.0/dit/inference/1x256x256-class": "v1/sample/dit_1x256x256_class",
    "v1.0/latte/inference/16x256x256": "v1/sample/latte_16x256x256",
    "v1.0/latte/inference/16x256x256-class": "v1/sample/latte_16x256x256_class",
    **{
        f"v1.0/pixart/inference/{size}": f"v1/sample/pixart_{size}" for size in ("16x256x256", "1x256x256", "1x512x512")
    },
    "v1.0/pixart/inference/1x1024MS": "v1/sample/pixart_1x1024_ms",
    "v1.2/pixart/inference/1x2048MS": "v1/sample/pixart_sigma_1x2048",
    "v1.2/opensora-v1-1/inference/sample": "v1/sample/stdit2",
    "v1.2/opensora-v1-1/inference/sample-ref": "v1/sample/stdit2_ref",
    "v1.2/opensora-v1-2/inference/sample": "v1/sample/stdit3",
    "v1.2/vae/inference/video": "v1/sample/vae_video",
}
"""The same of Open-Sora 1.0 to 1.2, whose configs are named with their version."""


def config_file(name: str) -> Path:
    """Return a config, of 2.0 where no version is named; the test is skipped where it is not at hand."""
    path = f"{name}.json" if name.startswith("v1.") else f"v2/{name}.json"
    for folder in (COMMITTED, ALL):
        if (folder / path).is_file():
            return folder / path
    pytest.skip(f"{path} is neither committed nor in {ALL}")
