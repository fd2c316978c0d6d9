"""The arguments that the commands of `osora config` share."""

from typing import Annotated

import typer

Recipes = Annotated[list[str], typer.Argument(help="Recipe files, or names of packaged recipes.", show_default=False)]
Recipe = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged one.", show_default=False)]
