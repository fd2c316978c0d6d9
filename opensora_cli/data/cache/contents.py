"""What an entry is called: by the content of the clip and what is cut from it, or by the caption.

A clip's content is told by its size and three samples of its bytes, so that naming it costs three short reads and not
the whole file. Moved, copied and touched files keep their names; a replaced, re-encoded or truncated one gets another.
"""

import json
import stat
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from opensora_cli.data.media import UnreadableClip

if TYPE_CHECKING:
    from opensora_cli.data.buckets import Shape
    from opensora_cli.data.dataset import ClipRequest

SAMPLE = 64 * 1024
"""Bytes read at the start, in the middle and at the end of a file; a file of up to three times that is read whole."""
ID_BYTES = 16
_NOT_OF_THE_FRAMES = ("row", "path", "text", "fps")


def clip_content(path: str) -> bytes:
    """Return 16 bytes that tell a file's content: its size, and its first, middle and last 64 KiB.

    An edit that keeps the size and touches none of the three is not noticed; encoders of video do not make such edits.
    Raises UnreadableClip for what is missing or no file.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableClip(path, "not a regular file")
        size = status.st_size
        digest = blake2b(size.to_bytes(8, "little"), digest_size=ID_BYTES)
        with Path(path).open("rb") as file:
            if size <= 3 * SAMPLE:
                digest.update(file.read())
            else:
                for place in (0, (size - SAMPLE) // 2, size - SAMPLE):
                    file.seek(place)
                    digest.update(file.read(SAMPLE))
    except OSError as error:
        raise UnreadableClip(path, error.strerror or str(error)) from error
    return digest.digest()


def latents_id(clip: "ClipRequest", shape: "Shape") -> bytes:
    """Return the name of what a clip's window, cut to a bucket's size, is encoded to. Raises UnreadableClip.

    Everything that a request says of the frames counts, by field, so that a new way to cut clips gives new names.
    """
    window = {name: value for name, value in asdict(clip).items() if name not in _NOT_OF_THE_FRAMES}
    size = (shape.frames, shape.height, shape.width)
    cut = json.dumps([window, size], sort_keys=True).encode()
    return blake2b(cut, digest_size=ID_BYTES, key=clip_content(clip.path)).digest()


def text_id(caption: str) -> bytes:
    """Return the name of a caption's features."""
    return blake2b(caption.encode(), digest_size=ID_BYTES).digest()
