"""Figures, written whole or not at all."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from meshwright.catalog.errors import MeshwrightError
from meshwright.cli.console import busy
from meshwright.cli.render.figure_kind import figure_kind
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.file_replacement import replace_file, replaceable_file


def require_drawable(file: Path) -> None:
    """Refuse what can't be drawn before the work for it is done.

    Raises InputError where the name ends in no kind of figure or nothing can be written there, MeshwrightError where
    matplotlib is missing.
    """
    figure_kind(file)
    replaceable_file(file)
    if find_spec("matplotlib") is None:
        raise MeshwrightError("drawing needs matplotlib, which isn't installed", hint="pip install matplotlib")


def write_figure(rows: Sequence[Row], file: Path) -> None:
    """Draw rows in a file. Raises as `require_drawable`, and InputError where there are no rows."""
    require_drawable(file)
    from meshwright.cli.render.accuracy_figure import draw_accuracy

    with busy("drawing"):
        replace_file(file, draw_accuracy(rows, figure_kind(file)))
