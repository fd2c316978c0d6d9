"""Sizes of pictures by resolution and aspect ratio in Open-Sora 1.x, which were written down and not worked out.

Lines (`240p`, `2k`, `4k`) have 17 ratios, squares (`256`, `512`, ...) have PixArt's 40. A ratio is called after its
height / width as the table has it, `0.56`; people and configs write height:width, `9:16`. `240x426` (height x width) is a
resolution of one size: what Open-Sora 1.0 calls image_size. Sizes are (height, width) in pixels.
Source: Open-Sora 1.2, datasets/aspect.py.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from schemas.data import LENGTHS_1_2, PIXELS_1_2
from schemas.errors import OsoraError

Size = tuple[int, int]

RATIOS: Mapping[str, str] = {
    "3:8": "0.38",
    "9:21": "0.43",
    "12:25": "0.48",
    "1:2": "0.50",
    "9:17": "0.53",
    "27:50": "0.54",
    "9:16": "0.56",
    "5:8": "0.62",
    "2:3": "0.67",
    "3:4": "0.75",
    "1:1": "1.00",
    "4:3": "1.33",
    "3:2": "1.50",
    "16:9": "1.78",
    "17:9": "1.89",
    "2:1": "2.00",
    "50:27": "2.08",
}
"""height:width -> what tables call it. 50:27 is 1.85; the published tables call it 2.08, and have its sizes there."""

_FIXED = re.compile(r"([1-9]\d*)x([1-9]\d*)")
_SCALED = {"512": 2, "1024": 4, "2048": 8}
"""Resolutions that have the sizes of 256 times this."""

# fmt: off
_SIZES = {
    "144p": (
        "117x312 125x291 133x277 135x270 139x262 141x260 144x256 151x241 156x234 166x221 192x192 221x165 235x156 "
        "256x144 263x139 271x135 277x132 "
    ),
    "256": (
        "0.25:128x512 0.26:128x496 0.27:128x480 0.28:128x464 0.32:144x448 0.33:144x432 0.35:144x416 0.4:160x400 "
        "0.42:160x384 0.48:176x368 0.5:176x352 0.52:176x336 0.57:192x336 0.6:192x320 0.68:208x304 0.72:208x288 "
        "0.78:224x288 0.82:224x272 0.88:240x272 0.94:240x256 1.0:256x256 1.07:256x240 1.13:272x240 1.21:272x224 "
        "1.29:288x224 1.38:288x208 1.46:304x208 1.67:320x192 1.75:336x192 2.0:352x176 2.09:368x176 2.4:384x160 "
        "2.5:400x160 2.89:416x144 3.0:432x144 3.11:448x144 3.62:464x128 3.75:480x128 3.88:496x128 4.0:512x128 "
    ),
    "240p": (
        "196x522 210x490 222x462 226x452 232x438 236x436 240x426 252x404 262x393 276x368 320x320 370x278 392x262 "
        "426x240 440x232 452x226 462x222 "
    ),
    "360p": (
        "294x784 314x732 332x692 340x680 350x662 352x652 360x640 380x608 392x588 416x554 480x480 554x416 588x392 "
        "640x360 660x350 678x340 692x332 "
    ),
    "480p": (
        "392x1046 420x980 444x925 452x904 466x880 470x870 480x854 506x810 522x784 554x738 640x640 740x555 784x522 "
        "854x480 880x466 906x454 924x444 "
    ),
    "720p": (
        "588x1568 628x1466 666x1388 678x1356 698x1318 706x1306 720x1280 758x1212 784x1176 832x1110 960x960 "
        "1108x832 1176x784 1280x720 1320x698 1358x680 1386x666 "
    ),
    "1080p": (
        "882x2352 942x2198 998x2080 1018x2036 1048x1980 1058x1958 1080x1920 1138x1820 1176x1764 1248x1664 "
        "1440x1440 1662x1246 1764x1176 1920x1080 1980x1048 2036x1018 2078x998 "
    ),
    "2k": (
        "1176x3136 1256x2930 1330x2770 1358x2716 1398x2640 1412x2612 1440x2560 1518x2428 1568x2352 1662x2216 "
        "1920x1920 2218x1664 2352x1568 2560x1440 2638x1396 2716x1358 2772x1330 "
    ),
    "2880": (
        "0.25:1408x5760 0.26:1408x5568 0.27:1408x5376 0.28:1408x5184 0.32:1600x4992 0.33:1600x4800 0.34:1600x4672 "
        "0.4:1792x4480 0.42:1792x4288 0.47:1920x4096 0.49:1920x3904 0.51:1920x3776 0.55:2112x3840 0.59:2112x3584 "
        "0.68:2304x3392 0.72:2304x3200 0.78:2496x3200 0.83:2496x3008 0.89:2688x3008 0.93:2688x2880 1.0:2880x2880 "
        "1.07:2880x2688 1.12:3008x2688 1.21:3008x2496 1.28:3200x2496 1.39:3200x2304 1.47:3392x2304 1.7:3584x2112 "
        "1.82:3840x2112 2.03:3904x1920 2.13:4096x1920 2.39:4288x1792 2.5:4480x1792 2.92:4672x1600 3.0:4800x1600 "
        "3.12:4992x1600 3.68:5184x1408 3.82:5376x1408 3.95:5568x1408 4.0:5760x1408 "
    ),
    "4k": (
        "0.38:1764x4704 0.43:1886x4400 0.48:1996x4158 0.50:2036x4072 0.53:2096x3960 0.54:2118x3918 0.62:2276x3642 "
        "0.56:2160x3840 0.67:2352x3528 0.75:2494x3326 1.00:2880x2880 1.33:3326x2494 1.50:3528x2352 1.78:3840x2160 "
        "1.89:3958x2096 2.00:4072x2036 2.08:4156x1994 "
    ),
}
# fmt: on
"""Sizes as heightxwidth in the order of their tables; without names of their own they have those of RATIOS."""


def is_fixed(resolution: str) -> bool:
    """Whether a resolution is one size, `256x256`: every clip is brought to it, whatever its own."""
    return _FIXED.fullmatch(resolution) is not None


def pixel_count(resolution: str) -> int:
    """Return the pixels of a resolution. Raises OsoraError for a name that is none."""
    if match := _FIXED.fullmatch(resolution):
        return int(match[1]) * int(match[2])
    if resolution not in PIXELS_1_2:
        raise OsoraError(
            f"resolution {resolution!r}: open-sora-1.2 has {', '.join(PIXELS_1_2)}, and one size as heightxwidth: 256x256."
        )
    return PIXELS_1_2[resolution]


def ratio_value(name: str) -> float:
    """Return height / width of a ratio as tables call it."""
    return float(name)


def aspect_table(resolution: str) -> dict[str, Size]:
    """Return ratio name -> (height, width) in pixels. Raises OsoraError for a name that is no resolution."""
    return dict(_table(resolution))


def get_image_size(resolution: str, ratio: str) -> Size:
    """Return (height, width) of a resolution at a ratio, written height:width. Raises OsoraError naming those there are."""
    table = aspect_table(resolution)
    name = RATIOS.get(ratio)
    if name not in table:
        there = [ratio for ratio, key in RATIOS.items() if key in table]
        raise OsoraError(
            f"aspect ratio {ratio!r}: {resolution} has {', '.join(there) or 'one size'} (height:width). Give height and width "
            "in pixels for any other."
        )
    return table[name]


def frame_count(length: str | int) -> int:
    """Return the frames of a length: a number, or a name such as `4s` or `2x`. Raises OsoraError for anything else."""
    if isinstance(length, int):
        return length
    if length in LENGTHS_1_2:
        return LENGTHS_1_2[length]
    if not (length.isascii() and length.isdecimal()):
        raise OsoraError(f"num_frames {length!r}: a number of frames is expected, or one of {', '.join(LENGTHS_1_2)}.")
    return int(length)


def computed_table(pixels: int) -> dict[str, Size]:
    """Return the sizes that a pixel budget gives: even sides, as many pixels as fit the ratio.

    The stored tables were made so, and differ by a pixel or two where somebody changed them afterwards.
    """
    sizes = {}
    for name in RATIOS:
        height, width = (int(side) for side in name.split(":"))
        ratio = height / width
        lines = _even((pixels * ratio) ** 0.5)
        sizes[f"{ratio:.2f}"] = lines, _even(lines / ratio)
    return sizes


def _even(side: float) -> int:
    """Return the even number nearest to a side; upstream adds 1e-4 so that a rounding error below a whole number is none."""
    whole = int(side + 1e-4)
    return whole + whole % 2


@lru_cache(maxsize=64)
def _table(resolution: str) -> tuple[tuple[str, Size], ...]:
    if match := _FIXED.fullmatch(resolution):
        height, width = int(match[1]), int(match[2])
        return ((f"{height / width:.2f}", (height, width)),)
    pixel_count(resolution)
    times = _SCALED.get(resolution, 1)
    entries = _SIZES[resolution if times == 1 else "256"].split()
    names = [entry.partition(":")[0] for entry in entries] if ":" in entries[0] else list(RATIOS.values())
    sizes = [entry.rpartition(":")[2].split("x") for entry in entries]
    return tuple((name, (int(h) * times, int(w) * times)) for name, (h, w) in zip(names, sizes, strict=True))
