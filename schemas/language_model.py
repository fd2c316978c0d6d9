"""The language model that writes prompts out and scores their motion."""

from pydantic import Field

from schemas.base import Schema, cost


class LanguageModelConfig(Schema):
    """A model behind an OpenAI-compatible endpoint; OPENAI_BASE_URL and OPENAI_API_KEY say where and who asks."""

    model: str = Field("gpt-4o", description="Name of the model.", json_schema_extra=cost("changes_numerics"))
    timeout_seconds: float = Field(60.0, gt=0, le=3600, description="How long one answer may take.")
    retries: int = Field(3, ge=0, le=20, description="Further tries after a failure that may pass.")
    wait_seconds: float = Field(
        1.0, ge=0, le=600, description="Wait before the first further try; it doubles each time."
    )
