"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from meshwright.catalog.errors import InputError


def file_path(name: str) -> Path:
    """Give the path of a file that a user named. Raises InputError for an empty name, which would be the folder."""
    if not name:
        raise InputError("the name of the file is empty")
    return Path(name)


OverlayFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--overlay",
        help="Lay these calibrated figures over the catalog's (`meshwright calibrate` writes them); the last counts.",
        parser=file_path,
        metavar="FILE",
    ),
]
