"""Validation results for machines: a JSON list, GitHub's workflow annotations, SARIF 2.1.0, JUnit's XML."""

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from schemas.resolve import Diagnostic, Place

Finding = tuple[str, Diagnostic]
"""The recipe that was asked about, and a problem of it (which may stand in another file)."""
SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_json(findings: Sequence[Finding]) -> str:
    """Return every problem as an object in one list; nothing wrong is an empty list."""
    return json.dumps([{"recipe": recipe, **diagnostic.as_dict()} for recipe, diagnostic in findings], indent=2)


def as_github(findings: Sequence[Finding]) -> Iterable[str]:
    """Yield one `::error` or `::warning` command a problem; GitHub shows it at the line of the file."""
    for recipe, diagnostic in findings:
        place = diagnostic.place
        in_file = {"file": place.file, "line": place.line, "col": place.column}
        where = in_file if place.line is not None else {"file": recipe}
        parts = {name: value for name, value in where.items() if value is not None} | {"title": diagnostic.code}
        properties = ",".join(f"{name}={_escape(str(value), ':,')}" for name, value in parts.items())
        yield f"::{diagnostic.severity} {properties}::{_escape(_message(diagnostic))}"


def as_sarif(findings: Sequence[Finding]) -> str:
    """Return the problems as one run in SARIF 2.1.0, with the page of every code that occurs."""
    from importlib.metadata import version

    codes = sorted({diagnostic.code for _, diagnostic in findings})
    driver = {"name": "osora", "version": version("osora"), "rules": [_sarif_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(recipe, diagnostic, codes) for recipe, diagnostic in findings],
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_rule(code: str) -> dict[str, Any]:
    from schemas.resolve.codes import code_page

    page = code_page(code)
    return {
        "id": code,
        "shortDescription": {"text": page.name},
        "fullDescription": {"text": page.reason},
        "help": {"text": page.fix},
        "defaultConfiguration": {"level": page.severity},
    }


def _sarif_result(recipe: str, diagnostic: Diagnostic, codes: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": codes.index(diagnostic.code),
        "level": diagnostic.severity,
        "message": {"text": _message(diagnostic)},
        "locations": [_sarif_location(diagnostic.place, recipe)],
    }
    if diagnostic.second is not None and diagnostic.second.line is not None:
        note = {"text": diagnostic.second_note or "see also"}
        result["relatedLocations"] = [{"message": note, **_sarif_location(diagnostic.second, recipe)}]
    return result


def _sarif_location(place: Place, recipe: str) -> dict[str, Any]:
    """Return a place; what stands in no file (an option) is shown at the recipe that was asked about."""
    if place.line is None:
        return {"physicalLocation": {"artifactLocation": {"uri": _uri(recipe)}}}
    region = {"startLine": place.line}
    if place.column is not None:
        region |= {"startColumn": place.column, "endColumn": place.column + place.width}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(place.file)}, "region": region}}


def _uri(file: str) -> str:
    path = PurePath(file)
    named = quote(path.as_posix(), errors="replace")
    return f"file://{named}" if path.is_absolute() else named


def as_junit(recipes: Sequence[str], findings: Sequence[Finding]) -> str:
    """Return one test case a recipe, as CI servers read it; its errors are one failure, its warnings its output."""
    from xml.etree import ElementTree

    broken = {recipe for recipe, diagnostic in findings if diagnostic.severity == "error"}
    counts = {"tests": str(len(recipes)), "failures": str(sum(recipe in broken for recipe in recipes)), "errors": "0"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "osora config validate", **counts})
    for recipe in recipes:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "osora.config", "name": _xml(recipe)})
        errors = [each for name, each in findings if name == recipe and each.severity == "error"]
        warnings = [each for name, each in findings if name == recipe and each.severity == "warning"]
        if errors:
            said = {"type": errors[0].code, "message": _xml(errors[0].message)}
            ElementTree.SubElement(case, "failure", said).text = _xml("\n".join(each.text() for each in errors))
        if warnings:
            ElementTree.SubElement(case, "system-out").text = _xml("\n".join(each.text() for each in warnings))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Replace what XML 1.0 cannot hold: control characters and halves of pairs."""
    return "".join(char if char == "\n" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _message(diagnostic: Diagnostic) -> str:
    return "\n".join(text for text in (diagnostic.message, diagnostic.help) if text)


def _escape(text: str, more: str = "") -> str:
    """Percent-encode what ends a command or a property."""
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
