"""A layout as a document: fields of Layout by name, those left out as they are by default."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import Layout
from meshwright.planner.plan_schema import LayoutSection


def read_layout(given: Layout | Mapping[str, Any] | str | Path) -> Layout:
    """Give a layout, from itself, from its fields or from a file of those. Raises InputError."""
    if isinstance(given, Layout):
        return given
    file = "" if isinstance(given, Mapping) else str(given)
    document = given if isinstance(given, Mapping) else read_document(Path(given))
    if not isinstance(document, Mapping):
        raise InputError("is not a layout: fields such as data_parallel: 8", file=file)
    fields = document["layout"] if isinstance(document.get("layout"), Mapping) else document
    return validate(LayoutSection, asdict(Layout()) | dict(fields), file=file).layout()
