"""The text encoders of Flux and Open-Sora, frozen: T5 for the tokens, CLIP for the pooled vector.

They come from a local folder or the local hub cache; nothing is downloaded and no foreign code is run. Weights are
safetensors, or PyTorch's own files read without unpickling objects (the published T5 has no others).
"""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedModel, T5EncoderModel
from transformers.utils.logging import disable_progress_bar

from opensora_models.text.cleaning import Cleaning, clean
from opensora_models.text.features import TextFeatures
from schemas.errors import OsoraError
from schemas.text import TextPart


class T5Encoder(nn.Module):
    """Captions to the last hidden states of T5's encoder (B, max_length, width), padding included.

    Without `masked` no attention mask is passed: the denoisers of Flux and Open-Sora 2.0 were trained on padded tokens that
    attend to one another. Open-Sora 1.x masks padding, and cleans captions first: see `cleaning.py`.
    """

    def __init__(
        self, name: str, max_length: int, dtype: torch.dtype, *, cleaning: Cleaning = "none", masked: bool = False
    ) -> None:
        super().__init__()
        self.tokenizer = _load_tokenizer(name, "text.t5")
        self.model = _load_model(T5EncoderModel, name, "text.t5", dtype)
        self.max_length = max_length
        self.cleaning: Cleaning = cleaning
        self.masked = masked
        self.width: int = self.model.config.d_model

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode captions, longer ones cut: the tokens, and which of them count, (B, max_length) bool; unmasked, all do."""
        ids_BL, mask_BL = _token_ids(self.tokenizer, clean(texts, self.cleaning), self.max_length)
        ids_BL, mask_BL = ids_BL.to(self.model.device), mask_BL.to(self.model.device)
        if not self.masked:
            return self.model(input_ids=ids_BL).last_hidden_state, torch.ones_like(mask_BL)
        return self.model(input_ids=ids_BL, attention_mask=mask_BL.long()).last_hidden_state, mask_BL

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode captions; longer ones are cut."""
        return self.encode(texts)[0]


class ClipEncoder(nn.Module):
    """Captions to CLIP's pooled vector (B, width): the last hidden state at the end-of-text token."""

    def __init__(self, name: str, max_length: int, dtype: torch.dtype, *, cleaning: Cleaning = "none") -> None:
        super().__init__()
        self.tokenizer = _load_tokenizer(name, "text.clip")
        self.model = _load_model(CLIPTextModel, name, "text.clip", dtype)
        positions = self.model.config.max_position_embeddings
        if max_length > positions:
            raise OsoraError(
                f"text.clip.max_length = {max_length}: {name} has {positions} positions. Use at most that many."
            )
        self.max_length = max_length
        self.cleaning: Cleaning = cleaning
        self.width: int = self.model.config.hidden_size

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode captions; longer ones are cut."""
        ids_BL, _ = _token_ids(self.tokenizer, clean(texts, self.cleaning), self.max_length)
        return self.model(input_ids=ids_BL.to(self.model.device)).pooler_output


class TextEncoders:
    """Those encoders of captions that a denoiser needs: they give the `parts` of `TextFeatures`."""

    def __init__(self, parts: Sequence[TextPart], t5: T5Encoder | None, clip: ClipEncoder | None) -> None:
        self.parts = parts
        self.t5 = t5
        self.clip = clip

    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        """Encode captions. Raises OsoraError for one that is no class, where classes are wanted."""
        found: dict[str, Tensor] = {}
        if self.t5 is not None:
            found["t5"], found["t5_mask"] = self.t5.encode(texts)
        if self.clip is not None:
            found["clip"] = self.clip(texts)
        if "labels" in self.parts:
            found["labels"] = _class_numbers(texts)
        return TextFeatures({part: found[part] for part in self.parts})


def _class_numbers(texts: Sequence[str]) -> Tensor:
    wrong = next((text for text in texts if not (text.strip().isascii() and text.strip().isdecimal())), None)
    if wrong is not None:
        raise OsoraError(
            f"caption {wrong!r}: this denoiser takes classes. Write the number of a class, counted from 0."
        )
    return torch.tensor([int(text) for text in texts])


def _token_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
    """Return the tokens' ids (B, max_length), and which of them are no padding, as bool."""
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return tokens["input_ids"], tokens["attention_mask"].bool()


def _load_tokenizer(name: str, key: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(_local(name), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise OsoraError(_not_here(name, key, "tokenizer", error)) from error


def _load_model(family: type[PreTrainedModel], name: str, key: str, dtype: torch.dtype) -> PreTrainedModel:
    disable_progress_bar()  # its bars would break into ours
    try:
        model, report = family.from_pretrained(
            _local(name), local_files_only=True, weights_only=True, dtype=dtype, output_loading_info=True
        )
    except UnpicklingError as error:
        reason = ValueError("they hold pickled objects, which could run code and are never loaded.")
        raise OsoraError(_not_here(name, key, "weights", reason)) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise OsoraError(_not_here(name, key, "weights", error)) from error
    if absent := sorted(report["missing_keys"]):
        raise OsoraError(
            f"{key}.from_pretrained = {name!r}: its weights lack {len(absent)} keys of {family.__name__}, "
            f"{absent[0]} first. Name a model of that kind."
        )
    return model.eval().requires_grad_(False)


def _local(name: str) -> str:
    return str(Path(name).expanduser())


def _not_here(name: str, key: str, part: str, error: Exception) -> str:
    """Say where the part was looked for and how to get it."""
    reason = str(error).strip().split("\n", 1)[0]
    if Path(name).expanduser().is_dir():
        return f"{key}.from_pretrained = {name!r}: the folder has no {part} that can be read. {reason}"
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        return f"{key}.from_pretrained = {name!r}: no such folder. Give a folder in Hugging Face format, or a hub name."
    return (
        f"{key}.from_pretrained = {name!r}: no such folder, and no {part} of it in the local hub cache. "
        f"Download it with `hf download {name}`, or give a folder. {reason}"
    )
