"""Which frames of a generated clip come from references in Open-Sora 1.1 and 1.2, and how much of them may change.

A strategy is text, `loop,reference,reference start,start,length,edit ratio;...`: groups of up to six numbers, of which the
last ones may be left out. A long clip is made in loops, each continuing the one before.
Legend: B batch, C latent channels, T latent frames, H W latent pixels.
Source: Open-Sora 1.2, utils/inference_utils.py and docs/config.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from schemas.condition import ConditionName
from schemas.errors import OsoraError

GROUP = "loop,reference,reference start,start,length,edit ratio"
References = Sequence[Sequence[Tensor] | None]
"""For each sample the latents of its references (C, T, H, W); empty or None for a sample without any."""


class GivenFrames(NamedTuple):
    """Frames of a reference that are put into one loop's clip; starts below 0 count from the end."""

    loop: int = 0
    reference: int = 0
    reference_start: int = 0
    start: int = 0
    length: int = 1
    edit_ratio: float = 0.0
    """0 keeps the frames, 1 makes them anew, in between they are noised and denoised by so much."""


def parse_strategy(text: str | None) -> tuple[GivenFrames, ...]:
    """Return the groups of a strategy; none for an empty text. Raises OsoraError that names the group and the number."""
    if not text:
        return ()
    return tuple(_group(text, number, group) for number, group in enumerate(text.split(";"), 1))


def apply_strategies(
    latent_BCTHW: Tensor,
    references: References,
    strategies: Sequence[str | None],
    loop: int = 0,
    align: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a copy of the latents with the references' frames in their places, and the share to be denoised, (B, T) float32.

    The share is 1 where nothing is given and a group's edit ratio where it is; later groups overwrite earlier ones.
    `align` moves starts to multiples of so many latent frames, which an autoencoder encodes together (5 in Open-Sora 1.2).
    Raises OsoraError, with the sample and the group, for a reference or a frame that is not there.
    """
    placed_BCTHW = latent_BCTHW.clone()
    share_BT = torch.ones(len(latent_BCTHW), latent_BCTHW.shape[2], device=latent_BCTHW.device)
    for sample, (clips, strategy) in enumerate(zip(references, strategies, strict=True)):
        for given in parse_strategy(strategy):
            if given.loop == loop:
                place = f"sample {sample}, mask strategy {strategy!r}"
                _place(placed_BCTHW[sample], share_BT[sample], clips or (), given, align, place)
    return placed_BCTHW, share_BT


def continue_loop(
    references: References,
    strategies: Sequence[str | None],
    latent_BCTHW: Tensor,
    loop: int,
    length: int,
    edit_ratio: float = 0.0,
) -> tuple[list[list[Tensor]], list[str]]:
    """Return references and strategies with the clip of the loop before added: its last frames begin the clip of `loop`.

    `latent_BCTHW` is that clip, decoded and encoded again; `length` counts latent frames.
    """
    longer = [[*(clips or ()), latent] for clips, latent in zip(references, latent_BCTHW, strict=True)]
    groups = (f"{loop},{len(clips) - 1},-{length},0,{length},{edit_ratio}" for clips in longer)
    return longer, [f"{old};{new}" if old else new for old, new in zip(strategies, groups, strict=True)]


def nearest_multiple(value: int, step: int, limit: int) -> int:
    """Return the multiple of `step` nearest to `value`; the lower one of two, and none behind the last step before `limit`."""
    steps, rest = divmod(value, step)
    return (steps + (rest > step / 2 and steps < limit // step - 1)) * step


def chunk_frames(latent_frames: int) -> int:
    """Return the frames of whole chunks of Open-Sora 1.2's autoencoder: 5 latent frames are 17. Raises ValueError."""
    if latent_frames % 5:
        raise ValueError(
            f"{latent_frames} latent frames: whole chunks are multiples of 5. Use {latent_frames // 5 * 5}"
        )
    return latent_frames // 5 * 17


def strategy_of(name: ConditionName, latent_frames: int, given_frames: int) -> str:
    """Return the strategy that gives what a condition names, of references with `given_frames` latent frames each.

    Heads come from the front of the first reference, tails from the end of the last one. An image is given none.
    Raises ValueError when the clip has fewer latent frames than the condition gives.
    """
    if name == "t2v" or latent_frames == 1:
        return ""
    if given_frames > latent_frames:
        raise ValueError(f"{name} gives {given_frames} latent frames, but the clip has only {latent_frames}")
    head = f"0,0,0,0,{given_frames}"
    if "head" in name:
        return head
    tail = f"0,{int(name == 'i2v_loop')},-{given_frames},-{given_frames},{given_frames}"
    return tail if "tail" in name else f"{head};{tail}"


def _group(text: str, number: int, group: str) -> GivenFrames:
    names = GROUP.split(",")
    parts = group.split(",")
    where = f"mask strategy {text!r}, group {number}"
    if len(parts) > len(names):
        raise OsoraError(f"{where} has {len(parts)} numbers; at most six are expected: {GROUP}.")
    values: list[float] = []
    for name, part in zip(names, parts, strict=False):
        whole = name != "edit ratio"
        try:
            values.append(int(part) if whole else float(part))
        except ValueError as error:
            kind = "a whole number" if whole else "a number"
            raise OsoraError(f"{where}: {name} is {part.strip()!r}; {kind} is expected. A group is {GROUP}.") from error
    given = GivenFrames(*values)
    if given.loop < 0 or given.reference < 0 or given.length < 1 or not 0 <= given.edit_ratio <= 1:
        raise OsoraError(
            f"{where} ({group}): loop and reference count from 0, length from 1, and the edit ratio lies between 0 and 1."
        )
    return given


def _place(
    clip_CTHW: Tensor, share_T: Tensor, clips: Sequence[Tensor], given: GivenFrames, align: int | None, place: str
) -> None:
    """Copy a group's frames into a clip and mark them."""
    if given.reference >= len(clips):
        raise OsoraError(f"{place}: there is no reference {given.reference}; the sample has {len(clips)}, from 0.")
    clip = clips[given.reference]
    there = _start("reference start", given.reference_start, clip.shape[1], align, place)
    start = _start("start", given.start, len(share_T), align, place)
    length = min(given.length, len(share_T) - start, clip.shape[1] - there)
    clip_CTHW[:, start : start + length] = clip[:, there : there + length]
    share_T[start : start + length] = given.edit_ratio


def _start(name: str, start: int, frames: int, align: int | None, place: str) -> int:
    """Return a start as a frame's number, aligned. Raises OsoraError for one outside of the frames."""
    number = start + frames if start < 0 else start
    if align is not None:
        number = nearest_multiple(number, align, frames)
    if not 0 <= number < frames:
        raise OsoraError(
            f"{place}: {name} is {start}, but there are {frames} latent frames. Use -{frames} to {frames - 1}."
        )
    return number
