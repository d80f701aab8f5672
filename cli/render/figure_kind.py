"""Kinds of files that figures are drawn in."""

from enum import StrEnum
from pathlib import Path

from meshwright.catalog.errors import InputError


class FigureKind(StrEnum):
    """A kind of file, which is how its name ends."""

    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


def figure_kind(file: Path) -> FigureKind:
    """Give the kind that the name of a file ends in. Raises InputError."""
    try:
        return FigureKind(file.suffix.casefold().removeprefix("."))
    except ValueError:
        named = f"{file.suffix!r:.20} isn't a kind of figure" if file.suffix else "the name doesn't say what to draw"
        hint = "end the name in .svg, .png or .pdf"
        raise InputError(named, file=str(file), hint=hint) from None
