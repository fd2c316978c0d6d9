"""What a checkpoint takes on disk."""

from opensora_cli.planning.optimizers import moment_bytes
from opensora_cli.planning.plan import Target, make_plan
from opensora_cli.planning.precision import STATE, Precision
from schemas.memory import MemoryConfig
from schemas.parallel import ParallelConfig
from schemas.recipes import TrainRecipe, VaeTrainRecipe


def checkpoint_bytes(recipe: TrainRecipe | VaeTrainRecipe) -> int:
    """Return about what one checkpoint takes: fp32 weights, moments and average, and the exports in the recipe's precision.

    A discriminator and its optimizer are not counted.
    """
    whole = recipe.model_copy(
        update={
            "parallel": ParallelConfig(),
            "memory": MemoryConfig(),
            "dataset": recipe.dataset.model_copy(update={"data_path": None}),
        }
    )
    weights = make_plan(whole, Target(1)).gradients  # a gradient for every trained weight
    average = weights if recipe.optim.ema_decay is not None else 0
    moments = moment_bytes(recipe.optim, weights // STATE)
    exports = (weights + average) * Precision.of(recipe.dtype, "cpu").matrix // STATE
    return weights + average + moments + exports
