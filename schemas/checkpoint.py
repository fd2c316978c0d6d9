"""Checkpoints and what a run records."""

from typing import Annotated

from pydantic import Field

from schemas.base import Schema


class CheckpointConfig(Schema):
    """When a run saves, and how much it keeps."""

    every: int = Field(1000, ge=1, description="Updates between checkpoints; the last update always saves.")
    keep_n_latest: int = Field(
        5, ge=1, description="Checkpoints to keep; older ones are removed after a new one is complete."
    )
    async_save: bool = Field(
        True, description="Copy the state while the next update computes, and write it to disk while training goes on."
    )


class LoggingConfig(Schema):
    """What a run writes while it trains."""

    log_every: int = Field(
        10, ge=1, description="Updates between lines in the log; metrics.jsonl and TensorBoard get every update."
    )
    wandb_project: str | None = Field(
        None, description="Weights & Biases project that metrics also go to; unset sends nothing anywhere."
    )
    profile_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Updates to trace on the main process: a Chrome trace, and on a GPU a snapshot of its memory."
    )
    tensorboard: bool = Field(True, description="Write loss, lr, grad norm, speed and memory as TensorBoard events.")
