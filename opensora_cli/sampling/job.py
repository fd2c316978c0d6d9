"""`osora sample` in one of its processes, or in the only one."""

from rich.console import Console

from opensora_cli.distributed.launch import end_with_launcher
from opensora_cli.distributed.process import PATIENCE, leave, start_process
from opensora_cli.sampling.pipeline import Pipeline
from opensora_cli.sampling.request import Request
from opensora_cli.supported import check_supported
from schemas.recipes import SampleRecipe
from schemas.resolve import Resolved


def run_sampling(resolved: Resolved, request: Request, *, ema: bool, overwrite: bool, resume: bool) -> None:
    """Make this process's share of a job with files; the first process raises OsoraError at the end for what failed in any."""
    recipe = resolved.recipe
    assert isinstance(recipe, SampleRecipe)
    check_supported(recipe)
    process = start_process(recipe.device, recipe.parallel, PATIENCE)
    end_with_launcher()
    pipeline = Pipeline(resolved, ema=ema, console=Console(), process=process)
    pipeline.run(request, overwrite=overwrite, resume=resume)
    leave()  # not after an error: the others may not be able to, and would be waited for
