"""Every code that a diagnostic can have: why it exists, the way out, and a recipe that has it beside one that has not.

The rules between fields bring their own (`schemas.checks`); the codes of the language itself stand here.
`osora config explain CODE` and the table in the documentation are made of this.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from schemas.checks import MACHINE_RULES, RULES
from schemas.checks.registry import MachineRule, Rule
from schemas.errors import UsageError
from schemas.resolve.kinds import recipe_kinds


@dataclass(frozen=True, slots=True)
class Code:
    """A code's page: name, reason, way out, a wrong and a right recipe (the file `recipe.toml`) with their options.

    `kinds` names the recipes that the code is about; nothing stands for all. `sets` are the `--set` options of the wrong
    recipe, `right_sets` those of the right one, `command` the kind of recipe that is asked for, `on` the machine of a code
    that `--hardware here` finds.
    """

    code: str
    name: str
    reason: str
    fix: str
    wrong: str
    right: str
    kinds: tuple[str, ...] = ()
    severity: str = "error"
    sets: tuple[str, ...] = ()
    right_sets: tuple[str, ...] = ()
    command: str | None = None
    on: str | None = None


LANGUAGE = (
    Code(
        "OSR001",
        "keys are known",
        "A key that nothing reads changes nothing, and the run is not the one that was meant.",
        "Take the spelling or the table that the message names, or remove the key.",
        '_base_ = "stage1"\n[model]\ndepht = 20\n',
        '_base_ = "stage1"\n[model]\ndepth = 20\n',
    ),
    Code(
        "OSR002",
        "values have the key's type",
        "Text is never turned into a number in silence, nor a number with a fraction into a whole one.",
        'Write the value as TOML writes its type: 1e-4, true, [1, 2], "text".',
        '_base_ = "stage1"\n[optim]\nlr = "1e-4"\n',
        '_base_ = "stage1"\n[optim]\nlr = 1e-4\n',
    ),
    Code(
        "OSR003",
        "values are within the key's limits",
        "Outside its limits a value has no meaning, or a run would fail hours later.",
        "Take a value within the limits that the message names.",
        '_base_ = "stage1"\n[optim]\naccumulation_steps = 0\n',
        '_base_ = "stage1"\n[optim]\naccumulation_steps = 1\n',
    ),
    Code(
        "OSR004",
        "what is needed is there",
        "Some keys have no default that would be right for anyone.",
        "Add the key. A file that is only a base or a layer of others is not checked on its own.",
        "seed = 42\n",
        'kind = "sample"\n',
    ),
    Code(
        "OSR005",
        "words are among the key's words",
        "A word that the key does not know would be ignored or fail later.",
        "Take one of the words that the message lists.",
        '_base_ = "stage1"\n[optim]\nschedule = "cosin"\n',
        '_base_ = "stage1"\n[optim]\nschedule = "constant"\n',
    ),
    Code(
        "OSR006",
        "the command takes the recipe's kind",
        "Each command runs one kind of recipe: `osora train` runs train, `osora sample` runs sample.",
        "Run the command that the message names, or give it another recipe.",
        '_base_ = "sample/256px"\n',
        '_base_ = "stage1"\n',
        command="train",
    ),
    Code(
        "OSR010",
        "integers fit into 64 bits, nesting into 64 levels",
        "TOML's integers have 64 bits, and no recipe needs more than five levels of tables.",
        "Look for an exponent that got lost, or for brackets that were pasted twice.",
        '_base_ = "stage1"\nseed = 100000000000000000000\n',
        '_base_ = "stage1"\nseed = 1000\n',
    ),
    Code(
        "OSR011",
        "files and packaged recipes are there",
        "A recipe, a base or a layer is a file that can be read, seen from the folder of what names it, or a packaged recipe.",
        "Mend the name; `osora recipes list` names the packaged ones.",
        '_base_ = "stage11"\n',
        '_base_ = "stage1"\n',
    ),
    Code(
        "OSR012",
        "files are TOML, in UTF-8",
        "A recipe is a TOML 1.0 document.",
        "Text needs quotes, TOML has no None, and a table is given once: mend what the caret points at.",
        '_base_ = "stage1"\ndtype = bf16\n',
        '_base_ = "stage1"\ndtype = "bf16"\n',
    ),
    Code(
        "OSR013",
        "options are KEY=VALUE",
        "`--set` takes a dotted key, `=`, and a value as TOML writes it; a bare word is text.",
        "Write `--set optim.lr=1e-4`, and quotes around names with other characters: `--set 'buckets.\"256px\".33=[1.0, 4]'`.",
        '_base_ = "stage1"\n',
        '_base_ = "stage1"\n',
        sets=("optim.lr 1e-4",),
        right_sets=("optim.lr=1e-4",),
    ),
    Code(
        "OSR014",
        "bases are names",
        "`_base_` says which files or packaged recipes come first.",
        'Write `_base_ = "stage1"` or `_base_ = ["image.toml", "more.toml"]`.',
        '_base_ = 1\nkind = "train"\n[buckets]\n"256px" = { 33 = [1.0, 4] }\n',
        '_base_ = "stage1"\n',
    ),
    Code(
        "OSR015",
        "bases do not go round in a circle",
        "A file cannot come before itself.",
        "Move what both files need into a third one.",
        '_base_ = "recipe.toml"\n',
        '_base_ = "stage1"\n',
    ),
    Code(
        "OSR020",
        "what is deleted is there",
        "Deleting what no weaker layer sets is a slip of the pen: the key has its default already.",
        "Mend the name, or remove it from `_delete_`.",
        '_base_ = "stage1"\n[optim]\n_delete_ = ["warmup_step"]\n',
        '_base_ = "stage1"\n[optim]\n_delete_ = ["warmup_steps"]\n',
    ),
    Code(
        "OSR021",
        "what is added to is a list",
        "`_append_` and `_prepend_` add to a list that a weaker layer or the schema gives.",
        "Set the key instead.",
        '_base_ = "stage1"\n[optim]\n_append_.lr = [1e-4]\n',
        '_base_ = "stage1"\n[optim]\nlr = 1e-4\n',
    ),
    Code(
        "OSR022",
        "directives are known and well formed",
        "Names between underscores speak to the resolver: `_base_`, `_delete_`, `_append_`, `_prepend_`.",
        "Take one of these, in the form that the message shows.",
        '_base_ = "stage1"\n[buckets]\n_detele_ = true\n',
        '_base_ = "stage1"\n[optim]\n_delete_ = true\n',
    ),
    Code(
        "OSR030",
        "references lead to a value",
        "`${...}` takes the value of another key, of an environment variable, or the recipe's folder.",
        "Mend the name; `${env:NAME:-default}` has a default, and `$${` is a plain `${`.",
        '_base_ = "stage1"\n[optim]\neps = "${optim.lrr}"\n',
        '_base_ = "stage1"\n[optim]\neps = "${optim.lr}"\n',
    ),
    Code(
        "OSR031",
        "references do not go round in a circle",
        "A value that refers to itself has no value.",
        "Give one of the keys a value of its own.",
        '_base_ = "stage1"\n[optim]\nlr = "${optim.eps}"\neps = "${optim.lr}"\n',
        '_base_ = "stage1"\n[optim]\nlr = 1e-4\neps = "${optim.lr}"\n',
    ),
)


def _page(rule: Rule | MachineRule, on: str = "") -> Code:
    """Return a rule's page."""
    kinds = recipe_kinds(rule.kinds)
    return Code(rule.code, rule.name, rule.reason, rule.fix, rule.wrong, rule.right, kinds, rule.severity, on=on)


def all_codes() -> dict[str, Code]:
    """Return every code with its page, in the order of the codes."""
    rules = [_page(rule) for rule in RULES.values()]
    rules += [_page(rule, on=rule.on) for rule in MACHINE_RULES.values()]
    return {code.code: code for code in sorted([*LANGUAGE, *rules], key=lambda code: code.code)}


def code_page(name: str) -> Code:
    """Return the page of one code, in whatever case it is written. Raises UsageError for a code that there is not."""
    codes = all_codes()
    if name.upper() in codes:
        return codes[name.upper()]
    close = get_close_matches(name.upper(), codes, 3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "docs/rules.md lists them."
    raise UsageError(f"there is no code {name}. {hint}")
