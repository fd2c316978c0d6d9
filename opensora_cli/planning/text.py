"""Size of the text encoders, from their config.json or from what is known of the published ones."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import OsoraError
from schemas.text import TextConfig, TextEncoderConfig, TextPart

KNOWN: dict[str, dict[str, Any]] = {
    "google/t5-v1_1-xxl": {
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_heads": 64,
        "num_layers": 24,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
    },
    "openai/clip-vit-large-patch14": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
}
"""Published encoders -> what their config.json says of their size; a folder that ends so is taken for one of them."""


@dataclass(frozen=True)
class TextEncoder:
    """An encoder: its weights, and the work and memory of encoding one caption (numbers, not bytes)."""

    weights: int
    flops: int
    scores: int
    """Attention scores of a layer: the largest thing there is while a caption is encoded."""
    width: int
    hidden: int
    """Numbers of the widest tensor of a caption beside the scores: the MLP's."""

    def working(self, captions: int, matrix: int) -> int:
        """Return the bytes in use while so many captions are encoded: the scores, their fp32 softmax and its input."""
        return captions * (self.scores * (matrix + 8) + self.hidden * 3 * matrix)


Measure = Callable[[dict[str, Any], int], TextEncoder]
"""The facts of a config.json and the tokens of a caption, to an encoder's size."""


def text_encoders(
    config: TextConfig, parts: Collection[TextPart] = ("t5", "clip")
) -> tuple[dict[str, TextEncoder], list[str]]:
    """Return "t5" and "clip", those that `parts` need, as far as their size is known here; a note for each that is not."""
    found: dict[str, TextEncoder] = {}
    notes = []
    known: tuple[tuple[TextPart, TextEncoderConfig, Measure], ...] = (
        ("t5", config.t5, _t5),
        ("clip", config.clip, _clip),
    )
    for name, encoder, measure in known:
        if name not in parts:
            continue
        facts = _facts(encoder, name)
        if facts is None:
            notes.append(
                f"text.{name}.from_pretrained = {encoder.from_pretrained!r}: no folder here and none of "
                f"{', '.join(KNOWN)}: its memory is not counted"
            )
        else:
            try:
                found[name] = measure(facts, encoder.max_length)
            except KeyError as error:
                raise OsoraError(
                    f"text.{name}.from_pretrained = {encoder.from_pretrained!r}: its config.json lacks {error}. "
                    f"Name the folder of a {name.upper()} model."
                ) from error
    return found, notes


def _facts(encoder: TextEncoderConfig, name: str) -> dict[str, Any] | None:
    path = Path(encoder.from_pretrained).expanduser() / "config.json"
    if not path.is_file():
        return KNOWN.get("/".join(encoder.from_pretrained.rstrip("/").split("/")[-2:]))
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OsoraError(f"text.{name}.from_pretrained: {path} cannot be read: {error}. It must be JSON.") from error
    if not isinstance(facts, dict):
        raise OsoraError(f"text.{name}.from_pretrained: {path} holds no table. It must be a JSON object.")
    inner = facts.get("text_config")
    return {**facts, **inner} if isinstance(inner, dict) else facts


def _t5(facts: dict[str, Any], length: int) -> TextEncoder:
    width, heads = facts["d_model"], facts["num_heads"]
    inner, hidden, layers = heads * facts["d_kv"], facts["d_ff"], facts["num_layers"]
    matrices = 3 if str(facts.get("feed_forward_proj", "relu")).startswith("gated") else 2
    products = 4 * width * inner + matrices * width * hidden
    relative = facts.get("relative_attention_num_buckets", 32) * heads
    weights = facts["vocab_size"] * width + layers * (products + 2 * width) + relative + width
    flops = layers * (2 * products * length + 4 * length**2 * inner)
    return TextEncoder(weights, flops, heads * length**2, width, matrices * hidden * length)


def _clip(facts: dict[str, Any], length: int) -> TextEncoder:
    width, hidden, layers = facts["hidden_size"], facts["intermediate_size"], facts["num_hidden_layers"]
    products = 4 * width**2 + 2 * width * hidden
    biases = 4 * width + hidden + width + 4 * width
    embeddings = (facts["vocab_size"] + facts["max_position_embeddings"]) * width
    weights = embeddings + layers * (products + biases) + 2 * width
    flops = layers * (2 * products * length + 4 * length**2 * width)
    return TextEncoder(weights, flops, facts["num_attention_heads"] * length**2, width, 2 * hidden * length)
