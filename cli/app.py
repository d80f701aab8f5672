"""The command line: its commands, each in a module of its own."""

from typing import Annotated

import typer

from meshwright.cli.accuracy import accuracy_command
from meshwright.cli.calibrate import calibrate_command
from meshwright.cli.catalog import catalog_command
from meshwright.cli.check import check_command
from meshwright.cli.emit import emit_command
from meshwright.cli.estimate import estimate_command
from meshwright.cli.experts import experts_command
from meshwright.cli.explain import explain_command
from meshwright.cli.goodput import goodput_command
from meshwright.cli.importing import import_command
from meshwright.cli.offload import offload_command
from meshwright.cli.plan import plan_command
from meshwright.cli.replan import replan_command
from meshwright.cli.reshard import reshard_command
from meshwright.cli.scatter import scatter_command
from meshwright.cli.show import show_command
from meshwright.cli.verify import verify_command


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
for _command in (
    plan_command,
    emit_command,
    import_command,
    estimate_command,
    experts_command,
    offload_command,
    scatter_command,
    replan_command,
    reshard_command,
    goodput_command,
    accuracy_command,
    calibrate_command,
    check_command,
    verify_command,
    explain_command,
    show_command,
    catalog_command,
):
    app.command(_command.__name__.removesuffix("_command"))(_command)
