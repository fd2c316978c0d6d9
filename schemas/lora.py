"""Low-rank adapters: training a few weights beside the frozen ones."""

from pydantic import Field

from schemas.base import Schema, cost


class LoraConfig(Schema):
    """Adapters on the denoiser's linear layers (arXiv 2106.09685); key names are peft's."""

    from_pretrained: str | None = Field(
        None,
        description="Adapter to start from, a folder or file of peft or diffusers; unset starts from no change.",
        json_schema_extra=cost("changes_numerics"),
    )
    r: int = Field(
        16, ge=1, description="Rank of every adapter.", json_schema_extra=cost("breaks_resume", "changes_memory")
    )
    lora_alpha: float = Field(
        16.0,
        gt=0,
        description="Adapters are scaled by lora_alpha / r.",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )
    lora_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of an adapter's inputs that is zeroed while training.",
        json_schema_extra=cost("changes_numerics"),
    )
    target_modules: tuple[str, ...] = Field(
        ("qkv", "q_proj", "k_proj", "v_proj", "proj", "v_mlp", "linear1", "linear2"),
        min_length=1,
        description="Layers that get an adapter, by the end of their names.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    fp8_weights: bool = Field(
        False,
        description="Keep the frozen matrices of the blocks in 8-bit floats and multiply in dtype.",
        json_schema_extra=cost("changes_memory", "changes_numerics"),
    )
