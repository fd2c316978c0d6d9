"""Sampling from Python: `Pipeline` makes clips and images; `Request` says of what, for whole jobs with files."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opensora_cli.sampling.pipeline import Made, Pipeline
    from opensora_cli.sampling.request import Request

__all__ = ["Made", "Pipeline", "Request"]


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: a command that finds a recipe's mistakes does so without PyTorch."""
    if name in ("Made", "Pipeline"):
        from opensora_cli.sampling import pipeline

        return pipeline.Pipeline if name == "Pipeline" else pipeline.Made
    if name == "Request":
        from opensora_cli.sampling.request import Request

        return Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
