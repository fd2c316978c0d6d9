"""Optional packages: which extra brings them, and the one line a user sees when it is missing."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from schemas.checks.machine import INSTALL_COLOSSALAI
from schemas.errors import UsageError

EXTRAS: dict[str, tuple[str, ...]] = {
    "run": ("torch", "transformers", "safetensors", "einops", "numpy", "pandas", "pyarrow", "av", "PIL", "tensorboard"),
    "flash": ("flash_attn",),
    "wandb": ("wandb",),
}
"""extra -> the modules that it installs."""


def require_extra(extra: str, modules: Sequence[str] = ()) -> None:
    """Stop with one line and exit code 2 if a package of an extra is not installed; imports nothing.

    `modules` narrows the question to the modules that the command uses. Raises UsageError.
    """
    missing = [module for module in modules or EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise UsageError(f"{_command()} needs {', '.join(missing)}: pip install 'osora[{extra}]'")


def require_colossalai() -> None:
    """Raise UsageError, with the command that installs it, where ColossalAI is missing; imports nothing."""
    if find_spec("colossalai") is None:
        raise UsageError(f'parallel.engine = "colossalai": ColossalAI is not installed. {INSTALL_COLOSSALAI}')


def _command() -> str:
    """Name the command as the user typed it: `osora train`."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return " ".join(["osora", *words])
