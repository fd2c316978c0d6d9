"""Reading Open-Sora's configs: what is taken, what is refused, and where."""

import json
from pathlib import Path

import pytest

from schemas.open_sora import ConfigError, read_config
from schemas.open_sora.source import merged


def read(folder: Path, text: str, name: str = "config.py") -> dict[str, object]:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return read_config(file).values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a = 1\nb = -2.5\nc = 'x' 'y'\nd = None\ne = True", {"a": 1, "b": -2.5, "c": "xy", "d": None, "e": True}),
        ("'''a text alone'''\na = (1, [2, 3], {})", {"a": [1, [2, 3], {}]}),
        ("a = {1: (1.0, 50), 'b': dict(c=1)}", {"a": {"1": [1.0, 50], "b": {"c": 1}}}),
        (
            "lr = 1e-5\nsteps = 10_000\nopt = dict(lr=lr * 2, n=steps // 3)",
            {"lr": 1e-5, "steps": 10000, "opt": {"lr": 2e-5, "n": 3333}},
        ),
        ("a = [(260 + 20) * 1024 ** 2] * 2 + [1] * 1", {"a": [293601280, 293601280, 1]}),
        ("a = 7 / 2\nb = 7 % 4\nc = 2 ** -1\nd = +3", {"a": 3.5, "b": 3, "c": 0.5, "d": 3}),
        (
            "base = dict(x=1)\na = dict(base, y=2)\nb = {**base, 'x': 3}\nc = dict(**base)",
            {"base": {"x": 1}, "a": {"x": 1, "y": 2}, "b": {"x": 3}, "c": {"x": 1}},
        ),
        ("a: int = 3", {"a": 3}),
        ("a = 1\na = 2", {"a": 2}),
    ],
)
def test_what_a_config_may_say(tmp_path: Path, text: str, values: dict[str, object]) -> None:
    assert read(tmp_path, text) == values


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a = 1\nimport os", "2:1", "this statement (import) is not read"),
        ("a = open('x')", "1:5", "the call `open(...)` is not read"),
        ("a = dict(b=__import__('os').system('x'))", "1:12", "is not read"),
        ("a = b", "1:5", "the name `b` has no value here"),
        ("a = 1\nb = a.c", "2:5", "`a.c` is not read"),
        ("a = [1, 2]\nb = a[0]", "2:5", "`a[0]` is not read"),
        ("a = f'{1}'", "1:5", "an f-string is not read"),
        ("a = b'x'", "1:5", "the literal b'x' is not read"),
        ("a = 1j", "1:5", "is not read"),
        ("a = {1, 2}", "1:5", "Set"),
        ("a = [x for x in (1, 2)]", "1:5", "ListComp"),
        ("a = 1 if True else 2", "1:5", "IfExp"),
        ("a = not True", "1:5", "UnaryOp"),
        ("a = 1 < 2", "1:5", "Compare"),
        ("a = lambda: 1", "1:5", "Lambda"),
        ("a = [*(1, 2)]", "1:6", "write the items out"),
        ("a = dict([1], b=2)", "1:10", "this must be a dict, not list"),
        ("a = dict({}, {})", "1:5", "at most one dict"),
        ("a = {(1, 2): 3}", "1:6", "a key must be text or a number, not list"),
        ("a, b = 1, 2", "1:1", "this statement (assign) is not read"),
        ("a += 1", "1:1", "this statement (augassign) is not read"),
        ("def f():\n    pass", "1:1", "this statement (functiondef) is not read"),
        ("a = -'x'", "1:6", "a sign goes with a number, not with str"),
        ("a = 1 / 0", "1:5", "cannot be worked out: division by zero"),
        ("a = 1 + 'x'", "1:5", "cannot be worked out"),
        ("a = (-1) ** 0.5", "1:5", "no real number"),
        ("a = 9 ** 9 ** 9", "1:5", "more than 256 bits"),
        ("a = 2 ** 200 * 2 ** 200", "1:5", "more than 256 bits"),
        ("a = [0] * 10 ** 9", "1:5", "longer than 100,000 items"),
        ("a = 10 ** 9 * 'x'", "1:5", "longer than 100,000 items"),
        ("a = '%9999999d' % 1", "1:5", "text with % is not read"),
        ("a = (", "1:5", "not Python"),
        ("_base_ = ['mmengine::x.py']", "1:1", "_base_ names files by relative paths"),
    ],
)
def test_what_is_refused_and_where(tmp_path: Path, text: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'config.py'}:{place}: ")
    assert words in str(caught.value)


def test_bases_are_laid_under_the_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    read(tmp_path, "a = dict(x=1, y=dict(z=1))\nb = 1\nc = {1: 2}", "parts/one.py")
    read(tmp_path, "_base_ = 'one.py'\na = dict(y=dict(w=2))", "parts/two.py")
    text = "_base_ = ['parts/two.py']\na = dict(x=5)\nb = dict(n=1)\nc = dict(_delete_=True, d=4)"
    assert read(tmp_path, text) == {"a": {"x": 5, "y": {"z": 1, "w": 2}}, "b": {"n": 1}, "c": {"d": 4}}


def test_delete_is_no_key(tmp_path: Path) -> None:
    assert read(tmp_path, "a = dict(_delete_=True, b={'_delete_': False, 'c': 1})") == {"a": {"b": {"c": 1}}}
    assert merged({"a": {"x": 1}}, {"a": {"_delete_": False, "y": 2}}) == {"a": {"x": 1, "y": 2}}


def test_keys_know_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("a = dict(x=1)\n")
    (tmp_path / "config.py").write_text("_base_ = ['base.py']\nb = {'c': dict(\n    d=1)}\n")
    config = read_config(tmp_path / "config.py")
    assert config.place("a.x") == f"{tmp_path / 'base.py'}:1:10"
    assert config.place("b.c.d") == f"{tmp_path / 'config.py'}:3:5"
    assert config.place("b.c.e") == f"{tmp_path / 'config.py'}:2:6"
    assert config.place("nowhere") == str(tmp_path / "config.py")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.py": "_base_ = 'config.py'"}, "builds on itself"),
        ({"config.py": "_base_ = 'a.py'", "a.py": "_base_ = ['config.py']"}, "builds on itself"),
        ({"config.py": "_base_ = 'missing.py'"}, "missing.py: cannot read it"),
        ({"config.json": "[1]"}, "must be an object of config keys, not list"),
        ({"config.json": '{"a": 1,}'}, "config.json:1:"),
        ({"config.json": "[" * 200_000}, "nested too deeply"),
        ({"config.py": "a = " + "(" * 5_000 + ")" * 5_000}, "config.py"),
        ({"config.py": "a = " + "-" * 50_000 + "1"}, "config.py"),
        ({"config.py": "a = 'x\0'"}, "not Python"),
        ({"config.yaml": "a: 1"}, "is a .py file, or .json"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / next(iter(files)))
    assert words in str(caught.value)


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"{index}.py").write_text(f"_base_ = '{index + 1}.py'\n")
    with pytest.raises(ConfigError, match="more than 50 files"):
        read_config(tmp_path / "0.py")


def test_invalid_utf_8_and_folders(tmp_path: Path) -> None:
    (tmp_path / "bytes.py").write_bytes(b"a = '\xff'")
    (tmp_path / "folder.py").mkdir()
    for name in ("bytes.py", "folder.py"):
        with pytest.raises(ConfigError, match="cannot read it"):
            read_config(tmp_path / name)


def test_python_and_json_say_the_same(tmp_path: Path) -> None:
    values = {"a": {"1": [1.0, None]}, "b": "x", "c": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    assert read(tmp_path, text) == read_config(tmp_path / "config.json").values == values
