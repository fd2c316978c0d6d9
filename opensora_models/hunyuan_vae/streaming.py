"""The layers of the causal autoencoder on clips in parts of a few frames each: what encoding and decoding use.

A layer is a generator that takes parts and yields parts. Convolutions keep the last frames that they need of the part
before, so that cutting changes nothing. A group norm needs statistics of the whole clip: by default it waits for all parts,
so that results are those of `forward`, and a resolution's features are in memory twice at most (the shortcut and the branch).
With `so_far`, it takes the statistics of the parts up to now and waits for nothing: memory does not grow with the clip.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from opensora_models.hunyuan_vae.blocks import CausalConv3d, DownBlock, MidBlock, ResnetBlock, UpBlock, Upsample
from opensora_models.hunyuan_vae.coders import Decoder, Encoder
from opensora_models.hunyuan_vae.norm_statistics import Statistics, silu_of_affine

Parts = Iterator[Tensor]
Place = Callable[[Tensor], None]
PART_BYTES = 8 * 2**20
"""About as large as a part is cut where nothing else decides: convolutions are no slower, and their borders are small."""
TIME = 2


def cut(x_BCTHW: Tensor, frames: int | None = None, frame_bytes: int | None = None) -> Parts:
    """Yield parts of so many frames, by default as many as make PART_BYTES of frames of `frame_bytes` (or of their own)."""
    if frames is None:
        frames = _frames_of_a_part(frame_bytes or x_BCTHW[:, :, 0].nbytes)
    for part in x_BCTHW.split(frames, TIME):
        yield part.contiguous(memory_format=torch.channels_last_3d)


def _frames_of_a_part(frame_bytes: int) -> int:
    return max(1, PART_BYTES // frame_bytes)


def drained(parts: deque[Tensor]) -> Parts:
    """Yield the parts, and let go of each."""
    while parts:
        yield parts.popleft()


def encode_parts(encoder: Encoder, x_BCTHW: Tensor, frames: int | None) -> Tensor:
    """Return what `encoder` returns; with `frames`, coded so many at a time, with the norms of the frames so far.

    Behind the pyramid, the clip is small and whole.
    """
    so_far = frames is not None
    wide = encoder.conv_in.conv.out_channels * x_BCTHW[:, :1, 0].nbytes
    parts = convolved(encoder.conv_in, copied(cut(x_BCTHW, frames, wide)))
    for block in encoder.down_blocks:
        parts = down_block(block, parts, so_far)
    middle = mid_block(encoder.mid_block, torch.cat(list(parts), TIME))
    return torch.cat(list(closing(encoder.conv_norm_out, encoder.conv_out, cut(middle), so_far=False)), TIME)


def decode_parts(decoder: Decoder, z_BCTHW: Tensor, frames: int | None) -> Parts:
    """Yield the pixels that `decoder` makes of latents; with `frames`, of so many latent frames at a time, as in encoding."""
    so_far = frames is not None
    middle = mid_block(decoder.mid_block, torch.cat(list(convolved(decoder.conv_in, copied(cut(z_BCTHW)))), TIME))
    parts = cut(middle, frames)
    del middle
    for block in decoder.up_blocks:
        parts = up_block(block, parts, so_far)
    return closing(decoder.conv_norm_out, decoder.conv_out, parts, so_far)


def mid_block(block: MidBlock, x_BCTHW: Tensor) -> Tensor:
    """Go through the middle; the attention, and the group norms of the middle, always see the whole clip."""
    x_BCTHW = torch.cat(list(resnet(block.resnets[0], cut(x_BCTHW), so_far=False)), TIME)
    for attention in block.attentions:
        x_BCTHW = attention(x_BCTHW)
    return torch.cat(list(resnet(block.resnets[1], cut(x_BCTHW), so_far=False)), TIME)


def down_block(block: DownBlock, parts: Parts, so_far: bool) -> Parts:
    """Go through the residual blocks of one resolution and its step."""
    for one in block.resnets:
        parts = resnet(one, parts, so_far)
    for step in block.downsamplers:
        parts = convolved(step.conv, copied(parts))
    return parts


def up_block(block: UpBlock, parts: Parts, so_far: bool) -> Parts:
    """Go through the residual blocks of one resolution and its step."""
    for one in block.resnets:
        parts = resnet(one, parts, so_far)
    for step in block.upsamplers:
        parts = convolved(step.conv, enlarged(step, parts, so_far))
    return parts


def resnet(block: ResnetBlock, parts: Parts, so_far: bool) -> Parts:
    """Go through a residual block; the shortcut's parts wait for those of the branch, behind its convolution or before it.

    They wait where they are smaller: a block that makes features narrower then holds no more than two of the narrow kind.
    """
    narrows = block.norm1.num_channels > block.norm2.num_channels
    waiting: deque[Tensor] = deque()

    def keep(part: Tensor) -> None:
        waiting.append(block.conv_shortcut(part) if narrows else part)

    hidden = convolved(block.conv1, normed(block.norm1, parts, so_far, keep))
    for part in convolved(block.conv2, normed(block.norm2, hidden, so_far)):
        short = waiting.popleft()
        part.add_(short if narrows or isinstance(block.conv_shortcut, nn.Identity) else block.conv_shortcut(short))
        del short
        yield part


def closing(norm: nn.GroupNorm, conv: CausalConv3d, parts: Parts, so_far: bool) -> Parts:
    """Norm, activation and the last convolution."""
    return convolved(conv, normed(norm, parts, so_far))


Placed = tuple[torch.Size, torch.dtype, torch.device, Place]
"""A part that is yet to be written: its size, what it is made of, and what writes it to a tensor of that size."""


def copied(parts: Iterable[Tensor]) -> Iterator[Placed]:
    """Offer parts as they are."""
    for part in parts:
        yield part.shape, part.dtype, part.device, lambda out, part=part: out.copy_(part)


def normed(norm: nn.GroupNorm, parts: Iterable[Tensor], so_far: bool, keep: Place | None = None) -> Iterator[Placed]:
    """Offer parts behind norm and activation; `keep` is called with the parts themselves."""
    statistics = Statistics()
    if not so_far:
        whole: deque[Tensor] = deque()
        for part in parts:
            statistics.add(part)
            whole.append(part)
        parts = drained(whole)
    for part in parts:
        if so_far:
            statistics.add(part)
        if keep is not None:
            keep(part)
        affine = statistics.affine(norm)
        yield (
            part.shape,
            part.dtype,
            part.device,
            lambda out, part=part, affine=affine: silu_of_affine(part, affine, out),
        )
        del part


def enlarged(step: Upsample, parts: Iterable[Tensor], whole_parts: bool) -> Iterator[Placed]:
    """Offer parts whose pixels are repeated; so are the frames, but for the clip's first. Large ones are cut again."""
    time, height, width = step.strides
    first = time > 1
    for part in parts:
        batch, channels, frames, rows, columns = part.shape
        enlarged_bytes = time * height * width * part[:, :, 0].nbytes
        for piece in part.split(frames if whole_parts else _frames_of_a_part(enlarged_bytes), TIME):
            made = time * piece.shape[TIME] - (time - 1) * first

            def place(out: Tensor, piece: Tensor = piece, first: bool = first) -> None:
                if first:
                    _repeat(piece[:, :, :1], out[:, :, :1], (1, height, width))
                    out, piece = out[:, :, 1:], piece[:, :, 1:]
                _repeat(piece, out, (time, height, width))

            yield torch.Size((batch, channels, made, height * rows, width * columns)), part.dtype, part.device, place
            first = False
            del piece, place
        del part


def _repeat(part: Tensor, out: Tensor, strides: tuple[int, int, int]) -> None:
    time, height, width = strides
    for frame in range(time):
        for row in range(height):
            for column in range(width):
                out[:, :, frame::time, row::height, column::width].copy_(part)


def convolved(conv: CausalConv3d, parts: Iterable[Placed]) -> Parts:
    """Convolve parts as if they were joined: borders repeat, and the frames that the next part needs are kept."""
    side, past, stride = conv.padding[0], conv.padding[4], conv.conv.stride[0]
    padded: Tensor | None = None
    used = 0  # frames of `padded` that no later part needs
    for (batch, channels, frames, rows, columns), dtype, device, place in parts:
        kept = past if padded is None else padded.shape[TIME] - used
        size = torch.Size((batch, channels, kept + frames, rows + 2 * side, columns + 2 * side))
        first = padded is None
        padded = _moved_on(padded, used, size, dtype, device)
        fresh = padded[:, :, kept:]
        place(fresh[..., side : side + rows, side : side + columns])
        del place
        _repeat_border(fresh, side)
        if first and past:
            padded[:, :, :past] = fresh[:, :, :1]
        del fresh
        made = (kept + frames - past - 1) // stride + 1
        used = made * stride
        out = conv.conv(padded) if made else None
        if padded.shape[TIME] > 2 * (padded.shape[TIME] - used):  # of a large part, keep only what is needed
            padded, used = padded[:, :, used:].clone(), 0
        if out is not None:
            yield out
            del out


def _moved_on(padded: Tensor | None, used: int, size: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of `size` that begins with what is left of `padded`: itself where the size is the same."""
    left = None if padded is None else padded[:, :, used:]
    if padded is None or padded.shape != size:
        new = torch.empty(size, dtype=dtype, device=device, memory_format=torch.channels_last_3d)
    else:
        new = padded
        left = left.clone() if left is not None and left.shape[TIME] > used else left  # else they would overlap
    if left is not None:
        new[:, :, : left.shape[TIME]] = left
    return new


def _repeat_border(x_BCTHW: Tensor, side: int) -> None:
    for edge in range(side):
        x_BCTHW[..., edge, :] = x_BCTHW[..., side, :]
        x_BCTHW[..., -1 - edge, :] = x_BCTHW[..., -1 - side, :]
    for edge in range(side):
        x_BCTHW[..., edge] = x_BCTHW[..., side]
        x_BCTHW[..., -1 - edge] = x_BCTHW[..., -1 - side]
