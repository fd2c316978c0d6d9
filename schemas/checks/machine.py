"""OSR6xx: a recipe against the machine that is to run it, `osora config validate --hardware here`."""

from collections.abc import Iterator

from schemas.checks.parallel import world_size_problem
from schemas.checks.registry import Finding, Key, machine_rule
from schemas.machine import GIB, Gpu, Machine, Need
from schemas.recipes import AnyRecipe, ClipsRecipe, RunRecipe, SampleRecipe, TrainRecipe

INSTALL_COLOSSALAI = (
    'Run `make colossalai` in a clone, or `pip install --no-deps -r colossalai.txt`; or set parallel.engine = "torch".'
)
_H100 = Gpu("NVIDIA H100", (9, 0), 79 * GIB)
_V100 = Gpu("Tesla V100", (7, 0), 31 * GIB)
_BF16 = (8, 0)
_FP8 = (8, 9)
_ALL = frozenset({"torch", "colossalai", "wandb", "peft", "bitsandbytes", "torchcodec"})
_SHARING = ("zero1", "zero2")


@machine_rule(
    "OSR601",
    reason="A run that asks for a GPU does not start without one.",
    fix='Run it on a machine with a GPU that PyTorch can use, or set device = "cpu" or "auto".',
    wrong="""
        _base_ = "tiny/train"
        device = "cuda"
    """,
    right="""
        _base_ = "tiny/train"
        device = "auto"
    """,
    machine=Machine(packages=_ALL),
    on="a machine without a GPU",
)
def the_device_is_there(recipe: AnyRecipe, machine: Machine) -> Iterator[Finding]:
    """device = "cuda" needs a GPU."""
    if recipe.device == "cuda" and not machine.gpus:
        yield Finding((("device",),), 'device = "cuda", and this machine has no GPU that PyTorch can use.')


@machine_rule(
    "OSR602",
    reason="GPUs before compute capability 8.0 have no bf16 in hardware: products in it are slow, or fail.",
    fix='Take a newer GPU, or set dtype = "fp32".',
    wrong="""
        _base_ = "stage1"
        dtype = "bf16"
    """,
    right="""
        _base_ = "stage1"
        dtype = "fp32"
    """,
    machine=Machine(gpus=(_V100,), packages=_ALL, processes=1),
    on="a machine with a Tesla V100 (7.0)",
)
def the_gpus_know_the_precision(recipe: AnyRecipe, machine: Machine) -> Iterator[Finding]:
    """bf16 needs GPUs of compute capability 8.0 or later."""
    if recipe.device == "cpu" or recipe.dtype != "bf16":
        return
    for gpu in machine.gpus:
        if gpu.capability < _BF16:
            found = ".".join(map(str, gpu.capability))
            message = f'dtype = "bf16", and {gpu.name} has compute capability {found}; bf16 needs 8.0.'
            yield Finding((("dtype",), ("device",)), message)
            return


@machine_rule(
    "OSR603",
    RunRecipe,
    SampleRecipe,
    reason="The sizes of the mesh multiply to a number that divides the processes, one for every GPU.",
    fix="Lower the sizes in [parallel], or start as many processes as they need.",
    wrong="""
        _base_ = "stage1"
        [parallel]
        plugin = "hybrid"
        sp_size = 3
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        plugin = "hybrid"
        sp_size = 2
    """,
    machine=Machine(gpus=(_H100,) * 2, packages=_ALL, backends=frozenset({"gloo", "nccl"}), processes=2),
    on="a machine with two GPUs",
)
def the_mesh_fits_the_machine(recipe: RunRecipe | SampleRecipe, machine: Machine) -> Iterator[Finding]:
    """The mesh divides this machine's processes, or spans several machines like this one."""
    config, count = recipe.parallel, machine.processes
    if count is None:
        return
    spans_machines = config.together % count == 0 and config.together > count and count == len(machine.gpus)
    problem = world_size_problem(config, count)
    if problem and not spans_machines:
        yield Finding((("parallel", "tp_size"), ("parallel", "sp_size")), problem)


@machine_rule(
    "OSR604",
    reason="What a recipe asks for by choice comes from a package that is not always installed.",
    fix="Install the package that the message names, or change the key.",
    wrong="""
        _base_ = "tiny/train"
        dataset.reader = "torchcodec"
    """,
    right="""
        _base_ = "tiny/train"
    """,
    machine=Machine(packages=_ALL - {"torchcodec"}),
    on="a machine without torchcodec",
)
def the_packages_are_there(recipe: AnyRecipe, machine: Machine) -> Iterator[Finding]:
    """Packages that a recipe uses are installed."""
    for key, value, package, install in _used(recipe):
        if package not in machine.packages:
            yield Finding((key,), f"{'.'.join(key)} = {value} needs {package}, which is not installed.", install)


@machine_rule(
    "OSR605",
    RunRecipe,
    reason="Processes exchange tensors by NCCL between GPUs, and by gloo between CPUs.",
    fix="Install a PyTorch that has the backend which the message names, or run one process.",
    wrong="""
        _base_ = "stage1"
        [parallel]
        plugin = "ddp"
    """,
    right="""
        _base_ = "stage1"
        device = "cpu"
        [parallel]
        plugin = "ddp"
    """,
    machine=Machine(gpus=(_H100,) * 2, packages=_ALL, processes=2),
    on="a machine with two GPUs and a PyTorch without NCCL",
)
def processes_can_speak(recipe: RunRecipe, machine: Machine) -> Iterator[Finding]:
    """Jobs of several processes need gloo, and NCCL on GPUs."""
    if machine.processes is None or machine.processes == 1:
        return
    needed = ["gloo"] if recipe.device == "cpu" or not machine.gpus else ["gloo", "nccl"]
    for backend in needed:
        if backend not in machine.backends:
            message = f"{machine.processes} processes need {backend}, which this machine's PyTorch was built without."
            yield Finding((("parallel", "plugin"), ("device",)), message)


@machine_rule(
    "OSR606",
    RunRecipe,
    reason="ColossalAI shares out optimizers on GPUs alone, and takes the GPU wherever there is one.",
    fix='Use plugin = "ddp" or "hybrid" with zero_stage = 0, or engine = "torch", which does it on any device.',
    wrong="""
        _base_ = "stage1"
        [parallel]
        engine = "colossalai"
        plugin = "zero2"
    """,
    right="""
        _base_ = "stage1"
        [parallel]
        engine = "colossalai"
        plugin = "ddp"
    """,
    machine=Machine(packages=_ALL),
    on="a machine without a GPU",
)
def the_engine_works_here(recipe: RunRecipe, machine: Machine) -> Iterator[Finding]:
    """ColossalAI's ZeRO needs GPUs; its other plugins take the CPU only where there is no GPU."""
    config = recipe.parallel
    if config.engine != "colossalai":
        return
    keys: tuple[Key, ...] = (("parallel", "engine"), ("device",))
    on_cpu = recipe.device == "cpu" or not machine.gpus
    if on_cpu and (config.plugin in _SHARING or config.zero_stage):
        yield Finding(keys, f'parallel.plugin = "{config.plugin}": ColossalAI shares out optimizers on GPUs alone.')
    elif on_cpu and machine.gpus:
        help_ = 'Set device = "auto", or engine = "torch".'
        yield Finding(keys, 'device = "cpu": ColossalAI takes the GPU wherever there is one.', help_)


@machine_rule(
    "OSR607",
    RunRecipe,
    reason="A run that cannot save loses what it learned.",
    fix="Free some space, or choose another `outputs`.",
    wrong="""
        _base_ = "stage1"
    """,
    right="""
        _base_ = "tiny/train"
    """,
    machine=Machine(packages=_ALL, disk=GIB, checkpoint=155 * GIB),
    right_machine=Machine(packages=_ALL, disk=GIB, checkpoint=GIB // 8),
    on="a disk with 1 GiB left, which is too little for stage1's 11 billion weights",
)
def a_checkpoint_has_room(recipe: RunRecipe, machine: Machine) -> Iterator[Finding]:
    """One checkpoint fits the disk that is free."""
    if machine.checkpoint is not None and machine.checkpoint > machine.disk:
        yield Finding((("outputs",),), f"a checkpoint takes about {_gib(machine.checkpoint)}, and {_room(machine)}.")


@machine_rule(
    "OSR608",
    RunRecipe,
    severity="warning",
    reason="Old checkpoints go after a new one is complete, so the disk holds one more than are kept.",
    fix="Lower checkpoint.keep_n_latest, free some space, or choose another `outputs`.",
    wrong="""
        _base_ = "tiny/train"
        checkpoint.keep_n_latest = 9
    """,
    right="""
        _base_ = "tiny/train"
        checkpoint.keep_n_latest = 2
    """,
    machine=Machine(packages=_ALL, disk=5 * GIB, checkpoint=GIB),
    on="a disk with 5 GiB left, and a checkpoint of 1 GiB",
)
def all_kept_checkpoints_have_room(recipe: RunRecipe, machine: Machine) -> Iterator[Finding]:
    """keep_n_latest checkpoints, and the one being written, fit the disk that is free."""
    if machine.checkpoint is None or machine.checkpoint > machine.disk:
        return
    count = recipe.checkpoint.keep_n_latest + 1
    if count * machine.checkpoint > machine.disk:
        message = f"{count} checkpoints of about {_gib(machine.checkpoint)} are kept at once, and {_room(machine)}."
        yield Finding((("checkpoint", "keep_n_latest"), ("outputs",)), message)


@machine_rule(
    "OSR609",
    reason="A batch that does not fit ends the run when it comes up, which may be hours after the start.",
    fix="`osora config plan --suggest` finds batch sizes that fit; recompute activations, or share out states and tokens.",
    wrong="""
        _base_ = "stage1"
    """,
    right="""
        _base_ = "tiny/train"
    """,
    machine=Machine(
        gpus=(_H100,),
        packages=_ALL,
        processes=1,
        too_large=(Need("a batch of 13 x 768px, 1 frames", 245 * GIB, 75 * GIB),),
    ),
    right_machine=Machine(gpus=(_H100,), packages=_ALL, processes=1),
    on="a machine with one GPU of 79 GiB",
)
def the_batches_fit(recipe: AnyRecipe, machine: Machine) -> Iterator[Finding]:
    """Every batch fits the memory that is free now, by the planner's estimate."""
    if machine.too_large:
        worst = max(machine.too_large, key=lambda need: need.bytes)
        more = f" ({len(machine.too_large)} batches are too large)" if len(machine.too_large) > 1 else ""
        message = (
            f"{worst.what} needs about {_gib(worst.bytes)}, and a process can have {_gib(worst.usable)} here{more}."
        )
        yield Finding((("buckets",) if isinstance(recipe, ClipsRecipe) else ("sampling",),), message)


@machine_rule(
    "OSR610",
    RunRecipe,
    reason="8-bit products are computed by the tensor cores of Ada, Hopper and later GPUs.",
    fix="Take a GPU of compute capability 8.9 or more, or set memory.fp8_linear = false.",
    wrong="""
        _base_ = "stage1"
        dtype = "bf16"
        memory.fp8_linear = true
    """,
    right="""
        _base_ = "stage1"
        memory.fp8_linear = false
    """,
    machine=Machine(gpus=(Gpu("NVIDIA A100", (8, 0), 79 * GIB),), packages=_ALL, processes=1),
    on="a machine with an A100 (8.0)",
)
def the_gpus_multiply_in_8_bits(recipe: RunRecipe, machine: Machine) -> Iterator[Finding]:
    """fp8_linear needs GPUs of compute capability 8.9 or later."""
    if not recipe.memory.fp8_linear:
        return
    unable = [gpu.name for gpu in machine.gpus if gpu.capability < _FP8]
    if unable or not machine.gpus:
        here = f"{unable[0]} has" if unable else "without a GPU there are"
        yield Finding((("memory", "fp8_linear"),), f"memory.fp8_linear = true, and {here} no products in 8 bits.")


def _used(recipe: AnyRecipe) -> Iterator[tuple[Key, str, str, str]]:
    """Yield (key, its value, package, how to have it) of everything that a recipe uses by choice."""
    if isinstance(recipe, RunRecipe):
        if recipe.dataset.reader == "torchcodec":
            yield (
                ("dataset", "reader"),
                '"torchcodec"',
                "torchcodec",
                'pip install torchcodec, or set dataset.reader = "pyav".',
            )
        if recipe.parallel.engine == "colossalai":
            yield ("parallel", "engine"), '"colossalai"', "colossalai", INSTALL_COLOSSALAI
        if recipe.logging.wandb_project is not None:
            project = f'"{recipe.logging.wandb_project}"'
            yield ("logging", "wandb_project"), project, "wandb", "pip install 'osora[wandb]', or unset the key."
    if isinstance(recipe, SampleRecipe) and recipe.sampling.attention == "flash":
        yield ("sampling", "attention"), '"flash"', "flash_attn", "pip install 'osora[flash]', or set it to \"auto\"."
    if isinstance(recipe, TrainRecipe) and recipe.lora is not None:
        yield ("lora",), "{ ... }", "peft", "pip install 'osora[run]', or unset lora."


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _room(machine: Machine) -> str:
    return f"{machine.folder} has {_gib(machine.disk)} left"
