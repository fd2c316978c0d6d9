"""Caption cleaning: one example a rule; the whole is compared with upstream's results by the parity tests."""

import sys

import pytest

from opensora_models.text.cleaning import clean, clean_once
from schemas.errors import OsoraError

CASES = [
    ("A <person> walks", "a person walks"),
    ("see https://a.b/c?x now", "see a. b c?x now"),
    ("at shop.example.com/cats today", "at today"),
    ("<a href='x'>a &lt;red&gt; cat</a>", "a cat"),
    ("by @some_body here", "by here"),
    ("猫 ネコ cat", "ネコ cat"),
    ("long—dash – here", "long-dash - here"),  # noqa: RUF001
    ("«quoted»", "quoted"),
    ("from 10.0.0.1 on", "from on"),
    ("cat_1234.jpg of a cat", "of a cat"),
    ("no. #42 of #123456", "no. of"),
    ("call 1234567", "call"),
    ("my-cute-little-cat-toy", "my cute little cat toy"),
    ("a well-known cat", "a well-known cat"),
    ("ﬁsh and ｃａｔ", "fish and cat"),  # noqa: RUF001
    ("item jc6640 and jc6640vc and 6640vc231", "item and and"),
    ("worldwide free shipping of cats", "of cats"),
    ("free download free of a cat", "of a cat"),
    ("click for more cats", "cats"),
    ("page 12 of it", "of it"),
    ("a 1280x720 clip", "a clip"),
    ("cats:  dogs", "cats: dogs"),
    ("cats ,dogs", "cats , dogs"),
    ("100%25 cat+dog", "100% cat dog"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "want"), CASES)
def test_each_rule(text: str, want: str) -> None:
    assert clean([text], "clean") == [want]


def test_the_second_round_finds_what_the_first_one_leaves() -> None:
    text = '"cat" jc6640'
    assert clean_once(text) == '"cat"'
    assert clean([text], "clean") == ["cat"]


def test_weaker_cleaning() -> None:
    assert clean([" A  Cat "], "lower") == ["a  cat"]
    assert clean([" A  Cat "], "none") == [" A  Cat "]


def test_captions_like_paths_links_and_xml_make_no_noise() -> None:
    """Warnings are errors in tests: Beautiful Soup warns of what may be a file's name, and rejects some markup."""
    texts = ["clips/cat.html", "https:cat", "<?xml version='1.0'?><a>cat</a>", "<![cat[ and dog"]
    assert clean(texts, "clean") == ["clips cat. html", "at", "cat", "<! cat and dog"]


@pytest.mark.parametrize("package", ["bs4", "ftfy"])
def test_a_package_that_is_missing_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OsoraError, match=r"which is not installed: pip install 'osora\[run\]'"):
        clean(["a cat"], "clean")
    assert clean(["A cat"], "lower") == ["a cat"]
