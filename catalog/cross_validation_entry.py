"""The schema of `catalog/cross_validation.yaml`: constants that were fitted without one source of measurements each.

With the overlay of a source its rows are predicted by constants that never saw them, and an error is one that a new
source may have. The file is generated (`make cross-validation`), since fitting takes minutes.
"""

from typing import Annotated, Literal

from pydantic import Field

from meshwright.catalog.entry import Entry, Name, Natural
from meshwright.catalog.overlay_entry import OverlayEntry


class LeftOutEntry(Entry):
    """What the other sources say of the constants that one source's predictions depend on.

    rows: how many rows of other sources they were fitted to.
    refitted: by family of devices; false where no other source has rows of it, so that the catalog's values remain,
    which the source itself may have been used for.
    untold: constants of which the other sources say nothing, by their names; they remain likewise.
    overlay: the fitted constants.
    """

    rows: Natural
    refitted: dict[Name, Annotated[bool, Field(strict=True)]]
    untold: tuple[Name, ...] = ()
    overlay: OverlayEntry


class CrossValidationEntry(Entry):
    """All sources, by the names of their files; `figures` is a digest of the figures that the fits started from."""

    version: Literal[1]
    figures: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
    sources: dict[Name, LeftOutEntry]
