"""Autoencoder training: who gets gradients when, and that nothing is lost by recomputing or by a power cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from opensora_cli.data.position import History
from opensora_cli.distributed.process import Process
from opensora_cli.training import vae_objective
from opensora_cli.training.checkpoint import Checkpoints
from opensora_cli.training.draws import Draws, keyed_generator, seeded_init
from opensora_cli.training.metrics import Metrics
from opensora_cli.training.mixed_frames import frames_to_keep
from opensora_cli.training.objective import Loss
from opensora_cli.training.run_folder import RunFolder
from opensora_cli.training.trainer import Trainer
from opensora_cli.training.vae_objective import VaeObjective, last_convolution
from opensora_models.vae_loss.lpips import Lpips
from schemas.recipes import VaeTrainRecipe
from tests.unit.training_fakes import FakeBatch, SilentDisplay

CPU = torch.device("cpu")
AE = {
    "type": "hunyuan_vae", "latent_channels": 3, "layers_per_block": 1, "block_out_channels": (8, 8, 8, 8),
    "norm_num_groups": 1, "mid_block_add_attention": False,
}  # fmt: skip
GAN = {"ndf": 4, "n_layers": 2, "dropout": 0.3}


def recipe(**tables: object) -> VaeTrainRecipe:
    base: dict[str, object] = {
        "kind": "vae-train",
        "dtype": "fp32",
        "ae": AE,
        "optim": {"lr": 1e-3, "ema_decay": 0.9},
        "checkpoint": {"every": 2},
        "logging": {"tensorboard": False},
    }
    return VaeTrainRecipe.model_validate(base | tables)


def batch(index: int = 0) -> FakeBatch:
    video = torch.rand(2, 3, 5, 16, 16, generator=keyed_generator("video", index)) * 2 - 1
    return FakeBatch(video, rows=[2 * index, 2 * index + 1])


class VideoLoader:
    batches = 4

    def epoch(self, epoch: int, start: int = 0, before: History = ()) -> Iterator[FakeBatch]:
        return (batch(self.batches * epoch + index) for index in range(start, self.batches))


def losses(objective: VaeObjective, update: int) -> list[Loss]:
    """Ask for every loss of a batch as the trainer does, with gradients."""
    found = []
    for loss in objective.losses(batch(), Draws(0, update, 0, 0)):  # type: ignore[arg-type]
        if loss.value.requires_grad:
            loss.value.backward()
        found.append(loss)
    return found


def gradients(objective: VaeObjective) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in objective.module.named_parameters() if p.grad is not None}


def test_each_side_gets_the_gradients_of_its_own_loss() -> None:
    objective = VaeObjective(recipe(discriminator=GAN), CPU)
    assert objective.adversary is not None
    generator = objective.losses(batch(), Draws(0, 0, 0, 0))  # type: ignore[arg-type]
    next(generator).value.backward()
    assert gradients(objective)
    assert all(p.grad is None for p in objective.adversary.module.parameters())
    before = gradients(objective)
    loss = next(generator)
    assert loss.of_adversary
    loss.value.backward()
    assert all(p.grad is not None for p in objective.adversary.module.parameters())
    assert all(torch.equal(before[name], gradient) for name, gradient in gradients(objective).items())


def test_the_adversarial_term_pulls_as_hard_on_the_last_layer_as_the_likelihood() -> None:
    config = {**GAN, "gen_loss": {"disc_weight": 0.5}}
    plain, against = VaeObjective(recipe(), CPU), VaeObjective(recipe(discriminator=config), CPU)
    losses(plain, 0)
    (loss, _) = losses(against, 0)
    last = "decoder.conv_out.conv.weight"
    likelihood, both = gradients(plain)[last], gradients(against)[last]
    assert last_convolution(plain.ae.decoder).weight is dict(plain.module.named_parameters())[last]
    assert float((both - likelihood).norm() / likelihood.norm()) == pytest.approx(0.5, rel=0.01)
    assert float(loss.metrics["deception_weight"]) > 0


def test_terms_start_when_the_recipe_says() -> None:
    config = {**GAN, "disc_loss": {"disc_start": 3}, "gen_loss": {"gen_start": 5}}
    objective = VaeObjective(recipe(discriminator=config), CPU)
    for update, sides, deceives in ((2, 1, False), (3, 2, False), (4, 2, False), (5, 2, True)):
        found = losses(objective, update)
        assert (len(found), "deception" in found[0].metrics) == (sides, deceives), update


def test_in_an_alternating_run_one_side_learns_at_a_time() -> None:
    config = {**GAN, "alter_train_gen_disc": True, "disc_loss": {"disc_start": 1}}
    objective = VaeObjective(recipe(discriminator=config), CPU)
    learners = [[loss.value.requires_grad for loss in losses(objective, update)] for update in range(4)]
    assert learners == [[True], [False, True], [True], [False, True]]


def test_recomputing_changes_no_gradient_and_the_adaptive_weight_recomputes_nothing() -> None:
    plain = VaeObjective(recipe(discriminator=GAN), CPU)
    saving = VaeObjective(recipe(discriminator=GAN, memory={"grad_checkpoint": True}), CPU)
    calls: list[int] = []
    stage = saving.ae.decoder.up_blocks[0].resnets[0]
    stage.register_forward_hook(lambda *_: calls.append(1))
    generator = saving.losses(batch(), Draws(0, 0, 0, 0))  # type: ignore[arg-type]
    loss = next(generator)
    assert len(calls) == 1
    loss.value.backward()
    assert len(calls) == 2
    losses(plain, 0)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(saving)[name], gradient, msg=name)


def test_bf16_trains_both_sides() -> None:
    objective = VaeObjective(recipe(discriminator=GAN), CPU)
    with torch.autocast("cpu", torch.bfloat16):
        found = list(objective.losses(batch(), Draws(0, 0, 0, 0)))  # type: ignore[arg-type]
    assert [bool(torch.isfinite(loss.value)) for loss in found] == [True, True]


def trainer(path: Path, config: VaeTrainRecipe) -> Trainer:
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    metrics = Metrics(folder, SilentDisplay(), rank=0, log_every=1, tensorboard=False)
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoint, torch.float32)
    return Trainer(config, VaeObjective(config, CPU), VideoLoader(), checkpoints, metrics, Process(0, 1, CPU))  # type: ignore[arg-type]


@pytest.mark.parametrize("alternating", [False, True])
def test_both_optimizers_resume_bit_for_bit(tmp_path: Path, alternating: bool) -> None:
    tables: dict[str, object] = {
        "discriminator": {**GAN, "alter_train_gen_disc": alternating, "optim": {"warmup_steps": 5}},
        "mixed_strategy": "mixed_video_image",
        "mixed_image_ratio": 0.5,
        "epochs": 2,
    }
    whole = trainer(tmp_path / "whole", recipe(**tables))
    whole.fit()
    trainer(tmp_path / "broken", recipe(**tables, max_steps=4)).fit()
    resumed = trainer(tmp_path / "broken", recipe(**tables))
    resumed.fit()
    expected = whole.state.tensors()
    assert {name.split(".")[0] for name in expected} == {"model", "optim", "ema", "adversary", "adversary_optim"}
    for name, tensor in resumed.state.tensors().items():
        assert torch.equal(tensor, expected[name]), name
    exports = {path.name for path in (tmp_path / "broken" / "checkpoints" / "step-00000008").glob("*.safetensors")}
    assert exports == {"model.safetensors", "ema.safetensors", "adversary.safetensors"}


def test_frames_that_are_kept_fit_the_autoencoder() -> None:
    def lengths(frames: int, strategy: str, ratio: float, stride: int, causal: bool) -> set[int]:
        generator = keyed_generator("frames")
        return {
            frames_to_keep(frames, strategy, ratio, generator, time_stride=stride, causal=causal)  # type: ignore[arg-type]
            for _ in range(200)
        }

    assert lengths(17, "none", 0.0, 4, True) == {17}
    assert lengths(17, "mixed_video_image", 0.5, 4, True) == {1, 17}
    assert lengths(17, "mixed_video_image", 1.0, 4, True) == {1}
    assert lengths(17, "mixed_video_random", 0.0, 4, True) == {1, 5, 9, 13, 17}
    assert lengths(16, "mixed_video_random", 0.0, 4, False) == {1, 4, 8, 12, 16}
    assert lengths(1, "mixed_video_random", 0.0, 4, False) == {1}
    drawn = [
        frames_to_keep(9, "mixed_video_image", 0.2, keyed_generator(i), time_stride=4, causal=True) for i in range(1000)
    ]
    assert drawn.count(1) / 1000 == pytest.approx(0.2, abs=0.05)


def test_every_part_of_the_loss_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with seeded_init(0):
        lpips = Lpips((4, 4, 4, 4, 4))
    monkeypatch.setattr(vae_objective, "load_lpips", lambda source, key: lpips)
    weights = {"kl_loss_weight": 0.1, "opl_loss_weight": 2.0, "logvar_init": 0.3, "perceptual_loss_weight": 0.5}
    (found,) = losses(VaeObjective(recipe(vae_loss=weights), CPU), 0)
    metrics = {name: float(value.detach()) for name, value in found.metrics.items()}
    assert abs(metrics["perceptual"]) > 0.1
    distance = metrics["reconstruction"] + 0.5 * metrics["perceptual"]
    likelihood = distance / 2.718281828**0.3 + 0.3 * 3 * 16 * 16
    expected = likelihood + 0.1 * metrics["kl"] + 2.0 * metrics["outliers"]
    assert float(found.value.detach()) == pytest.approx(expected, rel=1e-5)
