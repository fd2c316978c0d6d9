"""Where in a TOML text every key and value stands, found in one pass over a text that `tomllib` has accepted.

Because the text is known to be valid, statements need only be told apart, not checked. The pass is linear in the
text's length. It is run when somebody asks for a place, never for a recipe that is fine.
"""

import re
from typing import NamedTuple

from schemas.resolve.keys import Path, read_key

BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*+")
STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}' + r"|'''(?:[^']|'(?!''))*+'{3,5}" + r'|"(?:[^"\\\n]|\\.)*+"' + r"|'[^'\n]*+'",
    re.DOTALL,
)
SCALAR = re.compile(r"[^,\]}#\n]*")
HEADER_END = re.compile(r"[ \t]*\]{1,2}")


class Span(NamedTuple):
    """Offsets of a key, and of its value (for a table's header the value is the key)."""

    key_start: int
    key_end: int
    value_start: int
    value_end: int


class SpanReader:
    """Reads the spans of a valid TOML text into `spans`; the first mention of a table is its place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.spans: dict[Path, Span] = {}
        self._arrays: dict[Path, int] = {}
        self._read()

    def _read(self) -> None:
        table: Path = ()
        offset = self._skip_blank(0)
        while offset < len(self.text):
            if self.text[offset] == "[":
                table, offset = self._header(offset)
            else:
                offset = self._pair(table, offset)
            offset = self._skip_blank(offset)

    def _header(self, offset: int) -> tuple[Path, int]:
        is_array = self.text.startswith("[[", offset)
        parts, offset = read_key(self.text, offset + 1 + is_array)
        path: Path = ()
        for index, (name, start, end) in enumerate(parts):
            path = (*path, name)
            self.spans.setdefault(path, Span(start, end, start, end))
            if is_array and index == len(parts) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
                self.spans.setdefault(path, Span(start, end, start, end))
        _, start, end = parts[-1]
        if not is_array:
            self.spans[path] = Span(start, end, start, end)
        match = HEADER_END.match(self.text, offset)
        return path, offset if match is None else match.end()

    def _pair(self, table: Path, offset: int) -> int:
        parts, offset = read_key(self.text, offset)
        start = self._skip_blank(offset + 1)
        path = table
        for name, key_start, key_end in parts:
            path = (*path, name)
            self.spans.setdefault(path, Span(key_start, key_end, key_start, key_end))
        _, key_start, key_end = parts[-1]
        end = self._value(path, start)
        self.spans[path] = Span(key_start, key_end, start, end)
        return end

    def _value(self, path: Path, offset: int) -> int:
        """Return where the value at `offset` ends, recording what it holds."""
        first = self.text[offset]
        if first == "[":
            return self._array(path, offset + 1)
        if first == "{":
            return self._inline_table(path, offset + 1)
        match = (STRING if first in "\"'" else SCALAR).match(self.text, offset)
        if match is None:
            raise AssertionError(f"no value at {offset} of a text that tomllib has read")
        return offset + len(match.group().rstrip())

    def _array(self, path: Path, offset: int) -> int:
        index = 0
        offset = self._skip_blank(offset)
        while self.text[offset] != "]":
            item = (*path, index)
            end = self._value(item, offset)
            self.spans[item] = Span(offset, end, offset, end)
            index += 1
            offset = self._skip_separator(end)
        return offset + 1

    def _inline_table(self, path: Path, offset: int) -> int:
        offset = self._skip_blank(offset)
        while self.text[offset] != "}":
            offset = self._skip_separator(self._pair(path, offset))
        return offset + 1

    def _skip_separator(self, offset: int) -> int:
        offset = self._skip_blank(offset)
        return self._skip_blank(offset + 1) if self.text[offset] == "," else offset

    def _skip_blank(self, offset: int) -> int:
        match = BLANK.match(self.text, offset)
        return offset if match is None else match.end()
