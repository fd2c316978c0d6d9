"""What a run records: metrics.jsonl, boards, the log and the bad samples."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from opensora_cli.files import write_text
from opensora_cli.sampling.saving import write_image
from opensora_cli.training.boards import Board, TensorBoard, WeightsAndBiases
from opensora_cli.training.run_folder import RunFolder
from schemas.errors import OsoraError

_BAD_COLUMNS = ("update", "row", "path", "reason")


class Display(Protocol):
    """What a person watches; the program's terminal side provides it."""

    def update(self, record: Mapping[str, float]) -> None:
        """Show the metrics of one update."""

    def note(self, text: str) -> None:
        """Show a line that stays."""


class Metrics:
    """Write every update to metrics.jsonl and the boards, and lines to the log at an interval."""

    def __init__(
        self,
        folder: RunFolder,
        display: Display,
        *,
        rank: int,
        log_every: int,
        tensorboard: bool,
        wandb_project: str | None = None,
    ) -> None:
        self.folder = folder
        self._display = display
        self._log_every = log_every
        self._use_tensorboard = tensorboard
        self._wandb_project = wandb_project
        self._main = rank == 0
        self.log = folder.log(rank)
        """The log of this process."""
        self._bad_samples = folder.bad_samples(rank)

    def open(self, update: int) -> None:
        """Open the files; what an interrupted run wrote after `update` is dropped, since it will be written again."""
        self._boards = self._open_boards(update) if self._main else []
        _keep_lines(self._bad_samples, lambda line: line.startswith("update") or int(line.split(",")[0]) <= update)
        self.log.parent.mkdir(exist_ok=True)
        self._log = self.log.open("a", encoding="utf-8")
        self._metrics: TextIO | None = None
        if self._main:
            _keep_lines(self.folder.metrics, lambda line: json.loads(line)["step"] <= update)
            _keep_lines(self.folder.validation, lambda line: json.loads(line)["step"] <= update)
            self._metrics = self.folder.metrics.open("a", encoding="utf-8")

    def _open_boards(self, update: int) -> list[Board]:
        boards: list[Board] = []
        if self._wandb_project is not None:  # first: it may refuse
            boards.append(WeightsAndBiases(self._wandb_project, self.folder))
        if self._use_tensorboard:
            boards.append(TensorBoard(self.folder.tensorboard, update))
        return boards

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        if self._metrics is not None:
            self._metrics.close()
        for board in self._boards:
            board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._line(f"stopped: {kind.__name__ if kind else ''}: {error}")
        self.close()

    def write(self, record: Mapping[str, float]) -> None:
        """Record the metrics of one update (`step` among them); what is not finite is null in metrics.jsonl."""
        step = int(record["step"])
        try:
            if self._metrics is not None:
                numbers = {name: value if math.isfinite(value) else None for name, value in record.items()}
                self._metrics.write(json.dumps(numbers) + "\n")
                self._metrics.flush()
        except OSError as error:
            raise OsoraError(f"cannot write {self.folder.metrics}: {error.strerror}") from error
        for board in self._boards:
            board.scalars("train", {name: value for name, value in record.items() if name != "step"}, step)
        if step % self._log_every == 0 or step == 1:
            self._line(" ".join(f"{name} {value:.6g}" for name, value in record.items()))
        self._display.update(record)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Record what held-out clips gave after update `step`, in validation.jsonl, TensorBoard and the log."""
        if not self._main:
            return
        with self.folder.validation.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for board in self._boards:
            board.scalars("validation", values, step)
        facts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.note(f"held-out clips after update {step}: {facts}")

    def picture(self, name: str, picture_HWC: NDArray[np.uint8], step: int) -> None:
        """Show a picture in TensorBoard and its like."""
        for board in self._boards:
            board.picture(name, picture_HWC, step)

    def samples(self, step: int, picture_HWC: NDArray[np.uint8]) -> None:
        """Keep the picture of what the model made after update `step`, as a PNG in the run folder and in TensorBoard."""
        path = write_image(self.folder.samples / f"step-{step:08d}.png", picture_HWC)
        self.picture("samples", picture_HWC, step)
        self.note(f"samples after update {step}: {path}")

    def note(self, text: str) -> None:
        """Put a line into the log and before the person's eyes."""
        self._line(text)
        self._display.note(text)

    def bad(self, update: int, rows: list[tuple[int, str, str]]) -> None:
        """Append clips that could not be read: (row, path, reason)."""
        if not rows:
            return
        new = not self._bad_samples.exists()
        with self._bad_samples.open("a", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            if new:
                table.writerow(_BAD_COLUMNS)
            for row, path, reason in rows:
                table.writerow((update, row, path.replace("\n", " "), " ".join(reason.split())))

    def _line(self, text: str) -> None:
        self._log.write(f"{datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')} {text}\n")
        self._log.flush()


def _keep_lines(path: Path, keep: Callable[[str], bool]) -> None:
    """Rewrite `path` with the lines that `keep` accepts; a last line that was cut off goes too."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(path, "".join(line for line in lines if line.endswith("\n") and keep(line)))
