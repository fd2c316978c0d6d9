"""Sampling on several processes gives what one process gives."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed import jobs
from tests.distributed.sample_tiny import ALONE, CASES, CLIPS, MODES, make

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The latents of all modes."""
    out = tmp_path_factory.mktemp("sampled")
    make(out, "alone", ALONE)
    jobs.run(4, "-m", "tests.distributed.sample_tiny", out)
    return out


@pytest.mark.parametrize("mode", MODES)
def test_latents_are_those_of_one_process(sampled: Path, mode: str) -> None:
    for case in CASES:
        for clip in range(2 * CLIPS):
            ours, alone = (load_file(sampled / f"{name}-{case}-{clip}.safetensors") for name in (mode, "alone"))
            assert torch.equal(ours["evaluations"], alone["evaluations"])
            error = (ours["latent"] - alone["latent"]).abs().max()
            assert error < TOLERANCE, (case, clip, error)
            assert mode != "prompts" or torch.equal(ours["latent"], alone["latent"])


def test_clips_differ_and_conditions_count(sampled: Path) -> None:
    latents = [load_file(sampled / f"alone-{case}-{clip}.safetensors")["latent"] for case in CASES for clip in range(4)]
    for at, one in enumerate(latents):
        for other in latents[:at]:
            assert (one - other).abs().max() > 100 * TOLERANCE
