"""Old keys become new ones, where they stand or in their table, and every comment stays with its key."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.recipes import RECIPES
from schemas.resolve import packaged_recipes, resolve
from schemas.resolve.keys import parse_key
from schemas.resolve.literals import write_document
from schemas.resolve.meaning import meaning_of
from schemas.resolve.migrate import Migration, migrate
from schemas.resolve.renames import RENAMES, VERSION, renamed
from schemas.resolve.sources import read_file
from schemas.resolve.statements import join, read_statements

OLD = """\
#:schema train.schema.json
# My first recipe.

kind = "train"
schema_version = 0   # the old one
# small steps,
# as it is wide
lr = 1e-4            # hot

ckpt_every = 200
warmup_steps=5
grad_ckpt_settings = [
  8,   # double
  100,
]

# about the average
[optim]
eps = "${lr}"        # the same

[bucket_config]      # all of them
_delete_ = true
[bucket_config."256px"]
# images
1 = [1.0, 2]
# the end
"""
NEW = """\
#:schema train.schema.json
# My first recipe.

kind = "train"
schema_version = 1   # the old one

# about the average
[optim]
eps = "${optim.lr}"        # the same
# small steps,
# as it is wide
lr = 1e-4            # hot
warmup_steps=5

[buckets]      # all of them
_delete_ = true
[buckets."256px"]
# images
1 = [1.0, 2]

[checkpoint]
every = 200

[memory]
grad_ckpt_settings = [
  8,   # double
  100,
]
# the end
"""


def migrated(folder: Path, text: str) -> Migration:
    (folder / "old.toml").write_text(text, encoding="utf-8")
    return migrate(read_file(str(folder / "old.toml")))


def test_keys_move_with_their_comments(tmp_path: Path) -> None:
    done = migrated(tmp_path, OLD)
    assert done.text == NEW
    assert done.left == ()
    assert dict(done.moved) == {
        "lr": "optim.lr",
        "ckpt_every": "checkpoint.every",
        "warmup_steps": "optim.warmup_steps",
        "grad_ckpt_settings": "memory.grad_ckpt_settings",
        "bucket_config": "buckets",
        "bucket_config.256px": "buckets.256px",
    }


def test_what_is_up_to_date_stays_byte_by_byte(tmp_path: Path) -> None:
    done = migrated(tmp_path, NEW)
    assert (done.text, done.moved) == (NEW, ())
    for path in packaged_recipes().values():
        file = read_file(str(path))
        assert migrate(file).text == file.text


def test_a_file_without_a_version_gets_one_below_its_first_comment(tmp_path: Path) -> None:
    done = migrated(tmp_path, "# mine\n\nckpt_every = 3\n")
    assert done.text == "# mine\n\nschema_version = 1\n\n[checkpoint]\nevery = 3\n"


def test_a_table_of_dotted_keys_goes_on_with_dotted_keys(tmp_path: Path) -> None:
    done = migrated(tmp_path, "schema_version = 1\noptim.eps = 1e-6\nlr = 1.0\n")
    assert tomllib.loads(done.text) == {"schema_version": 1, "optim": {"eps": 1e-6, "lr": 1.0}}


@pytest.mark.parametrize(
    ("kind", "place"), [("sample", "sampling.save_dir"), ("vae-sample", "reconstruction.save_dir"), ("train", None)]
)
def test_the_kind_decides_where_a_key_goes(tmp_path: Path, kind: str, place: str | None) -> None:
    done = migrated(tmp_path, f'kind = "{kind}"\nsave_dir = "x"\n')
    assert dict(done.moved) == ({} if place is None else {"save_dir": place})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 1.0\n[optim]\nlr = 2.0\n", "`lr` and `optim.lr` are both given."),
        ("lr = 1.0\noptim = { eps = 1.0 }\n", "`lr` cannot be moved into `optim`, which is written on one line."),
        ('_delete_ = ["ckpt_every"]\n', "`_delete_` names `ckpt_every`, which moved."),
    ],
)
def test_what_only_a_person_can_decide_is_left_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    done = migrated(tmp_path, f"schema_version = 1\n{text}")
    (problem,) = done.left
    assert problem.message == message
    assert problem.place.line == 2
    assert problem.help
    assert done.text == f"schema_version = 1\n{text}"


def test_every_new_key_exists_and_no_old_one_does() -> None:
    for table in RENAMES.values():
        for old, places in table.items():
            assert not any(meaning_of(kind, parse_key(old), {}) and "." not in old for kind in kinds_at_top(old))
            for new in places:
                assert any(meaning_of(kind, parse_key(new), {}) for kind in RECIPES), new
                assert renamed(parse_key(new)) == []


def kinds_at_top(old: str) -> list[str]:
    """`num_samples` stands at the top of vae-stats, where it is not renamed."""
    return [kind for kind in RECIPES if (kind, old) != ("vae-stats", "num_samples")]


def test_a_key_that_a_kind_has_at_its_top_stays_there(tmp_path: Path) -> None:
    assert migrated(tmp_path, 'kind = "vae-stats"\nnum_samples = 3\n').moved == ()


VALUES = st.one_of(
    st.integers(1, 9), st.floats(0.1, 1), st.booleans(), st.text(st.characters(codec="ascii"), max_size=5)
)
KEYS = st.sampled_from([*RENAMES[0], "seed", "optim.eps", "checkpoint.every", "text.t5.max_length", "unknown"])


@settings(max_examples=150, deadline=None, database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8), st.booleans())
def test_no_value_is_lost(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], headers: bool) -> None:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *tables, name = parse_key(key)
        table = tree
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return  # `plugin_config` as a number and as a table cannot be in one file
        if isinstance(table.get(name), dict):
            return
        table[name] = value
    text = write_document(tree) if headers else "".join(f"{key} = {_inline(value)}\n" for key, value in values.items())
    folder = tmp_path_factory.mktemp("migrate")
    try:
        done = migrated(folder, text)
    except Exception as error:
        raise AssertionError(text) from error
    kept = sorted(map(repr, _values(tomllib.loads(done.text)) - {"schema_version"}))
    assert kept == sorted(map(repr, _values(tomllib.loads(text))))
    assert migrated(folder, done.text).moved == ()


def _inline(value: Any) -> str:
    return write_document({"x": value}).removeprefix("x = ").rstrip("\n")


def _values(tree: Any) -> set[str]:
    """Names do not matter here: the last part of a key and its value."""
    found = set()
    for name, value in tree.items():
        found |= _values(value) if isinstance(value, dict) else {repr(value) if name != "schema_version" else name}
    return found


@settings(max_examples=100, deadline=None, database=None)
@given(
    st.lists(st.sampled_from(["a = 1\n", "# c\n", "\n", "[t]\n", "[t.u] # d\n", "b.c = [\n 1,\n]\n", "d = {e = 1}\n"]))
)
def test_statements_join_to_the_text_they_were_read_from(lines: list[str]) -> None:
    text = "".join(lines)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert join(*read_statements(text)) == text


def test_a_migrated_file_resolves(tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(migrated(tmp_path, OLD.replace("_delete_ = true\n", "")).text)
    recipe = resolve(tmp_path / "new.toml", layers=[], sets=[]).recipe
    assert recipe.optim.eps == 1e-4
    assert recipe.schema_version == VERSION
