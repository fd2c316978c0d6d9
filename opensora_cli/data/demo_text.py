"""Tiny text encoders with random weights and a vocabulary of a few words, in Hugging Face format.

They have the parts and the file layout of T5 and CLIP, so that everything that reads those can be tried on any machine.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

WIDTH = 32
MAX_LENGTH = 77
_INIT_STD = 0.3
"""Larger than a trained model's: so few random layers would else give nearly the same output for every caption."""
_ATTENTION_INIT_STD = 0.09
"""Of queries, keys and T5's position biases: small, so that every token hears all words alike. Random attention that picks
single words would make what a token says of its own word depend on all others, and no model could tell new captions' words."""
_ATTENTION = (".q.", ".k.", "q_proj.", "k_proj.", "relative_attention_bias.")

_T5_SPECIALS = ("<pad>", "</s>", "<unk>")
_CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>", "<unk>")


def make_tiny_text_encoders(folder: Path, words: Sequence[str], seed: int) -> None:
    """Write `folder/t5` and `folder/clip`: configuration, weights and tokenizer; every word of `words` is one token.

    They load with T5EncoderModel, CLIPTextModel and AutoTokenizer, offline. The same words and seed give the same files.
    """
    vocabulary = sorted({word.lower() for word in words})
    _write_t5(folder / "t5", vocabulary, seed)
    _write_clip(folder / "clip", vocabulary, seed)


def _write_t5(folder: Path, vocabulary: Sequence[str], seed: int) -> None:
    from transformers import T5Config, T5EncoderModel

    tokens = [*_T5_SPECIALS, *vocabulary]
    config = T5Config(
        vocab_size=len(tokens),
        d_model=WIDTH,
        d_kv=8,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        model = T5EncoderModel(config)
    _save(model, folder, seed)
    _write_tokenizer(folder, tokens, "$A </s>", pad="<pad>", eos="</s>", unk="<unk>")


def _write_clip(folder: Path, vocabulary: Sequence[str], seed: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    # The last token has the largest number: CLIP takes the pooled vector there.
    start, end, unknown = _CLIP_SPECIALS
    tokens = [unknown, *vocabulary, start, end]
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=len(tokens) - 1,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    with torch.random.fork_rng(devices=[]):
        model = CLIPTextModel(config)
    _save(model, folder, seed)
    _write_tokenizer(folder, tokens, f"{start} $A {end}", pad=end, eos=end, unk=unknown, bos=start)


def _save(model: Any, folder: Path, seed: int) -> None:
    """Draw every weight anew from `seed` and write config and weights: the constructor's came from the global generator."""
    generator = torch.Generator().manual_seed(seed)
    module: nn.Module = model
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            if parameter.dim() < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                attends = any(part in name for part in _ATTENTION)
                parameter.normal_(0.0, _ATTENTION_INIT_STD if attends else _INIT_STD, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    # Parameters come once each here, tied ones too, which is the form that from_pretrained expects.
    weights = {name: parameter.detach().contiguous() for name, parameter in module.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path, tokens: Sequence[str], template: str, **special: str) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    around = {piece for piece in template.split() if piece != "$A"}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, numbers[token]) for token in sorted(around)]
    )
    tokenizer.add_special_tokens(sorted(set(special.values())))
    tokenizer.save(str(folder / "tokenizer.json"))
    description = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
        **{f"{name}_token": token for name, token in special.items()},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
