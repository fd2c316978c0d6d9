"""What a checkpoint takes on disk."""

from opensora_cli.planning.plan import Target, make_plan
from opensora_cli.planning.precision import STATE, Precision
from opensora_cli.planning.train import MOMENTS
from schemas.parallel import ParallelConfig
from schemas.recipes import TrainRecipe, VaeTrainRecipe


def checkpoint_bytes(recipe: TrainRecipe | VaeTrainRecipe) -> int:
    """Return about what one checkpoint takes: fp32 weights, moments and average, and the exports in the recipe's precision.

    A discriminator and its optimizer are not counted.
    """
    whole = recipe.model_copy(
        update={
            "parallel": ParallelConfig(),
            "dataset": recipe.dataset.model_copy(update={"data_path": None}),
        }
    )
    weights = make_plan(whole, Target(1)).gradients  # a gradient for every trained weight
    average = weights if recipe.optim.ema_decay is not None else 0
    moments = weights * MOMENTS[recipe.optim.cls] // STATE
    exports = (weights + average) * Precision.of(recipe.dtype, "cpu").matrix // STATE
    return weights + average + moments + exports
