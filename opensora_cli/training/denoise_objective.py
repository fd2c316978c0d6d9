"""Training a denoiser: what all families have in common, which is everything but their inputs and their loss.

Legend: B batch, C latent channels, M moments, T latent frames, H W latent pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from opensora_cli.data.cache.inputs import CachedInputs
from opensora_cli.data.loader import Batch
from opensora_cli.distributed.colossal import shard_t5
from opensora_cli.distributed.process import DTYPES
from opensora_cli.frozen import frozen_autoencoder
from opensora_cli.training.clock import DeviceClock
from opensora_cli.training.draws import Draws
from opensora_cli.training.objective import Adversary, Loss
from opensora_cli.training.trained_denoiser import trained_denoiser
from opensora_models.build import Autoencoder, build_text_encoders
from opensora_models.float8_training import train_in_float8
from opensora_models.layers.recompute import Recompute
from opensora_models.lora import set_dropout_key
from opensora_models.text.features import TextFeatures
from schemas.recipes import TrainRecipe

if TYPE_CHECKING:
    from opensora_models.text.encoders import TextEncoders

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """What frozen models make of a batch, and what else does not depend on the time: clean `latents` (B, C, T, H, W), the
    `text`, and by name what the family's denoiser is `given` beside them, batch first.
    """

    latents: Tensor
    text: TextFeatures
    given: Tensors

    def to(self, device: torch.device) -> "Encoded":
        """Return it on a device."""
        given = {name: tensor.to(device) for name, tensor in self.given.items()}
        return Encoded(self.latents.to(device), self.text.to(device), given)


@dataclass(frozen=True)
class Noised:
    """A batch at times of its own: the denoiser's `inputs`, and the `truth` that its answer is compared with; batch first."""

    inputs: Tensors
    truth: Tensors

    def __len__(self) -> int:
        return len(next(iter(self.truth.values())))

    def part(self, rows: slice) -> "Noised":
        """Return some of its items."""
        inputs, truth = ({name: tensor[rows] for name, tensor in some.items()} for some in (self.inputs, self.truth))
        return Noised(inputs, truth)


class DenoiserObjective(ABC):
    """A trained denoiser beside a frozen autoencoder and frozen text encoders."""

    adversary: Adversary | None = None

    def __init__(self, recipe: TrainRecipe, device: torch.device, cached: CachedInputs | None = None) -> None:
        self.recipe = recipe
        self.device = device
        self.encoding: DeviceClock | None = DeviceClock(device)
        module = trained_denoiser(recipe, device)
        self.module: nn.Module = module.train()
        memory = recipe.memory
        if memory.fp8_linear:
            train_in_float8(self.module, device)
        if memory.grad_checkpoint:
            module.set_grad_checkpointing(*memory.grad_ckpt_settings, memory.grad_ckpt_every, Recompute.of(memory))
        self.ae = self._frozen_autoencoder(device if recipe.dataset.encodes_clips else torch.device("meta"))
        self.text: TextEncoders | None = None
        if recipe.dataset.encodes_text:
            self.text = self._text_encoders()
            if recipe.parallel.engine == "colossalai" and recipe.text.t5.shardformer and self.text.t5 is not None:
                self.text.t5.model = shard_t5(self.text.t5.model)
        self._cached_text = cached if cached and cached.text else None
        self._counts_hits = cached is not None and cached.encode_misses

    @abstractmethod
    def draw_times(self, draws: Draws, encoded: Encoded) -> Tensor:
        """Draw the time of every item, (B,) on the device."""

    @abstractmethod
    def fixed_times(self, share: float, batch: int) -> Tensor:
        """Return the time at a share of the way from data (0) to noise (1), (B,) on the device."""

    @abstractmethod
    def encode(self, batch: Batch, draws: Draws, *, drop_captions: bool = True) -> Encoded:
        """Return what does not depend on the time; captions are left out as often as the recipe says, or never."""

    @abstractmethod
    def noised(self, encoded: Encoded, t_B: Tensor, draws: Draws) -> Noised:
        """Return a batch at the times `t_B`."""

    @abstractmethod
    def judge(self, out: Tensor, truth: Tensors) -> Tensor:
        """Return the loss of the denoiser's answer, a scalar: the mean over the items."""

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Yield the denoiser's loss; see `Objective`."""
        noised = self._prepare(batch, draws)
        yield Loss(self.judge(self.module(**noised.inputs), noised.truth), self._hits(batch))

    def losses_in_parts(self, batch: Batch, draws: Draws, parts: int) -> Iterator[Loss]:
        """Yield the same loss as shares of it, one for so many parts of the batch; together they are the whole."""
        noised = self._prepare(batch, draws)
        metrics = self._hits(batch)
        for rows in torch.arange(len(noised)).tensor_split(parts):
            part = noised.part(slice(int(rows[0]), int(rows[-1]) + 1))
            share = len(rows) / len(noised)
            yield Loss(share * self.judge(self.module(**part.inputs), part.truth), metrics)
            metrics = {}

    def prepare(self, batch: Batch, draws: Draws) -> Noised:
        """Return a batch as the denoiser sees it, all on the device."""
        assert self.encoding is not None
        with self.encoding.running():
            encoded = self.encode(batch, draws)
        return self.noised(encoded, self.draw_times(draws, encoded), draws)

    def features(self, captions: list[str]) -> TextFeatures:
        """Return what the text encoders make of captions."""
        assert self.text is not None, "captions are cached, and this batch came without their features"
        return self.text(captions).to(self.device)

    @contextmanager
    def with_autoencoder(self) -> Iterator[None]:
        """Have the autoencoder's weights inside, also where a run from caches goes without them."""
        kept = self.ae
        if next(self.ae.parameters()).is_meta:
            self.ae = self._frozen_autoencoder(self.device)
        try:
            yield
        finally:
            self.ae = kept

    @contextmanager
    def with_text_encoders(self) -> Iterator[None]:
        """Have the text encoders inside, also where a run from caches goes without them."""
        kept = self.text
        if self.text is None:
            self.text = self._text_encoders()
        try:
            yield
        finally:
            self.text = kept

    def _prepare(self, batch: Batch, draws: Draws) -> Noised:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            noised = self.prepare(batch, draws)
        set_dropout_key(self.module, draws.generator("adapter dropout").initial_seed())
        return noised

    def _text_encoders(self) -> "TextEncoders":
        recipe = self.recipe
        return build_text_encoders(recipe.text, recipe.model.texts, DTYPES[recipe.dtype], self.device)

    def _frozen_autoencoder(self, device: torch.device) -> Autoencoder:
        recipe = self.recipe
        return frozen_autoencoder(
            recipe.ae, recipe.ae.from_pretrained, seed=recipe.seed, dtype=DTYPES[recipe.dtype], device=device
        )

    def _empty_caption(self) -> TextFeatures:
        if self._cached_text is not None:
            return self._cached_text.captions([""]).to(self.device)
        return self.features([""])

    def _pixels(self, batch: Batch) -> Tensor:
        return batch.video.to(DTYPES[self.recipe.dtype])

    def _moments(self, x_BCTHW: Tensor) -> Tensor:
        """Encode clips; where memory runs out and the recipe allows it, each half by itself. Nothing is drawn here."""
        try:
            return self.ae.moments(x_BCTHW)
        except torch.OutOfMemoryError:
            if not self.recipe.memory.split_on_oom or len(x_BCTHW) == 1:
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return torch.cat([self._moments(half_BCTHW) for half_BCTHW in x_BCTHW.tensor_split(2)])

    def _hits(self, batch: Batch) -> dict[str, Tensor]:
        """Return how much of the batch came from caches, where the rest is encoded: a run shows what it does."""
        if not self._counts_hits:
            return {}
        parts = {"latents_cached": batch.latents, "text_cached": batch.features}
        return {name: torch.tensor(float(part is not None), device=self.device) for name, part in parts.items()}
