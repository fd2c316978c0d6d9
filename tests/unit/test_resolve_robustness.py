"""Whatever a file holds, the answer is a diagnostic, soon, and never a traceback."""

import random
from pathlib import Path

import pytest

from schemas.resolve import RecipeError, packaged_recipes, resolve

HEAD = 'kind = "train"\n[buckets]\n"64px" = { 1 = [1.0, 1] }\n'


def problem(path: Path | str) -> tuple[str, str, int | None, int | None]:
    with pytest.raises(RecipeError) as caught:
        resolve(path)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.message, diagnostic.place.line, diagnostic.place.column


def test_bases_two_thousand_deep(tmp_path: Path) -> None:
    (tmp_path / "0.toml").write_text(HEAD + "[optim]\nlr = 1.0\n")
    for index in range(1, 2000):
        (tmp_path / f"{index}.toml").write_text(f'_base_ = "{index - 1}.toml"\n[optim]\nlr = {index}.0\n')
    resolved = resolve(tmp_path / "1999.toml")
    assert resolved.recipe.optim.lr == 1999.0
    assert len(resolved.history("optim.lr")) == 2001


def test_base_cycle_names_the_files_and_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('_base_ = "b.toml"\n')
    (tmp_path / "b.toml").write_text('seed = 1\n_base_ = ["../' + tmp_path.name + '/a.toml"]\n')
    with pytest.raises(RecipeError) as caught:
        resolve(tmp_path / "a.toml")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "OSR015"
    assert (diagnostic.place.line, diagnostic.place.column) == (2, 11)
    assert diagnostic.second is not None
    assert diagnostic.second.file == str(tmp_path / "a.toml")


def test_a_base_of_itself(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('_base_ = "a.toml"\n')
    assert problem(tmp_path / "a.toml")[0] == "OSR015"


def test_bases_that_double_with_every_file_are_refused(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.toml").write_text(f'_base_ = ["{index + 1}.toml", "{index + 1}.toml"]\n')
    (tmp_path / "40.toml").write_text(HEAD)
    assert problem(tmp_path / "0.toml")[:2] == ("OSR015", "`_base_` brings in more than 10000 files.")


def test_a_shared_base_is_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text(HEAD)
    for name in "ab":
        (tmp_path / f"{name}.toml").write_text('_base_ = "shared.toml"\n')
    (tmp_path / "c.toml").write_text('_base_ = ["a.toml", "b.toml"]\nseed = 5\n')
    assert resolve(tmp_path / "c.toml").recipe.kind == "train"


def test_symlink_loop(tmp_path: Path) -> None:
    (tmp_path / "a.toml").symlink_to("b.toml")
    (tmp_path / "b.toml").symlink_to("a.toml")
    code, message, _, _ = problem(tmp_path / "a.toml")
    assert code == "OSR011"
    assert "cannot be read" in message


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").mkdir()
    (tmp_path / "y.toml").write_text('\n_base_ = "x.toml"\n')
    (tmp_path / "z.toml").write_text('_base_ = ["nope.toml"]\n')
    assert "is a folder" in problem(tmp_path / "x.toml")[1]
    assert problem(tmp_path / "y.toml")[2:] == (2, 10)
    assert problem(tmp_path / "z.toml")[2:] == (1, 11)
    assert problem("")[0] == "OSR011"
    assert problem("stage2x")[0] == "OSR011"


def test_an_unknown_name_lists_the_close_ones() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean `stage1`"):
        resolve("stage11")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'kind = "train"\n# caf\xe9\n', ("OSR012", 2, 6)),
        (b'kind = "train"\nseed = \x003\n', ("OSR012", 2, None)),
        (b'kind = "train"\nseed = ' + b"9" * 40, ("OSR010", 2, 8)),
        (b'kind = "train"\nseed = ' + b"9" * 5000, ("OSR010", None, None)),
        (b'kind = "train"\nseed = 0x' + b"f" * 20000, ("OSR010", 2, 8)),
        (b"x = " + b"[" * 50000 + b"]" * 50000, ("OSR010", None, None)),
        (b"[" + b".".join([b"a"] * 3000) + b"]\nx = 1\n", ("OSR010", None, None)),
        (b'kind = "train"\ndtype = bf16\n', ("OSR012", 2, 9)),
        (b'kind = "train"\n[optim]\n[optim]\n', ("OSR012", 3, 7)),
        (b'kind = "train"\nx = [1,\n', ("OSR012", 3, 1)),
    ],
)
def test_broken_texts(tmp_path: Path, content: bytes, expected: tuple[str, int | None, int | None]) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    code, _, line, column = problem(tmp_path / "x.toml")
    assert (code, line, column) == expected


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode() + b"[optim]\r\nlr = 0\r\n")
    assert problem(tmp_path / "x.toml")[2:] == (5, 6)


def test_five_megabytes_and_ten_thousand_keys(tmp_path: Path) -> None:
    rows = "".join(f"{frames} = [1.0, 2] # {'x' * 480}\n" for frames in range(1, 40_001, 4))
    (tmp_path / "x.toml").write_text('kind = "train"\n[buckets."64px"]\n' + rows)
    resolved = resolve(tmp_path / "x.toml")
    assert len(resolved.recipe.model_dump()["buckets"]["64px"]) == 10_000
    assert resolved.place('buckets."64px".39997').line == 10_002


def test_ten_thousand_problems_at_once(tmp_path: Path) -> None:
    rows = "".join(f"k{index} = 1\n" for index in range(10_000))
    (tmp_path / "x.toml").write_text(HEAD + "[optim]\n" + rows)
    with pytest.raises(RecipeError) as caught:
        resolve(tmp_path / "x.toml")
    assert [diagnostic.place.line for diagnostic in caught.value.diagnostics] == list(range(5, 10_005))


def test_random_mutations_of_valid_recipes_never_crash(tmp_path: Path) -> None:
    draws = random.Random(20)
    texts = [path.read_text() for path in packaged_recipes().values()]
    pieces = [
        '"',
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        "\n",
        "#",
        "${",
        "}",
        "_delete_ = true",
        "\0",
        "\\",
        "9" * 30,
        "é",
        "-",
        ",",
    ]
    outcomes = {"fine": 0, "bad": 0}
    path = tmp_path / "x.toml"
    for _ in range(10_000):
        text = draws.choice(texts)
        for _ in range(draws.randint(1, 3)):
            at, length = draws.randrange(len(text)), draws.choice([0, 0, 1, 5])
            text = text[:at] + draws.choice(pieces) + text[at + length :]
        path.write_text(text, encoding="utf-8")
        try:
            resolve(path)
        except RecipeError as error:
            assert error.diagnostics
            assert str(error)
            outcomes["bad"] += 1
        else:
            outcomes["fine"] += 1
    assert min(outcomes.values()) > 500
