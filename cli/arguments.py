"""Arguments that several commands take."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from meshwright.catalog.errors import InputError


def file_path(name: str) -> Path:
    """Give the path of a file that a user named. Raises InputError for an empty name, which would be the folder."""
    if not name:
        raise InputError("the name of the file is empty")
    return Path(name)


def require_distinct(files: Iterable[Path]) -> None:
    """Raise InputError where two of the files are one, by whatever path, or hold the same: it would count twice."""
    from meshwright.catalog.document import read_text

    known: dict[str, Path] = {}
    for file in files:
        content = read_text(file)
        if content in known:
            first = known[content]
            same = "is given twice" if file.resolve() == first.resolve() else f"holds the same as {first}"
            raise InputError(f"{same}, and would count twice", file=str(file), hint="give it once")
        known[content] = file


OverlayFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--overlay",
        help="Lay these calibrated figures over the catalog's (`meshwright calibrate` writes them); the last counts.",
        parser=file_path,
        metavar="FILE",
    ),
]
