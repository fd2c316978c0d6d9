"""Samples with tiny random models: `python -m tests.distributed.sample_tiny OUT` in each of the processes of a job."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from opensora_cli.distributed.launch import end_with_launcher
from opensora_cli.distributed.process import Process, leave, start_process
from opensora_cli.distributed.team import form_team
from opensora_cli.sampling.generate import Generator, generate
from opensora_cli.training.draws import seeded_init
from opensora_models.mmdit.model import MMDiT
from schemas.parallel import SamplingParallelConfig
from schemas.sampling import SamplingConfig
from tests.unit.sampling_models import MODEL, text

ALONE = Process(0, 1, torch.device("cpu"))
SIZE, CLIPS = (80, 48), 2
FOUR_HEADS = MODEL.model_copy(update={"hidden_size": 64, "num_heads": 4, "depth_single_blocks": 2})
CASES = {
    "t2v": SamplingConfig(num_frames=9, num_steps=2, guidance_t_max=0.99),  # the first step has a single branch
    "i2v_head": SamplingConfig(num_frames=9, num_steps=1, cond_type="i2v_head", cfg_branches="in_turn"),
}
RING = {"sequence_parallelism_mode": "ring_attn"}
MODES: dict[str, dict[str, object]] = {
    "prompts": {},
    "ulysses-2": {"sp_size": 2},
    "ring-2": {"sp_size": 2, **RING},
    "tensor-2": {"tp_size": 2},
    "branches-2": {"cfg_size": 2},
    "ulysses-4": {"sp_size": 4},
    "ring-4": {"sp_size": 4, **RING},
    "tensor-4": {"tp_size": 4},
    "branches-4": {"sp_size": 2, "cfg_size": 2},
}
"""Of four processes; the teams of two share out the batches."""


class KeepsLatents:
    """A causal autoencoder of nothing: what is decoded are the latents themselves."""

    strides = (4, 8, 8)
    latent_channels = 4
    causal = True

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return (frames - 1) // 4 + 1, height // 8, width // 8

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        return x_BCTHW

    def decode(self, z_BCTHW: Tensor) -> Tensor:
        return z_BCTHW

    def parameters(self) -> Iterator[nn.Parameter]:
        yield nn.Parameter(torch.zeros(1))


def make(out: Path, mode: str, process: Process) -> None:
    """Write the latents of this process's clips: `OUT/MODE-CASE-CLIP.safetensors`."""
    config = SamplingParallelConfig.model_validate({"plugin": "hybrid", **MODES.get(mode, {})})
    process = Process(process.rank, process.world_size, process.device, config.together)
    team = form_team(config, process)
    assert team.agree([True, team.is_leader]) == [True, team.size == 1]
    assert replace(team, everyone_decodes=True).own(["a", "b"]) == ["a", "b"]
    with seeded_init(1):
        denoiser = MMDiT(FOUR_HEADS)
        nn.init.normal_(denoiser.cond_in.weight, std=0.1)  # it starts at zero, which would hide the condition
    denoiser.requires_grad_(False)
    team.spread(denoiser)
    models = Generator(denoiser, KeepsLatents(), FOUR_HEADS)
    for name, case in CASES.items():
        first = None if name == "t2v" else [torch.full((4, 1, SIZE[0] // 8, SIZE[1] // 8), 0.5)]
        for batch in team.batches([range(CLIPS), range(CLIPS, 2 * CLIPS)]):
            seeds = list(batch)
            clips = generate(
                models, case, SIZE, seeds, text(CLIPS, 10 * seeds[0]), text(CLIPS, 90), [first] * CLIPS, team=team
            )
            evaluations = torch.tensor(clips.evaluations)
            for item, latent in zip(clips.own, clips.video, strict=True):
                path = out / f"{mode}-{name}-{seeds[item]}.safetensors"
                assert not path.exists(), "two processes made one clip"
                save_file({"latent": latent.contiguous(), "evaluations": evaluations}, path)


def main() -> None:
    (out,) = sys.argv[1:]
    torch.set_num_threads(1)
    process = start_process("cpu", SamplingParallelConfig())
    end_with_launcher()
    for mode in MODES:
        make(Path(out), mode, process)
    leave()


if __name__ == "__main__":
    main()
