"""Prompts of Open-Sora 1.x: scores behind them, a text for each loop of a long clip, references in JSON behind it all.

    |0| a beach at dawn |2| the same beach at noon {"reference_path": "dawn.png", "mask_strategy": "0"}

Source: Open-Sora 1.2, utils/inference_utils.py.
"""

import json
import re
from dataclasses import dataclass

from schemas.errors import OsoraError

_FIRST_LOOP = "|0|"
_KEYS = ("reference_path", "mask_strategy")


@dataclass(frozen=True)
class PromptParts:
    """A prompt without its JSON: paths of references, separated by `;`, and their strategy; empty where there is none."""

    text: str
    reference: str = ""
    strategy: str = ""


def add_scores(
    prompt: str, aesthetic: float | None = None, motion: float | None = None, camera: str | None = None
) -> str:
    """Return a prompt with scores behind it, such as ` aesthetic score: 6.5.`; one that it has already stays as it is.

    `camera` is a camera's motion in words. None leaves a score out.
    """
    scores = {
        "aesthetic score": None if aesthetic is None else f"{aesthetic:.1f}",
        "motion score": None if motion is None else f"{motion:.1f}",
        "camera motion": camera,
    }
    behind = [f" {name}: {score}." for name, score in scores.items() if score is not None and f"{name}:" not in prompt]
    return prompt + "".join(behind)


def split_loops(prompt: str) -> tuple[list[str], list[int] | None]:
    """Return the texts of `|0| one |2| two` and the loops that they begin at; a prompt without loops whole, and None.

    Raises OsoraError where a loop is no number.
    """
    if not prompt.startswith(_FIRST_LOOP):
        return [prompt], None
    texts, loops = _loops(prompt)
    return [text.strip() for text in texts], loops


def join_loops(texts: list[str], loops: list[int] | None) -> str:
    """Return what `split_loops` took apart."""
    if loops is None:
        return texts[0]
    return "".join(f"|{loop}|{text}" for loop, text in zip(loops, texts, strict=True))


def prompt_at_loop(prompt: str, loop: int) -> str:
    """Return the text of one loop, spaces and all: the last one that began by then. Raises OsoraError as `split_loops`."""
    if not prompt.startswith(_FIRST_LOOP):
        return prompt
    texts, loops = _loops(prompt)
    return texts[sum(start <= loop for start in loops) - 1]


def split_references(prompt: str) -> PromptParts:
    """Return a prompt and what the JSON behind it says. Raises OsoraError for JSON that is wrong or says something else."""
    text, *behind = re.split(r"(?=\{)", prompt, maxsplit=1)
    if not behind:
        return PromptParts(text)
    allowed = f'after the text, {{"{_KEYS[0]}": "x.png", "{_KEYS[1]}": "0"}} is expected, or no brace at all'
    try:
        found = json.loads(behind[0])
    except json.JSONDecodeError as error:
        raise OsoraError(f"prompt {prompt!r}: {behind[0]!r} is no JSON ({error}); {allowed}.") from error
    if unknown := [key for key in found if key not in _KEYS]:
        raise OsoraError(f"prompt {prompt!r}: nothing reads {unknown[0]!r}; {allowed}.")
    if wrong := [key for key, value in found.items() if not isinstance(value, str)]:
        raise OsoraError(f"prompt {prompt!r}: {wrong[0]} is no text; {allowed}.")
    return PromptParts(text, *(found.get(key, "") for key in _KEYS))


def _loops(prompt: str) -> tuple[list[str], list[int]]:
    """Return the texts between bars as they are, and the loops; they have to go up."""
    parts = prompt.split("|")[1:]
    numbers, texts = parts[::2], parts[1::2]
    if len(numbers) != len(texts) or not all(number.strip().isdecimal() for number in numbers):
        raise OsoraError(
            f"prompt {prompt!r}: between bars go the number of a loop and its text in turn: |0| dawn |2| noon."
        )
    loops = [int(number) for number in numbers]
    if loops != sorted(set(loops)):
        raise OsoraError(f"prompt {prompt!r}: loops begin at {loops}; each has to begin after the one before.")
    return texts, loops
