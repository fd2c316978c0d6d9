"""Tiles by free memory: as large as fit, none where the clip fits, an error where nothing does."""

import pytest
import torch

from opensora_cli.fitting_tiles import SHARE, FittingTiles, clip_extent, free_memory, tiles_that_fit
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.planning.coding import coding
from opensora_cli.planning.precision import Precision
from opensora_cli.planning.tiles import TiledConfig, candidates, with_tiles
from opensora_models.layers.tiling import TileSizes
from schemas.autoencoder import DCAEConfig, HunyuanVAEConfig
from schemas.errors import OsoraError

BF16 = Precision.of("bf16", "cuda", autocast=False)
HUNYUAN = HunyuanVAEConfig(tiling="auto")
CLIP = (129, 768, 1024)
SMALL = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 2, "layers_per_block": 1, "latent_channels": 4}


def needed(config: TiledConfig, tiles: TileSizes, direction: str = "decode") -> int:
    return coding(with_tiles(config, tiles), BF16, 1, CLIP, "decode" if direction == "decode" else "encode").peak


@pytest.mark.parametrize("gib", [2, 4, 8, 16, 32, 64])
def test_the_tiles_are_the_largest_that_fit(gib: int) -> None:
    free = gib * 2**30
    chosen = tiles_that_fit(HUNYUAN, BF16, 1, CLIP, "decode", free)
    assert needed(HUNYUAN, chosen) <= SHARE * free
    tried = candidates(HUNYUAN, CLIP)
    assert all(needed(HUNYUAN, larger) > SHARE * free for larger in tried[: tried.index(chosen)])


def test_a_clip_that_fits_is_not_cut_and_less_memory_never_gives_larger_tiles() -> None:
    tried = candidates(HUNYUAN, CLIP)
    assert tried[0] == TileSizes(None, None)
    assert tiles_that_fit(HUNYUAN, BF16, 1, CLIP, "decode", 2**40) == tried[0]
    places = [tried.index(tiles_that_fit(HUNYUAN, BF16, 1, CLIP, "encode", gib * 2**30)) for gib in (1, 3, 9, 27, 81)]
    assert places == sorted(places, reverse=True) and len(set(places)) > 2


def test_where_nothing_fits_the_error_says_how_much_is_lacking() -> None:
    with pytest.raises(
        OsoraError, match=r"decode 1 x 129 frames of 768 x 1024 takes [\d.]+ GiB.*of 0\.12 GiB that are free"
    ):
        tiles_that_fit(HUNYUAN, BF16, 1, CLIP, "decode", 2**27)


def test_candidates_start_on_latents_and_cut_time_only_where_that_saves_something() -> None:
    deep = DCAEConfig(tiling="auto")
    assert {tiles.side for tiles in candidates(deep, (128, 512, 512))} == {
        None,
        384,
        256,
        128,
    }  # 192 starts every 4.5 latents
    assert {tiles.frames for tiles in candidates(deep, (128, 512, 512))} == {None, 64, 32, 16}
    assert {tiles.frames for tiles in candidates(HUNYUAN.model_copy(update={"stream_frames": 8}), CLIP)} == {None}
    pictures = DCAEConfig(tiling="auto", model_name="dc-ae-f32c32-sana-1.0")
    assert {tiles.frames for tiles in candidates(pictures, (128, 512, 512))} == {None}


@pytest.mark.parametrize(
    ("config", "latents", "clip"),
    [
        (HUNYUAN, (33, 32, 48), (129, 256, 384)),
        (DCAEConfig(), (32, 8, 12), (128, 256, 384)),
        (DCAEConfig(), (1, 8, 8), (1, 256, 256)),
    ],
)
def test_latents_are_the_size_of_their_clip(
    config: TiledConfig, latents: tuple[int, int, int], clip: tuple[int, int, int]
) -> None:
    assert clip_extent(config, "decode", latents) == clip == clip_extent(config, "encode", clip)


def test_a_frozen_autoencoder_takes_the_tiles_that_fit_and_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    free, cpu = [2**40], torch.device("cpu")
    monkeypatch.setattr("opensora_cli.fitting_tiles.free_memory", lambda device: free[0])
    config = HunyuanVAEConfig.model_validate(SMALL | {"tiling": "auto", "use_spatial_tiling": True, "sample_size": 64})
    tiled = config.model_copy(update={"tiling": "set", "sample_size": 128})
    open_, set_, whole = (
        frozen_autoencoder(one, None, seed=0, dtype=torch.float32, device=cpu)
        for one in (config, tiled, HunyuanVAEConfig.model_validate(SMALL))
    )
    x = torch.randn(1, 3, 5, 192, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = open_.encode(x)
        assert torch.equal(z, whole.encode(x))  # room for all of it, whatever the keys of the tiles say
        free[0] = 30 * 2**20
        assert torch.equal(open_.encode(x), z)  # the first choice stays
        assert torch.equal(open_.decode(z), set_.decode(z))  # tiles of 128 pixels
        assert not torch.equal(set_.decode(z), whole.decode(z))
    assert isinstance(open_, type(whole)) and isinstance(open_.tile_choice, FittingTiles)
    assert sorted(tiles.side or 0 for tiles in open_.tile_choice.chosen.values()) == [0, 128]


def test_free_memory_of_this_machine_is_a_number_of_bytes() -> None:
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50
