"""The page of the docs that lists every code: `python -m schemas.resolve.rules_page > docs/rules.md`."""

import sys

from schemas.resolve.codes import Code, all_codes

HEAD = """\
# Codes

Made by `python -m schemas.resolve.rules_page > docs/rules.md`; a test compares. `osora config explain CODE` prints any of these.
Codes below 100 are about the language, 1xx about models, 2xx about data, 3xx about sampling, 4xx about optimization, 5xx about
processes, 6xx about the machine (`osora config validate --hardware here`). An error stops a recipe; a warning is shown
and lets it pass. Each wrong example has its code and no other, each right one has none: a test resolves them all. An example is
a whole file, `recipe.toml`.

"""
GROUPS = {
    "0": "Language",
    "1": "Models",
    "2": "Data",
    "3": "Sampling",
    "4": "Optimization",
    "5": "Processes",
    "6": "Machine",
}


def rules_page() -> str:
    """Return the page: one table of all codes, then the examples of each."""
    codes = list(all_codes().values())
    rows = ["| code | says that | kinds | |", "|---|---|---|---|", *(_row(code) for code in codes)]
    parts = [HEAD + "\n".join(rows) + "\n"]
    for digit, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [_section(code) for code in codes if code.code[3] == digit]
    return "".join(parts)


def _row(code: Code) -> str:
    return f"| [{code.code}](#{code.code.lower()}) | {code.name} | {', '.join(code.kinds) or 'all'} | {code.severity} |"


def _section(code: Code) -> str:
    options = "".join(f"\nwith `--set '{option}'`\n" for option in code.sets)
    right = "".join(f"\nwith `--set '{option}'`\n" for option in code.right_sets)
    asked = f"\ngiven to `osora {code.command}`\n" if code.command else ""
    on = f"\nwith `--hardware here`, on {code.on}\n" if code.on else ""
    return (
        f"\n### {code.code}\n\n{code.reason} {code.fix}\n\nWrong:\n\n```toml\n{code.wrong}```\n{options}{asked}{on}"
        f"\nRight:\n\n```toml\n{code.right}```\n{right}"
    )


if __name__ == "__main__":
    sys.stdout.write(rules_page())
