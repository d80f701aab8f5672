"""The entry point: one command line, and one place where errors become messages and exit codes."""

import sys
from typing import Annotated

import typer

from meshwright.catalog.errors import MeshwrightError
from meshwright.cli.accuracy import accuracy_command
from meshwright.cli.catalog import catalog_command
from meshwright.cli.estimate import estimate_command


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the shape that typer calls
    if wanted:
        from importlib.metadata import version

        typer.echo(f"meshwright {version('meshwright')}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Plan hybrid parallel training: which layout trains a model on a cluster fastest, and does it fit."""


app = typer.Typer(name="meshwright", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.callback()(_root)
app.command("estimate")(estimate_command)
app.command("accuracy")(accuracy_command)
app.command("catalog")(catalog_command)


def main() -> None:
    """Run the command line. A MeshwrightError is printed to standard error and gives its exit code."""
    try:
        app(prog_name="meshwright")
    except MeshwrightError as error:
        from meshwright.cli.console import print_error

        print_error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
