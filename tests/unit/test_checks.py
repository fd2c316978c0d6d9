"""Rules between fields: each fires on what breaks it, and on nothing else."""

import re
from pathlib import Path

import pytest

import schemas
from schemas.checks import MACHINE_RULES, RULES
from schemas.checks.parallel import world_size_problem
from schemas.parallel import ParallelConfig
from schemas.resolve import RecipeError, resolve
from schemas.resolve.codes import Code, all_codes

CASES = [
    ("OSR101", "tiny/train", ["model.num_heads=7"], "model.num_heads = 7 does not divide model.hidden_size = 96."),
    ("OSR102", "stage1", ["model.axes_dim=[16, 56, 58]"], "model.axes_dim = [16, 56, 58] adds up to 130"),
    ("OSR102", "stage1", ["model.axes_dim=[15, 57, 56]"], "must be even"),
    ("OSR102", "stage1", ["model.axes_dim=[-2, 66, 64]"], "above 0"),
    ("OSR103", "stage1", ["ae.latent_channels=8"], "8 x 2^2 = 32 features"),
    ("OSR104", "tiny/vae", ["ae.norm_num_groups=7"], "ae.norm_num_groups = 7 does not divide"),
    ("OSR103", "tiny/stdit3", ["ae.latent_channels=8"], "model.in_channels = 4, but ae.latent_channels = 8"),
    ("OSR131", "tiny/dit", ['diffusion={_delete_=true,type="rectified_flow"}'], "but model.type = "),
    ("OSR132", "tiny/dit", ["model.learn_sigma=false"], "diffusion.learn_sigma = true, but model.learn_sigma = false"),
    ("OSR133", "sample/256px", ["sampling.solver=ddpm"], "is sampled by euler or heun or dpmpp_2m."),
    ("OSR134", "tiny/pixart", ["lora.r=4", "model.from_pretrained=x.safetensors"], "lora: model.type ="),
    ("OSR135", "tiny/dit", ["mask_ratios.image_head=0.5"], '[mask_ratios], but model.type = "dit".'),
    ("OSR136", "sample/256px", ["sampling.mask_strategy='0'"], "sampling.mask_strategy = '0'"),
    ("OSR137", "tiny/stdit3", ["mask_ratios.image_tail=0.95"], "add up to 1.15, more than 1."),
    (
        "OSR104",
        "tiny/vae_stages",
        ["ae.vae_temporal.num_groups=7"],
        "ae.vae_temporal.num_groups = 7 does not divide 8 of",
    ),
    ("OSR114", "tiny/vae_stages", ["ae.vae_2d.in_channels=4"], "ae.vae_2d.in_channels = 4, but a clip has 3 channels."),
    ("OSR116", "tiny/vae_stages", ["ae.vae_2d.latent_channels=8"], "but ae.vae_temporal.in_out_channels = 4."),
    (
        "OSR116",
        "tiny/vae_stages",
        ["ae.vae_temporal.temporal_downsample=[true]"],
        "has 1 entries, but there are 3 steps.",
    ),
    ("OSR117", "tiny/vae", ["vae_loss.use_image_identity_loss=true"], 'ae.type = "hunyuan_vae" has no two stages.'),
    (
        "OSR117",
        "tiny/vae_stages",
        ["vae_loss.use_real_rec_loss=false", "vae_loss.use_z_rec_loss=false"],
        "clips have no loss.",
    ),
    ("OSR117", "tiny/vae_stages", ["vae_loss.use_real_rec_loss=false", "discriminator={}"], "judges the pixels, which"),
    ("OSR201", "stage1", ["buckets={_delete_=true}"], "buckets is empty"),
    ("OSR201", "stage1", ["buckets.480p={}"], "buckets.480p has no lengths"),
    ("OSR202", "stage1", ["buckets.256=" + "{1=[1.0,1]}"], '"256" is not a resolution.'),
    ("OSR203", "stage1", ["buckets.256px.50=[1.0,1]"], "buckets.256px.50: the causal autoencoder needs 4k+1 frames."),
    ("OSR210", "stage1", ["condition.i2v_head=1.0"], "condition.i2v_head = 1.0, but model.cond_embed = false"),
    ("OSR211", "stage1", ["condition.t2v=0.0"], "the weights of all conditions are 0"),
    ("OSR212", "image", ["condition.i2v_head=1.0", "model.cond_embed=true"], "condition.i2v_head shows 1 frames"),
    ("OSR212", "tiny/train", ["condition.v2v_head=1.0"], "condition.v2v_head shows 33 frames of a clip"),
    (
        "OSR301",
        "sample/256px",
        ["sampling.num_frames=50"],
        "sampling.num_frames = 50: the causal autoencoder needs 4k+1",
    ),
    ("OSR302", "sample/256px", ["sampling.height=256"], "sampling.height is given without sampling.width."),
    ("OSR302", "sample/256px", ["sampling.height=256", "sampling.width=250"], "sides are multiples of 16"),
    ("OSR303", "sample/256px", ["sampling.resolution='256'"], '"256" is not a resolution'),
    ("OSR303", "sample/256px", ["sampling.aspect_ratio='wide'"], '"wide" is not width:height'),
    ("OSR303", "v1/sample/stdit3", ["sampling.resolution=256px"], '"256px" is not a resolution of open-sora-1.2'),
    ("OSR310", "sample/256px", ["sampling.cond_type=i2v_head", "model.cond_embed=false"], "the model takes no frames"),
    ("OSR311", "sample/256px", ["sampling.cond_type=v2v_head", "sampling.num_frames=33"], "v2v_head shows 33 of them"),
    ("OSR313", "sample/256px", ["sampling.guidance_t_min=0.8", "sampling.guidance_t_max=0.2"], "0.8 is not below"),
    (
        "OSR313",
        "sample/256px",
        ["sampling.guidance_t_min=0.2", "model.guidance_embed=true"],
        "is an input of every step",
    ),
    ("OSR314", "sample/256px", ["sampling.flow_shift=3.0", "sampling.shift=false"], "but sampling.shift = false."),
    (
        "OSR401",
        "stage1",
        ["max_steps=10", "optim.warmup_steps=11", "checkpoint.every=5"],
        "optim.warmup_steps = 11 is more than max_steps = 10.",
    ),
    ("OSR420", "tiny/vae", ["validation.ema=true"], "validation.ema = true, but optim.ema_decay is not set"),
    ("OSR421", "stage1", ["samples.prompts=['rain']", "samples.num_frames=50"], "samples.num_frames = 50: the causal"),
    ("OSR430", "tiny/vae", ["memory.split_on_oom=true"], "an autoencoder's losses are of a batch as a whole"),
    ("OSR421", "stage1", ["samples.aspect_ratio=wide"], '"wide" is not width:height'),
    ("OSR520", "tiny/vae", ["memory.compile=true"], "an autoencoder has no blocks"),
    (
        "OSR520",
        "sample/256px",
        ["sampling.compile=true", "parallel.plugin=hybrid", "parallel.sp_size=2"],
        "with parallel.sp_size = 2",
    ),
    (
        "OSR521",
        "sample/256px",
        [
            "sampling.attention=flex",
            "parallel.plugin=hybrid",
            "parallel.sp_size=2",
            "parallel.sequence_parallelism_mode=ring_attn",
        ],
        'sampling.attention = "flex" is not read',
    ),
    ("OSR523", "sample/256px", ["sampling.cache_threshold=0.1", "model.depth=0"], "there is no double block"),
    (
        "OSR522",
        "sample/256px",
        ["sampling.fp8_weights=true", "parallel.plugin=hybrid", "parallel.tp_size=2"],
        "with parallel.tp_size = 2: nothing divides them",
    ),
    ("OSR402", "stage1", ["optim.schedule=cosine"], "runs down to 0 at max_steps, which is not set."),
]


@pytest.mark.parametrize(("code", "name", "sets", "message"), CASES)
def test_each_rule_fires_alone_with_code_message_and_help(code: str, name: str, sets: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(name, sets=sets)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert message in diagnostic.message
    assert diagnostic.help
    assert diagnostic.place.file == "<command line>" or diagnostic.place.line is not None


def found(code: Code, text: str, sets: tuple[str, ...], folder: Path) -> list[str]:
    (folder / "recipe.toml").write_text(text)
    try:
        resolved = resolve("recipe.toml", sets=sets, kind=code.command)
    except RecipeError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return [warning.code for warning in resolved.warnings]


@pytest.mark.parametrize("code", [code for code in all_codes().values() if not code.on], ids=lambda code: code.code)
def test_every_code_has_a_page_whose_examples_hold(code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found(code, code.wrong, code.sets, tmp_path) == [code.code]
    assert found(code, code.right, code.right_sets, tmp_path) == []
    assert code.reason.endswith(".")
    assert code.fix.endswith((".", "`."))


def test_every_code_that_the_program_can_say_has_a_page() -> None:
    texts = [path.read_text() for path in Path(schemas.__file__).parent.rglob("*.py")]
    said = {match for text in texts for match in re.findall(r"OSR[0-9]{3}(?!xx)", text)}
    assert said - set(all_codes()) <= {"OSR999"}
    assert {*RULES, *MACHINE_RULES} <= set(all_codes())
    assert all(rule.function.__doc__ for rule in (*RULES.values(), *MACHINE_RULES.values()))


def test_a_warning_lets_the_recipe_pass_and_is_shown() -> None:
    resolved = resolve("stage1", sets=["max_steps=5", "logging.log_every=5"])
    (warning,) = resolved.warnings
    assert (warning.code, warning.severity) == ("OSR404", "warning")
    assert "OSR404 warning: checkpoint.every = 2000 is more than max_steps = 5" in warning.text()
    with pytest.raises(RecipeError) as caught:
        resolve("stage1", sets=["max_steps=5", "logging.log_every=5", "optim.lr=0"])
    assert [diagnostic.severity for diagnostic in caught.value.diagnostics] == ["error", "warning"]


@pytest.mark.parametrize(
    ("sizes", "processes", "fits"),
    [((1, 1, 1), 1, True), ((1, 1, 1), 7, True), ((2, 2, 1), 8, True), ((2, 2, 1), 6, False), ((8, 1, 1), 4, False)],
)
def test_the_mesh_against_the_number_of_processes(sizes: tuple[int, int, int], processes: int, fits: bool) -> None:
    config = ParallelConfig(plugin="hybrid", tp_size=sizes[0], sp_size=sizes[1], pp_size=sizes[2])
    problem = world_size_problem(config, processes)
    assert (problem is None) == fits
    if problem is not None:
        assert f"does not divide the {processes} processes" in problem


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        (
            "stage1",
            ["buckets.512px_max.1=[1.0, 1]", 'buckets."512px_ar16:9".1=[1.0, 1]', 'buckets."480p_ar2.39:1".5=[1.0, 1]'],
        ),
        ("stage1", ["condition.i2v_head=1", "model.cond_embed=true", "condition.v2v_tail_easy=0.5"]),
        ("stage1", ["max_steps=10", "optim.warmup_steps=10", "optim.schedule=cosine"]),
        ("sample/256px", ["sampling.num_frames=1"]),
        ("sample/256px", ["sampling.height=256", "sampling.width=240"]),
        ("sample/256px", ["sampling.cond_type=i2v_head", "sampling.resolution=480p_max"]),
        ("tiny/train", ["ae.time_compression_ratio=8"]),
    ],
)
def test_rules_let_what_is_right_pass(name: str, sets: list[str]) -> None:
    assert resolve(name, sets=sets).recipe.kind == ("sample" if name.startswith("sample") else "train")


def test_eight_to_one_autoencoders_need_8k_plus_1() -> None:
    with pytest.raises(RecipeError, match=r"needs 8k\+1 frames") as caught:
        resolve("sample/256px", sets=["ae.time_compression_ratio=8", "sampling.num_frames=13"])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.help == "Use 9 or 17."
    assert diagnostic.second is not None
    assert diagnostic.second.source == "--set ae.time_compression_ratio=8"


def test_both_places_of_a_conflict_across_layers() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve("stage1", sets=["model.hidden_size=3120"])
    by_code = {diagnostic.code: diagnostic for diagnostic in caught.value.diagnostics}
    assert set(by_code) == {"OSR102"}
    assert by_code["OSR102"].place.file == "<command line>"
    assert by_code["OSR102"].second is not None
    assert by_code["OSR102"].second.file.endswith("mmdit_11b.toml")
    assert by_code["OSR102"].second_note == "`model.axes_dim` comes from"


def test_rules_run_beside_other_mistakes_but_not_on_wrong_values() -> None:
    sets = ["model.depht=3", "model.num_heads=7", "model.axes_dim=3", "optim.schedule=cosine"]
    with pytest.raises(RecipeError) as caught:
        resolve("stage1", sets=sets)
    assert sorted(diagnostic.code for diagnostic in caught.value.diagnostics) == [
        "OSR001",
        "OSR002",
        "OSR101",
        "OSR402",
    ]
