"""Validation results for machines: a JSON list, and GitHub's workflow annotations."""

import json
from collections.abc import Iterable, Sequence

from schemas.resolve import Diagnostic

Finding = tuple[str, Diagnostic]
"""The recipe that was asked about, and a problem of it (which may stand in another file)."""


def as_json(findings: Sequence[Finding]) -> str:
    """Return every problem as an object in one list; nothing wrong is an empty list."""
    return json.dumps([{"recipe": recipe, **diagnostic.as_dict()} for recipe, diagnostic in findings], indent=2)


def as_github(findings: Sequence[Finding]) -> Iterable[str]:
    """Yield one `::error` command a problem; GitHub shows it at the line of the file."""
    for recipe, diagnostic in findings:
        place = diagnostic.place
        in_file = {"file": place.file, "line": place.line, "col": place.column}
        where = in_file if place.line is not None else {"file": recipe}
        parts = {name: value for name, value in where.items() if value is not None} | {"title": diagnostic.code}
        properties = ",".join(f"{name}={_escape(str(value), ':,')}" for name, value in parts.items())
        message = "\n".join(text for text in (diagnostic.message, diagnostic.help) if text)
        yield f"::error {properties}::{_escape(message)}"


def _escape(text: str, more: str = "") -> str:
    """Percent-encode what ends a command or a property."""
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
