"""The whole main job on made clips, from nothing to an mp4: what `osora demo run` does."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console

from opensora_cli.data.demo_clips import clip_frames, draw_clip, prepare_demo
from opensora_cli.sampling import Pipeline, Request
from opensora_cli.training import run_folder
from opensora_cli.training.job import run_training
from opensora_cli.training.run_folder import RunFolder
from schemas.errors import OsoraError
from schemas.recipes import RunRecipe
from schemas.resolve import resolve

PROMPTS = ("a red circle moves right fast on black", "a blue square moves up slowly on grey")


class DemoStoppedError(OsoraError):
    """A training of the demo was stopped by a signal, and has saved."""


@dataclass(frozen=True)
class DemoFolder:
    """Where the demo keeps things, and the overrides that point the packaged tiny recipes at them."""

    path: Path

    @property
    def vae(self) -> Path:
        """The trained autoencoder."""
        return self.path / "vae.safetensors"

    @property
    def denoiser(self) -> Path:
        """The trained denoiser, averaged."""
        return self.path / "denoiser.safetensors"

    def sets(self, kind: str) -> list[str]:
        """Return `--set` texts for the recipe of that kind."""
        if kind == "sample":
            values = {"model.from_pretrained": self.denoiser, "sampling.save_dir": self.path / "samples"}
        else:
            values = {"outputs": self.path / "runs", "dataset.data_path": self.path / "meta.csv"}
        if kind != "vae-train":
            texts = {f"text.{name}.from_pretrained": self.path / name for name in ("t5", "clip")}
            values |= {"ae.from_pretrained": self.vae, **texts}
        return [f'{key}="{value}"' for key, value in values.items()]


def run_demo(out: Path, clips: int, seed: int, console: Console, sets: Sequence[str] = ()) -> None:
    """Make clips, train the autoencoder and the denoiser of `recipes/tiny`, sample t2v and i2v; all below `out`.

    `sets` are overrides for both trainings. Run again, it goes on where it stopped. Raises DemoStoppedError after a signal.
    """
    folder = DemoFolder(out)
    _say(console, f"$ osora demo prepare --out {out} --clips {clips} --seed {seed}")
    prepare_demo(out, clips=clips, seed=seed)
    _say(console, "$ osora vae-train tiny/vae --resume auto")
    vae = _train("tiny/vae", [*folder.sets("vae-train"), *sets], console)
    shutil.copyfile(_newest(vae) / "model.safetensors", folder.vae)
    _say(console, "$ osora train tiny/train --resume auto")
    denoiser = _train("tiny/train", [*folder.sets("train"), *sets], console)
    shutil.copyfile(_newest(denoiser) / "ema.safetensors", folder.denoiser)

    reference = out / "reference.png"
    number = next(number for number in range(1000) if draw_clip(seed, number).size == (64, 64))
    Image.fromarray(clip_frames(draw_clip(seed, number))[0]).save(reference)
    caption = draw_clip(seed, number).caption
    samples = out / "samples"
    _sample(folder, "t2v", Request(prompts=PROMPTS), samples / "t2v", console)
    _sample(folder, "i2v_head", Request(prompts=(caption,), references=(str(reference),)), samples / "i2v", console)
    _say(console, f"watch the training: tensorboard --logdir {vae.tensorboard.parent.parent}")
    for run in (vae, denoiser):
        _say(console, f"TensorBoard: {run.tensorboard}")


def _train(name: str, sets: list[str], console: Console) -> RunFolder:
    resolved = resolve(name, sets=sets)
    code = run_training(resolved, resume="auto", dry_run=False, console=console)
    if code:
        raise DemoStoppedError("the demo was stopped and has saved; run `osora demo run` again to go on")
    assert isinstance(resolved.recipe, RunRecipe)
    folder = run_folder.find_latest(resolved.recipe)
    assert folder is not None
    return folder


def _newest(run: RunFolder) -> Path:
    return max(run.checkpoints.glob("step-*"))


def _sample(folder: DemoFolder, condition: str, request: Request, save_dir: Path, console: Console) -> None:
    prompts = " ".join(f'--prompt "{prompt}"' for prompt in request.prompts)
    references = "".join(f" --ref {path}" for path in request.references)
    _say(console, f"$ osora sample tiny/sample {prompts} --cond {condition}{references} --save-dir {save_dir}")
    sets = [*folder.sets("sample"), f'sampling.cond_type="{condition}"', f'sampling.save_dir="{save_dir}"']
    Pipeline.from_recipe("tiny/sample", sets=sets, console=console).run(request, overwrite=True)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
