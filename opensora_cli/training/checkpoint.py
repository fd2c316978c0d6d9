"""Checkpoints that are complete or absent.

A checkpoint is a folder `step-00000200`: `state/` holds fp32 weights, optimizer and average as safetensors, which
PyTorch's distributed checkpoint reads (no pickle anywhere), `model.safetensors`, `ema.safetensors` and, of adversarial training,
`adversary.safetensors` are exports under upstream's key names in the recipe's precision, `progress.json` says where in
the data the run stood, and `manifest.json` has the size and checksum of every file. It is written under a hidden name
and renamed when everything is on disk.
"""

import json
import shutil
import threading
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from opensora_cli.data.position import START, Position
from opensora_cli.distributed.layout import Layout
from opensora_cli.distributed.process import Process
from opensora_cli.files import sync_folder
from opensora_cli.training.checkpoint_manifest import damages, is_whole, write_manifest
from opensora_cli.training.ema import Ema
from opensora_cli.training.optim import Optimizer
from opensora_cli.training.portions import portions
from opensora_cli.training.staging import Copy, Staging
from opensora_models.adapter import save_adapter
from opensora_models.lora import AdapterConfig, adapter_of
from opensora_models.weights import save_weights
from schemas.checkpoint import CheckpointConfig
from schemas.errors import OsoraError

FORMAT = 3
STATE = "state.safetensors"
EXPORTS = ("model", "ema", "adversary")
"""Parts of the state that a checkpoint also has as weights of their own."""
ADAPTERS = {"model": "adapter", "ema": "adapter_ema"}
"""The folders, in peft's format, that it has instead where adapters are trained."""
_PORTION = 2**29
"""Numbers that a process reads at once of which it keeps only its part."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come: updates done, those of them that were left out, and the place in the data."""

    update: int = 0
    position: Position = START
    skipped: int = 0
    skipped_in_a_row: int = 0


@dataclass
class Trained:
    """A module and the optimizer that trains it."""

    module: nn.Module
    optimizer: Optimizer


@dataclass
class TrainState(Trained):
    """Everything that training changes."""

    ema: Ema | None
    adversary: Trained | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under one flat name; they are the live ones, so loading in place restores them."""
        parts = {"model": _trained(self.module), "optim": self.optimizer.state_dict()}
        if self.ema is not None:
            parts["ema"] = self.ema.state_dict()
        if self.adversary is not None:
            parts["adversary"] = _trained(self.adversary.module)
            parts["adversary_optim"] = self.adversary.optimizer.state_dict()
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    def buffers(self) -> set[str]:
        """Return the names of those that a forward pass changes: statistics of a batch norm, say."""
        modules = {"model": self.module} | ({"adversary": self.adversary.module} if self.adversary else {})
        return {
            f"{part}.{name}"
            for part, module in modules.items()
            for name, _ in module.named_buffers(remove_duplicate=False)
        }


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state; beside adapters without the frozen weights, which come from the recipe again."""
    if not hasattr(module, "adapter_config"):
        return module.state_dict()
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


class Checkpoints:
    """The folder `checkpoints/` of one run."""

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        export_dtype: torch.dtype,
        process: Process | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.process = process or Process(0, 1, torch.device("cpu"))
        self.layout = layout or Layout()
        self.export_dtype = export_dtype
        self._staging = Staging(self.process.device, keep=config.async_save)
        self._copy: Copy | None = None
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None
        # A single process saves for itself; PyTorch warns that it assumed so.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    def save(self, progress: Progress, state: TrainState) -> None:
        """Begin to copy the state to the main process's host memory and to write it out from there.

        With `async_save` this returns before the copy is made: nothing may change the state before `await_copy`, but for
        the buffers, which forward passes change. Parts of tensors are put together here, where all processes take part.
        """
        self.wait()
        buffers = state.buffers()
        for name, tensor in state.tensors().items():
            whole = self.layout.whole(name, tensor.detach())
            if not self.process.is_main:
                continue
            if name not in buffers and self.layout.holds_all(name, tensor):
                self._staging.add_later(name, whole)
            else:
                self._staging.add(name, whole)
        if not self.process.is_main:
            return
        self._copy = self._staging.begin()
        job = (progress, self._copy, buffers, getattr(state.module, "adapter_config", None))
        self._writer = threading.Thread(target=self._write, args=job, name="checkpoint")
        self._writer.start()
        if not self.config.async_save:
            self.wait()

    def await_copy(self) -> None:
        """Wait until the last save has its copy of the state, which may change from then on; it is not on disk yet.

        On CUDA it is the current stream that waits.
        """
        if self._copy is not None:
            self._copy.wait()

    def wait(self) -> None:
        """Wait until the last save is on disk; raise OsoraError if it failed."""
        if self._writer is not None:
            self._writer.join()
            self._writer = self._copy = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            last = self.latest()
            kept = f"The last complete checkpoint is {last}." if last else "No checkpoint is complete yet."
            raise OsoraError(
                f"cannot save a checkpoint below {self.folder}: {_reason(failure)}. {kept} Free some space, lower "
                "checkpoint.keep_n_latest or choose another `outputs`, then resume with --resume auto."
            ) from failure

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        complete = self.complete()
        return complete[-1] if complete else None

    def complete(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return complete_checkpoints(self.folder)

    def load(self, checkpoint: Path, state: TrainState) -> Progress:
        """Restore `state` in place and return where the run stood.

        Raises OsoraError for a damaged checkpoint, with the one before it that is whole; which of them a run goes on from
        is for its owner to decide.
        """
        if damage := next(damages(checkpoint), None):
            raise OsoraError(f"cannot resume from {checkpoint}: {damage}. {self._way_out(checkpoint)}")
        self.await_copy()
        try:
            progress = _read_progress(json.loads((checkpoint / "progress.json").read_text()))
            self._read(checkpoint / "state", state.tensors())
            return progress
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, CheckpointException) as error:
            raise OsoraError(
                f"cannot resume from {checkpoint}: {_reason(error)}. {self._way_out(checkpoint)}"
            ) from error

    def _way_out(self, checkpoint: Path) -> str:
        before = [path for path in self.complete() if path.name < checkpoint.name and is_whole(path)]
        if not before:
            return "No checkpoint before it is whole: start a new run, without --resume."
        return (
            f"The one before it, {before[-1].name}, is whole: to go on from there, remove what is damaged with "
            f"`osora ckpt prune {self.folder.parent} --damaged` and resume again."
        )

    def _read(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Fill tensors in place. Of those that this process has a part of, the whole is read, a few GB at a time."""
        parts = {name: tensor for name, tensor in tensors.items() if not self.layout.holds_all(name, tensor)}
        direct = {name: tensor for name, tensor in tensors.items() if name not in parts}
        dcp_load(direct, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
        sizes = {name: self.layout.whole_shape(name, tensor).numel() for name, tensor in parts.items()}
        for names in portions(sizes, _PORTION):
            wholes = {
                name: torch.empty(self.layout.whole_shape(name, parts[name]), dtype=parts[name].dtype) for name in names
            }
            dcp_load(wholes, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
            for name, whole in wholes.items():
                self.layout.take(name, parts[name], whole)

    def clear_leftovers(self) -> None:
        """Remove what an interrupted save or removal left behind."""
        if not self.process.is_main:
            return
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    def _write(self, progress: Progress, copy: Copy, buffers: set[str], adapter: AdapterConfig | None) -> None:
        name = f"step-{progress.update:08d}"
        partial = self.folder / f".{name}.partial"
        try:
            staged = copy.finish()
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "state").mkdir(parents=True)
            save_weights(staged, partial / "state" / STATE)
            for part in EXPORTS:
                weights = {
                    name.removeprefix(f"{part}."): t for name, t in staged.items() if name.startswith(f"{part}.")
                }
                if weights and adapter is not None:
                    save_adapter(adapter_of(weights, adapter), partial / ADAPTERS[part])
                elif weights:
                    if part == "ema":  # averages are of parameters; weights to load have the buffers too
                        own = [key for key in staged if key in buffers and key.startswith("model.")]
                        weights |= {key.removeprefix("model."): staged[key] for key in own}
                    save_weights(self._exported(weights), partial / f"{part}.safetensors")
            (partial / "progress.json").write_text(json.dumps({"format": FORMAT, **asdict(progress)}))
            write_manifest(partial)
            sync_folder(partial)
            final = self.folder / name
            if final.exists():
                remove_checkpoint(final)
            partial.rename(final)
            for old in self.complete()[: -self.config.keep_n_latest]:
                remove_checkpoint(old)
        except (OSError, RuntimeError, SafetensorError, OsoraError, CheckpointException) as error:
            shutil.rmtree(partial, ignore_errors=True)
            self._failure = error

    def _exported(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.to(self.export_dtype) if t.is_floating_point() else t for name, t in weights.items()}


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a run's folder of them, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint; stopped half-way, what is left is hidden and never taken for one."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.removing")
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)


def _read_progress(record: dict[str, Any]) -> Progress:
    if record["format"] != FORMAT:
        raise ValueError(f"its format is {record['format']}, this version of osora reads format {FORMAT}")
    position = dict(record["position"])
    before = tuple((int(ranks), int(steps)) for ranks, steps in position.pop("before"))
    skipped = {name: int(record.get(name, 0)) for name in ("skipped", "skipped_in_a_row")}
    return Progress(record["update"], Position(**position, before=before), **skipped)


def _reason(error: BaseException) -> str:
    """Return what went wrong in a line; a distributed checkpoint's exception holds the ranks' own ones."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())
