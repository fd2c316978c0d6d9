"""Asking a language model behind an OpenAI-compatible endpoint: one question, one answer, over HTTP."""

import http.client
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from schemas.errors import OsoraError
from schemas.language_model import LanguageModelConfig

BASE_URL, API_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
MAY_PASS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which another try may succeed."""
SHOWN = 200  # characters of an answer that a message quotes


class _PassingError(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class LanguageModel:
    """A model at `url` (with /v1); `key` may be empty for a local server."""

    config: LanguageModelConfig
    url: str
    key: str

    @classmethod
    def from_environment(
        cls, config: LanguageModelConfig, environment: Mapping[str, str] = os.environ
    ) -> "LanguageModel":
        """Return the model that OPENAI_BASE_URL and OPENAI_API_KEY point at.

        Raises OsoraError for an address that is none, and for OpenAI's own without a key.
        """
        url, key = environment.get(BASE_URL) or DEFAULT_URL, environment.get(API_KEY) or ""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise OsoraError(f"{BASE_URL}={url!r}: not an address. Write it like {DEFAULT_URL}.")
        if not key and BASE_URL not in environment:
            raise OsoraError(
                f"{API_KEY} is not set: refine_prompt and the dynamic motion score ask a language model. Set it, point "
                f"{BASE_URL} at a server of your own, or use --motion-score 4 without --refine-prompt."
            )
        return cls(config, url.rstrip("/"), key)

    def ask(self, instructions: str, question: str) -> str:
        """Return the answer, stripped. Raises OsoraError when it does not come, or is empty."""
        failure = ""
        for attempt in range(self.config.retries + 1):
            if attempt:
                time.sleep(self.config.wait_seconds * 2 ** (attempt - 1))
            try:
                return self._answer(self._post(instructions, question))
            except _PassingError as error:
                failure = str(error)
        raise OsoraError(
            f"{self.url}: no answer of {self.config.model} after {self.config.retries + 1} tries: {failure}. Try again later, "
            "or change sampling.language_model."
        )

    def _post(self, instructions: str, question: str) -> bytes:
        address = urlsplit(self.url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
        body = json.dumps({"model": self.config.model, "messages": messages, "temperature": 0})
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        connection = kind(address.hostname or "", address.port, timeout=self.config.timeout_seconds)
        try:
            connection.request("POST", f"{address.path}/chat/completions", body.encode(), headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if response.status in MAY_PASS:
            raise _PassingError(f"status {response.status}")
        if response.status != http.client.OK:
            raise OsoraError(
                f"{self.url}: status {response.status} {response.reason}: {content[:SHOWN].decode(errors='replace')}. Check "
                f"{API_KEY}, {BASE_URL} and sampling.language_model.model."
            )
        return content

    def _answer(self, content: bytes) -> str:
        try:
            answer: Any = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            shown = content[:SHOWN].decode(errors="replace")
            raise OsoraError(f"{self.url}: not an answer of a chat model: {shown!r}. Check {BASE_URL}.") from error
        if not isinstance(answer, str) or not answer.strip():
            raise _PassingError("an empty answer")
        return answer.strip()
