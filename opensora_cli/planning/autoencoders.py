"""Training an autoencoder, and running one over clips."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

from opensora_cli.planning.coded import Coding, latent_size
from opensora_cli.planning.coding import coding
from opensora_cli.planning.estimate import Estimate
from opensora_cli.planning.judges import Judgement, discriminator_pass, lpips_pass
from opensora_cli.planning.modules import Counted
from opensora_cli.planning.optimizers import optimizer_bytes
from opensora_cli.planning.precision import STATE, Device, Precision
from opensora_cli.planning.segments import Peak, Segment, update_peak
from opensora_cli.planning.shapes import ClipShape
from opensora_cli.planning.sharing import Sharing
from schemas.autoencoder import AutoencoderConfig, OpenSoraVAEConfig
from schemas.recipes import VaeSampleRecipe, VaeStatsRecipe, VaeTrainRecipe

ADAMW_MOMENTS = 2 * STATE
"""Of a weight of the discriminator, whose optimizer is always AdamW in fp32."""
SMALLEST = (8, 64, 64)
"""A clip that every judge takes, to count weights with."""


@dataclass(frozen=True)
class AutoencoderTraining:
    """Estimates for a vae-train recipe."""

    recipe: VaeTrainRecipe
    config: AutoencoderConfig
    device: Device
    sharing: Sharing
    counted: Counted

    @cached_property
    def states(self) -> dict[str, int]:
        """Weights, moments and average, and what judges the reconstructions."""
        optim, total, trained = self.recipe.optim, self.counted.total, self._trained
        return {
            "weights": STATE * total // self.sharing.sharding.weights,
            "optimizer": optimizer_bytes(self.recipe, trained, self.device) // self.sharing.optimizer,
            "average (EMA)": STATE * total // self.sharing.average if optim.ema_decay is not None else 0,
            **self._judges,
        }

    @property
    def _trained(self) -> int:
        """Weights that are trained: all, or those of the stage along time alone."""
        frozen = isinstance(self.config, OpenSoraVAEConfig) and self.config.freeze_vae_2d
        return self.counted.total - (self.counted.children["spatial_vae"] if frozen else 0)

    @cached_property
    def _judges(self) -> dict[str, int]:
        """The discriminator with its moments, and LPIPS, where the recipe has them."""
        found = {}
        if (config := self.recipe.discriminator) is not None:
            weights = discriminator_pass(config, STATE, 1, SMALLEST, learns=True).weights
            found["discriminator"] = STATE * weights + ADAMW_MOMENTS * weights // self.sharing.optimizer
        if self.recipe.vae_loss.sees_perception:
            found["LPIPS"] = STATE * lpips_pass(STATE, 1, SMALLEST).weights
        return found

    @property
    def gradients(self) -> int:
        """All gradients, as they are shared out; none where each goes at once."""
        if self.recipe.memory.release_gradients:
            return 0
        return STATE * self._trained // self.sharing.sharding.gradients

    def estimate(self, shape: ClipShape, batch: int) -> Estimate:
        """Return the cost of a batch of clips of a shape."""
        precision = Precision.of(self.recipe.dtype, self.device)
        parts = {
            name: coding(self.config, precision, batch, shape.extent, name, trained=True)
            for name in ("encode", "decode")
        }  # type: dict[str, Coding]
        pixels = 3 * batch * shape.pixels
        segments = [self._segment(name, part, precision) for name, part in parts.items()]
        loss = Segment("the loss", STATE * pixels, 0, False, 0, 0, 2 * STATE * pixels)
        accumulates = self.recipe.optim.accumulation_steps > 1
        releases = self.recipe.memory.release_gradients
        segments += [loss, *self._judging(shape, batch, precision)]
        peak = update_peak(segments, self.sharing.sharding, accumulates=accumulates, releases=releases)
        against, judging = self._learning(shape, batch, precision)
        peak = max(peak, against, key=lambda one: one.total)
        flops = sum(part.flops for part in parts.values()) // batch
        kept = sum(segment.saved for segment in segments)
        return Estimate(
            tokens=prod(latent_size(self.config, shape.extent)),
            forward_flops=flops,
            flops=3 * flops + judging // batch,
            flops_without_recomputing=3 * flops + judging // batch,
            activations=kept,
            activations_without_recomputing=kept,
            peak=peak.total + STATE * pixels,
            moment=peak.moment,
            gradients_at_peak=peak.gradients,
        )

    def _judging(self, shape: ClipShape, batch: int, precision: Precision) -> Iterator[Segment]:
        """Yield what of the autoencoder's loss runs through its judges, whose weights need no gradient here."""
        judges = list(self._passes(shape, batch, precision))
        for number, (name, judge) in enumerate(judges, start=1):
            working = judge.working
            if self.recipe.discriminator is not None and number == len(judges):
                # The adaptive weight goes back through all of them, and keeps what it passes.
                working = max(one.working + 2 * one.widest for _, one in judges)
            yield Segment(name, judge.saved, 0, False, 0, precision.casts * judge.weights, working)

    def _passes(self, shape: ClipShape, batch: int, precision: Precision) -> Iterator[tuple[str, Judgement]]:
        if self.recipe.vae_loss.sees_perception:
            yield "LPIPS", lpips_pass(precision.matrix, batch, shape.extent)
        if (config := self.recipe.discriminator) is not None:
            yield "the discriminator", discriminator_pass(config, precision.matrix, batch, shape.extent, learns=False)

    def _learning(self, shape: ClipShape, batch: int, precision: Precision) -> tuple[Peak, int]:
        """Return the moment at which the discriminator learns, and the FLOPs of all judges.

        It sees real and made clips one after the other, then goes back, while the autoencoder's gradients wait.
        """
        flops = sum(3 * judge.flops // 2 for name, judge in self._passes(shape, batch, precision) if name == "LPIPS")
        if (config := self.recipe.discriminator) is None:
            return Peak(0, 0, 0, 0, "none"), flops
        judge = discriminator_pass(config, precision.matrix, batch, shape.extent, learns=True)
        gradients = self.gradients + STATE * judge.weights
        casts = precision.casts * judge.weights
        activations = 2 * judge.saved + judge.working
        moment = "the discriminator learning"
        peak = Peak(activations + gradients + casts, activations, gradients, casts, moment)
        return peak, flops + 8 * judge.flops  # two clips forward and back; one forward and back to the clip

    def _segment(self, direction: str, part: Coding, precision: Precision) -> Segment:
        names = ("encoder", "quant_conv") if direction == "encode" else ("decoder", "post_quant_conv")
        weights = sum(self.counted.children.get(name, 0) for name in names)
        if isinstance(self.config, OpenSoraVAEConfig):  # each stage has both, of about the same size
            weights = self._trained // 2
        return Segment(f"{direction[:-1]}ing", part.saved, 0, False, weights, precision.casts * weights, part.peak // 2)


@dataclass(frozen=True)
class AutoencoderRun:
    """Estimates for reconstructing clips, or for measuring their latents."""

    recipe: VaeSampleRecipe | VaeStatsRecipe
    config: AutoencoderConfig
    device: Device
    counted: Counted

    @property
    def states(self) -> Mapping[str, int]:
        """The weights, in the recipe's precision."""
        return {"autoencoder": self._precision.matrix * self.counted.total}

    @property
    def gradients(self) -> int:
        """None."""
        return 0

    def estimate(self, shape: ClipShape, batch: int) -> Estimate:
        """Return the cost of a batch of clips of a shape."""
        directions: tuple[Literal["encode", "decode"], ...] = ("encode", "decode")
        used = directions if isinstance(self.recipe, VaeSampleRecipe) else directions[:1]
        parts = [coding(self.config, self._precision, batch, shape.extent, direction) for direction in used]
        flops = sum(part.flops for part in parts) // batch
        largest = max(range(len(parts)), key=lambda index: parts[index].peak)
        return Estimate(
            tokens=prod(latent_size(self.config, shape.extent)),
            forward_flops=flops,
            flops=flops,
            flops_without_recomputing=flops,
            activations=0,
            activations_without_recomputing=0,
            peak=parts[largest].peak + 3 * batch * shape.pixels * (STATE + self._precision.matrix),
            moment=f"{used[largest][:-1]}ing",
            gradients_at_peak=0,
        )

    @property
    def _precision(self) -> Precision:
        return Precision.of(self.recipe.dtype, self.device, autocast=False)
