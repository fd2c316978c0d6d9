"""Places: every key and value at its line and column, however it is written."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.resolve.keys import parse_key, show_key
from schemas.resolve.literals import write_document
from schemas.resolve.sources import read_file
from schemas.resolve.spans import SpanReader

TEXT = '''# comment with = and [brackets]
kind = "train" # "quoted" comment
a.b."c.d" = [1, [2, 3], """x
]""", {q = 1, r.s = 'z'}]
  [optim]
lr   =  1e-4
[[list]]
x = 1
[[list]]
x = 2
[list.sub]
y=3
[ "q\\u0041" . z ]
empty = ""
five = """a"""""
four = \'\'\'b\'\'\'\'
when = 1979-05-27 07:32:00
'''


def spans() -> dict[str, tuple[str, str]]:
    return {
        show_key(path): (TEXT[span.key_start : span.key_end], TEXT[span.value_start : span.value_end])
        for path, span in SpanReader(TEXT).spans.items()
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("kind", ("kind", '"train"')),
        ("a", ("a", "a")),
        ('a.b."c.d"[1][1]', ("3", "3")),
        ('a.b."c.d"[2]', ('"""x\n]"""', '"""x\n]"""')),
        ('a.b."c.d"[3].r.s', ("s", "'z'")),
        ("optim", ("optim", "optim")),
        ("optim.lr", ("lr", "1e-4")),
        ("list[1].x", ("x", "2")),
        ("list[1].sub.y", ("y", "3")),
        ("qA.z.empty", ("empty", '""')),
        ("qA.z.five", ("five", '"""a"""""')),
        ("qA.z.four", ("four", "'''b''''")),
        ("qA.z.when", ("when", "1979-05-27 07:32:00")),
    ],
)
def test_keys_and_values_are_found(key: str, expected: tuple[str, str]) -> None:
    assert spans()[key] == expected


def test_a_place_has_line_column_and_source(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(TEXT)
    file = read_file(str(tmp_path / "x.toml"))
    place = file.place(("optim", "lr"), "value")
    assert (place.line, place.column, place.source, place.width) == (6, 9, "lr   =  1e-4", 4)
    missing = file.place(("optim", "betas"))
    assert (missing.line, missing.column) == (5, 4)


def test_carets_stand_below_wide_characters_and_tabs(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('x = { "中" = 1,\t"é" = 2 }\n')
    place = read_file(str(tmp_path / "x.toml")).place(("x", "é"))
    excerpt = place.excerpt()
    assert excerpt == ('x = { "中" = 1, "é" = 2 }', " " * 16 + "^^^")


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=4)
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-9, 9), st.text(max_size=6), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_written_reads_back_and_every_value_has_its_span(values: dict[str, object]) -> None:
    text = write_document(values)
    assert tomllib.loads(text) == values
    for path, span in SpanReader(text).spans.items():
        if span.value_start != span.key_start:
            raw = text[span.value_start : span.value_end]
            expected: object = values
            for part in path:
                expected = expected[part]  # type: ignore[index]
            assert tomllib.loads(f"value = {raw}")["value"] == expected


@given(st.lists(KEYS, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, database=None)
def test_a_shown_key_parses_back(names: list[str]) -> None:
    assert parse_key(show_key(tuple(names))) == tuple(names)
