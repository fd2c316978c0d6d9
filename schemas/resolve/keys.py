"""Dotted keys: how a path through tables is written, read and shown."""

import re
import tomllib

Path = tuple[str | int, ...]
"""Names of tables and keys from the top; an int is an index into an array."""

BARE = re.compile(r"[A-Za-z0-9_-]+")
SPACE = re.compile(r"[ \t]*")
QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'")


class KeySyntaxError(ValueError):
    """A dotted key that TOML would not read; `offset` is where reading stopped."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"not a TOML key at character {offset + 1}")
        self.offset = offset


def read_key(text: str, start: int) -> tuple[list[tuple[str, int, int]], int]:
    """Read a dotted key at `start`.

    Returns its parts as (name, start, end), and the offset of what follows it and its spaces. Raises KeySyntaxError.
    """
    parts = []
    while True:
        start = _skip(text, start)
        match = BARE.match(text, start) or QUOTED.match(text, start)
        if match is None:
            raise KeySyntaxError(start)
        parts.append((_unquote(match.group(), start), match.start(), match.end()))
        start = _skip(text, match.end())
        if not text.startswith(".", start):
            return parts, start
        start += 1


def parse_key(text: str) -> tuple[str, ...]:
    """Return the path that a complete dotted key names, such as `buckets."256px".33`. Raises KeySyntaxError."""
    parts, end = read_key(text, 0)
    if end != len(text):
        raise KeySyntaxError(end)
    return tuple(name for name, _, _ in parts)


def show_key(path: Path) -> str:
    """Write a path as a dotted key, quoting what TOML would not read bare, and array indices in brackets."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else ("." if shown else "") + show_part(part)
    return shown


def show_part(name: str) -> str:
    """Write one name bare where TOML allows it, else quoted."""
    return name if BARE.fullmatch(name) else quote(name)


def quote(text: str) -> str:
    """Write a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char >= " " and char != "\x7f" else f"\\u{ord(char):04x}" for char in escaped) + '"'


def _unquote(raw: str, start: int) -> str:
    if raw[0] not in "\"'":
        return raw
    if raw[0] == "'" or "\\" not in raw:
        return raw[1:-1]
    try:
        return str(tomllib.loads(f"key = {raw}")["key"])
    except ValueError as error:
        raise KeySyntaxError(start) from error


def _skip(text: str, start: int) -> int:
    match = SPACE.match(text, start)
    return start if match is None else match.end()
