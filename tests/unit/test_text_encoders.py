"""Text encoders from local folders, equal to transformers' own models; nothing is downloaded."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from opensora_models.build import build_text_encoders
from opensora_models.text.encoders import ClipEncoder, T5Encoder
from schemas.errors import OsoraError
from schemas.text import TextConfig, TextEncoderConfig

WORDS = ["a", "red", "ball", "rolls"]


def tokenizer(end: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["<pad>", end, "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token=end, unk_token="<unk>")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    t5 = T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    T5EncoderModel(t5).save_pretrained(root / "t5")
    tokenizer("</s>").save_pretrained(root / "t5")
    clip = CLIPTextConfig(
        vocab_size=8,
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=10,
        pad_token_id=0,
        eos_token_id=1,
    )
    CLIPTextModel(clip).save_pretrained(root / "clip")
    tokenizer("<end>").save_pretrained(root / "clip")
    return root


def test_t5_gives_every_token_unmasked(folders: Path) -> None:
    encoder = T5Encoder(str(folders / "t5"), 6, torch.float32)
    out = encoder(["a red ball", "rolls"])
    ids = torch.tensor([[3, 4, 5, 1, 0, 0], [6, 1, 0, 0, 0, 0]])
    model = T5EncoderModel.from_pretrained(folders / "t5").eval()
    want = model(input_ids=ids).last_hidden_state
    assert out.shape == (2, 6, encoder.width)
    torch.testing.assert_close(out, want, atol=1e-6, rtol=1e-5)
    masked = model(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    assert (masked - out).abs().max() > 1e-3


def test_masked_t5_gives_a_mask_and_its_tokens_do_not_see_padding(folders: Path) -> None:
    encoder = T5Encoder(str(folders / "t5"), 6, torch.float32, cleaning="lower", masked=True)
    out, mask_BL = encoder.encode(["A red BALL ", "rolls"])
    assert mask_BL.tolist() == [[True] * 4 + [False] * 2, [True] * 2 + [False] * 4]
    assert torch.equal(encoder(["A red BALL ", "rolls"]), out)
    short = T5Encoder(str(folders / "t5"), 4, torch.float32)
    torch.testing.assert_close(out[0, :4], short(["a red ball"])[0], atol=1e-6, rtol=1e-5)
    plain = T5Encoder(str(folders / "t5"), 6, torch.float32)
    assert plain.encode(["rolls"])[1].all()


def test_clip_gives_the_state_of_the_end_token(folders: Path) -> None:
    encoder = ClipEncoder(str(folders / "clip"), 6, torch.float32)
    out = encoder(["a red ball", "rolls"])
    ids = torch.tensor([[3, 4, 5, 1, 0, 0], [6, 1, 0, 0, 0, 0]])
    states = CLIPTextModel.from_pretrained(folders / "clip").eval()(input_ids=ids).last_hidden_state
    assert out.shape == (2, encoder.width)
    torch.testing.assert_close(out, torch.stack([states[0, 3], states[1, 1]]), atol=1e-6, rtol=1e-5)


def test_long_captions_are_cut_and_empty_ones_encoded(folders: Path) -> None:
    encoder = T5Encoder(str(folders / "t5"), 3, torch.float32)
    assert encoder(["a red ball rolls a red ball rolls", ""]).shape == (2, 3, 16)


def test_encoders_are_frozen_and_in_the_dtype_asked_for(folders: Path) -> None:
    config = TextConfig(
        t5=TextEncoderConfig(from_pretrained=str(folders / "t5"), max_length=6),
        clip=TextEncoderConfig(from_pretrained=str(folders / "clip"), max_length=6),
    )
    encoders = build_text_encoders(config, ("t5", "clip"), torch.bfloat16)
    for encoder in (encoders.t5, encoders.clip):
        assert {weight.dtype for weight in encoder.parameters()} == {torch.bfloat16}
        assert not any(weight.requires_grad for weight in encoder.parameters())
        assert not any(module.training for module in encoder.model.modules())
        out = encoder(["a ball"])
        assert out.dtype == torch.bfloat16
        assert not out.requires_grad


def test_a_clip_caption_cannot_outgrow_its_positions(folders: Path) -> None:
    with pytest.raises(OsoraError, match=r"text\.clip\.max_length = 11: .* has 10 positions"):
        ClipEncoder(str(folders / "clip"), 11, torch.float32)


def test_a_hub_name_that_is_not_cached_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OsoraError, match=r"Download it with `hf download nobody/no-such-t5`"):
        T5Encoder("nobody/no-such-t5", 6, torch.float32)


def test_a_folder_that_does_not_exist_is_not_taken_for_a_hub_name(tmp_path: Path) -> None:
    with pytest.raises(OsoraError, match=r"text\.clip\.from_pretrained = .*no such folder") as error:
        ClipEncoder(str(tmp_path / "none"), 6, torch.float32)
    assert "hf download" not in str(error.value)


def test_weights_of_another_family_are_refused(folders: Path, tmp_path: Path) -> None:
    T5EncoderModel.from_pretrained(folders / "t5").save_pretrained(tmp_path)
    tokenizer("</s>").save_pretrained(tmp_path)
    with pytest.raises(OsoraError, match=r"text\.clip"):
        ClipEncoder(str(tmp_path), 6, torch.float32)


class Attack:
    """Pickled, it makes a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_pytorchs_own_files_load_and_never_run_what_is_pickled_in_them(folders: Path, tmp_path: Path) -> None:
    model = T5EncoderModel.from_pretrained(folders / "t5")
    model.config.save_pretrained(tmp_path)
    tokenizer("</s>").save_pretrained(tmp_path)
    state = model.state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = T5Encoder(str(tmp_path), 6, torch.float32)
    assert torch.equal(loaded.model.state_dict()["shared.weight"], state["shared.weight"])
    torch.save({**state, "shared.weight": Attack(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OsoraError, match=r"the folder has no weights that can be read"):
        T5Encoder(str(tmp_path), 6, torch.float32)
    assert not (tmp_path / "ran").exists()
