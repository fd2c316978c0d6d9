"""Prompts written by a language model, which here is a small server on this machine."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from opensora_cli.sampling.language_model import API_KEY, BASE_URL, LanguageModel
from opensora_cli.sampling.prompts import WrittenPrompt, write_prompt
from opensora_cli.sampling.request import Request, plan_samples
from schemas.denoiser import MMDiTConfig
from schemas.errors import OsoraError
from schemas.language_model import LanguageModelConfig
from schemas.recipes import SampleRecipe
from schemas.sampling import SamplingConfig
from tests.unit.language_model_server import Handler, Server, running, said

CONFIG = LanguageModelConfig(model="writer", timeout_seconds=5, retries=2, wait_seconds=0)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def model(server: Server, key: str = "secret", **config: Any) -> LanguageModel:
    environment = {BASE_URL: server.url, API_KEY: key}
    return LanguageModel.from_environment(CONFIG.model_copy(update=config), environment)


def written(server: Server, prompt: str = "a cat", **sampling: Any) -> WrittenPrompt:
    recipe = SampleRecipe(kind="sample", model=MMDiTConfig(cond_embed=True), sampling=SamplingConfig(**sampling))
    (sample,) = plan_samples(Request(prompts=(prompt,)), recipe)
    return write_prompt(sample, model(server))


def test_a_question_goes_to_the_endpoint_with_model_and_key(server: Server) -> None:
    server.answers = [said("  an answer\n")]
    assert model(server).ask("be brief", "what?") == "an answer"
    (asked,) = server.asked
    assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "writer")
    assert [one["content"] for one in asked["messages"]] == ["be brief", "what?"]
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_server_of_ones_own_needs_no_key(server: Server) -> None:
    server.answers = [said("yes")]
    assert model(server, key="").ask("", "?") == "yes"
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("failure", [(429, b"slow down"), (503, b""), None, (200, said("  ")[1])])
def test_a_failure_that_may_pass_is_tried_again(server: Server, failure: tuple[int, bytes] | None) -> None:
    server.answers = [failure, failure, said("yes")]
    assert model(server).ask("", "?") == "yes"
    assert len(server.asked) == 3


def test_after_the_last_try_it_is_an_error_with_the_reason(server: Server) -> None:
    server.answers = [(503, b"")] * 3
    with pytest.raises(OsoraError, match=r"no answer of writer after 3 tries: status 503"):
        model(server).ask("", "?")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b"wrong key"), r"status 401 .*wrong key.*OPENAI_API_KEY"),
        ((200, b"<html>"), r"not an answer of a chat model: '<html>'"),
        ((200, b'{"choices": []}'), r"not an answer of a chat model"),
    ],
)
def test_what_will_not_pass_is_an_error_at_once(server: Server, answer: tuple[int, bytes], message: str) -> None:
    server.answers = [answer]
    with pytest.raises(OsoraError, match=message):
        model(server).ask("", "?")
    assert len(server.asked) == 1


def test_an_answer_that_takes_too_long_is_given_up(server: Server) -> None:
    done = threading.Event()
    handle, server.answers = Handler.do_POST, [said("late")]
    patched = pytest.MonkeyPatch()
    patched.setattr(Handler, "do_POST", lambda self: done.wait(5) and handle(self))
    with pytest.raises(OsoraError, match=r"after 1 tries: .*timed out"):
        model(server, timeout_seconds=0.05, retries=0).ask("", "?")
    patched.undo()
    server.answers = []
    done.set()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "OPENAI_API_KEY is not set: refine_prompt and"),
        ({BASE_URL: "localhost:8000"}, "not an address. Write it like"),
    ],
)
def test_an_environment_without_an_endpoint_says_what_to_set(environment: dict[str, str], message: str) -> None:
    with pytest.raises(OsoraError, match=message):
        LanguageModel.from_environment(CONFIG, environment)


def test_a_refined_prompt_is_encoded_with_the_usual_suffixes_and_kept(server: Server) -> None:
    server.answers = [said("A grey cat\nwalks.")]
    assert written(server, refine_prompt=True) == WrittenPrompt(
        "A grey cat walks. 24 FPS. 4 motion score.", "A grey cat walks.", None
    )


def test_a_dynamic_score_is_that_of_the_refined_prompt(server: Server) -> None:
    server.answers = [said("A cat leaps."), said("6")]
    done = written(server, refine_prompt=True, motion_score="dynamic", fps_save=16)
    assert done == WrittenPrompt("A cat leaps. 16 FPS. 6 motion score.", "A cat leaps.", "6")
    assert server.asked[1]["messages"][1]["content"] == "A cat leaps."


def test_an_image_needs_no_score(server: Server) -> None:
    assert written(server, num_frames=1, motion_score="dynamic") == WrittenPrompt("a cat")
    assert server.asked == []


@pytest.mark.parametrize("answer", ["fast", "8", "between 3 and 5", "12"])
def test_an_answer_that_is_no_score_is_an_error(server: Server, answer: str) -> None:
    server.answers = [said(answer)]
    with pytest.raises(OsoraError, match=r"score from 1 to 7 and said"):
        written(server, motion_score="dynamic")
