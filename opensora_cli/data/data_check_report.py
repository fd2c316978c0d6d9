"""What `osora data check` says: lines for people, an object for programs."""

from dataclasses import asdict
from typing import Any

from opensora_cli.data.data_check import DataReport, Fit, Found
from opensora_cli.data.manifest import MOTION_COLUMNS, NEEDED

Line = tuple[str, str]
"""Role (see opensora_cli.render) and text."""


def report_json(report: DataReport) -> dict[str, Any]:
    """Return all that was found."""
    fit = asdict(report.fit)
    for row, bucket in zip(fit["buckets"], report.fit.buckets, strict=True):
        row["batches"] = bucket.batches
    return {**asdict(report), "fit": {**fit, "batches": report.fit.batches}, "problems": report.problems}


def report_lines(report: DataReport) -> list[Line]:
    """Return the report as (role, line) pairs."""
    used = {name: kind for name, kind in report.columns.items() if name in (*NEEDED, *MOTION_COLUMNS)}
    others = [name for name in report.columns if name not in used]
    lines = [
        ("title", f"{report.source}: {report.rows} rows"),
        ("plain", "  columns   " + ", ".join(f"{name} ({kind})" for name, kind in used.items())),
    ]
    if others:
        lines.append(("dim", "  not read  " + ", ".join(others)))
    lengths = ", ".join(f"{name} {length}" for name, length in report.captions.items())
    lines.append(("plain", f"  captions  {lengths} characters"))
    lines += _found(report.no_caption, "rows have no caption", "warning")
    lines += _found(report.duplicates, "rows name a file that an earlier row has", "warning")
    lines += _found(report.missing, f"of {report.looked_at} files cannot be read", "head")
    if not report.missing.count:
        lines.append(("ok", f"  files     {report.looked_at} of {report.rows} looked for, all there"))
    return [*lines, ("plain", ""), *_bucket_lines(report.fit), *_outside(report), *_end(report)]


def _found(found: Found, what: str, role: str) -> list[Line]:
    if not found.count:
        return []
    more = found.count - len(found.first)
    rest = [("dim", f"    and {more} more")] if more else []
    return [(role, f"  {found.count} {what}"), *(("plain", f"    {text}") for text in found.first), *rest]


def _bucket_lines(fit: Fit) -> list[Line]:
    width = max((len(bucket.name) for bucket in fit.buckets), default=6)
    lines = [("title", f"{'bucket':{width}}  {'clips':>9}  {'batch':>6}  {'batches':>8}  {'left over':>9}")]
    for bucket in fit.buckets:
        numbers = f"{bucket.clips:9}  {bucket.batch_size:6}  {bucket.batches:8}  {bucket.clips % bucket.batch_size:9}"
        role = "plain" if bucket.batches else "warning"
        note = "" if bucket.batches else "  no batch"
        lines.append((role, f"{bucket.name:{width}}  {numbers}{note}"))
    if fit.empty:
        lines.append(("warning", f"no clip at all: {', '.join(fit.empty)}"))
    return lines


def _outside(report: DataReport) -> list[Line]:
    fit = report.fit
    reasons = {
        "too small: fewer pixels than 0.8 of the smallest resolution": fit.too_small,
        "too short: fewer frames than the shortest length": fit.too_short,
        "too short once dataset.fps_max skips frames": fit.too_fast,
        "left out by their keep probabilities": fit.not_drawn,
    }
    out = sum(reasons.values())
    if not out:
        return [("ok", "every clip fits a bucket")]
    return [
        ("warning", f"{out} of {report.rows} clips ({out / report.rows:.1%}) are in no bucket:"),
        *(
            ("plain", f"  {count:9}  {count / report.rows:6.1%}  {reason}")
            for reason, count in reasons.items()
            if count
        ),
    ]


def _end(report: DataReport) -> list[Line]:
    if report.problems:
        return [("head", problem) for problem in report.problems]
    return [("ok", f"{report.fit.batches} batches in the first epoch, over all ranks")]
