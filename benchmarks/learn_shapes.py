"""Proof that it learns: from nothing to clips that show what captions say which were never trained on.

    python -m benchmarks.learn_shapes [OUT] [--pictures docs/images] [--threads 2]

Makes clips of moving shapes, a quarter of all combinations of words held out, then runs the public commands with the
recipes `tiny/learn_*`: `vae-train`, `cache`, `train`, `sample`. What was sampled is judged by `benchmarks.shape_measure`,
which knows pixels only. Exit code 1 when a figure is missed or all of it took more than an hour of the processor.
Run again with the same OUT, it goes on after the last step that is done; its seconds count too.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.learn_pictures import Curve, draw_chart, draw_grid, smooth
from benchmarks.shape_clips import FRAMES, held_out_clips, training_clips
from benchmarks.shape_measure import look
from benchmarks.shape_scores import HEADER, WANTED, WANTED_DB, Score, psnr_db, right_words, word_scores
from opensora_cli.data.demo_clips import DemoClip, clip_frames, vocabulary, write_clips
from opensora_cli.data.demo_text import make_tiny_text_encoders
from opensora_cli.data.video import read_clip
from opensora_cli.files import write_text

LIMIT_SECONDS = 3600.0
"""Of the processor: two cores for half an hour."""
SAMPLES = 2
"""For each caption that was held out."""
EARLY = 2
"""Of the captions, the checkpoints before the last are judged on every second."""
SHOWN = 8


class Work:
    """The folder of a run, and which steps are done there."""

    def __init__(self, out: Path, threads: int) -> None:
        self.out = out
        self.threads = threads
        self.notes = out / "steps.json"
        self.steps: dict[str, dict[str, Any]] = json.loads(self.notes.read_text()) if self.notes.exists() else {}

    @property
    def seconds(self) -> float:
        """Seconds of the processor that all steps took."""
        return sum(step["seconds"] for step in self.steps.values())

    @contextmanager
    def step(self, name: str) -> Iterator[bool]:
        """Yield whether the step is still to do; count its seconds, also those of a try that failed."""
        note = self.steps.setdefault(name, {"seconds": 0.0, "done": False})
        if note["done"]:
            yield False
            return
        print(f"== {name}", flush=True)
        before, counted = processor_seconds(), self.seconds
        try:
            yield True
            note["done"] = True
        finally:
            inner = self.seconds - counted  # of steps within this one
            note["seconds"] += processor_seconds() - before - inner
            write_text(self.notes, json.dumps(self.steps, indent=1))

    def osora(self, *arguments: str) -> None:
        """Run a command of osora; stop when it fails."""
        print("$ osora", *arguments, flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        subprocess.run([sys.executable, "-m", "opensora_cli.main", *arguments], check=True, env=environment)

    def sets(self, kind: str) -> list[str]:
        """Return `--set` options that point the packaged recipes at this folder."""
        values = {}
        if kind != "sample":
            values |= {"outputs": self.out / "runs", "dataset.data_path": self.out / "train" / "meta.csv"}
        if kind != "vae-train":
            values |= {f"text.{name}.from_pretrained": self.out / name for name in ("t5", "clip")}
            values |= {"ae.from_pretrained": self.vae}
        return [part for key, value in values.items() for part in ("--set", f'{key}="{value}"')]

    @property
    def vae(self) -> Path:
        """The trained autoencoder."""
        return self.out / "vae.safetensors"

    def run_folder(self, name: str) -> Path:
        """Return the run folder that the recipe `name` was trained in."""
        return max(path.parent for path in (self.out / "runs").glob(f"*-{name}/recipe.lock.toml"))


def processor_seconds() -> float:
    """Return the processor's seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def prepare(work: Work) -> None:
    """Write clips to train on, tiny text encoders, and the prompts that are the test."""
    write_clips(work.out / "train", training_clips())
    make_tiny_text_encoders(work.out, vocabulary(), seed=0)
    write_test(work.out)


def write_test(out: Path) -> None:
    """Write tables of the captions that are held out, and the first frames of their clips."""
    clips = list(enumerate(held_out_clips()))
    (out / "first").mkdir(exist_ok=True)
    for number, clip in clips:
        Image.fromarray(clip_frames(clip)[0]).save(out / "first" / f"{number:02}.png")
    write_prompts(out / "t2v.csv", clips)
    write_prompts(out / "some.csv", clips[::EARLY])
    write_prompts(out / "i2v.csv", clips, images=True)


def write_prompts(path: Path, clips: Sequence[tuple[int, DemoClip]], *, images: bool = False) -> None:
    """Write a table of prompts, named after their numbers; with the first frames of real clips if asked."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["name", "text", *(["ref"] if images else [])])
        table.writeheader()
        for number, clip in clips:
            reference = {"ref": f"first/{number:02}.png"} if images else {}
            table.writerow({"name": f"{number:02}", "text": clip.caption, **reference})


def train(work: Work) -> None:
    """Train both models with the public commands."""
    with work.step("train the autoencoder") as to_do:
        if to_do:
            work.osora("vae-train", "tiny/learn_vae", "--resume", "auto", *work.sets("vae-train"))
            checkpoint = checkpoints(work.run_folder("learn_vae"))[-1]
            shutil.copyfile(checkpoint / "ema.safetensors", work.vae)
    with work.step("cache latents and captions") as to_do:
        if to_do:
            work.osora("cache", "tiny/learn_train", *work.sets("train"))
    with work.step("train the denoiser") as to_do:
        if to_do:
            work.osora("train", "tiny/learn_train", "--resume", "auto", *work.sets("train"))


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(run.glob("checkpoints/step-*"))


def update_of(checkpoint: Path) -> int:
    """Return the number of the update after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def sample(work: Work, checkpoint: Path, name: str, condition: str, prompts: str, samples: int) -> Path:
    """Make clips with a checkpoint's averaged weights; return their folder."""
    folder = work.out / "samples" / name
    with work.step(f"sample {name}") as to_do:
        if to_do:
            place = ["--save-dir", str(folder), "--resume"]
            weights = ["--ema", "--set", f'model.from_pretrained="{checkpoint}"', *work.sets("sample")]
            table = ["--prompts", str(work.out / f"{prompts}.csv"), "--cond", condition]
            work.osora("sample", "tiny/learn_sample", *table, "--num-samples", str(samples), *place, *weights)
    return folder


def read(folder: Path, names: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Return the pictures (T, H, W, 3) of the samples with these names."""
    return [read_clip(str(folder / f"{name}.mkv"), range(FRAMES)).numpy() for name in names]


def judge(work: Work, pictures: Path) -> list[Score]:
    """Sample what was held out with every checkpoint, measure, draw; return the figures of the last one."""
    run, clips = work.run_folder("learn_train"), held_out_clips()
    names = [f"{number:02}" for number in range(len(clips))]
    over_time: list[tuple[int, dict[str, float]]] = []
    for checkpoint in checkpoints(run)[:-1]:
        folder = sample(work, checkpoint, checkpoint.name, "t2v", "some", 1)
        found = right_words(clips[::EARLY], [look(clip) for clip in read(folder, names[::EARLY])])
        over_time.append((update_of(checkpoint), found))
    last = checkpoints(run)[-1]
    made = read(sample(work, last, "t2v", "t2v", "t2v", SAMPLES), [f"{n}{end}" for n in names for end in ("", "_1")])
    captions = [clip for clip in clips for _ in range(SAMPLES)]
    seen = [look(clip) for clip in made]
    moved = read(sample(work, last, "i2v", "i2v_head", "i2v", 1), names)
    over_time.append((update_of(last), right_words(captions, seen)))
    firsts = [psnr_db(clip[0], clip_frames(want)[0]) for clip, want in zip(moved, clips, strict=True)]
    draw(work, pictures, over_time, made[::SAMPLES], moved)
    return [
        *word_scores("t2v", captions, seen),
        Score("i2v first frame", float(np.mean(firsts)), WANTED_DB),
        *word_scores("i2v", clips, [look(clip) for clip in moved]),
    ]


def draw(
    work: Work,
    pictures: Path,
    over_time: Sequence[tuple[int, dict[str, float]]],
    made: Sequence[NDArray[np.uint8]],
    moved: Sequence[NDArray[np.uint8]],
) -> None:
    """Write the pictures of the docs."""
    losses = metric(work.run_folder("learn_train"), "loss")
    curve = Curve("mean of 20 updates", range(20, len(losses) + 20, 20), smooth(losses, 20))
    top = float(np.ceil(10 * np.percentile(curve.ys, 98)) / 10)
    draw_chart(pictures / "learn_loss.png", "Denoiser: training loss", "update", [curve], 0, top)
    steps = [step for step, _ in over_time]
    curves = [Curve(kind, steps, [100 * found[kind] for _, found in over_time]) for kind in WANTED]
    title = "Held-out captions: right, %"
    draw_chart(pictures / "learn_scores.png", title, "update", curves, 0, 100)
    clips: list[DemoClip] = held_out_clips()
    rows = [(31 * number) % len(clips) for number in range(SHOWN)]  # a few of every word
    shown = [(clips[row].caption, made[row]) for row in rows]
    shown += [(f"{clips[row].caption}\n(its first frame was given)", moved[row]) for row in rows[3:5]]
    draw_grid(pictures / "learn_grid.png", shown, range(FRAMES))


def metric(run: Path, name: str) -> list[float]:
    """Return a metric of every update of a run."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[name] for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("learn"))
    parser.add_argument("--pictures", type=Path, help="folder for the pictures (default: OUT/pictures)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = Work(arguments.out, arguments.threads)
    with work.step("make clips") as to_do:
        if to_do:
            prepare(work)
    train(work)
    with work.step("measure"):
        scores = judge(work, arguments.pictures or arguments.out / "pictures")
    print(f"\n{len(training_clips())} combinations trained on, {len(held_out_clips())} held out; figures of those:")
    print(HEADER)
    for score in scores:
        print(score.line())
    in_time = work.seconds <= LIMIT_SECONDS
    for name, step in work.steps.items():
        print(f"     {name:<42}{step['seconds']:8.0f} s")
    print(f"{'ok  ' if in_time else 'FAIL'} {'processor, all of it':<42}{work.seconds:8.0f} s of {LIMIT_SECONDS:.0f}")
    return 0 if in_time and all(score.reached for score in scores) else 1


if __name__ == "__main__":
    sys.exit(main())
