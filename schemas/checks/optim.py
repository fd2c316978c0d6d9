"""OSR4xx: the optimizer, its schedule and the intervals of a run must fit together."""

from collections.abc import Iterator

from schemas.checks.registry import Finding, Key, rule
from schemas.recipes import RunRecipe, VaeTrainRecipe


@rule(
    "OSR401",
    RunRecipe,
    reason="A run that ends while it warms up never trains at optim.lr.",
    fix="Lower optim.warmup_steps or raise max_steps.",
    wrong="""
        _base_ = "stage1"
        max_steps = 1000
        checkpoint.every = 500
        [optim]
        warmup_steps = 2000
    """,
    right="""
        _base_ = "stage1"
        max_steps = 10000
        [optim]
        warmup_steps = 2000
    """,
)
def warmup_ends_before_the_run(recipe: RunRecipe) -> Iterator[Finding]:
    """warmup_steps is at most max_steps."""
    if recipe.max_steps is not None and recipe.optim.warmup_steps > recipe.max_steps:
        message = f"optim.warmup_steps = {recipe.optim.warmup_steps} is more than max_steps = {recipe.max_steps}."
        yield Finding((("optim", "warmup_steps"), ("max_steps",)), message)


@rule(
    "OSR402",
    RunRecipe,
    reason="A schedule that falls needs to know where it ends.",
    fix='Set max_steps, or optim.schedule = "constant".',
    wrong="""
        _base_ = "stage1"
        [optim]
        schedule = "cosine"
    """,
    right="""
        _base_ = "stage1"
        max_steps = 10000
        [optim]
        schedule = "cosine"
    """,
)
def a_falling_rate_knows_its_end(recipe: RunRecipe) -> Iterator[Finding]:
    """The cosine and the linear schedule need max_steps."""
    if recipe.optim.schedule != "constant" and recipe.max_steps is None:
        message = f'optim.schedule = "{recipe.optim.schedule}" runs down to 0 at max_steps, which is not set.'
        yield Finding((("optim", "schedule"),), message)


@rule(
    "OSR403",
    RunRecipe,
    reason="Adam's averages decay: each beta is the share of the old average that stays.",
    fix="Use two numbers from 0 to below 1, for example [0.9, 0.999].",
    wrong="""
        _base_ = "stage1"
        [optim]
        betas = [0.9, 1.0]
    """,
    right="""
        _base_ = "stage1"
        [optim]
        betas = [0.9, 0.95]
    """,
)
def betas_are_shares(recipe: RunRecipe) -> Iterator[Finding]:
    """Both betas of every optimizer are at least 0 and below 1."""
    tables: list[tuple[Key, tuple[float, float]]] = [(("optim",), recipe.optim.betas)]
    if isinstance(recipe, VaeTrainRecipe) and recipe.discriminator is not None:
        tables.append((("discriminator", "optim"), recipe.discriminator.optim.betas))
    for at, betas in tables:
        if not all(0 <= beta < 1 for beta in betas):
            yield Finding(((*at, "betas"),), f"{'.'.join(at)}.betas = {list(betas)}: each is at least 0 and below 1.")


@rule(
    "OSR404",
    RunRecipe,
    severity="warning",
    reason="A run that stops early can only go on from its last checkpoint.",
    fix="Lower checkpoint.every, or raise max_steps.",
    wrong="""
        _base_ = "stage1"
        max_steps = 100
        [checkpoint]
        every = 1000
    """,
    right="""
        _base_ = "stage1"
        max_steps = 100
        [checkpoint]
        every = 50
    """,
)
def checkpoints_come_before_the_end(recipe: RunRecipe) -> Iterator[Finding]:
    """checkpoint.every is at most max_steps."""
    if recipe.max_steps is not None and recipe.checkpoint.every > recipe.max_steps:
        message = f"checkpoint.every = {recipe.checkpoint.every} is more than max_steps = {recipe.max_steps}: only the end saves."
        yield Finding((("checkpoint", "every"), ("max_steps",)), message)


@rule(
    "OSR405",
    RunRecipe,
    severity="warning",
    reason="A log without lines shows nothing while the run goes on.",
    fix="Lower logging.log_every, or raise max_steps.",
    wrong="""
        _base_ = "stage1"
        max_steps = 100
        checkpoint.every = 50
        logging.log_every = 1000
    """,
    right="""
        _base_ = "stage1"
        max_steps = 100
        checkpoint.every = 50
        logging.log_every = 10
    """,
)
def the_log_has_lines(recipe: RunRecipe) -> Iterator[Finding]:
    """logging.log_every is at most max_steps."""
    if recipe.max_steps is not None and recipe.logging.log_every > recipe.max_steps:
        message = f"logging.log_every = {recipe.logging.log_every} is more than max_steps = {recipe.max_steps}."
        yield Finding((("logging", "log_every"), ("max_steps",)), message)


@rule(
    "OSR407",
    RunRecipe,
    reason="Warming up means to rise.",
    fix="Make optim.initial_lr at most optim.lr.",
    wrong="""
        _base_ = "stage1"
        [optim]
        warmup_steps = 100
        initial_lr = 1e-3
    """,
    right="""
        _base_ = "stage1"
        [optim]
        warmup_steps = 100
        initial_lr = 1e-6
    """,
)
def warmup_rises(recipe: RunRecipe) -> Iterator[Finding]:
    """With warm-up, initial_lr is at most lr."""
    optim = recipe.optim
    if optim.warmup_steps and optim.initial_lr > optim.lr:
        message = f"optim.initial_lr = {optim.initial_lr} is more than optim.lr = {optim.lr}: the rate would fall."
        yield Finding((("optim", "initial_lr"), ("optim", "lr")), message)


@rule(
    "OSR408",
    VaeTrainRecipe,
    severity="warning",
    reason="An adversary that has learnt nothing yet pushes the autoencoder at random.",
    fix="Let discriminator.disc_loss.disc_start be at most discriminator.gen_loss.gen_start.",
    wrong="""
        _base_ = "tiny/vae"
        [discriminator]
        disc_loss.disc_start = 100
        gen_loss.gen_start = 50
    """,
    right="""
        _base_ = "tiny/vae"
        [discriminator]
        disc_loss.disc_start = 50
        gen_loss.gen_start = 100
    """,
)
def the_adversary_learns_first(recipe: VaeTrainRecipe) -> Iterator[Finding]:
    """The discriminator starts no later than its term in the autoencoder's loss."""
    if recipe.discriminator is None:
        return
    gen, disc = recipe.discriminator.gen_loss.gen_start, recipe.discriminator.disc_loss.disc_start
    if gen < disc:
        message = f"discriminator.gen_loss.gen_start = {gen} comes before discriminator.disc_loss.disc_start = {disc}."
        yield Finding(
            (("discriminator", "gen_loss", "gen_start"), ("discriminator", "disc_loss", "disc_start")), message
        )


@rule(
    "OSR409",
    VaeTrainRecipe,
    severity="warning",
    reason="The share counts only where clips are cut to images.",
    fix='Set mixed_strategy = "mixed_video_image" and a share above 0, or neither.',
    wrong="""
        _base_ = "tiny/vae"
        mixed_image_ratio = 0.2
    """,
    right="""
        _base_ = "tiny/vae"
        mixed_strategy = "mixed_video_image"
        mixed_image_ratio = 0.2
    """,
)
def images_are_mixed_by_a_share(recipe: VaeTrainRecipe) -> Iterator[Finding]:
    """mixed_image_ratio is above 0 exactly with the strategy mixed_video_image."""
    mixes, ratio = recipe.mixed_strategy == "mixed_video_image", recipe.mixed_image_ratio
    if mixes != (ratio > 0):
        message = (
            f'mixed_image_ratio = {ratio} with mixed_strategy = "{recipe.mixed_strategy}": no clip is cut to an image.'
        )
        yield Finding((("mixed_image_ratio",), ("mixed_strategy",)), message)
