"""Recipes against machines: each rule fires on the machine that breaks it, at the key that asks."""

from dataclasses import replace
from pathlib import Path

import pytest

from opensora_cli.machine import look_around, machine_diagnostics
from opensora_cli.planning.disk import checkpoint_bytes
from schemas.checks import MACHINE_RULES, MachineRule, run_machine_checks
from schemas.machine import GIB, Gpu, Machine, Need
from schemas.recipes import TrainRecipe
from schemas.resolve import resolve

EVERYTHING = frozenset({"torch", "colossalai", "wandb", "peft", "bitsandbytes", "torchcodec"})
RING = ("parallel.plugin=hybrid", "parallel.sequence_parallelism_mode=ring_attn")
H200 = Gpu("NVIDIA H200", (9, 0), 139 * GIB)
NODE = Machine(
    gpus=(H200,) * 8, packages=EVERYTHING, backends=frozenset({"gloo", "nccl"}), processes=8, disk=9000 * GIB
)


def codes(name: str, machine: Machine, *sets: str) -> list[str]:
    return [problem.code for problem in run_machine_checks(resolve(name, sets=sets).recipe, machine)]


@pytest.mark.parametrize("rule", MACHINE_RULES.values(), ids=lambda rule: rule.code)
def test_the_examples_of_every_rule_hold_on_its_machine(
    rule: MachineRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, machine, expected in (
        (rule.wrong, rule.machine, [rule.code]),
        (rule.right, rule.right_machine, []),
    ):
        Path("recipe.toml").write_text(text)
        assert codes("recipe.toml", machine) == expected
    assert rule.reason.endswith(".")
    assert rule.fix.endswith(".")


@pytest.mark.parametrize(
    ("sets", "machine", "expected"),
    [
        ((), NODE, []),
        (("device=cpu",), replace(NODE, gpus=(), processes=None), []),
        (("parallel.plugin=hybrid", "parallel.sp_size=8", "parallel.zero_stage=2"), NODE, []),
        # Two machines of eight GPUs: one of them alone is no contradiction.
        ((*RING, "parallel.sp_size=16"), NODE, []),
        ((*RING, "parallel.sp_size=24"), NODE, []),
        ((*RING, "parallel.sp_size=16"), replace(NODE, processes=24), ["OSR603"]),
        (("parallel.plugin=hybrid", "parallel.tp_size=3"), NODE, ["OSR603"]),
        (("parallel.plugin=fsdp", "parallel.shard_size=3"), NODE, ["OSR603"]),
        (("parallel.plugin=hybrid", "parallel.tp_size=8"), replace(NODE, processes=4), ["OSR603"]),
        (("logging.wandb_project=osora",), replace(NODE, packages=frozenset({"torch"})), ["OSR604"]),
        (("lora.r=4",), replace(NODE, packages=frozenset({"torch"})), ["OSR604"]),
        ((), replace(NODE, backends=frozenset({"nccl"})), ["OSR605"]),
        (("parallel.engine=colossalai", "parallel.plugin=zero1"), NODE, []),
        (("parallel.engine=colossalai", "parallel.plugin=ddp", "device=cpu"), NODE, ["OSR606"]),
        (("checkpoint.keep_n_latest=3",), replace(NODE, disk=399 * GIB, checkpoint=100 * GIB), ["OSR608"]),
        (("checkpoint.keep_n_latest=3",), replace(NODE, disk=400 * GIB, checkpoint=100 * GIB), []),
    ],
)
def test_recipes_on_machines(sets: tuple[str, ...], machine: Machine, expected: list[str]) -> None:
    assert codes("stage1", machine, *sets) == expected


def test_flash_attention_is_a_package() -> None:
    machine = replace(NODE, processes=1)
    assert codes("sample/256px", machine, "sampling.attention=flash") == ["OSR604"]
    machine = replace(machine, packages=EVERYTHING | {"flash_attn"})
    assert codes("sample/256px", machine, "sampling.attention=flash") == []


def test_a_batch_that_does_not_fit_is_named_with_both_sizes() -> None:
    needs = (Need("a batch of 2 x 256px, 33 frames", 90 * GIB, 70 * GIB), Need("a batch of 1 x 768px, 1 frames", 1, 70))
    (problem,) = run_machine_checks(resolve("stage1").recipe, replace(NODE, too_large=needs))
    assert problem.message == (
        "a batch of 2 x 256px, 33 frames needs about 90.0 GiB, and a process can have 70.0 GiB here "
        "(2 batches are too large)."
    )


def test_findings_stand_where_the_key_was_set() -> None:
    resolved = resolve("tiny/train", sets=["device=cuda"])
    (found,) = machine_diagnostics(resolved, Machine(packages=EVERYTHING))
    assert (found.code, found.place.file) == ("OSR601", "<command line>")
    resolved = resolve("tiny/train")
    machine = Machine(packages=EVERYTHING, checkpoint=2, disk=1, folder="/data")
    (found,) = machine_diagnostics(resolved, machine)
    assert (found.code, found.place.line is not None or found.place.file == resolved.source) == ("OSR607", True)


def test_this_machine_runs_the_tiny_recipe_and_not_eleven_billion_weights(tmp_path: Path) -> None:
    tiny = resolve("tiny/train", sets=[f"outputs={tmp_path}/runs/new", "device=cpu"]).recipe
    machine = look_around(tiny)
    assert run_machine_checks(tiny, machine) == []
    assert machine.folder == str(tmp_path)
    assert machine.processes is None
    large = resolve("stage1", sets=["device=cpu", 'buckets={_delete_=true, "768px"={129=[1.0, 64]}}']).recipe
    (need,) = look_around(large).too_large
    assert need.what == "a batch of 64 x 768px, 129 frames"
    assert need.bytes > need.usable > 0


def test_the_processes_of_a_launcher_count(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "6", "LOCAL_RANK": "0", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    recipe = resolve("tiny/train", sets=["parallel.plugin=hybrid", "parallel.sp_size=4", "device=cpu"]).recipe
    machine = look_around(recipe)
    assert machine.processes == 6
    assert [problem.code for problem in run_machine_checks(recipe, machine)] == ["OSR603"]


def test_what_a_checkpoint_takes() -> None:
    recipe = resolve("tiny/train", sets=["dtype=bf16", "optim.ema_decay=0.9"]).recipe
    assert isinstance(recipe, TrainRecipe)
    with_average = checkpoint_bytes(recipe)
    without = checkpoint_bytes(recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"ema_decay": None})}))
    # fp32 weights and two moments, and bf16 exports: 14 bytes a weight; the average has 4 and 2 of its own.
    assert with_average * 14 == without * 20
    assert without % 14 == 0
