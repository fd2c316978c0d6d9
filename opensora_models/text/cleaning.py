"""Captions as the T5 of Open-Sora 1.x was fed with them: small letters, without markup, links and what product pages add.

The published models saw captions cleaned twice, so a prompt has to go the same way; where the rules are odd, they stay odd.
The rules are those of DeepFloyd IF, by way of PixArt-alpha. Mended text comes from ftfy, markup is read by Beautiful Soup.
"""

import html
import re
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple
from urllib.parse import unquote_plus

from schemas.errors import OsoraError

Cleaning = Literal["none", "lower", "clean"]

_A = "[a-zA-Z]"
_SITES = "com|co|ru|net|org|edu|gov|it"
_FILES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
_SITE = rf"[a-z0-9.-]+\.(?:{_SITES})[\w/-]*\b/?(?!@)"
_DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_SIGNS = "#®•©™&@·º½¾¿¡§~)(\\]\\[}{|\\\\/*"


class _Rule(NamedTuple):
    """What is found, and what takes its place."""

    found: re.Pattern[str]
    instead: str = ""


def _rules(*rules: tuple[str, str]) -> tuple[_Rule, ...]:
    return tuple(_Rule(re.compile(found), instead) for found, instead in rules)


_MARKS_AND_LINKS = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{_SITE})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{_SITE})", ""),
)
"""Before markup is taken out: a placeholder that looks like it, and addresses."""

_SIGNS_AND_NUMBERS = _rules(
    (r"@\w+\b", ""),  # @somebody
    ("[\u31c0-\u9fff]+", ""),  # Chinese characters and their strokes; kana stay
    (f"[{_DASHES}]+", "-"),
    ("[`´«»“”¨]", '"'),  # noqa: RUF001
    ("[‘’]", "'"),  # noqa: RUF001
    ("&quot;?", ""),  # entities that were escaped twice
    ("&amp", ""),
    (r"\d{1,3}(?:\.\d{1,3}){3}", " "),  # 12.34.56.78
    (r"\d:\d\d\s+$", ""),  # a time at the end
    (r"\\n", " "),  # a line break that was written out
    (r"#(?:\d{1,3}|\d{5,})\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{_FILES})", ""),
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (f"[{_SIGNS}]+", " "),
    (r"\s+\.\s+", " "),
)
"""After it, up to the count of dashes."""

_CODES_AND_OFFERS = _rules(
    (rf"\b{_A}{{1,3}}\d{{3,15}}\b", ""),  # jc6640
    (rf"\b{_A}+\d+{_A}+\b", ""),  # jc6640vc
    (rf"\b\d+{_A}+\d+\b", ""),  # 6640vc231
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_FILES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (rf"\b\d*{_A}+\d+{_A}+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # noqa: RUF001  1280x720, with the letter of either alphabet or the sign
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"']((?s:.+))[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)
"""After the text is mended: what a shop's page has, then spaces and what is left at the ends."""

_JOINER = re.compile("[-_]")
_MOST_JOINERS = 3
"""More dashes and underscores than these join words of a file's name; fewer are part of the language."""


def clean(texts: Sequence[str], how: Cleaning) -> list[str]:
    """Return captions as they are, as small letters without spaces around them, or cleaned twice.

    Raises OsoraError where cleaning needs a package that is not installed.
    """
    if how == "none":
        return list(texts)
    if how == "lower":
        return [text.lower().strip() for text in texts]
    return [clean_once(clean_once(text)) for text in texts]


def clean_once(text: str) -> str:
    """Return a caption after one round of the rules."""
    text = _apply(_MARKS_AND_LINKS, unquote_plus(text).strip().lower())
    text = _apply(_SIGNS_AND_NUMBERS, _without_markup(text))
    if len(_JOINER.findall(text)) > _MOST_JOINERS:
        text = _JOINER.sub(" ", text)
    return _apply(_CODES_AND_OFFERS, _mended(text)).strip()


def _apply(rules: Sequence[_Rule], text: str) -> str:
    for rule in rules:
        text = rule.found.sub(rule.instead, text)
    return text


def _without_markup(text: str) -> str:
    """Return the text of an HTML fragment; what cannot be read as one is text, where upstream stops."""
    try:
        from bs4 import BeautifulSoup, ParserRejectedMarkup, UnusualUsageWarning
    except ImportError as error:
        raise OsoraError(_missing("beautifulsoup4")) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusualUsageWarning)  # a caption may look like a path, a link or XML
        try:
            return BeautifulSoup(text, features="html.parser").text
        except ParserRejectedMarkup:
            return text


def _mended(text: str) -> str:
    """Return the text with wrongly decoded characters put right, and entities replaced, once and once more."""
    try:
        from ftfy import fix_text
    except ImportError as error:
        raise OsoraError(_missing("ftfy")) from error
    return html.unescape(html.unescape(fix_text(text))).strip()


def _missing(package: str) -> str:
    return (
        f"cleaning = \"clean\" needs {package}, which is not installed: pip install 'osora[run]', or pip install {package}. "
        'With cleaning = "lower" captions are not cleaned.'
    )
