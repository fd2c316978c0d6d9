"""`osora config validate`: every problem of every file at once, for people and for machines."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from opensora_cli.commands.config_arguments import Recipes
from opensora_cli.extras import require_extra
from opensora_cli.overrides import Layers, Sets, Unsets
from opensora_cli.render import print_diagnostics, print_lines, write
from schemas.resolve import Diagnostic, RecipeError, Resolved, resolve


class ReportFormat(StrEnum):
    """How `validate` reports."""

    rich = "rich"
    json = "json"
    github = "github"
    sarif = "sarif"
    junit = "junit"


class Hardware(StrEnum):
    """Whose hardware recipes are checked against."""

    here = "here"


def validate(
    files: Recipes,
    format_: Annotated[
        ReportFormat,
        typer.Option(
            "--format", help="rich for people; json, GitHub annotations, SARIF 2.1.0 or JUnit XML for programs."
        ),
    ] = ReportFormat.rich,
    hardware: Annotated[
        Hardware | None,
        typer.Option(
            "--hardware",
            help="Also against this machine: GPUs, precision, processes, packages, free memory and disk.",
            show_default=False,
        ),
    ] = None,
    layer: Layers = None,
    set_: Sets = None,
    unset: Unsets = None,
) -> None:
    """Check recipes: every problem of every file at once. Exit code 1 if there is an error; warnings pass."""
    findings: list[tuple[str, Diagnostic]] = []
    for file in files:
        try:
            resolved = resolve(file, layers=layer or (), sets=set_ or (), unsets=unset or ())
        except RecipeError as error:
            found: Sequence[Diagnostic] = error.diagnostics
            kind = None
        else:
            found, kind = resolved.warnings, resolved.recipe.kind
            if hardware is not None:
                found = [*found, *_on_this_machine(resolved)]
        findings += [(file, diagnostic) for diagnostic in found]
        if format_ is ReportFormat.rich:
            _print(file, kind, found)
    if format_ is not ReportFormat.rich:
        _report(format_, files, findings)
    raise typer.Exit(1 if any(diagnostic.severity == "error" for _, diagnostic in findings) else 0)


def _on_this_machine(resolved: Resolved) -> list[Diagnostic]:
    require_extra("run", ("torch", "einops", "numpy", "pandas", "pyarrow", "transformers"))
    from opensora_cli.machine import look_around, machine_diagnostics

    return machine_diagnostics(resolved, look_around(resolved.recipe))


def _print(file: str, kind: str | None, found: Sequence[Diagnostic]) -> None:
    """Print one file's problems and what they come to; `kind` is that of a recipe that passes."""
    print_diagnostics(found)
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    warnings = _count(len(found) - errors, "warning") if len(found) > errors else ""
    if kind is not None and not errors:
        print_lines([("ok", f"{file}: ok ({kind}{', ' + warnings if warnings else ''})")])
    else:
        print_lines([("plain", f"{file}: {_count(errors, 'problem')}{' and ' + warnings if warnings else ''}")])


def _report(format_: ReportFormat, files: Sequence[str], findings: Sequence[tuple[str, Diagnostic]]) -> None:
    from opensora_cli import reports

    match format_:
        case ReportFormat.github:
            print_lines(("plain", line) for line in reports.as_github(findings))
        case ReportFormat.sarif:
            write(reports.as_sarif(findings))
        case ReportFormat.junit:
            write(reports.as_junit(files, findings))
        case _:
            write(reports.as_json(findings))


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
