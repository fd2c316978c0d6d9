"""Trains the tiny denoiser with the real trainer: `python -m tests.distributed.train_tiny OUT EVERY TASK...` in each process.

Each mode is trained in `OUT/MODE`, with a checkpoint every so many updates.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from opensora_cli.data.position import History
from opensora_cli.distributed.launch import end_with_launcher
from opensora_cli.distributed.layout import lay_out
from opensora_cli.distributed.process import DTYPES, Process, leave, start_process
from opensora_cli.training.checkpoint import Checkpoints
from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.objective import Adversary, Loss
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.trainer import Trainer
from opensora_models.build import build_denoiser
from opensora_models.diffusion.latent_packing import image_ids, text_ids
from opensora_models.lora import add_adapters
from opensora_models.stdit.model import STDiT
from opensora_models.stdit2.model import STDiT2
from opensora_models.stdit3.model import STDiT3
from schemas.denoiser.stdit import STDiTConfig
from schemas.denoiser.stdit2 import STDiT2Config
from schemas.denoiser.stdit3 import STDiT3Config
from schemas.lora import LoraConfig
from schemas.parallel import ParallelConfig
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve
from tests.distributed.modes import COLOSSALAI, MODES, Mode
from tests.unit.training_fakes import FakeBatch, SilentDisplay

UPDATES = 10
ALONE = Process(0, 1, torch.device("cpu"))
FRAMES, SIDE, TEXT = 3, 10, 23  # 75 + 23 tokens: neither is a multiple of 2 or 4


class Clips:
    """Batch n of what is left of the epoch goes to data-parallel rank n modulo their number."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def epoch(self, epoch: int, start: int = 0, before: History = ()) -> Iterator[FakeBatch]:
        done = sum(ranks * steps for ranks, steps in before)
        for number in range(done + start * self.size + self.rank, 1000, self.size):
            yield FakeBatch(torch.empty(2, 3, FRAMES, SIDE, SIDE), rows=[2 * number, 2 * number + 1])


def check_gathered(dtype: torch.dtype) -> Callable[[nn.Module, object], None]:
    """A hook that fails where several processes have gathered a block's weights in another precision than their products'."""

    def check(block: nn.Module, inputs: object) -> None:
        assert not dist.is_initialized() or {p.dtype for p in block.parameters()} == {dtype}

    return check


class TinyDenoiser:
    """A denoiser whose inputs are drawn from the batch's rows, so that they do not depend on who computes what."""

    def __init__(self, recipe: TrainRecipe, device: torch.device, family: str) -> None:
        self.config, self.device, self.family = recipe.model, device, family
        with seeded_init(recipe.seed):
            self.module = self._build()
        self.module.to(device)
        if recipe.lora is not None:
            with seeded_init(recipe.seed):
                add_adapters(self.module, recipe.lora)
        if DTYPES[recipe.dtype] != torch.float32:
            self.module.units[0].register_forward_pre_hook(check_gathered(DTYPES[recipe.dtype]))
        if recipe.memory.grad_checkpoint:
            self.module.set_grad_checkpointing(*recipe.memory.grad_ckpt_settings)

    adversary: Adversary | None = None
    encoding = None

    def _build(self) -> nn.Module:
        module = build_denoiser(self.config)
        nn.init.normal_(module.cond_in.weight, std=0.02)  # it starts at zero, which would hide its gradient
        return module

    def losses(self, batch: FakeBatch, draws: Draws) -> Iterator[Loss]:
        config, size = self.config, len(batch.rows)
        tokens = FRAMES * (SIDE // 2) ** 2
        noise = keyed_generator("inputs", *batch.rows)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=noise).to(self.device)

        img_BND = normal(size, tokens, config.in_channels)
        velocity_BND = self.module(
            img_BND=img_BND,
            img_ids_BN3=image_ids(FRAMES, SIDE, SIDE, 2, batch=size, device=self.device),
            txt_BLD=normal(size, TEXT, config.context_in_dim),
            txt_ids_BL3=text_ids(TEXT, batch=size, device=self.device),
            timesteps_B=torch.rand(size, generator=noise).to(self.device),
            y_vec_BD=normal(size, config.vec_in_dim),
            cond_BND=normal(size, tokens, config.in_channels + 4),
        )
        yield Loss((velocity_BND - img_BND.roll(1, 1)).square().mean())


class TinyLatentDenoiser(TinyDenoiser):
    """A denoiser of latents, with text that is masked and dropped, and frames that are given."""

    def _build(self) -> nn.Module:
        schema, kind = LATENT[self.family]
        module = kind(schema.model_validate(SMALL))
        for name, weight in module.named_parameters():  # some start at zero, which would hide gradients
            nn.init.normal_(weight, 1.0 if name.endswith("_norm.weight") else 0.0, 0.1)
        return module

    def losses(self, batch: FakeBatch, draws: Draws) -> Iterator[Loss]:
        size = len(batch.rows)
        noise = keyed_generator("inputs", *batch.rows)
        x_BCTHW = torch.randn(size, 4, FRAMES, SIDE - 4, SIDE, generator=noise)  # 15 tokens a frame
        given = {
            "timesteps_B": 1000 * torch.rand(size, generator=noise),
            "text_BLD": torch.randn(size, 7, 12, generator=noise),
            "text_mask_BL": torch.arange(7) < torch.randint(1, 8, (size, 1), generator=noise),
            "drop_B": torch.rand(size, generator=noise) < 0.5,
            "x_mask_BT": torch.rand(size, FRAMES, generator=noise) < 0.7,
            "fps_B": torch.full((size,), 24.0),
            "height_B": torch.full((size,), 48.0),
            "width_B": torch.full((size,), 80.0),
            "num_frames_B": torch.full((size,), 9.0),
            "aspect_B": torch.full((size,), 0.6),
        }
        conditions = {"timesteps_B", *self.module.conditions}
        inputs = {name: tensor.to(self.device) for name, tensor in given.items() if name in conditions}
        out_BCTHW = self.module(x_BCTHW.to(self.device), **inputs)
        yield Loss((out_BCTHW - x_BCTHW.repeat(1, 2, 1, 1, 1).roll(1, 2).to(self.device)).square().mean())


SMALL = {"hidden_size": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0, "caption_channels": 12, "model_max_length": 7}
LATENT = {"stdit": (STDiTConfig, STDiT), "stdit2": (STDiT2Config, STDiT2), "stdit3": (STDiT3Config, STDiT3)}
"""Denoisers of latents: config and model."""


def recipe_of(mode: Mode, every: int) -> TrainRecipe:
    recipe = resolve("tiny/train").recipe
    assert isinstance(recipe, TrainRecipe)
    optim = recipe.optim.model_copy(update={"accumulation_steps": mode.accumulation, "grad_clip": 0.5})
    return recipe.model_copy(
        update={
            "dtype": mode.dtype,
            "lora": LoraConfig(r=4) if mode.lora else None,
            "max_steps": UPDATES,
            "optim": optim,
            "model": recipe.model.model_copy(update={"fused_qkv": mode.fused}),
            "parallel": ParallelConfig.model_validate(mode.parallel),
            "checkpoint": recipe.checkpoint.model_copy(update={"every": every}),
            "memory": recipe.memory.model_copy(update={"grad_checkpoint": mode.recompute}),
            "logging": recipe.logging.model_copy(update={"tensorboard": False}),
        }
    )


def trainer_of(folder: Path, mode: Mode, process: Process, every: int = 1000) -> Trainer:
    torch.set_num_threads(1)
    recipe = recipe_of(mode, every)
    config = recipe.parallel
    process = replace(process, together=config.tp_size * config.sp_size)
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    objective = (TinyLatentDenoiser if mode.family in LATENT else TinyDenoiser)(recipe, process.device, mode.family)
    layout = lay_out(objective.module, config, process, DTYPES[recipe.dtype])
    return Trainer(
        recipe,
        objective,  # type: ignore[arg-type]  # its batches have no pixels
        Clips(*process.data_parallel),  # type: ignore[arg-type]  # the loop only asks for epochs
        Checkpoints(run.checkpoints, recipe.checkpoint, torch.float32, process, layout),
        Metrics(run, SilentDisplay(), rank=process.rank, log_every=1, tensorboard=False),
        process,
        layout,
    )


def train_alone(folder: Path, mode: Mode) -> None:
    """Train in one process that takes the batches of all, in their order, before an update."""
    alone = replace(mode, parallel={}, accumulation=mode.clips * mode.accumulation, recompute=False)
    trainer_of(folder, alone, ALONE).fit()


def copy_state(source: Path, target: Path, mode: Mode, process: Process) -> None:
    """Load the last checkpoint of a run into the layout of a mode, and save it again from there."""
    trainer = trainer_of(target, mode, process)
    (checkpoint,) = sorted((source / "checkpoints").glob("step-*"))
    progress = trainer.checkpoints.load(checkpoint, trainer.state)
    trainer.checkpoints.save(progress, trainer.state)
    trainer.checkpoints.wait()


def main() -> None:
    """Train modes (MODE), or copy a run's state through a layout (SOURCE>MODE)."""
    out, every, *tasks = sys.argv[1:]
    process = start_process("cpu", ParallelConfig())
    end_with_launcher()
    modes = MODES | COLOSSALAI
    for task in tasks:
        source, _, name = task.rpartition(">")
        if source:
            copy_state(Path(out, source), Path(out, task), modes[name], process)
        else:
            (Path(out) / f"pid-{process.rank}").write_text(str(os.getpid()))
            trainer_of(Path(out, name), modes[name], process, int(every)).fit()
    leave()


if __name__ == "__main__":
    main()
